# SPDX-License-Identifier: Apache-2.0
"""Removal of nodes that no output needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.graph import Graph
from codesign.ir.ops import Input
from codesign.passes.base import Pass


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Keep what the outputs need, and every input (they are the interface).

    rewrite: y = f(x); z = g(x); output y  ->  y = f(x); output y
    """

    name: ClassVar[str] = "eliminate-dead-code"

    def run(self, graph: Graph) -> Graph:
        """The graph without dead nodes; the same graph if there are none."""
        needed = set(graph.outputs)
        for node in reversed(list(graph.nodes.values())):
            if node.name in needed:
                needed.update(node.inputs)
        nodes = {
            name: node for name, node in graph.nodes.items()
            if name in needed or isinstance(node.op, Input)
        }  # fmt: skip
        if len(nodes) == len(graph.nodes):
            return graph
        constants = {name: v for name, v in graph.constants.items() if name in nodes}
        return Graph(graph.name, nodes, graph.outputs, constants)
