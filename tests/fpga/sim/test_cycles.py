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
from codesign.targets.fpga.model.cycles import CycleModel, Fixed
from codesign.targets.fpga.model.layers import ends_of, layer_cycles
from codesign.targets.fpga.programs import why_no_program
from codesign.targets.fpga.sim.build import open_session
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.network import memory_bytes, simulate
from tests.fpga.compile.test_chains import chain
from tests.fpga.compile.test_programs import quantized
from tests.fpga.sim.test_simulation import SMALL
from tests.support.fpga import random_inputs

NETWORK = 0.005
"""Relative error of a network's cycles."""
LAYER = 0.05
"""Relative error of each layer's."""


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
        modelled = CycleModel(SMALL, dram, fixed).run(segment.commands, runs[0].since)
        guess = layer_cycles(segment.commands, ends_of(modelled), group)
        error = modelled.total / whole - 1
        found = [f"network {error:+.3f}"] if abs(error) > NETWORK else []
        for name, cycles in truth.items():
            error = guess[name] / cycles - 1
            if abs(error) > LAYER:
                found.append(f"{name} {error:+.3f} of {cycles}")
        return found

    return off


@pytest.mark.parametrize("board", ["ultra96", "pynq-z2"])
def test_resnet8(board: str) -> None:
    off = wrong(quantized("resnet8"), board, [])
    assert off(Fixed()) == []
    if board == "ultra96":  # times that are off by much are seen
        assert off(Fixed(dispatch=60))
        assert off(Fixed(written=150))


def test_chain() -> None:
    """A fused chain with a residual."""
    names = ("expand", "depthwise", "project")
    graph = chain(4, True, True, True, (8, 8), (40, 24))
    assert wrong(graph, "ultra96", [(names, ChainTile(4, 1))])(Fixed()) == []
