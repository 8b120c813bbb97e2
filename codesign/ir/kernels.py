# SPDX-License-Identifier: Apache-2.0
"""Array kernels of the reference interpreter: convolution, pooling, resizing, activations.

They work on any NumPy element type, so that integer graphs run on the fastest type that is
proven exact for their values (``exact_dtype``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.graph import Array
from codesign.ir.ops import Conv2d, Pool2d, Resize, conv_output

_CHUNK = 1 << 24
"""Elements of the unfolded input that one matrix product reads: bounds the memory."""


def abs_max(x: Array) -> int:
    """Greatest magnitude in an integer array (exact, also for the least int64)."""
    return max(-int(x.min()), int(x.max())) if x.size else 0


def exact_dtype(bound: int) -> np.dtype[np.generic]:
    """The fastest type that adds integers exactly while no partial sum exceeds ``bound``.

    Floats hold every integer up to 2^24 (float32) or 2^53 (float64), and their matrix product
    is the fast one; then int64, then Python's integers.
    """
    if bound <= 1 << 24:
        return np.dtype(np.float32)
    if bound <= 1 << 53:
        return np.dtype(np.float64)
    return np.dtype(np.int64) if bound < 1 << 63 else np.dtype(object)


def dot_bound(x: Array, w: Array) -> int:
    """Bound of every partial sum of products of ``x`` with a row of ``w`` (axis 0 of w: rows)."""
    if not w.size:
        return 0
    rows = w.reshape(w.shape[0], -1)
    if w.dtype.itemsize > 4:
        return abs_max(x) * abs_max(w) * rows.shape[1]
    return abs_max(x) * int(np.abs(rows.astype(np.int64)).sum(axis=1).max())


def pad_image(x: Array, padding: tuple[int, int, int, int], value: float = 0) -> Array:
    """Pad H and W of [N, C, H, W] by top, left, bottom, right."""
    top, left, bottom, right = padding
    if not any(padding):
        return x
    n, c, h, w = x.shape
    out = np.full((n, c, top + h + bottom, left + w + right), value, x.dtype)
    out[:, :, top : top + h, left : left + w] = x
    return out


def taps(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Iterator[tuple[int, int, Array]]:
    """For each window position (i, j) the view [N, C, OH, OW] of what it reads of padded x."""
    (sh, sw), (dh, dw) = stride, dilation
    out_h = conv_output(x.shape[2], kernel[0], sh, 0, 0, dh)
    out_w = conv_output(x.shape[3], kernel[1], sw, 0, 0, dw)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dh, i * dh + (out_h - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (out_w - 1) * sw + 1, sw)
            yield i, j, x[:, :, rows, columns]


def conv2d(x: Array, w: Array, op: Conv2d) -> Array:
    """Convolution of x [N, C, H, W] with w [O, C/groups, KH, KW], no bias; both of one type."""
    x = pad_image(x, op.padding)
    n, channels = x.shape[:2]
    outputs, per_group, kh, kw = w.shape
    out_h = conv_output(x.shape[2], kh, op.stride[0], 0, 0, op.dilation[0])
    out_w = conv_output(x.shape[3], kw, op.stride[1], 0, 0, op.dilation[1])
    result = np.empty((n, outputs, out_h, out_w), x.dtype)
    if per_group == 1 and op.groups > 1:
        _depthwise(x, w, op, result)
        return result
    depth = per_group * kh * kw
    weights = w.reshape(op.groups, outputs // op.groups, depth)
    step = max(1, _CHUNK // max(1, channels * kh * kw * out_h * out_w))
    for start in range(0, n, step):
        part = x[start : start + step]
        if (kh, kw) == (1, 1) and op.stride == (1, 1):
            columns = part
        else:
            columns = np.empty((len(part), channels, kh, kw, out_h, out_w), x.dtype)
            for i, j, view in taps(part, (kh, kw), op.stride, op.dilation):
                columns[:, :, i, j] = view
        columns = columns.reshape(len(part), op.groups, depth, out_h * out_w)
        product = np.matmul(weights, columns)
        result[start : start + step] = product.reshape(len(part), outputs, out_h, out_w)
    return result


def _depthwise(x: Array, w: Array, op: Conv2d, result: Array) -> None:
    n, channels = x.shape[:2]
    outputs, _, kh, kw = w.shape
    many = outputs // channels
    for image in range(n):
        total = result[image : image + 1].reshape(1, channels, many, *result.shape[2:])
        first = True
        for i, j, view in taps(x[image : image + 1], (kh, kw), op.stride, op.dilation):
            weight = w[:, 0, i, j].reshape(1, channels, many, 1, 1)
            if first:
                np.multiply(view[:, :, None], weight, out=total)
            else:
                total += view[:, :, None] * weight
            first = False


def pool2d(x: Array, op: Pool2d, lowest: float) -> Array:
    """Pooling; ``lowest`` stands for minus infinity in max pooling. Sums keep x's type."""
    padded = pad_image(x, op.padding, lowest if op.kind == "max" else 0)
    total: Array | None = None
    for _, _, view in taps(padded, op.kernel, op.stride, op.dilation):
        if total is None:
            total = view.copy()
        elif op.kind == "max":
            np.maximum(total, view, out=total)
        else:
            total += view
    assert total is not None  # the window is not empty (Pool2d.infer)
    if op.kind != "avg":
        return total
    if op.count_include_pad or not any(op.padding):
        return np.asarray(total / x.dtype.type(math.prod(op.kernel)))
    ones = pad_image(np.ones((1, 1, *x.shape[2:]), x.dtype), op.padding)
    count = sum(view for _, _, view in taps(ones, op.kernel, op.stride, op.dilation))
    return np.asarray(total / np.maximum(np.asarray(count), x.dtype.type(1)))


