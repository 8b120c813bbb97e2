# SPDX-License-Identifier: Apache-2.0
"""Evaluation of what is known at compile time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.graph import Graph, Node
from codesign.ir.interpret import run_node
from codesign.ir.ops import Constant, Dequantize, Quantize
from codesign.passes.base import Pass
from codesign.passes.editor import Editor


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose operands are all constant by their value, as the interpreter gives it.

    rewrite: w = constant; t = transpose(w)  ->  t = constant

    The new constant keeps the node's name and source.
    """

    name: ClassVar[str] = "fold-constants"
    max_elements: int = 1 << 24
    """A result with more elements is left to run time, unless its operands are as large."""
    quantizers: bool = False
    """Fold quantize and dequantize too. By default they stay: around constants they tell the
    number format of a weight (QDQ networks)."""

    def run(self, graph: Graph) -> Graph:
        """The folded graph."""
        editor = Editor(graph)
        for node in editor:
            if self._foldable(editor, node):
                args = tuple(a for v in node.inputs if (a := editor.value(v)) is not None)
                value = run_node(graph, node, args)
                folded = editor.constant(value, node.type.dtype, node.name, node.source)
                editor.take_place(node.name, folded)
        return editor.finish()

    def _foldable(self, editor: Editor, node: Node) -> bool:
        if not node.inputs or isinstance(node.op, Constant) or node.type.layout:
            return False
        if isinstance(node.op, (Quantize, Dequantize)) and not self.quantizers:
            return False
        if any(editor.value(v) is None for v in node.inputs):
            return False
        read = sum(editor.type(v).size for v in set(node.inputs))
        return node.type.size <= max(self.max_elements, read)
