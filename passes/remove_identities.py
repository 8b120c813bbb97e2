# SPDX-License-Identifier: Apache-2.0
"""Removal of operators that change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.graph import Graph, Node
from codesign.ir.ops import (
    Activation,
    Add,
    Broadcast,
    Clip,
    Concat,
    Mul,
    Pad,
    Pool2d,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Transpose,
)  # fmt: skip
from codesign.passes.base import Pass
from codesign.passes.bounds import ANY, Interval, bounds
from codesign.passes.editor import Editor, split_constant


@dataclass(frozen=True)
class RemoveIdentities(Pass):
    """Remove operators whose result is their operand, and merge chains of layout operators.

    Removed: reshape, transpose, slice, pad, broadcast, resize, concat, 1x1 pool, reduce and clip
    without effect; add of 0; mul by 1; relu, relu6 and leaky_relu of values that stay as they
    are (after relu, sigmoid, softmax, max pool of these, …).
    Merged: reshape(reshape(x)); transpose(transpose(x)); relu6(relu(x)) -> relu6(x). A transpose
    that only moves axes of size 1 becomes a reshape.

    The result has the same value and the same type; only −0 may become +0.
    """

    name: ClassVar[str] = "remove-identities"

    def run(self, graph: Graph) -> Graph:
        """The graph without identities."""
        editor = Editor(graph)
        # Values are never changed here, so that what is known of them stays true.
        known = bounds(graph)
        changed = True
        while changed:
            changed = False
            for node in editor:
                if _merge(editor, node):
                    changed = True
                    node = editor.node(node.name)
                same = _same_operand(editor, node, known)
                if same is not None and editor.type(same) == node.type:
                    editor.replace(node.name, same)
                    changed = True
        return editor.finish()


def _same_operand(editor: Editor, node: Node, known: Mapping[str, Interval]) -> str | None:
    """The operand that equals the result, or None."""
    if isinstance(node.op, (Add, Mul)):
        parts = split_constant(editor, node)
        neutral = 0 if isinstance(node.op, Add) else 1
        return parts[0] if parts and (parts[1] == neutral).all() else None
    rule = _RULES.get(type(node.op))
    interval = known.get(node.inputs[0], ANY) if node.inputs else ANY
    return node.inputs[0] if rule and rule(node.op, interval) else None


def _activation(op: Activation, x: Interval) -> bool:
    kept = {"relu": x[0] >= 0, "leaky_relu": x[0] >= 0, "relu6": x[0] >= 0 and x[1] <= 6}
    return kept.get(op.kind, False)


def _transpose(op: Transpose, x: Interval) -> bool:
    return op.perm == tuple(range(len(op.perm)))


def _pool(op: Pool2d, x: Interval) -> bool:
    return op.kernel == op.stride == (1, 1) and not any(op.padding)


# Each rule is asked only about its own operator; types must agree besides (checked above), which
# is all that reshape, slice, broadcast, resize, concat of one and reduce of size 1 need.
_RULES: dict[type, Callable[..., bool]] = {
    Activation: _activation,
    Transpose: _transpose,
    Pool2d: _pool,
    Clip: lambda op, x: op.lo <= x[0] and x[1] <= op.hi,
    Pad: lambda op, x: not any(op.before) and not any(op.after),
    Concat: lambda op, x: True,
    **dict.fromkeys((Reshape, Slice, Broadcast, Resize, Reduce), lambda op, x: True),
}


def _merge(editor: Editor, node: Node) -> bool:
    """Let ``node`` skip the operator before it where one operator does the work of both."""
    op = node.op
    if isinstance(op, Transpose) and _moves_nothing(editor, node):
        editor.update(node.name, Reshape(node.type.shape))
        return True
    if not isinstance(op, (Reshape, Transpose, Activation)):
        return False
    before = editor.node(node.inputs[0])
    if isinstance(op, Reshape) and isinstance(before.op, Reshape):
        editor.update(node.name, op, before.inputs)
        return True
    if isinstance(op, Transpose) and isinstance(before.op, Transpose):
        perm = tuple(before.op.perm[i] for i in op.perm)
        editor.update(node.name, dataclasses.replace(op, perm=perm), before.inputs)
        return True
    if isinstance(op, Activation) and isinstance(before.op, Activation):
        if (op.kind, before.op.kind) != ("relu6", "relu"):
            return False
        editor.update(node.name, op, before.inputs)
        return True
    return False


def _moves_nothing(editor: Editor, node: Node) -> bool:
    """Whether a transpose that is no identity leaves the elements' row-major order alone."""
    assert isinstance(node.op, Transpose)
    x = editor.type(node.inputs[0])
    moved = [axis for axis in node.op.perm if x.shape[axis] != 1]
    return moved == sorted(moved) and not _transpose(node.op, ANY) and not x.layout