def _positions(op: Resize, size: int, out: int) -> tuple[list[int], int]:
    """Input positions of the output positions, as exact fractions with one denominator."""
    if op.coordinates == "half_pixel":
        return [(2 * i + 1) * size - out for i in range(out)], 2 * out
    if op.coordinates == "asymmetric" or out == 1:
        return [i * size for i in range(out)], out
    return [i * (size - 1) for i in range(out)], out - 1


def nearest_index(op: Resize, size: int, out: int) -> npt.NDArray[np.int64]:
    """Index that each of ``out`` positions reads of an axis of ``size``, in exact arithmetic."""
    places, unit = _positions(op, size, out)
    place = np.array(places, np.int64)
    index = {
        "floor": place // unit,
        "ceil": -(-place // unit),
        "round_prefer_floor": -((unit - 2 * place) // (2 * unit)),
        "round_prefer_ceil": (2 * place + unit) // (2 * unit),
    }[op.rounding]
    return np.clip(index, 0, size - 1)


def resize(x: Array, op: Resize) -> Array:
    """Nearest or bilinear resize of [N, C, H, W]."""
    if op.kind == "nearest":
        rows = nearest_index(op, x.shape[2], op.size[0])
        columns = nearest_index(op, x.shape[3], op.size[1])
        return x[:, :, rows[:, None], columns]
    for axis, out in ((2, op.size[0]), (3, op.size[1])):
        size = x.shape[axis]
        places, unit = _positions(op, size, out)
        place = np.clip(np.array(places, np.float64) / unit, 0, size - 1)
        low = np.floor(place).astype(np.int64)
        shape = [1] * 4
        shape[axis] = out
        share = (place - low).astype(x.dtype).reshape(shape)
        high = np.minimum(low + 1, size - 1)
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


def _erf(x: Array) -> Array:
    from scipy.special import erf  # type: ignore[import-untyped]

    return np.asarray(erf(x), x.dtype)


def activation(kind: str, x: Array, alpha: float = 0.0) -> Array:
    """An activation of a float array, in its type; ``alpha`` is the slope of leaky_relu."""
    return np.asarray(_activation(kind, x, alpha))


def _activation(kind: str, x: Array, alpha: float) -> Any:
    one = x.dtype.type
    match kind:
        case "none":
            return x
        case "relu":
            return np.maximum(x, one(0))
        case "relu6":
            return np.clip(x, one(0), one(6))
        case "leaky_relu":
            return np.where(x >= 0, x, x * one(alpha))
        case "hardsigmoid":
            return np.clip(x + one(3), one(0), one(6)) / one(6)
        case "hardswish":
            return x * (np.clip(x + one(3), one(0), one(6)) / one(6))
        case "sigmoid":
            return _sigmoid(x)
        case "silu":
            return x * _sigmoid(x)
        case "tanh":
            return np.tanh(x)
        case "gelu":
            return x * (one(0.5) * (one(1) + _erf(x * one(math.sqrt(0.5)))))
        case "gelu_tanh":
            inner = one(math.sqrt(2 / math.pi)) * (x + one(0.044715) * x * x * x)
            return one(0.5) * x * (one(1) + np.tanh(inner))
    raise ValueError(f"unknown activation {kind!r}")


def _sigmoid(x: Array) -> Array:
    one = x.dtype.type(1)
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        return np.asarray(one / (one + np.exp(-x)))


def softmax(x: Array, axis: int) -> Array:
    """Softmax along ``axis``, shifted so that it cannot overflow."""
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """Normalise over the trailing axes that gamma covers.

    In double precision: the rounding error of a mean may be all that is left of a row of equal
    values, and is divided by the square root of eps there.
    """
    axes = tuple(range(x.ndim - gamma.ndim, x.ndim))
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    normal = centred / np.sqrt(variance + eps) * gamma + beta
    return np.asarray(normal.astype(x.dtype))
