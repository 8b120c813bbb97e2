# SPDX-License-Identifier: Apache-2.0
"""Generated networks on the whole accelerator in RTL, and what a run that goes wrong says."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from codesign.cost.chain import ChainTile
from codesign.errors import InfeasibleError, InputError
from codesign.ir import run_values
from codesign.space.device import load_device
from codesign.targets.fpga.compile import compile_network
from codesign.targets.fpga.isa import Command, Dest, Unit
from codesign.targets.fpga.programs import why_no_program
from codesign.targets.fpga.sim.build import open_session
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.network import memory_bytes, simulate
from codesign.targets.fpga.sim.result import Region, RunError
from codesign.targets.fpga.sim.session import Session
from codesign.targets.fpga.sim.slow import open_slow_session
from tests.fpga.compile.test_chains import chain
from tests.support.fpga import accelerator, random_accelerator, random_inputs
from tests.support.fpga_coverage import UNREACHED, covered, everything
from tests.support.integer_graphs import random_integer_graph

SMALL = accelerator(8, 8, 1, (128, 256, 64), (8, 1), (128, 128), dw_post=4)
MEMORY = 1 << 20
TEST = Dram(bytes_per_cycle=Fraction(7), granule=64, turnaround=3, refresh_interval=500,
            refresh_cycles=20, stall=40, seed=7)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    missing = why_no_program("verilator")
    if missing and not os.environ.get("CODESIGN_NO_SKIP"):
        pytest.skip(missing)


@pytest.fixture
def session() -> Iterator[Session]:
    with open_session(SMALL, MEMORY, TEST) as opened:
        yield opened


def check_networks(session: Session, seeds: range, seen: Counter[str] | None = None) -> int:
    """Networks of the seeds that fit, every layer and output compared; how many ran."""
    ran = 0
    for seed in seeds:
        rng = np.random.default_rng([seed, 45])
        graph = random_integer_graph(seed, batch=1, float_ends=bool(seed % 2))
        try:
            program = compile_network(graph, session.accelerator)
        except InfeasibleError:  # does not fit this accelerator's buffers
            continue
        if memory_bytes(program) > session.memory_bytes:
            continue
        if seen is not None:
            seen += covered(program)
        for image in range(1 + (seed % 8 == 0)):
            inputs = random_inputs(graph, rng)
            reference = run_values(graph, inputs, keep="all")
            outputs, runs = simulate(program, inputs, session, reference, watchdog=20000)
            for name, found in zip(graph.outputs, outputs, strict=True):
                np.testing.assert_array_equal(found, reference[name], err_msg=f"{seed} {image}")
            lists = [s for s in program.segments if s.kind == "accelerator"]
            assert len(runs) == len(lists)
            for run, segment in zip(runs, lists):
                count = sum(c.unit != Unit.END for c in segment.commands)
                assert sum(len(e) for e in run.ends.values()) == count
                assert {layer.name for layer in run.layers} == {
                    c.layer for c in segment.commands if c.unit != Unit.END
                }
                loads = sum(layer.load_bytes for layer in run.layers)
                assert loads <= run.read_bytes["load"] <= 3 * loads + 64
        ran += 1
    return ran


def test_generated_networks_in_rtl(session: Session) -> None:
    assert check_networks(session, range(25)) > 15


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(8))
def test_generated_accelerators_in_rtl(seed: int) -> None:
    rng = np.random.default_rng([seed, 46])
    dram = replace(TEST, seed=seed + 1, stall=(0, 100)[seed % 2], latency=(1, 60)[seed // 2 % 2])
    with open_session(random_accelerator(rng), MEMORY, dram) as opened:
        assert check_networks(opened, range(50 * seed, 50 * seed + 50)) > 10


COVERING = (
    SMALL,
    accelerator(16, 16, 2, (128, 256, 64), (16, 2), (128, 256), post=16, double=True, port=128),
    accelerator(4, 24, 3, (128, 512, 64), (16, 2), (128, 256)),
)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_three_hundred_networks_cover_the_accelerator() -> None:
    """100 networks on each of three accelerators in RTL, chains compiled: every mode occurs."""
    seen: Counter[str] = Counter()
    for place, machine in enumerate(COVERING):
        with open_session(machine, MEMORY, TEST) as opened:
            assert check_networks(opened, range(100 * place, 100 * place + 100), seen) > 90
    for seed in range(8):
        graph = chain(seed, True, True, False)
        names = ("expand", "depthwise", "project")
        fused = [(names, ChainTile(2, 1))]
        seen += covered(compile_network(graph, COVERING[0], None, {}, fused))
    assert everything() - UNREACHED - set(seen) == set()


def lists(*commands: Command) -> tuple[bytes, tuple[Command, ...]]:
    return b"".join(command.encode() for command in commands), commands


def test_waiting_parties_are_named(session: Session) -> None:
    tap = {"dest": Dest.DENSE_TAP, "address": 0x400, "count": 1}
    text, commands = lists(
        Command(Unit.LOAD, tap, "first"),
        Command(Unit.DENSE, {"wait_load": 3}, "second"),
        Command(Unit.END, {"wait_dense": 1}),
    )
    session.load(0, text)
    with pytest.raises(RunError) as caught:
        session.run(0, commands, watchdog=500)
    said = str(caught.value)
    assert re.search(r"stopped by the watchdog after \d+ cycles; finished commands: load 1,", said)
    assert "dense command 0 of layer 'second' waits for load (has finished 1, 3 needed)" in said
    assert "end command 0 waits for dense (has finished 0, 1 needed)" in said
    text, commands = lists(Command(Unit.LOAD, tap), Command(Unit.END, {"wait_load": 1}))
    session.load(0, text)
    assert session.run(0, commands).cycles > 0  # usable after a reset


def test_bus_errors_and_unknown_commands_stop_the_run(session: Session) -> None:
    text, commands = lists(
        Command(Unit.LOAD, {"dest": Dest.DENSE_TAP, "address": 4 * MEMORY, "count": 1}),
        Command(Unit.END, {"wait_load": 1}),
    )
    session.load(0, text)
    with pytest.raises(RunError, match="stopped by a bus error"):
        session.run(0, commands)
    session.load(0, bytes([5]) + bytes(63))
    with pytest.raises(RunError, match="stopped by an unknown command"):
        session.run(0)


def test_first_difference_is_named(session: Session) -> None:
    text, commands = lists(
        Command(Unit.LOAD, {"dest": Dest.DENSE_TAP, "address": 0x400, "count": 1}, "conv"),
        Command(Unit.END, {"wait_load": 1}),
    )
    session.load(0, text)
    session.load(0x800, bytes(96))
    expected = bytearray(96)
    expected[75] = 9
    region = Region("conv", Unit.LOAD, 1, 0x800, bytes(expected), (2, 2, 3))
    result = session.run(0, commands, [region])
    with pytest.raises(RunError) as caught:
        result.require_equal()
    assert "layer 'conv': channel 11, row 1, column 0: expected 9, got 0" in str(caught.value)
    for channels in (11, 12):  # byte 75 is of channel 11: behind the tensor's 11 channels, or not
        result = session.run(0, commands, [replace(region, channels=channels)])
        assert len(result.differences) == channels - 11


def test_lanes_behind_the_channels_may_hold_anything() -> None:
    """Seed 298: a slice of a concat is a residual, whose other channels reach the lanes behind."""
    with open_session(COVERING[2], MEMORY, TEST) as opened:
        assert check_networks(opened, range(298, 299)) == 1


def test_board_memories() -> None:
    ultra = Dram.of(load_device("ultra96"))
    assert (ultra.latency, ultra.granule, ultra.refresh_interval) == (60, 64, 975)
    usable = ultra.bytes_per_cycle * (1 - Fraction(ultra.refresh_cycles, ultra.refresh_interval))
    assert abs(float(usable) - 4264e6 * 0.7 / 250e6) < 0.05
    assert Dram.of(load_device("pynq-z2")).granule == 16


def test_slow_simulator_counts_the_same_cycles() -> None:
    """With a memory whose timing does not depend on the absolute cycle."""
    steady = Dram(bytes_per_cycle=Fraction(5), granule=64, turnaround=3)
    graph = random_integer_graph(4, batch=1, float_ends=False)
    program = compile_network(graph, SMALL)
    inputs = random_inputs(graph, np.random.default_rng(3))
    reference = run_values(graph, inputs, keep="all")
    with (
        open_session(SMALL, MEMORY, steady) as fast,
        open_slow_session(SMALL, MEMORY, steady) as slow,
    ):
        outputs, quick = simulate(program, inputs, fast, reference)
        found, slowly = simulate(program, inputs, slow, reference)
    for one, other in zip(outputs, found):
        np.testing.assert_array_equal(one, other)
    assert slowly[0].cycles == quick[0].cycles
    assert slowly[0].ends == quick[0].ends
    assert slowly[0].write_bytes == quick[0].write_bytes


def test_slow_simulator_refuses_large_designs() -> None:
    with pytest.raises(InputError, match="512 dense lanes; Amaranth's simulator takes up to 300"):
        open_slow_session(accelerator(8, 16, 4), MEMORY, TEST)
