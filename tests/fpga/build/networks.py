# SPDX-License-Identifier: Apache-2.0
"""A small integer network that runs wholly on the accelerator."""

from __future__ import annotations

from codesign.ir import Graph
from codesign.targets.fpga.compile import compile_network
from tests.support.fpga import accelerator
from tests.support.integer_graphs import random_integer_graph


def small_network() -> Graph:
    """The first generated network of one input and output with nothing for the ARM cores."""
    machine = accelerator(8, 8, 1, (64, 128, 64), (8, 1), (64, 128), 4, 4)
    for seed in range(100):
        graph = random_integer_graph(seed, blocks=2, float_ends=False, batch=1)
        program = compile_network(graph, machine)
        alone = [s.kind for s in program.segments] == ["accelerator"]
        if alone and len(graph.inputs) == len(graph.outputs) == 1:
            return graph
    raise AssertionError("no generated network is wholly on the accelerator")
