# SPDX-License-Identifier: Apache-2.0
"""Convolution, linear and matrix product as one kind of kernel: a blocked product.

All three are written as sums over (kh, kw, k) for every (n, oh, g, ow, o): a linear layer is
a 1x1 convolution over its rows, a batch of matrix products has one group a batch entry. Output
channels are split into ``blocks`` of ``lanes``, and weights are packed so that the lanes are
contiguous. A depthwise convolution has the channels in the lanes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from codesign.ir import ops
from codesign.ir.graph import Node
from codesign.ir.types import DType
from codesign.targets.tvm_lower.anchor import Anchor, Direct, Frame, padded
from codesign.targets.tvm_lower.elementwise import activate
from codesign.targets.tvm_lower.kernel import (
    Expr,
    Index,
    Kernel,
    Reader,
    const,
    identity,
    reader,
    storage,
)
from codesign.targets.tvm_lower.machine import Machine

Place = tuple[Expr, Expr, Expr, Expr, Expr]
"""(n, oh, g, ow, o): image, row, group, column, channel within the group."""


@dataclass(frozen=True)
class Product:
    """Sizes of a blocked product and how results map to logical indices."""

    n: int
    height: int
    width: int
    """Size of the input image."""
    groups: int
    depth: int
    """Input channels of a group."""
    channels: int
    """Output channels of a group."""
    out_height: int
    out_width: int
    data: Callable[[Expr, Expr, Expr, Expr, Expr], Expr]
    """Reads the input at (n, h, w, g, k)."""
    place: Callable[[Index], Place]
    """Where the result with a logical index is computed."""
    index: Callable[[Place], Index]
    """Inverse of ``place``."""
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups_first: bool = False
    """Whether the result is stored group by group (matrix products), not as NHWC."""

    @property
    def depthwise(self) -> bool:
        """Whether each channel of an image is convolved on its own."""
        alone = self.groups > 1 and self.depth == self.channels == 1
        return alone and not self.groups_first

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        positions = self.n * self.out_height * self.out_width * self.groups
        return positions * self.channels * self.depth * math.prod(self.kernel)


def _frame(product: Product, channels: int) -> Frame:
    return Frame(product.n, product.height, product.width, channels, product.padding)


def conv2d_product(kernel: Kernel, node: Node) -> Product:
    """A convolution."""
    op = node.op
    assert isinstance(op, ops.Conv2d)
    x = kernel.value(node.inputs[0])
    n, c, height, width = kernel.type(node.inputs[0]).shape
    outputs, _, kh, kw = kernel.type(node.inputs[1]).shape
    depth, channels = c // op.groups, outputs // op.groups
    return Product(
        n, height, width, op.groups, depth, channels, node.type.shape[2], node.type.shape[3],
        data=lambda n, h, w, g, k: x((n, g * depth + k, h, w)),
        place=lambda i: (i[0], i[2], tirx.floordiv(i[1], channels), i[3],
                         tirx.floormod(i[1], channels)),
        index=lambda p: (p[0], p[2] * channels + p[4], p[1], p[3]),
        kernel=(kh, kw), stride=op.stride, dilation=op.dilation, padding=op.padding,
    )  # fmt: skip


def linear_product(kernel: Kernel, node: Node) -> Product:
    """A linear layer: its rows are the columns of an image of height 1."""
    x = kernel.value(node.inputs[0])
    *lead, depth = kernel.type(node.inputs[0]).shape
    n, rows, columns = math.prod(lead[:-2]), *([1, 1, *lead][-2:])

    def unravel(n: Expr, h: Expr, w: Expr) -> Index:
        return (*_unravel(n, lead[:-2]), *((h, w)[2 - len(lead[-2:]) :]))

    def place(i: Index) -> Place:
        zero = const(0, "int32")
        h, w = (zero, zero, *i[:-1])[-2:]
        if len(lead) < 2:
            h = zero
        return _ravel(i[:-3], lead[:-2]), h, zero, w, i[-1]

    return Product(
        n, rows, columns, 1, depth, node.type.shape[-1], rows, columns,
        data=lambda n, h, w, g, k: x((*unravel(n, h, w), k)),
        place=place,
        index=lambda p: (*unravel(p[0], p[1], p[3]), p[4]),
    )  # fmt: skip


def matmul_product(kernel: Kernel, node: Node) -> Product:
    """A batch of matrix products; one group each."""
    a = kernel.value(node.inputs[0])
    a_shape = kernel.type(node.inputs[0]).shape
    *batch, rows, columns = node.type.shape
    zero = const(0, "int32")

    def read(n: Expr, h: Expr, w: Expr, g: Expr, k: Expr) -> Expr:
        return a((*_broadcast(_unravel(g, batch), a_shape[:-2]), w, k))

    return Product(
        1, 1, rows, math.prod(batch), a_shape[-1], columns, 1, rows, data=read,
        place=lambda i: (zero, zero, _ravel(i[:-2], batch), i[-2], i[-1]),
        index=lambda p: (*_unravel(p[2], batch), p[3], p[4]),
        groups_first=True,
    )  # fmt: skip


def _broadcast(index: Index, shape: Sequence[int]) -> Index:
    tail = index[len(index) - len(shape) :]
    return tuple(const(0, "int32") if n == 1 else i for i, n in zip(tail, shape))


def _unravel(flat: Expr, shape: Sequence[int]) -> Index:
    index: list[Expr] = []
    for position, size in reversed(list(enumerate(shape))):
        index.append(flat if position == 0 else tirx.floormod(flat, size))
        flat = tirx.floordiv(flat, size)
    return tuple(reversed(index))


def _ravel(index: Index, shape: Sequence[int]) -> Expr:
    flat: Expr = const(0, "int32")
    for i, size in zip(index, shape):
        flat = flat * size + i
    return flat


def sample(product: Product, stride: tuple[int, int]) -> Product:
    """A 1x1 convolution of this stride as one without a stride, of an image of its pixels alone."""
    down, across = stride
    return replace(
        product, height=product.out_height, width=product.out_width, stride=(1, 1),
        data=lambda n, h, w, g, k: product.data(n, h * down, w * across, g, k),
    )  # fmt: skip


def make_product(kernel: Kernel, node: Node) -> Product:
    """The product that a conv2d, linear or matmul node computes."""
    makers = {"conv2d": conv2d_product, "linear": linear_product, "matmul": matmul_product}
    return makers[node.op.name](kernel, node)


def make_dense(kernel: Kernel, node: Node, machine: Machine) -> Anchor:
    """Stages of a conv2d, linear or matmul node."""
    product = make_product(kernel, node)
    x_type, result = kernel.type(node.inputs[0]).dtype, node.type.dtype
    weights = kernel.graph.constants.get(node.inputs[1])
    if product.depthwise:
        total = _depthwise(kernel, node, product, weights)
        return _finished(kernel, node, product, total, lanes=1)
    if _takes_vnni(kernel, node, product, weights, machine):
        assert weights is not None
        return _vnni(kernel, node, product, _as_oikk(weights), x_type)
    lanes = 16 if product.channels % 8 else (16 if product.channels % 16 == 0 else 8)
    total = _blocked(kernel, node, product, weights, lanes, storage(result))
    return _finished(kernel, node, product, total, lanes)


def _takes_vnni(
    kernel: Kernel, node: Node, product: Product, weights: object, machine: Machine
) -> bool:
    kinds = [kernel.type(v).dtype for v in node.inputs[:2]]
    return (
        machine.isa == "avx512-vnni"
        and weights is not None
        and product.groups == 1
        and all(k.is_integer and k.bits <= 8 for k in kinds)
        and kinds[1].kind == "signed"
    )


def _as_oikk(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return weights if weights.ndim == 4 else weights[:, :, None, None]


def _finished(
    kernel: Kernel, node: Node, product: Product, total: Any, lanes: int, vnni: bool = False,
    correction: npt.NDArray[np.int32] | None = None,
) -> Anchor:  # fmt: skip
    """Add bias, residual and activation to the sums."""
    finish = make_finish(kernel, node, correction)

    def read(index: Index) -> Expr:
        n, h, g, w, o = product.place(index)
        if product.depthwise:
            return finish(total(n, h, w, g), index)
        block, lane = tirx.floordiv(o, lanes), tirx.floormod(o, lanes)
        return finish(total(n, h, g, w, block, lane), index)

    sizes = product.n, product.out_height, product.out_width, product.groups
    macs = product.macs
    if product.depthwise:
        zero = const(0, "int32")
        direct = Direct(
            sizes,
            lambda d: total(*d),
            lambda d: product.index((d[0], d[1], d[3], d[2], zero)),
        )
        return Anchor(read, "window", macs, finish, direct)
    if product.channels % lanes:
        return Anchor(read, "blocked", macs, finish, None, lanes, vnni)
    n, h, w, g = sizes
    blocks = product.channels // lanes

    def split(d: Index) -> tuple[Expr, ...]:
        g, w = (d[2], d[3]) if product.groups_first else (d[3], d[2])
        return d[0], d[1], g, w, d[4], d[5]

    def index(d: Index) -> Index:
        n, h, g, w, b, v = split(d)
        return product.index((n, h, g, w, b * lanes + v))

    shape = (n, h, g, w, blocks, lanes) if product.groups_first else (n, h, w, g, blocks, lanes)
    direct = Direct(shape, lambda d: total(*split(d)), index, product.groups_first)
    return Anchor(read, "blocked", macs, finish, direct, lanes, vnni)


def make_finish(
    kernel: Kernel, node: Node, correction: npt.NDArray[np.int32] | None = None
) -> Callable[[Expr, Index], Expr]:
    """What turns a sum into the node's result at a logical index: bias, residual, activation."""
    dtype = storage(node.type.dtype)
    op = node.op
    names = dict(zip(op.operand_names(), node.inputs))
    bias = _bias(kernel, names.get("bias"), correction)
    residual = kernel.value(names["residual"]) if "residual" in names else None
    axis = 1 if isinstance(op, ops.Conv2d) else len(node.type.shape) - 1
    kind, alpha = getattr(op, "activation", "none"), getattr(op, "alpha", 0.0)

    def finish(value: Expr, index: Index) -> Expr:
        if bias is not None:
            value = value + bias((index[axis],))
        if residual is not None:
            value = value + residual(index)
        return activate(kind, value, alpha).astype(dtype)

    return finish


