# SPDX-License-Identifier: Apache-2.0
"""Waveforms of a simulated run, on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.flow.waves import parse_cycles
from codesign.ir import run_values
from codesign.space.device import load_device
from codesign.targets.fpga.compile import compile_network
from codesign.targets.fpga.sim.build import SimOptions, open_session
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.network import memory_bytes, simulate
from codesign.targets.fpga.sim.verilate import Options
from tests.fpga.build.networks import small_network
from tests.support.fpga import accelerator, random_inputs


def fst_times(file: Path) -> tuple[int, int, int]:
    """First and last time and the number of signals that an FST file's header names."""
    content = file.read_bytes()
    assert content[0] == 0  # the header's block, of 329 bytes
    assert int.from_bytes(content[1:9], "big") == 329
    first, last = (int.from_bytes(content[at : at + 8], "big") for at in (9, 17))
    return first, last, int.from_bytes(content[49:57], "big")


@pytest.mark.soak  # compiles a simulation of its own
def test_the_cycles_asked_for_are_recorded(tmp_path: Path) -> None:
    machine = accelerator(8, 8, 1, (64, 128, 64), (8, 1), (64, 128), 4, 4)
    graph = small_network()
    program = compile_network(graph, machine)
    inputs = random_inputs(graph, np.random.default_rng(2))
    file = tmp_path / "run.fst"
    options = SimOptions(compile=Options("-O0"))
    dram = Dram.of(load_device("ultra96"))
    with open_session(machine, memory_bytes(program), dram, options, (file, 50, 250)) as opened:
        outputs, _ = simulate(program, inputs, opened, run_values(graph, inputs, keep="all"))
    wanted = run_values(graph, inputs)
    for name, found in zip(graph.outputs, outputs, strict=True):
        np.testing.assert_array_equal(found, wanted[name])
    first, last, signals = fst_times(file)
    assert (first, last) == (2 * 50, 2 * 250 - 1)  # two times a cycle: each edge of the clock
    assert signals > 1000


def test_cycles_of_the_command_line() -> None:
    assert parse_cycles("0:20000") == (0, 20000)
    for text in ("", "5", "5:", ":5", "9:5", "5:5", "-1:5", "a:b"):
        with pytest.raises(InputError, match="--wave-cycles"):
            parse_cycles(text)
