# SPDX-License-Identifier: Apache-2.0
"""One computation for equal computations."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.graph import Graph
from codesign.ir.ops import Constant, Input
from codesign.passes.base import Pass
from codesign.passes.editor import Editor


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Compute equal values once: same operator, same attributes, equal operands.

    rewrite: a = relu(x); b = relu(x); y = a + b  ->  a = relu(x); y = a + a

    Constants count as equal when format, shape and bits are. They are merged only as far as
    the nodes that read them are: two layers that happen to hold equal weights stay two layers
    with a weight each, since number formats are chosen for each.
    """

    name: ClassVar[str] = "common-subexpressions"

    def run(self, graph: Graph) -> Graph:
        """The graph without repeated computations."""
        editor = Editor(graph)
        numbers: dict[str, int] = {}
        seen: dict[Hashable, tuple[int, str]] = {}
        for node in graph.nodes.values():
            operands = tuple(numbers[v] for v in node.inputs)
            key: Hashable = (node.op, operands, node.type)
            if isinstance(node.op, Input):
                key = node.name
            elif isinstance(node.op, Constant):
                digest = hashlib.sha256(graph.constants[node.name].tobytes()).digest()
                key = (node.type, digest)
            numbers[node.name], first = seen.setdefault(key, (len(seen), node.name))
            if first != node.name and not isinstance(node.op, Constant):
                editor.replace(node.name, first)
        return editor.finish()
