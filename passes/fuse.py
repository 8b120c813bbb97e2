# SPDX-License-Identifier: Apache-2.0
"""Bias, residual add and activation into the layer that they follow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.graph import Graph, Node
from codesign.ir.ops import Activation, Add
from codesign.passes.base import Pass
from codesign.passes.editor import Editor, channel_vector, split_constant
from codesign.passes.layers import channel_axis, is_layer_op, set_bias, weight_and_bias


@dataclass(frozen=True)
class Fuse(Pass):
    """Fuse what follows a float conv2d or linear into its operands and attributes.

    rewrite: y = relu(conv(x, w) + b + r)  ->  y = conv(x, w, bias=b, residual=r, relu)

    An intermediate that has another reader or is an output is never fused away. A residual
    must have the result's shape and must not be a constant. Where both operands of an add are
    layers, the one with the longer path from the inputs takes the other as residual (the main
    branch of a residual block, rather than its projection). The layer keeps its name.
    """

    name: ClassVar[str] = "fuse"
    bias: bool = True
    """Fuse the add of one constant a channel."""
    add: bool = True
    """Fuse the add of another value (residual)."""
    activations: bool = True
    """Fuse the activation."""

    def run(self, graph: Graph) -> Graph:
        """The fused graph."""
        editor = Editor(graph)
        depth = _depths(graph)
        layers = [n.name for n in editor if is_layer_op(n.op) and n.type.dtype.is_float]
        # First every bias, so that both operands of an add are seen as the layers they are.
        changed = True
        while changed:
            changed = False
            for name in layers:
                while self.bias and _fuse_bias(editor, editor.node(name)):
                    changed = True
            for name in layers:
                if self.add and _fuse_add(editor, editor.node(name), depth):
                    changed = True
        for name in layers:
            if self.activations:
                _fuse_activation(editor, editor.node(name))
        return editor.finish()


def _depths(graph: Graph) -> dict[str, int]:
    """Length of the longest path from an input or constant to each node."""
    depth: dict[str, int] = {}
    for node in graph.nodes.values():
        depth[node.name] = 1 + max((depth[v] for v in node.inputs), default=0)
    return depth


def _following_add(editor: Editor, node: Node) -> Node | None:
    """The add that is the only reader of a layer that ends with its sum, if types agree."""
    add = editor.only_user(node.name)
    ends = is_layer_op(node.op) and node.op.activation == "none"
    return add if ends and add and isinstance(add.op, Add) and add.type == node.type else None


def _fuse_bias(editor: Editor, node: Node) -> bool:
    add = _following_add(editor, node)
    parts = split_constant(editor, add) if add else None
    bias = editor.operand(node, "bias")
    fixed = editor.value(node.inputs[1]) is not None and (
        bias is None or editor.value(bias) is not None
    )
    if add is None or parts is None or not fixed:
        return False
    offset = channel_vector(parts[1], node.type, channel_axis(node))
    if offset is None:
        return False
    set_bias(editor, node, weight_and_bias(editor, node)[1] + offset)
    editor.replace(add.name, node.name)
    return True


def _fuse_add(editor: Editor, node: Node, depth: dict[str, int]) -> bool:
    add = _following_add(editor, node)
    if add is None or not is_layer_op(node.op) or node.op.residual:
        return False
    other = add.inputs[1] if add.inputs[0] == node.name else add.inputs[0]
    if editor.value(other) is not None or editor.type(other) != node.type:
        return False
    rival = editor.node(other)
    if is_layer_op(rival.op) and not rival.op.residual and _following_add(editor, rival):
        mine = (depth[node.name], node.name == add.inputs[0])
        if (depth[other], other == add.inputs[0]) > mine:
            return False
    editor.update(node.name, dataclasses.replace(node.op, residual=True), (*node.inputs, other))
    editor.replace(add.name, node.name)
    return True


def _fuse_activation(editor: Editor, node: Node) -> None:
    user = editor.only_user(node.name)
    if user is None or not isinstance(user.op, Activation) or not is_layer_op(node.op):
        return
    if node.op.activation == "none":
        op = dataclasses.replace(node.op, activation=user.op.kind, alpha=user.op.alpha)
        editor.update(node.name, op)
        editor.replace(user.name, node.name)
