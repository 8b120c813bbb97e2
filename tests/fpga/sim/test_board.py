# SPDX-License-Identifier: Apache-2.0
"""The ULX3S design with its memory on the chip: the host's program over the serial line."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.ir import run_values
from codesign.targets.fpga.build.handover import template
from codesign.targets.fpga.compile import compile_network
from codesign.targets.fpga.hw.registers import IDENTITY, Register
from codesign.targets.fpga.sim.board import SimulatedBoard
from codesign.targets.fpga.sim.network import memory_bytes
from codesign.targets.fpga.sim.verilate import Options
from codesign.targets.fpga.target import layout_of
from tests.fpga.build.networks import small_network
from tests.support.fpga import accelerator, random_inputs

MACHINE = accelerator(8, 8, 1, (64, 128, 64), (8, 1), (64, 128), 4, 4)


def host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The two Python files of a build, imported."""
    for name in ("codesign_accelerator", "codesign_ulx3s"):
        path = folder / f"{name}.py"
        path.write_text(template(f"{name}.py.in"))
        loader = SourceFileLoader(name, str(path))
        spec = importlib.util.spec_from_loader(name, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        loader.exec_module(module)
    return sys.modules["codesign_ulx3s"]


@pytest.mark.soak  # a minute of compiling
def test_network_over_the_serial_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_network()
    program = compile_network(graph, MACHINE)
    (tmp_path / "image.bin").write_bytes(program.image)
    (tmp_path / "layout.json").write_text(json.dumps(layout_of(program)))
    size = memory_bytes(program)
    with SimulatedBoard(MACHINE, program.image, size, Options("-O0")) as board:
        board.write(b"\x00R")  # a command that was cut off
        module = host(tmp_path, monkeypatch)
        module.Ulx3s.run.__defaults__ = (600.0,)  # a simulation on a busy machine is slow
        network = module.Ulx3s(board, tmp_path)
        registers = network.mmio
        assert registers.read(Register.IDENTITY) == IDENTITY
        rng = np.random.default_rng(3)
        for _ in range(2):
            inputs = random_inputs(graph, rng)
            (found,) = network(inputs[graph.inputs[0]])
            wanted = run_values(graph, inputs)[graph.outputs[0]]
            np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
        # the button runs the last list again: same cycles, same result
        cycles = network.cycles
        assert cycles == registers.read(Register.CYCLES_LOW) > 100
        registers.write(Register.STATUS, 2)
        assert registers.read(Register.STATUS) == 0
        board.press()
        while not registers.read(Register.STATUS) & 2:
            assert board.cycles < 20_000_000
        assert registers.read(Register.CYCLES_LOW) == cycles
        np.testing.assert_array_equal(network.read(graph.outputs[0]).reshape(wanted.shape), wanted)
