# SPDX-License-Identifier: Apache-2.0
"""The normal form that quantization and targets take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.graph import Graph, Node
from codesign.ir.ops import Add, Conv2d, Linear, MatMul, Mul, Pool2d, Reduce
from codesign.passes.affine import broadcast_operand, constant_right, fold_affine, make_depthwise
from codesign.passes.base import Pass
from codesign.passes.editor import Editor
from codesign.passes.matrices import constant_matmul, linear_rank
from codesign.passes.pools import average_counts, global_pool, merge_padding, merge_reduces


@dataclass(frozen=True)
class Legalise(Pass):
    """Bring a float graph to the forms that quantization and targets take.

    In the result, for float nodes:

    - add and mul have a constant operand second, and no operand that is a broadcast;
    - no mul or add with one constant a channel follows a layer that could hold it, or comes
      before convolutions that could; those left on feature maps are depthwise 1x1 convolutions
      (``depthwise``), except single values on what is no feature map (attention scores);
    - no matmul has a constant second matrix: it is a linear;
    - a linear reads [M, K] or [N, T, K]; on channels-last images it is a 1x1 convolution;
    - average pools count the padding, or have none (others are a sum pool times a map);
    - pools over the whole image are reduce over axes (2, 3) with ``keepdims``;
    - convolutions and sum-like pools hold zero padding themselves: no pad node before them.

    Integer nodes are left as they are. Layers keep their names.
    """

    name: ClassVar[str] = "legalise"
    depthwise: bool = True
    """Turn muls and adds with one constant a channel that no layer can hold into depthwise 1x1
    convolutions."""

    def run(self, graph: Graph) -> Graph:
        """The graph in normal form."""
        editor = Editor(graph)
        _normalise(editor)
        # Only now it is clear that no layer takes them. The new layers take what follows.
        while self.depthwise and _make_depthwise(editor):
            _normalise(editor)
        return editor.finish()


def _make_depthwise(editor: Editor) -> bool:
    """Turn the first mul or add that can be into a depthwise convolution."""
    return any(
        make_depthwise(editor, node)
        for node in editor
        if isinstance(node.op, (Add, Mul)) and node.type.dtype.is_float
    )


def _normalise(editor: Editor) -> None:
    """Apply the rules until none does anything."""
    changed = True
    while changed:
        changed = False
        for node in editor:
            for rule in _RULES.get(type(node.op), ()):
                if node.type.dtype.is_float and rule(editor, node):
                    changed = True
                    break


_Rule = Callable[[Editor, Node], bool]
_RULES: dict[type, tuple[_Rule, ...]] = {
    Add: (constant_right, broadcast_operand, fold_affine),
    Mul: (constant_right, broadcast_operand, fold_affine),
    MatMul: (constant_matmul,),
    Linear: (linear_rank,),
    Conv2d: (merge_padding,),
    Pool2d: (merge_padding, global_pool, average_counts),
    Reduce: (merge_reduces,),
}
