# SPDX-License-Identifier: Apache-2.0
"""Element-wise operators as TVM expressions; the integer ones bit for bit (DESIGN, section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from tvm import tirx

from codesign.ir import ops
from codesign.ir.graph import Node
from codesign.ir.types import DType
from codesign.targets.tvm_lower.kernel import (
    Expr,
    Index,
    Kernel,
    Reader,
    clamp,
    const,
    storage,
    type_of,
)


def group_reader(kernel: Kernel, name: str, inner: dict[str, Reader]) -> Reader:
    """Reads ``name``: through ``inner`` if the kernel computes it, else from memory."""
    return inner[name] if name in inner else kernel.value(name)


def make_elementwise(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
    """The reader of an element-wise node's result; its operands are evaluated in place."""
    return _MAKERS[node.op.name](kernel, node, inner)


def broadcast_index(index: Index, shape: Sequence[int]) -> Index:
    """Index of an operand of ``shape`` for the result's ``index`` (NumPy's rule)."""
    tail = index[len(index) - len(shape) :]
    return tuple(const(0, "int32") if n == 1 else i for i, n in zip(tail, shape))


def _binary(combine: Callable[[Expr, Expr], Expr]) -> Callable[..., Reader]:
    def make(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
        dtype = storage(node.type.dtype)
        reads = [group_reader(kernel, name, inner) for name in node.inputs]
        shapes = [kernel.type(name).shape for name in node.inputs]

        def read(index: Index) -> Expr:
            a, b = (r(broadcast_index(index, s)).astype(dtype) for r, s in zip(reads, shapes))
            return combine(a, b)

        return read

    return make


def _activation(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
    op = node.op
    assert isinstance(op, ops.Activation)
    x = group_reader(kernel, node.inputs[0], inner)
    return lambda index: activate(op.kind, x(index), op.alpha)


def activate(kind: str, x: Expr, alpha: float = 0.0) -> Expr:
    """The activation ``kind`` of ``x``, in the type of ``x``."""
    dtype = type_of(x)
    zero = const(0, dtype)
    if kind == "none":
        return x
    if kind == "relu":
        return tirx.Max(x, zero)
    if kind == "relu6":
        return clamp(x, 0, 6)
    if kind == "leaky_relu":
        return tirx.Select(x >= zero, x, x * const(alpha, dtype))
    one, half = const(1, dtype), const(0.5, dtype)
    if kind == "hardsigmoid":
        return clamp(x + const(3, dtype), 0, 6) / const(6, dtype)
    if kind == "hardswish":
        return x * (clamp(x + const(3, dtype), 0, 6) / const(6, dtype))
    if kind == "sigmoid":
        return one / (one + tirx.exp(zero - x))
    if kind == "silu":
        return x / (one + tirx.exp(zero - x))
    if kind == "tanh":
        return tirx.tanh(x)
    if kind == "gelu":
        return half * x * (one + tirx.erf(x * const(math.sqrt(0.5), dtype)))
    if kind == "gelu_tanh":
        inside = const(math.sqrt(2 / math.pi), dtype) * (x + const(0.044715, dtype) * x * x * x)
        return half * x * (one + tirx.tanh(inside))
    raise NotImplementedError(f"activation {kind!r}")


def _batch_norm(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
    op = node.op
    assert isinstance(op, ops.BatchNorm)
    x = group_reader(kernel, node.inputs[0], inner)
    gamma, beta, mean, var = (kernel.value(name) for name in node.inputs[1:])

    def read(index: Index) -> Expr:
        c = (index[1],)
        value = x(index)
        deviation = tirx.sqrt(var(c) + const(op.eps, type_of(value)))
        return (value - mean(c)) / deviation * gamma(c) + beta(c)

    return read


def _requantize(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
    op = node.op
    assert isinstance(op, ops.Requantize)
    x = group_reader(kernel, node.inputs[0], inner)
    m, e = (kernel.value(name) for name in node.inputs[1:])
    scale = _scaling(kernel, node)

    def read(index: Index) -> Expr:
        at = (index[op.axis],) if op.axis >= 0 else ()
        scaled = scale(x(index), m(at), e(at))
        return clamp(scaled, op.lo, op.hi).astype(storage(op.dtype))

    return read


def _scaling(kernel: Kernel, node: Node) -> Callable[[Expr, Expr, Expr], Expr]:
    """(x · m + 2^(e-1)) >> e in the narrowest arithmetic that the constants prove exact.

    Vector units have no 64-bit arithmetic shift and are slow at 64-bit products. Where e lies
    between 16 and 32 the result fits 32 bits (x does, and m < 2^16), so that it is the low half
    of a logical shift; small x need no more than 32 bits at all.
    """
    shifts = kernel.graph.constants.get(node.inputs[2])
    multipliers = kernel.graph.constants.get(node.inputs[1])
    dtype = kernel.type(node.inputs[0]).dtype
    if shifts is not None and multipliers is not None and shifts.size:
        least, most = int(shifts.min()), int(shifts.max())
        limit = max(-dtype.min, dtype.max) * int(np.abs(multipliers).max(initial=0))
        if least >= 1 and most <= 30 and limit + 2 ** (most - 1) < 2**31:
            return _scale_32
        if least >= 16 and most <= 32 and dtype.bits <= 32 and limit < 2**47:
            return _scale_low
    return _scale_64


def _scale_32(x: Expr, m: Expr, e: Expr) -> Expr:
    half = const(1, "int32") << (e.astype("int32") - const(1, "int32"))
    return (x.astype("int32") * m.astype("int32") + half) >> e.astype("int32")


def _scale_low(x: Expr, m: Expr, e: Expr) -> Expr:
    shift = e.astype("int64")
    half = const(1, "int64") << (shift - const(1, "int64"))
    product = x.astype("int64") * m.astype("int64") + half
    # Reinterpreted: of a cast from unsigned the compiler would conclude that it is not negative.
    low = (tirx.reinterpret("uint64", product) >> shift.astype("uint64")).astype("uint32")
    return tirx.reinterpret("int32", low)


def _scale_64(x: Expr, m: Expr, e: Expr) -> Expr:
    shift = e.astype("int64")
    half = const(1, "int64") << (shift - const(1, "int64"))
    return (x.astype("int64") * m.astype("int64") + half) >> shift


def _clip(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
    op = node.op
    assert isinstance(op, ops.Clip)
    x = group_reader(kernel, node.inputs[0], inner)
    wide = _common(kernel.type(node.inputs[0]).dtype, op.dtype)
    return lambda index: clamp(x(index).astype(wide), op.lo, op.hi).astype(storage(op.dtype))


def _common(a: DType, b: DType) -> str:
    """A type that holds every value of both, so that a bound never wraps."""
    widest = max(a.bits, b.bits)
    return "int32" if widest < 32 or str(a) == str(b) == "s32" else "int64"


def _lookup(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
    x = group_reader(kernel, node.inputs[0], inner)
    table = kernel.value(node.inputs[1])
    least = const(kernel.type(node.inputs[0]).dtype.min, "int32")
    return lambda index: table((x(index).astype("int32") - least,))


def _zero_point(kernel: Kernel, node: Node, values: tuple[int, ...]) -> Reader:
    if len(set(values)) == 1:
        return lambda index: const(values[0], "int64")
    table = kernel.array(np.asarray(values, np.int64), f"{node.name}_zero_point")
    return lambda index: table(index[0])


def _quantize(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
    op = node.op
    assert isinstance(op, ops.Quantize)
    x = group_reader(kernel, node.inputs[0], inner)
    scale = kernel.scale(node.inputs[1])
    zero = _zero_point(kernel, node, op.zero_point)

    def read(index: Index) -> Expr:
        at = (index[op.axis],) if op.axis >= 0 else ()
        # A division and an addition in float32, as written: there is no product that could be
        # contracted with the addition. Clipping happens where its bounds are exact.
        rounded = tirx.floor(x(index).astype("float32") / scale(at) + const(0.5, "float32"))
        shifted = rounded.astype("float64") + zero(at).astype("float64")
        return clamp(shifted, op.dtype.min, op.dtype.max).astype(storage(op.dtype))

    return read


def _dequantize(kernel: Kernel, node: Node, inner: dict[str, Reader]) -> Reader:
    op = node.op
    assert isinstance(op, ops.Dequantize)
    x = group_reader(kernel, node.inputs[0], inner)
    zero = _zero_point(kernel, node, op.zero_point)
    narrow = kernel.type(node.inputs[0]).dtype.bits <= 24 and not any(op.zero_point)
    multiply = _times_scale(kernel, node, narrow)

    def read(index: Index) -> Expr:
        at = (index[op.axis],) if op.axis >= 0 else ()
        value = x(index)
        return multiply(value if narrow else value.astype("int64") - zero(at), at)

    return read


def _times_scale(kernel: Kernel, node: Node, narrow: bool) -> Callable[[Expr, Index], Expr]:
    """The product of an integer and a scale in float32 with one rounding.

    float32 holds 24 bits exactly. A wider integer is multiplied by the integer mantissa of the
    scale (33 + 24 bits fit int64), rounded once, and scaled by a power of two in float64.
    """
    scales = kernel.graph.constants.get(node.inputs[1])
    if narrow or scales is None:
        scale = kernel.scale(node.inputs[1])
        wide = "float32" if narrow else "float64"

        def plain(value: Expr, at: Index) -> Expr:
            return (value.astype(wide) * scale(at).astype(wide)).astype("float32")

        return plain
    fraction, exponent = np.frexp(np.atleast_1d(scales).astype(np.float64))
    mantissa = kernel.array((fraction * 2.0**24).astype(np.int64), f"{node.name}_mantissa")
    power = kernel.array(np.ldexp(1.0, exponent - 24), f"{node.name}_power")

    def exact(value: Expr, at: Index) -> Expr:
        i = at[0] if at else 0
        rounded = (value * mantissa(i)).astype("float32")
        return (rounded.astype("float64") * power(i)).astype("float32")

    return exact


_MAKERS: dict[str, Callable[[Kernel, Node, dict[str, Reader]], Reader]] = {
    "add": _binary(lambda a, b: a + b),
    "mul": _binary(lambda a, b: a * b),
    "activation": _activation,
    "batch_norm": _batch_norm,
    "requantize": _requantize,
    "clip": _clip,
    "lookup": _lookup,
    "quantize": _quantize,
    "dequantize": _dequantize,
}
