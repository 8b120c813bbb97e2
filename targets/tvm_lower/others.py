# SPDX-License-Identifier: Apache-2.0
"""Anchors other than products: pooling, reductions, softmax, layer norm, data movement."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import te, tirx

from codesign.ir import ops
from codesign.ir.graph import Node
from codesign.ir.kernels import nearest_index
from codesign.ir.types import DType
from codesign.targets.tvm_lower.anchor import Anchor, Direct, Frame, padded
from codesign.targets.tvm_lower.kernel import Expr, Index, Kernel, Reader, const, storage, type_of


def make_pool(kernel: Kernel, node: Node) -> Anchor:
    """pool2d: windows of [n, h, w, c]."""
    op = node.op
    assert isinstance(op, ops.Pool2d)
    x = kernel.value(node.inputs[0])
    kind = kernel.type(node.inputs[0])
    n, c, height, width = kind.shape
    in_type = storage(kind.dtype)
    low = _lowest(kind.dtype) if op.kind == "max" else 0.0

    def direct(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        return x((n, c, h, w))

    data: Callable[[Expr, Expr, Expr, Expr], Expr] = direct
    if any(op.padding):
        data = padded(Frame(n, height, width, c, op.padding), in_type, direct, low)
    total = _window(data, op.kind == "max", (n, *node.type.shape[2:], c), op.kernel, op.stride,
                    op.dilation, storage(node.type.dtype))

    def finish(value: Expr, index: Index) -> Expr:
        if op.kind != "avg":
            return value
        return value / _count(op, (height, width), index).astype(type_of(value))

    return _window_anchor(node, total, finish, math.prod(op.kernel))


def _count(op: ops.Pool2d, size: tuple[int, int], index: Index) -> Expr:
    """Elements that an average divides by."""
    if op.count_include_pad or not any(op.padding):
        return const(math.prod(op.kernel), "int32")
    counts = []
    for axis in (0, 1):
        first = index[2 + axis] * op.stride[axis] - op.padding[axis]
        inside = [
            tirx.Select(
                tirx.all(first + k * op.dilation[axis] >= 0,
                         first + k * op.dilation[axis] < size[axis]),
                const(1, "int32"), const(0, "int32"),
            )
            for k in range(op.kernel[axis])
        ]  # fmt: skip
        total = inside[0]
        for one in inside[1:]:
            total = total + one
        counts.append(total)
    return tirx.Max(counts[0] * counts[1], const(1, "int32"))


def _window(
    data: Callable[[Expr, Expr, Expr, Expr], Expr], largest: bool, shape: tuple[int, ...],
    size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], dtype: str,
) -> Any:  # fmt: skip
    i, j = te.reduce_axis((0, size[0]), "i"), te.reduce_axis((0, size[1]), "j")
    (sh, sw), (dh, dw) = stride, dilation
    combine = te.max if largest else te.sum
    return te.compute(
        shape,
        lambda n, h, w, c: combine(
            data(n, h * sh + i * dh, w * sw + j * dw, c).astype(dtype), axis=[i, j]
        ),
        name="total",
    )


def _window_anchor(
    node: Node, total: Any, finish: Callable[[Expr, Index], Expr], steps: int
) -> Anchor:
    n, c, h, w = node.type.shape

    def read(index: Index) -> Expr:
        return finish(total(index[0], index[2], index[3], index[1]), index)

    direct = Direct(
        (n, h, w, c),
        lambda d: total(*d),
        lambda d: (d[0], d[3], d[1], d[2]),
    )
    return Anchor(read, "window", node.type.size * steps, finish, direct)


def _lowest(dtype: DType) -> float:
    return -math.inf if dtype.is_float else dtype.min


def make_reduce(kernel: Kernel, node: Node) -> Anchor:
    """Mean, max or sum over some axes."""
    op = node.op
    assert isinstance(op, ops.Reduce)
    x = kernel.value(node.inputs[0])
    shape = kernel.type(node.inputs[0]).shape
    dtype = storage(node.type.dtype)
    count = math.prod(shape[a] for a in op.axes)
    combine = te.max if op.kind == "max" else te.sum

    def finish(value: Expr, index: Index) -> Expr:
        return value / const(count, dtype) if op.kind == "mean" else value

    if set(op.axes) == {2, 3} and len(shape) == 4 and op.keepdims:
        total = _window(lambda n, h, w, c: x((n, c, h, w)), op.kind == "max",
                        (shape[0], 1, 1, shape[1]), (shape[2], shape[3]), (1, 1), (1, 1), dtype)
        return _window_anchor(node, total, finish, count)
    kept = [a for a in range(len(shape)) if a not in op.axes]
    stage = _reduction(x, shape, kept, lambda v, _: v.astype(dtype), combine, "total")
    positions = kept if op.keepdims else range(len(kept))
    return Anchor(
        lambda index: finish(stage(tuple(index[p] for p in positions)), index),
        "plain", node.type.size * count,
    )  # fmt: skip


def _reduction(
    x: Reader, shape: tuple[int, ...], kept: list[int],
    term: Callable[[Expr, Index], Expr], combine: Callable[..., Expr], name: str,
) -> Reader:  # fmt: skip
    """A stage that combines ``term`` of x over all axes but ``kept``; reads it at kept axes."""
    axes = {a: te.reduce_axis((0, n), f"r{a}") for a, n in enumerate(shape) if a not in kept}

    def value(*at: Expr) -> Expr:
        where = dict(zip(kept, at))
        index = tuple(where[a] if a in where else axes[a] for a in range(len(shape)))
        return combine(term(x(index), tuple(at[: len(kept)])), axis=list(axes.values()))

    stage = te.compute(tuple(shape[a] for a in kept) or (1,), value, name=name)
    return lambda index: stage(*(index or (0,)))


def make_softmax(kernel: Kernel, node: Node) -> Anchor:
    """Softmax, shifted by the maximum."""
    op = node.op
    assert isinstance(op, ops.Softmax)
    x = kernel.value(node.inputs[0])
    shape = node.type.shape
    kept = [a for a in range(len(shape)) if a != op.axis]
    peak = _reduction(x, shape, kept, lambda v, _: v, te.max, "peak")
    power = te.compute(shape, lambda *i: tirx.exp(x(i) - peak(_at(i, kept))), name="power")
    weight = _reduction(lambda i: power(*i), shape, kept, lambda v, _: v, te.sum, "weight")
    return Anchor(lambda i: power(*i) / weight(_at(i, kept)), "plain", node.type.size * 16)


def _at(index: Index, axes: list[int]) -> Index:
    return tuple(index[a] for a in axes)


def make_layer_norm(kernel: Kernel, node: Node) -> Anchor:
    """Layer norm in two passes; the mean in float64, since its rounding error may be all that is
    left of a row of equal values."""
    op = node.op
    assert isinstance(op, ops.LayerNorm)
    x, gamma, beta = (kernel.value(name) for name in node.inputs)
    shape, dtype = node.type.shape, storage(node.type.dtype)
    rank = len(kernel.type(node.inputs[1]).shape)
    kept = list(range(len(shape) - rank))
    terms = math.prod(shape[len(shape) - rank :])
    count, count64 = const(terms, dtype), const(terms, "float64")
    total = _reduction(x, shape, kept, lambda v, _: v.astype("float64"), te.sum, "first")

    def centred(value: Expr, at: Index) -> Expr:
        return (value.astype("float64") - total(at) / count64).astype(dtype)

    square = _reduction(x, shape, kept, lambda v, at: centred(v, at) * centred(v, at), te.sum,
                        "second")

    def read(index: Index) -> Expr:
        at, inner = _at(index, kept), index[len(kept) :]
        deviation = tirx.sqrt(square(at) / count + const(op.eps, dtype))
        return centred(x(index), at) / deviation * gamma(inner) + beta(inner)

    return Anchor(read, "plain", node.type.size * 4)


def make_concat(kernel: Kernel, node: Node) -> Anchor:
    """Concatenation."""
    op = node.op
    assert isinstance(op, ops.Concat)
    parts = [(kernel.value(name), kernel.type(name).shape[op.axis]) for name in node.inputs]

    def read(index: Index) -> Expr:
        ends = np.cumsum([size for _, size in parts]).tolist()
        result: Expr = None
        for (part, size), end in reversed(list(zip(parts, ends))):
            at = list(index)
            at[op.axis] = index[op.axis] - (end - size)
            value = part(tuple(at))
            if result is None:
                result = value
            else:
                result = tirx.if_then_else(index[op.axis] < end, value, result)
        return result

    return Anchor(read, "plain", node.type.size)


def _moved(kernel: Kernel, node: Node, where: Callable[[Index], Index]) -> Anchor:
    x = kernel.value(node.inputs[0])
    return Anchor(lambda index: x(where(index)), "plain", node.type.size)


def make_slice(kernel: Kernel, node: Node) -> Anchor:
    """Every ``step``-th position of one axis."""
    op = node.op
    assert isinstance(op, ops.Slice)
    return _moved(
        kernel, node,
        lambda index: tuple(
            i * op.step + op.start if a == op.axis else i for a, i in enumerate(index)
        ),
    )  # fmt: skip


def make_transpose(kernel: Kernel, node: Node) -> Anchor:
    """Permuted axes."""
    op = node.op
    assert isinstance(op, ops.Transpose)
    place = [op.perm.index(axis) for axis in range(len(op.perm))]
    return _moved(kernel, node, lambda index: tuple(index[p] for p in place))


def make_broadcast(kernel: Kernel, node: Node) -> Anchor:
    """NumPy broadcast."""
    shape = kernel.type(node.inputs[0]).shape

    def where(index: Index) -> Index:
        tail = index[len(index) - len(shape) :]
        return tuple(const(0, "int32") if n == 1 else i for i, n in zip(tail, shape))

    return _moved(kernel, node, where)


def make_reshape(kernel: Kernel, node: Node) -> Anchor:
    """Row-major order in, row-major order out."""
    before, after = kernel.type(node.inputs[0]).shape, node.type.shape

    def where(index: Index) -> Index:
        flat: Expr = const(0, "int32")
        for i, size in zip(index, after):
            flat = flat * size + i
        found: list[Expr] = []
        for size in reversed(before):
            found.append(tirx.floormod(flat, size))
            flat = tirx.floordiv(flat, size)
        return tuple(reversed(found))

    return _moved(kernel, node, where)


def make_pad(kernel: Kernel, node: Node) -> Anchor:
    """Constant, reflected or repeated borders."""
    op = node.op
    assert isinstance(op, ops.Pad)
    x = kernel.value(node.inputs[0])
    shape, dtype = kernel.type(node.inputs[0]).shape, storage(node.type.dtype)

    def inner(i: Expr, size: int) -> Expr:
        last = const(size - 1, "int32")
        if op.mode == "reflect":
            i = tirx.Select(i < 0, -i, i)
            i = tirx.Select(i > last, last * 2 - i, i)
        elif op.mode == "edge":
            i = tirx.Max(tirx.Min(i, last), const(0, "int32"))
        return i

    def read(index: Index) -> Expr:
        at = [i - b for i, b in zip(index, op.before)]
        padded = [bool(b or a) for b, a in zip(op.before, op.after)]
        if op.mode != "constant":
            return x(tuple(inner(i, n) if p else i for i, n, p in zip(at, shape, padded)))
        tests = [t for i, n, p in zip(at, shape, padded) if p for t in (i >= 0, i < n)]
        if not tests:
            return x(tuple(at))
        fill = op.value if node.type.dtype.is_float else int(op.value)
        return tirx.if_then_else(tirx.all(*tests), x(tuple(at)), const(fill, dtype))

    return Anchor(read, "plain", node.type.size)


def make_resize(kernel: Kernel, node: Node) -> Anchor:
    """Nearest or bilinear; positions are computed here, exactly, and kept as tables."""
    op = node.op
    assert isinstance(op, ops.Resize)
    x = kernel.value(node.inputs[0])
    sizes = kernel.type(node.inputs[0]).shape[2:]
    if op.kind == "nearest":
        rows, columns = (
            kernel.array(nearest_index(op, size, out).astype(np.int32), f"{node.name}_{axis}")
            for axis, size, out in zip("hw", sizes, op.size)
        )
        return Anchor(lambda i: x((i[0], i[1], rows(i[2]), columns(i[3]))), "plain",
                      node.type.size)
    dtype = storage(node.type.dtype)
    tables = [_bilinear_table(kernel, op, axis, size, dtype) for axis, size in enumerate(sizes)]

    def read(index: Index) -> Expr:
        n, c, h, w = index
        (h_low, h_high, h_share), (w_low, w_high, w_share) = (
            tuple(table(p) for table in three) for three, p in zip(tables, (h, w))
        )
        one = const(1, dtype)

        def column(at: Expr) -> Expr:
            low, high = x((n, c, h_low, at)), x((n, c, h_high, at))
            return low * (one - h_share) + high * h_share

        return column(w_low) * (one - w_share) + column(w_high) * w_share

    return Anchor(read, "plain", node.type.size * 8)


def _bilinear_table(
    kernel: Kernel, op: ops.Resize, axis: int, size: int, dtype: str
) -> tuple[Expr, Expr, Expr]:
    """Lower neighbour, upper neighbour and share of the upper one, for each position."""
    out = op.size[axis]
    place = np.arange(out, dtype=np.float64)
    if op.coordinates == "half_pixel":
        place = (2 * place + 1) * size / (2 * out) - 0.5
    elif op.coordinates == "asymmetric" or out == 1:
        place = place * size / out
    else:
        place = place * (size - 1) / (out - 1)
    place = place.clip(0, size - 1)
    low = np.floor(place)
    high = np.minimum(low + 1, size - 1)
    return (
        kernel.array(low.astype(np.int32), f"low{axis}"),
        kernel.array(high.astype(np.int32), f"high{axis}"),
        kernel.array((place - low).astype(dtype), f"share{axis}"),
    )


ANCHORS: dict[str, Callable[[Kernel, Node], Anchor]] = {
    "pool2d": make_pool,
    "reduce": make_reduce,
    "softmax": make_softmax,
    "layer_norm": make_layer_norm,
    "concat": make_concat,
    "slice": make_slice,
    "transpose": make_transpose,
    "broadcast": make_broadcast,
    "reshape": make_reshape,
    "pad": make_pad,
    "resize": make_resize,
}
