# SPDX-License-Identifier: Apache-2.0
"""Modelled cycles against simulated ones, network by network and layer by layer."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from codesign.cost.chain import ChainTile
from codesign.ir import Graph
from codesign.space.device import load_device
from codesign.targets.fpga.compile import compile_network
from codesign.targets.fpga.isa import Command, Dest, Unit
from codesign.targets.fpga.model.cycles import CycleModel, Fixed
from codesign.targets.fpga.model.layers import ends_of, layer_cycles
from codesign.targets.fpga.model.supply import Supply
from codesign.targets.fpga.model.work import Workloads
from codesign.targets.fpga.programs import why_no_program
from codesign.targets.fpga.sim.build import open_session
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.network import memory_bytes, simulate
from tests.fpga.compile.test_chains import chain
from tests.fpga.compile.test_programs import quantized
from tests.fpga.sim.test_simulation import SMALL
from tests.support.fpga import random_inputs

NETWORK = 0.01
"""Relative error of a network's cycles."""
LAYERS = ((0.02, 0.05), (0.01, 0.12))
"""Layers with at least the first share of the network's cycles are off by the second at most; the
strided 1 x 1 shortcuts of ResNet8 are the reason for the second line."""


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    missing = why_no_program("verilator")
    if missing and not os.environ.get("CODESIGN_NO_SKIP"):
        pytest.skip(missing)


def wrong(
    graph: Graph, board: str, chains: list[tuple[tuple[str, ...], ChainTile]]
) -> Callable[[Fixed], list[str]]:
    """Simulates once; what is off by too much under some fixed times, and the number of layers."""
    device = load_device(board)
    dram = Dram.of(device)
    program = compile_network(graph, SMALL, device, {}, chains)
    inputs = random_inputs(graph, np.random.default_rng(5))
    with open_session(SMALL, memory_bytes(program), dram) as session:
        _, runs = simulate(program, inputs, session)
    group = {name: names[0] for names, _ in chains for name in names}
    (segment,) = (s for s in program.segments if s.kind == "accelerator")
    truth = layer_cycles(segment.commands, runs[0].ends, group)
    whole = runs[0].cycles
    assert sum(truth.values()) == pytest.approx(whole, abs=100)

    def off(fixed: Fixed) -> list[str]:
        modelled = CycleModel(SMALL, dram, fixed).run(segment.commands)
        guess = layer_cycles(segment.commands, ends_of(modelled), group)
        error = modelled.total / whole - 1
        found = [f"network {error:+.3f}"] if abs(error) > NETWORK else []
        for name, cycles in truth.items():
            error = guess[name] / cycles - 1
            if any(cycles >= share * whole and abs(error) > most for share, most in LAYERS):
                found.append(f"{name} {error:+.3f} of {cycles}")
        return found

    return off


@pytest.mark.parametrize("board", ["ultra96", "pynq-z2"])
def test_resnet8(board: str) -> None:
    off = wrong(quantized("resnet8"), board, [])
    assert off(Fixed()) == []
    if board == "ultra96":  # times that are off by much are seen
        assert off(Fixed(dispatch=60.0))
        assert off(Fixed(written=150.0))


def test_chain() -> None:
    """A fused chain with a residual."""
    names = ("expand", "depthwise", "project")
    graph = chain(4, True, True, True, (8, 8), (40, 24))
    assert wrong(graph, "ultra96", [(names, ChainTile(4, 1))])(Fixed()) == []


def test_short_bursts_get_less_of_a_busy_memory() -> None:
    """By hand: 8 bursts may be under way. On the Ultra96 those of 64 bytes (512) are written before
    the first one's response brings another, so a batch of 2048 bytes read is followed by 512; those
    of 256 bytes fill a batch of their own."""
    supply = Supply(Dram.of(load_device("ultra96")), 16)
    assert supply.alternating(64.0)[1] == pytest.approx(512 / 2560)
    assert supply.alternating(256.0)[1] == pytest.approx(1 / 2)
    # 8 cycles are lost at each turn: more often for less
    assert supply.alternating(64.0)[0] < supply.alternating(256.0)[0] < supply.rate


def test_loads_of_short_runs_wait_for_the_latency() -> None:
    """By hand: of 120 blocks of one pixel 8 granules of 64 bytes come in 60 + 4 cycles."""
    works = Workloads(SMALL, Dram.of(load_device("ultra96")))
    fields = {"dest": int(Dest.DENSE_ACT), "rows": 1, "address": 0, "block_step": 64}
    short = works.of(Command(Unit.LOAD, {**fields, "width": 1, "blocks": 120}))
    assert short.reads == 120 * 64
    # a burst is followed by the one that waited for it
    assert short.reads / short.read_rate == pytest.approx(120 / 8 * 64)
    few = works.of(Command(Unit.LOAD, {**fields, "width": 1, "blocks": 8}))
    assert few.read_rate == works.port  # none has to wait
