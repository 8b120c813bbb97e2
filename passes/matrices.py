# SPDX-License-Identifier: Apache-2.0
"""Rules of ``legalise`` for matmul and linear. Each returns whether it changed the graph."""

from __future__ import annotations

import dataclasses

from codesign.ir.graph import Node
from codesign.ir.ops import Conv2d, Linear, MatMul, Reshape, Transpose
from codesign.passes.editor import Editor

_TO_LAST = (0, 2, 3, 1)
"""NCHW to NHWC."""


def constant_matmul(editor: Editor, node: Node) -> bool:
    """a @ constant [K, N] is linear(a, constant.T)."""
    assert isinstance(node.op, MatMul)
    a, b = node.inputs
    value = editor.value(b)
    if value is None or editor.value(a) is not None:
        return False
    batch = value.shape[:-2]
    if any(n != 1 for n in batch) or value.ndim > editor.type(a).rank:
        return False
    matrix = value.reshape(value.shape[-2:])
    weight = editor.constant(matrix.T, node.type.dtype, b, editor.node(b).source)
    linear = editor.add(Linear(bias=False), (a, weight), node.name, node.source)
    editor.take_place(node.name, linear)
    if weight != b:
        editor.rename_if_free(weight, b)
    return True


def linear_rank(editor: Editor, node: Node) -> bool:
    """A linear reads 2 or 3 axes; one on a channels-last image is a 1x1 convolution."""
    assert isinstance(node.op, Linear)
    x = editor.type(node.inputs[0])
    if x.rank in (2, 3):
        return False
    before = editor.node(node.inputs[0])
    image = isinstance(before.op, Transpose) and before.op.perm == _TO_LAST
    weight = editor.value(node.inputs[1])
    if image and weight is not None and not node.op.residual:
        _to_convolution(editor, node, before.inputs[0])
    else:
        _to_matrix(editor, node)
    return True


def _to_convolution(editor: Editor, node: Node, image: str) -> None:
    op, weight = node.op, editor.value(node.inputs[1])
    assert isinstance(op, Linear)
    assert weight is not None
    old = editor.node(node.inputs[1])
    kernel = editor.constant(weight[:, :, None, None], old.type.dtype, old.name, old.source)
    conv = Conv2d(bias=op.bias, activation=op.activation, alpha=op.alpha)
    made = editor.add(conv, (image, kernel, *node.inputs[2:]), node.name, node.source)
    last = editor.add(Transpose(_TO_LAST), (made,), f"{node.name}.nhwc", node.source)
    editor.replace(node.name, last)
    editor.rename_if_free(made, node.name)
    editor.rename_if_free(kernel, old.name)


def _to_matrix(editor: Editor, node: Node) -> None:
    op, x = node.op, editor.type(node.inputs[0])
    assert isinstance(op, Linear)
    rows = x.size // x.shape[-1]

    def flat(value: str) -> str:
        kind = editor.type(value)
        return editor.add(Reshape((rows, kind.shape[-1])), (value,), f"{value}.rows", node.source)

    inputs = [flat(node.inputs[0]), *node.inputs[1:]]
    if op.residual:
        inputs[-1] = flat(inputs[-1])
    linear = editor.add(dataclasses.replace(op), inputs, node.name, node.source)
    shaped = editor.add(Reshape(node.type.shape), (linear,), f"{node.name}.shape", node.source)
    editor.replace(node.name, shaped)
    editor.rename_if_free(linear, node.name)