def _bias(
    kernel: Kernel, name: str | None, correction: npt.NDArray[np.int32] | None
) -> Reader | None:
    """Reads the bias; ``correction`` is added to it where the sums were taken off centre."""
    if correction is None:
        return None if name is None else kernel.value(name)
    given = None if name is None else kernel.graph.constants.get(name)
    if name is not None and given is None:
        outer, extra = kernel.value(name), kernel.array(correction, "correction")
        return lambda i: outer(i) + extra(i[0])
    start = np.zeros_like(correction) if given is None else given
    # Wraps like the sums that it corrects; the result is in range.
    table = kernel.array((start.astype(np.int64) + correction).astype(np.int32), "bias")
    return lambda i: table(i[0])


def _depthwise(
    kernel: Kernel, node: Node, product: Product, weights: npt.NDArray[Any] | None
) -> Any:
    dtype = storage(node.type.dtype)
    kh, kw = product.kernel
    zero = const(0, "int32")

    def direct(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        return product.data(n, h, w, c, zero)

    data: Callable[..., Expr] = direct
    if any(product.padding):
        x_dtype = storage(kernel.type(node.inputs[0]).dtype)
        data = padded(_frame(product, product.groups), x_dtype, direct)
    if weights is not None:
        table = kernel.array(weights[:, 0].transpose(1, 2, 0), "weights")
        weight = reader(table, identity(3))
    else:
        value = kernel.value(node.inputs[1])
        weight = lambda at: value((at[2], zero, at[0], at[1]))  # noqa: E731
    i, j = te.reduce_axis((0, kh), "i"), te.reduce_axis((0, kw), "j")
    (sh, sw), (dh, dw) = product.stride, product.dilation
    return te.compute(
        (product.n, product.out_height, product.out_width, product.groups),
        lambda n, h, w, c: te.sum(
            data(n, h * sh + i * dh, w * sw + j * dw, c).astype(dtype)
            * weight((i, j, c)).astype(dtype),
            axis=[i, j],
        ),
        name="total",
    )


def _blocked(
    kernel: Kernel, node: Node, product: Product, weights: npt.NDArray[Any] | None, lanes: int,
    dtype: str,
) -> Any:  # fmt: skip
    kh, kw = product.kernel
    depth, groups = product.depth, product.groups
    blocks = -(-product.channels // lanes)

    def direct(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        g, k = (0, c) if groups == 1 else (tirx.floordiv(c, depth), tirx.floormod(c, depth))
        return product.data(n, h, w, g, k)

    data: Callable[..., Expr] = product.data
    if any(product.padding):
        x_dtype = storage(kernel.type(node.inputs[0]).dtype)
        stage = padded(_frame(product, groups * depth), x_dtype, direct)
        data = lambda n, h, w, g, k: stage(n, h, w, g * depth + k)  # noqa: E731
    packed = _packed(kernel, node, product, weights, lanes, blocks)
    i, j = te.reduce_axis((0, kh), "i"), te.reduce_axis((0, kw), "j")
    k = te.reduce_axis((0, depth), "k")
    (sh, sw), (dh, dw) = product.stride, product.dilation
    return te.compute(
        (product.n, product.out_height, groups, product.out_width, blocks, lanes),
        lambda n, h, g, w, b, v: te.sum(
            data(n, h * sh + i * dh, w * sw + j * dw, g, k).astype(dtype)
            * packed(g, b, i, j, k, v).astype(dtype),
            axis=[i, j, k],
        ),
        name="total",
    )


def _packed(
    kernel: Kernel, node: Node, product: Product, weights: npt.NDArray[Any] | None, lanes: int,
    blocks: int,
) -> Any:  # fmt: skip
    """Weights [g, block, kh, kw, k, lane]: packed now if they are known, else by a stage."""
    groups, depth, channels = product.groups, product.depth, product.channels
    kh, kw = product.kernel
    if weights is not None and node.op.name != "matmul":
        grouped = _as_oikk(weights).reshape(groups, channels, depth, kh, kw)
        wide = np.zeros((groups, blocks * lanes, depth, kh, kw), weights.dtype)
        wide[:, :channels] = grouped
        blocked = wide.reshape(groups, blocks, lanes, depth, kh, kw)
        return kernel.array(blocked.transpose(0, 1, 4, 5, 3, 2), "weights")
    value = kernel.value(node.inputs[1])
    dtype = storage(kernel.type(node.inputs[1]).dtype)

    def read(g: Expr, o: Expr, i: Expr, j: Expr, k: Expr) -> Expr:
        if node.op.name == "conv2d":
            return value((g * channels + o, k, i, j))
        if node.op.name == "linear":
            return value((o, k))
        shape = kernel.type(node.inputs[1]).shape
        return value((*_broadcast(_unravel(g, node.type.shape[:-2]), shape[:-2]), k, o))

    def pack(g: Expr, b: Expr, i: Expr, j: Expr, k: Expr, v: Expr) -> Expr:
        o = b * lanes + v
        if channels % lanes == 0:
            return read(g, o, i, j, k)
        return tirx.if_then_else(o < channels, read(g, o, i, j, k), const(0, dtype))

    return te.compute((groups, blocks, kh, kw, depth, lanes), pack, name="pack")


def _vnni(
    kernel: Kernel, node: Node, product: Product, weights: npt.NDArray[Any], x_type: DType
) -> Anchor:
    """u8 · s8 dot products of four; signed inputs are shifted by 128 and the sums corrected."""
    lanes, quad = 16, 4
    kh, kw = product.kernel
    depth = product.depth
    quads = -(-depth // quad)
    blocks = -(-product.channels // lanes)
    signed = x_type.kind == "signed"
    offset = 128 if signed else 0
    wide = np.zeros((blocks * lanes, quads * quad, kh, kw), np.int8)
    wide[: product.channels, :depth] = weights
    packed = wide.reshape(blocks, lanes, quads, quad, kh, kw).transpose(0, 4, 5, 2, 1, 3)
    table = kernel.array(packed, "weights")

    def byte(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        value = product.data(n, h, w, const(0, "int32"), c)
        if signed:
            value = (value.astype("int32") + const(128, "int32")).astype("uint8")
        if quads * quad == depth:
            return value
        return tirx.if_then_else(c < depth, value, const(offset, "uint8"))

    data: Callable[..., Expr] = byte
    # Read in place, the four bytes of a quad must be neighbours.
    in_place = kernel.innermost(node.inputs[0]) == (1 if node.op.name == "conv2d" else -1)
    if signed or any(product.padding) or quads * quad != depth or not in_place:
        data = padded(_frame(product, quads * quad), "uint8", byte, offset)
    i, j = te.reduce_axis((0, kh), "i"), te.reduce_axis((0, kw), "j")
    k, q = te.reduce_axis((0, quads), "k"), te.reduce_axis((0, quad), "q")
    (sh, sw), (dh, dw) = product.stride, product.dilation
    total = te.compute(
        (product.n, product.out_height, 1, product.out_width, blocks, lanes),
        lambda n, h, g, w, b, v: te.sum(
            data(n, h * sh + i * dh, w * sw + j * dw, k * quad + q).astype("int32")
            * table(b, i, j, k, v, q).astype("int32"),
            axis=[i, j, k, q],
        ),
        name="total",
    )
    correction = None
    if signed:
        sums = weights.astype(np.int64).sum(axis=(1, 2, 3))
        correction = (-offset * sums).astype(np.int32)
    return _finished(kernel, node, product, total, lanes, vnni=True, correction=correction)


