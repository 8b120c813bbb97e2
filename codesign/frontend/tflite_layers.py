# SPDX-License-Identifier: Apache-2.0
"""TFLite operators with weights, pooling, reductions and arithmetic."""

from __future__ import annotations

from typing import Literal

import numpy as np

from codesign.frontend.lowering import Pads, Pair, same_padding
from codesign.frontend.report import NotLowerable
from codesign.frontend.tflite_table import (
    IMAGE_AXIS,
    Call,
    Image,
    Known,
    Plain,
    Result,
    handler,
)  # fmt: skip
from codesign.frontend.tflite_values import TO_PLAIN, is_quantized, reshape
from codesign.ir import ops
from codesign.ir.graph import Array


@handler("CONV_2D")
def _conv(c: Call) -> Result:
    """Kernel [O, KH, KW, I]; fewer input channels than the image has: groups."""
    o = c.options
    kernel, channels = _kernel(c), c.shape(0)[-1] if c.shape(0) else 0
    if channels % kernel[3]:
        raise NotLowerable(f"kernel {list(kernel)} for {channels} channels")
    fused, dilation = o.byte(3), (o.integer(5, 1), o.integer(4, 1))
    return _convolve(c, (0, 3, 1, 2), kernel[1:3], dilation, channels // kernel[3], fused)


@handler("DEPTHWISE_CONV_2D")
def _depthwise(c: Call) -> Result:
    """Kernel [1, KH, KW, channels * multiplier]."""
    o = c.options
    kernel, channels = _kernel(c), c.shape(0)[-1] if c.shape(0) else 0
    if kernel[0] != 1 or not channels or kernel[3] % channels:
        raise NotLowerable(f"depthwise kernel {list(kernel)} for {channels} channels")
    fused, dilation = o.byte(4), (o.integer(6, 1), o.integer(5, 1))
    return _convolve(c, (3, 0, 1, 2), kernel[1:3], dilation, channels, fused)


def _kernel(c: Call) -> tuple[int, ...]:
    shape = c.shape(1)
    if len(shape) != 4 or min(shape) < 1:
        raise NotLowerable(f"kernel of shape {list(shape)}; expected 4 axes, none of them empty")
    return shape


def _convolve(
    c: Call, perm: tuple[int, ...], kernel: tuple[int, ...], dilation: Pair, groups: int, fused: int
) -> Result:
    x, o = c.image(0), c.options
    stride = (o.integer(2), o.integer(1))
    pads = _padding(c, x, (kernel[0], kernel[1]), stride, dilation)
    w = c.values.weight(c.index(1), perm)
    y = c.lower.conv2d(x, w, _bias(c), stride, pads, dilation, groups)
    return Image(c.fused(y, fused))


def _padding(c: Call, x: str, kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    """SAME (0) or VALID (1); field 0 in all options that have it."""
    if min(*stride, *kernel, *dilation) < 1:
        raise NotLowerable(f"window {kernel} with stride {stride} and dilation {dilation}")
    code = c.options.byte(0)
    if code not in (0, 1):
        raise NotLowerable(f"padding with code {code}; SAME (0) and VALID (1) are known")
    if code == 1:
        return (0, 0, 0, 0)
    height, width = c.lower.shape(x)[2:]
    return same_padding((height, width), kernel, stride, dilation, lower=False)


def _bias(c: Call) -> str | None:
    if not c.has(2):
        return None
    index, tensor, value = c.index(2), c.tensor(2), c.known(2)
    # biases of 64 bits (16-bit activations) have no number format here: real numbers
    if value is not None and is_quantized(tensor) and tensor.dtype.itemsize <= 4:
        return c.values.dequantized(index, value.reshape(-1), (0,), "bias")
    return reshape(c.lower, c.values.plain(index, "bias"), (-1,))


@handler("FULLY_CONNECTED")
def _fully_connected(c: Call) -> Result:
    """x [..., I] by weight [O, I]; unless the axes are kept, x becomes rows of I."""
    o, lower = c.options, c.lower
    if o.byte(1):
        raise NotLowerable("shuffled weights; convert with the default weight format")
    shape, x = c.shape(1), c.plain(0)
    if len(shape) != 2 or min(shape) < 1:
        raise NotLowerable(f"weight of shape {list(shape)}; expected [outputs, inputs]")
    if not o.byte(2) and lower.shape(x)[1:] != shape[1:]:
        x = reshape(lower, x, (-1, shape[1]))
    if c.known(1) is None:
        if c.has(2):
            raise NotLowerable("a computed weight with bias; only constant weights can have one")
        w = lower.transpose(c.plain(1), (1, 0), "weight")
        return Plain(c.fused(lower.matmul(x, w), o.byte(0)))
    x, array = _unflatten(c, x)
    w = c.values.weight(c.index(1), (0, 1), array)
    return Plain(c.fused(lower.linear(x, w, _bias(c)), o.byte(0)))


def _unflatten(c: Call, x: str) -> tuple[str, Array | None]:
    """Rows of an image in the order H, W, C: take C, H, W and reorder the weight instead."""
    lower = c.lower
    node, value, tensor = lower.builder.node(x), c.known(1), c.tensor(1)
    if not isinstance(node.op, ops.Reshape) or value is None:
        return x, None
    before = lower.builder.node(node.inputs[0])
    if not isinstance(before.op, ops.Transpose) or before.op.perm != TO_PLAIN:
        return x, None
    n, h, w, channels = before.type.shape
    if node.type.shape != (n, h * w * channels) or (tensor.scales.size > 1 and tensor.axis):
        return x, None
    rows = value.reshape(-1, h, w, channels).transpose(0, 3, 1, 2)
    flat = reshape(lower, before.inputs[0], (n, -1))
    return flat, rows.reshape(len(rows), -1)


@handler("BATCH_MATMUL")
def _batch_matmul(c: Call) -> Result:
    operands = []
    for position in (0, 1):
        x = c.plain(position)
        rank = len(c.lower.shape(x))
        if c.options.byte(position):
            if rank < 2:
                raise NotLowerable(f"product of {c.lower.type(x)}")
            x = c.lower.transpose(x, (*range(rank - 2), rank - 1, rank - 2), "transposed")
        operands.append(x)
    return Plain(c.lower.matmul(*operands))


@handler("MAX_POOL_2D", moves=True)
def _max_pool(c: Call) -> Result:
    return _pool(c, "max")


@handler("AVERAGE_POOL_2D")
def _average_pool(c: Call) -> Result:
    """Padding does not count."""
    return _pool(c, "avg")


def _pool(c: Call, kind: Literal["max", "avg"]) -> Result:
    o, x = c.options, c.image(0)
    stride, kernel = (o.integer(2), o.integer(1)), (o.integer(4), o.integer(3))
    pads = _padding(c, x, kernel, stride, (1, 1))
    y = c.lower.pool(x, kind, kernel, stride, pads, count_pad=False)
    return Image(c.fused(y, o.byte(5)))


@handler("MEAN", "SUM", "REDUCE_MAX")
def _reduce(c: Call) -> Result:
    kinds: dict[str, Literal["mean", "sum", "max"]] = {
        "MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "max",
    }  # fmt: skip
    kind, keep, rank = kinds[c.operator.kind], bool(c.options.byte(0)), len(c.shape(0))
    axes = sorted({c.axis(axis, rank) for axis in c.ints(1)})
    if not axes:
        return c.either(0)
    rest = [IMAGE_AXIS[axis] for axis in range(4) if axis not in axes]
    if c.is_image(0) and (keep or rest == sorted(rest)):
        y = c.lower.reduce(c.image(0), kind, [IMAGE_AXIS[axis] for axis in axes], keep)
        return Image(y) if keep else Plain(y)
    return Plain(c.lower.reduce(c.plain(0), kind, axes, keep))


@handler("ADD", "SUB", "MUL", "DIV")
def _arithmetic(c: Call) -> Result:
    lower, kind = c.lower, c.operator.kind
    do = {"ADD": lower.add, "SUB": lower.sub, "MUL": lower.mul, "DIV": lower.div}[kind]
    image = c.is_image(0) or c.is_image(1)
    take = c.values.image if image else c.values.plain
    y = c.fused(do(take(c.index(0), "a"), take(c.index(1), "b")), c.options.byte(0))
    return Image(y) if image else Plain(y)


def _elementwise(x: Image | Plain, y: str) -> Result:
    """``y`` computed from ``x`` one by one: in the same form."""
    return Image(y) if isinstance(x, Image) else Plain(y)


@handler("RELU", "RELU6", "LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU", "GELU")
def _activation(c: Call) -> Result:
    kinds: dict[str, ops.ActivationKind] = {
        "RELU": "relu", "RELU6": "relu6", "LOGISTIC": "sigmoid", "TANH": "tanh",
        "HARD_SWISH": "hardswish", "LEAKY_RELU": "leaky_relu",
        "GELU": "gelu_tanh" if c.operator.kind == "GELU" and c.options.byte(0) else "gelu",
    }  # fmt: skip
    x = c.either(0)
    alpha = c.options.real(0) if c.operator.kind == "LEAKY_RELU" else 0.0
    if not np.isfinite(alpha):
        raise NotLowerable(f"slope {alpha}")
    return _elementwise(x, c.lower.activation(x.value, kinds[c.operator.kind], alpha))


@handler("RELU_N1_TO_1", "RELU_0_TO_1", "MAXIMUM", "MINIMUM")
def _clamp(c: Call) -> Result:
    """Limits; those of MAXIMUM and MINIMUM must be one constant number."""
    low: float | None = None
    high: float | None = None
    if c.operator.kind.startswith("RELU"):
        low, high, position = (-1.0 if "N1" in c.operator.kind else 0.0), 1.0, 0
    else:
        position = 1 if c.known(0) is not None else 0
        limit = c.values.real(c.index(1 - position))
        if limit is None or limit.size != 1 or not np.isfinite(limit).all():
            raise NotLowerable("it can be taken with one constant number only")
        low, high = (
            (float(limit.item()), None) if c.operator.kind == "MAXIMUM"
            else (None, float(limit.item()))
        )  # fmt: skip
    x = c.either(position)
    return _elementwise(x, c.lower.clamp(x.value, low, high))


@handler("SOFTMAX")
def _softmax(c: Call) -> Result:
    """Over the channels, of x times beta."""
    x, beta = c.either(0), c.options.real(0)
    value = x.value
    if not np.isfinite(beta):
        raise NotLowerable(f"beta {beta}")
    if beta != 1:
        value = c.lower.mul(value, c.lower.scalar(beta, "beta"), "scaled")
    return _elementwise(x, c.lower.softmax(value, 1 if isinstance(x, Image) else -1))


@handler("QUANTIZE")
def _quantize(c: Call) -> Result:
    """The result's scale does it."""
    return c.either(0)


@handler("DEQUANTIZE")
def _dequantize(c: Call) -> Result:
    """Values stand for real numbers already; half-precision constants become float32."""
    value = c.values.real(c.index(0))
    return c.either(0) if value is None else Known(value)
