# SPDX-License-Identifier: Apache-2.0
"""Rules of ``legalise`` for mul and add. Each returns whether it changed the graph."""

from __future__ import annotations

import numpy as np

from codesign.ir.graph import Array, Node
from codesign.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Broadcast,
    Concat,
    Conv2d,
    Input,
    Mul,
    Pad,
    Pool2d,
    Reduce,
    Reshape,
    Resize,
    Transpose,
)  # fmt: skip
from codesign.passes.editor import Editor, channel_vector, split_constant
from codesign.passes.layers import (
    channel_axis,
    is_foldable,
    is_layer_op,
    scale_and_shift,
    set_bias,
    weight_and_bias,
)  # fmt: skip

_IMAGE_OPS = (Input, Conv2d, Pool2d, BatchNorm, Concat, Resize, Reduce)


def constant_right(editor: Editor, node: Node) -> bool:
    """a + constant, never constant + a."""
    a, b = node.inputs
    if editor.value(a) is None or editor.value(b) is not None:
        return False
    editor.update(node.name, inputs=(b, a))
    return True


def broadcast_operand(editor: Editor, node: Node) -> bool:
    """Read what a broadcast reads: add and mul broadcast by themselves."""
    for index, value in enumerate(node.inputs):
        source = editor.node(value)
        if not isinstance(source.op, Broadcast):
            continue
        inputs = list(node.inputs)
        inputs[index] = source.inputs[0]
        if node.op.infer([editor.type(v) for v in inputs]) == node.type:
            editor.update(node.name, inputs=inputs)
            return True
    return False


def fold_affine(editor: Editor, node: Node) -> bool:
    """Fold x·c or x + c into the layer before, or the convolutions after."""
    parts = split_constant(editor, node)
    if parts is None or editor.type(parts[0]) != node.type:
        return False
    return _fold_back(editor, node, *parts) or _fold_forward(editor, node, *parts)


def _fold_back(editor: Editor, node: Node, x: str, value: Array) -> bool:
    layer = editor.node(x)
    is_scale = isinstance(node.op, Mul)
    if is_layer_op(layer.op):
        vector = channel_vector(value, node.type, channel_axis(layer))
    else:
        # A single factor commutes with what only moves elements.
        while isinstance(layer.op, (Reshape, Transpose)) and editor.used_once(layer.name):
            layer = editor.node(layer.inputs[0])
        single = is_scale and value.size == 1 and is_layer_op(layer.op)
        channels = layer.type.shape[channel_axis(layer)] if single else 0
        vector = np.full(channels, float(value.reshape(()))) if single else None
    if vector is None or not is_foldable(editor, layer):
        return False
    scale_and_shift(editor, layer, vector if is_scale else None, None if is_scale else vector)
    editor.replace(node.name, x)
    return True


def _fold_forward(editor: Editor, node: Node, x: str, value: Array) -> bool:
    """Fold into the weights of the convolutions that read the result, if all of them can."""
    users = editor.users(node.name)
    vector = channel_vector(value, node.type, 1) if node.type.rank == 4 else None
    if vector is None or editor.is_output(node.name) or not users:
        return False
    is_scale = isinstance(node.op, Mul)
    if not all(_takes(editor, user, node.name, is_scale) for user in users):
        return False
    for user in users:
        weight, bias = weight_and_bias(editor, user)
        assert isinstance(user.op, Conv2d)
        groups, outputs = user.op.groups, weight.shape[0]
        columns = weight.reshape(groups, outputs // groups, weight.shape[1], -1)
        factor = vector.reshape(groups, 1, weight.shape[1], 1)
        if is_scale:
            editor.set_constant(user.name, 1, (columns * factor).reshape(weight.shape))
        else:
            set_bias(editor, user, bias + (columns * factor).sum((2, 3)).reshape(-1))
    editor.replace(node.name, x)
    return True


def _takes(editor: Editor, user: Node, value: str, is_scale: bool) -> bool:
    """Whether a convolution can take a scale, or a shift, of the image it reads."""
    op = user.op
    if not isinstance(op, Conv2d) or user.inputs[0] != value or user.inputs.count(value) != 1:
        return False
    bias = editor.operand(user, "bias")
    fixed = editor.value(user.inputs[1]) is not None
    # Zero padding comes after the shift: at the border it would be shifted too.
    return fixed and (
        is_scale or (not any(op.padding) and (bias is None or editor.value(bias) is not None))
    )


def make_depthwise(editor: Editor, node: Node) -> bool:
    """Turn x·c or x + c on a feature map into a depthwise 1x1 convolution.

    An add after such a mul goes into its bias and gives the convolution its name.
    """
    parts = split_constant(editor, node)
    if parts is None or node.type.rank != 4 or editor.type(parts[0]) != node.type:
        return False
    x, value = parts
    vector = channel_vector(value, node.type, 1)
    if vector is None or (value.size == 1 and not _is_feature_map(editor, x)):
        return False
    is_scale = isinstance(node.op, Mul)
    channels, kind = node.type.shape[1], node.type.dtype
    factor = vector if is_scale else np.ones(channels)
    weight = factor.reshape(-1, 1, 1, 1)
    inputs = [x, editor.constant(weight, kind, f"{node.name}.weight", node.source)]
    op = Conv2d(groups=channels, bias=not is_scale)
    if not is_scale:
        inputs.append(editor.constant(vector, kind, f"{node.name}.bias", node.source))
    editor.take_place(node.name, editor.add(op, inputs, node.name, node.source))
    if is_scale:
        _absorb_shift(editor, editor.node(node.name))
    return True


def _absorb_shift(editor: Editor, conv: Node) -> None:
    """Let a new depthwise convolution take the add after it, and its name."""
    add = editor.only_user(conv.name)
    parts = split_constant(editor, add) if add and isinstance(add.op, Add) else None
    vector = channel_vector(parts[1], conv.type, 1) if parts else None
    if add is None or vector is None or add.type != conv.type:
        return
    editor.replace(add.name, conv.name)
    name = editor.rename_if_free(conv.name, add.name)
    editor.rename_if_free(conv.inputs[1], f"{name}.weight")
    scale_and_shift(editor, editor.node(name), None, vector)


def _is_feature_map(editor: Editor, name: str) -> bool:
    """Whether a [N, C, H, W] value is an image, as far as its producers tell."""
    node = editor.node(name)
    while isinstance(node.op, (Activation, Add, Mul, Pad)):
        node = editor.node(node.inputs[0])
    return isinstance(node.op, _IMAGE_OPS)
