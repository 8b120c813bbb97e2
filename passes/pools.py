# SPDX-License-Identifier: Apache-2.0
"""Rules of ``legalise`` for padding, pools and reductions of images."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from codesign.ir.graph import Array, Node
from codesign.ir.ops import Conv2d, Mul, OpError, Pad, Pool2d, Reduce, Reshape
from codesign.passes.editor import Editor


def merge_padding(editor: Editor, node: Node) -> bool:
    """Let a convolution or pool pad by itself what a pad node pads before it."""
    op, pad = node.op, editor.node(node.inputs[0])
    assert isinstance(op, (Conv2d, Pool2d))
    if not isinstance(pad.op, Pad) or pad.op.mode != "constant":
        return False
    if any(pad.op.before[:2]) or any(pad.op.after[:2]):
        return False
    is_max = isinstance(op, Pool2d) and op.kind == "max"
    if pad.op.value != (-math.inf if is_max else 0):
        return False
    if isinstance(op, Pool2d) and op.kind == "avg" and not op.count_include_pad:
        return False  # the pad's zeros count, the pool's would not
    amounts = (*pad.op.before[2:], *pad.op.after[2:])
    padding = (
        op.padding[0] + amounts[0], op.padding[1] + amounts[1],
        op.padding[2] + amounts[2], op.padding[3] + amounts[3],
    )  # fmt: skip
    merged = dataclasses.replace(op, padding=padding)
    inputs = (pad.inputs[0], *node.inputs[1:])
    try:
        merged.infer([editor.type(v) for v in inputs])
    except OpError:
        return False  # a pool takes no more padding than its window
    editor.update(node.name, merged, inputs)
    return True


def global_pool(editor: Editor, node: Node) -> bool:
    """A pool over the whole image is a reduction."""
    op, x = node.op, editor.type(node.inputs[0])
    assert isinstance(op, Pool2d)
    if op.kernel != x.shape[2:] or any(op.padding) or op.dilation != (1, 1):
        return False
    kinds = {"avg": "mean", "max": "max", "sum": "sum"}
    reduce = Reduce(kinds[op.kind], (2, 3))  # type: ignore[arg-type]
    if reduce.infer([x]) != node.type:
        return False
    editor.update(node.name, reduce)
    return True


def average_counts(editor: Editor, node: Node) -> bool:
    """An average over the real elements only is a sum times a map of one over their number."""
    op = node.op
    assert isinstance(op, Pool2d)
    if op.kind != "avg" or op.count_include_pad:
        return False
    counts = window_counts(op, editor.type(node.inputs[0]).shape[2:])
    if (counts == math.prod(op.kernel)).all():
        editor.update(node.name, dataclasses.replace(op, count_include_pad=True))
        return True
    total_op = dataclasses.replace(op, kind="sum", count_include_pad=True)
    total = editor.add(total_op, node.inputs, f"{node.name}.sum", node.source)
    inverse = 1 / np.maximum(counts, 1)[None, None]
    factors = editor.constant(inverse, node.type.dtype, f"{node.name}.inverse", node.source)
    product = editor.add(Mul(), (total, factors), node.name, node.source)
    editor.take_place(node.name, product)
    return True


def window_counts(op: Pool2d, shape: tuple[int, ...]) -> Array:
    """Number of real elements in each window over an image of ``shape`` (H, W): [OH, OW]."""
    along: list[Array] = []
    for axis, size in enumerate(shape):
        before, after = op.padding[axis], op.padding[2 + axis]
        taps = np.arange(op.kernel[axis]) * op.dilation[axis] - before
        last = size + before + after - op.dilation[axis] * (op.kernel[axis] - 1) - 1
        starts = np.arange(last // op.stride[axis] + 1) * op.stride[axis]
        reads = starts[:, None] + taps
        along.append(((reads >= 0) & (reads < size)).sum(1))
    return np.outer(along[0], along[1]).astype(np.float64)


def merge_reduces(editor: Editor, node: Node) -> bool:
    """Axes in order; two reductions of an image as one; image axes are kept, then reshaped."""
    op, x = node.op, editor.type(node.inputs[0])
    assert isinstance(op, Reduce)
    if op.axes != tuple(sorted(op.axes)):
        editor.update(node.name, dataclasses.replace(op, axes=tuple(sorted(op.axes))))
        return True
    before = editor.node(node.inputs[0])
    inner = before.op
    if (
        isinstance(inner, Reduce) and inner.kind == op.kind and inner.keepdims
        and not set(inner.axes) & set(op.axes)
    ):  # fmt: skip
        axes = tuple(sorted(inner.axes + op.axes))
        editor.update(node.name, dataclasses.replace(op, axes=axes), before.inputs)
        return True
    if x.rank == 4 and op.axes == (2, 3) and not op.keepdims:
        kept = dataclasses.replace(op, keepdims=True)
        reduced = editor.add(kept, node.inputs, node.name, node.source)
        flat = editor.add(Reshape(node.type.shape), (reduced,), f"{node.name}.flat", node.source)
        editor.replace(node.name, flat)
        editor.rename_if_free(reduced, node.name)
        return True
    return False
