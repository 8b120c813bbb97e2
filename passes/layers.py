# SPDX-License-Identifier: Apache-2.0
"""What passes ask of, and do to, the layers: conv2d and linear with constant weights."""

from __future__ import annotations

import dataclasses
from typing import TypeGuard

import numpy as np

from codesign.ir.graph import Array, Node
from codesign.ir.ops import Conv2d, Linear, Op
from codesign.passes.editor import Editor


def is_layer_op(op: Op) -> TypeGuard[Conv2d | Linear]:
    """Whether the operator has weights, bias, residual and activation."""
    return isinstance(op, (Conv2d, Linear))


def channel_axis(node: Node) -> int:
    """The axis of the result that the weight's first axis becomes."""
    return 1 if isinstance(node.op, Conv2d) else node.type.rank - 1


def is_linear_map(editor: Editor, node: Node) -> bool:
    """Whether the node is a float layer x·w + b with constant w and b and nothing after."""
    op = node.op
    if not is_layer_op(op) or op.activation != "none" or op.residual:
        return False
    bias = editor.operand(node, "bias")
    return (
        node.type.dtype.is_float
        and editor.value(node.inputs[1]) is not None
        and (bias is None or editor.value(bias) is not None)
    )


def is_foldable(editor: Editor, node: Node) -> bool:
    """Whether a per-channel scale and shift of the result can go into the layer."""
    return editor.used_once(node.name) and is_linear_map(editor, node)


def weight_and_bias(editor: Editor, node: Node) -> tuple[Array, Array]:
    """Weight and bias (zeros if there is none) of a linear map, in float64."""
    weight = editor.value(node.inputs[1])
    assert weight is not None
    bias_name = editor.operand(node, "bias")
    bias = None if bias_name is None else editor.value(bias_name)
    channels = weight.shape[0]
    return (
        weight.astype(np.float64),
        np.zeros(channels) if bias is None else bias.astype(np.float64),
    )


def add_bias(editor: Editor, node: Node, bias: Array) -> None:
    """Give a layer without bias a constant one, named after the layer."""
    name = editor.constant(bias, node.type.dtype, f"{node.name}.bias", node.source)
    insert_bias(editor, node, name)


def insert_bias(editor: Editor, node: Node, bias: str) -> None:
    """Let a layer without bias read the value ``bias``."""
    assert is_layer_op(node.op)
    inputs = (*node.inputs[:2], bias, *node.inputs[2:])
    editor.update(node.name, dataclasses.replace(node.op, bias=True), inputs)


def scale_and_shift(editor: Editor, node: Node, scale: Array | None, shift: Array | None) -> None:
    """Let the layer give result · scale + shift, with one value [O] a channel (or None)."""
    weight, bias = weight_and_bias(editor, node)
    assert is_layer_op(node.op)
    if scale is not None:
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = bias * scale
        editor.set_constant(node.name, 1, weight)
    if shift is not None or node.op.bias:
        bias = bias if shift is None else bias + shift
        set_bias(editor, editor.node(node.name), bias)


def set_bias(editor: Editor, node: Node, bias: Array) -> None:
    """Change the constant bias of a layer, or give it one."""
    assert is_layer_op(node.op)
    if node.op.bias:
        editor.set_constant(node.name, 2, bias)
    else:
        add_bias(editor, node, bias)
