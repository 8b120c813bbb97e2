# SPDX-License-Identifier: Apache-2.0
"""ONNX operators with weights, pools, normalisations and resize."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from codesign.frontend.lowering import Lowering, Pads, Pair, same_padding
from codesign.frontend.onnx_table import Call, Result, handles
from codesign.frontend.report import NotLowerable


def _pair(value: Sequence[int] | None, what: str) -> Pair:
    if value is None:
        return 1, 1
    if len(value) != 2:
        raise NotLowerable(f"{what} {list(value)}; only 2-D windows can be taken")
    return int(value[0]), int(value[1])


def _window(lower: Lowering, c: Call, x: str, kernel: Pair) -> tuple[Pair, Pads, Pair]:
    """Stride, padding, dilation."""
    if len(lower.shape(x)) != 4:
        raise NotLowerable(f"{c.kind} of {lower.type(x)}; only 2-D (N, C, H, W) can be taken")
    stride = _pair(c.attribute("strides"), "strides")
    dilation = _pair(c.attribute("dilations"), "dilations")
    auto = c.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        size = (lower.shape(x)[2], lower.shape(x)[3])
        return stride, same_padding(size, kernel, stride, dilation, auto == "SAME_LOWER"), dilation
    if auto == "VALID":
        return stride, (0, 0, 0, 0), dilation
    if auto != "NOTSET":
        raise NotLowerable(f"auto_pad {auto!r}")
    pads = [int(n) for n in c.attribute("pads", (0, 0, 0, 0))]
    if len(pads) != 4:
        raise NotLowerable(f"pads {pads}; only 2-D windows can be taken")
    return stride, (pads[0], pads[1], pads[2], pads[3]), dilation


@handles("Conv")
def _conv(lower: Lowering, c: Call) -> Result:
    x, w = c.tensor(0), c.tensor(1)
    if len(lower.shape(w)) != 4:
        raise NotLowerable(
            f"convolution with weight {lower.type(w)}; only 2-D convolutions can be taken"
        )
    kernel = (lower.shape(w)[2], lower.shape(w)[3])
    stride, padding, dilation = _window(lower, c, x, kernel)
    group = c.attribute("group", 1)
    return lower.conv2d(x, w, c.optional(2), stride, padding, dilation, group)


@handles("Gemm")
def _gemm(lower: Lowering, c: Call) -> Result:
    if c.attribute("transA", 0):
        raise NotLowerable("Gemm with transA; transpose the operand")
    if c.attribute("alpha", 1.0) != 1.0 or (c.has(2) and c.attribute("beta", 1.0) != 1.0):
        raise NotLowerable("Gemm with alpha or beta other than 1")
    x, w = c.tensor(0), c.tensor(1)
    bias = c.optional(2)
    if not lower.is_weight(w):
        b = lower.transpose(w, (1, 0), "transposed") if c.attribute("transB", 0) else w
        y = lower.matmul(x, b, "" if bias is None else "product")
        return y if bias is None else lower.add(y, bias)
    w = w if c.attribute("transB", 0) else lower.transpose(w, (1, 0), "weight")
    if bias is None:
        return lower.linear(x, w, None)
    outputs = lower.shape(w)[0]
    value = lower.known(bias)
    if lower.shape(bias) == (outputs,):
        return lower.linear(x, w, bias)
    if value is not None and value.size == 1:
        return lower.linear(x, w, lower.constant(np.full(outputs, value.reshape(())), "bias"))
    if value is not None and value.shape == (1, outputs):
        return lower.linear(x, w, lower.reshape(bias, (outputs,)))
    raise NotLowerable(f"Gemm with addend {lower.type(bias)}; [{outputs}] can be taken")


@handles("MatMul")
def _matmul(lower: Lowering, c: Call) -> Result:
    return lower.matmul(c.tensor(0), c.tensor(1))


@handles("BatchNormalization")
def _batch_norm(lower: Lowering, c: Call) -> Result:
    if c.attribute("training_mode", 0):
        raise NotLowerable("batch norm in training mode; export in evaluation mode")
    gamma, beta, mean, var = (c.tensor(i) for i in range(1, 5))
    return lower.batch_norm(c.tensor(0), gamma, beta, mean, var, c.attribute("epsilon", 1e-5))


@handles("LayerNormalization")
def _layer_norm(lower: Lowering, c: Call) -> Result:
    if c.outputs > 1:
        raise NotLowerable("the statistics of LayerNormalization")
    x = c.tensor(0)
    shape = lower.shape(x)[lower.axis(x, c.attribute("axis", -1)) :]
    gamma, beta = c.tensor(1), c.optional(2)
    return lower.layer_norm(x, gamma, beta, shape, c.attribute("epsilon", 1e-5))


@handles("Softmax")
def _softmax(lower: Lowering, c: Call) -> Result:
    return lower.softmax(c.tensor(0), c.attribute("axis", -1))


@handles("MaxPool")
def _max_pool(lower: Lowering, c: Call) -> Result:
    if c.outputs > 1:
        raise NotLowerable("the indices of MaxPool")
    return _pool(lower, c, "max")


@handles("AveragePool")
def _average_pool(lower: Lowering, c: Call) -> Result:
    return _pool(lower, c, "avg")


def _pool(lower: Lowering, c: Call, kind: Literal["max", "avg"]) -> Result:
    x, kernel = c.tensor(0), _pair(c.attribute("kernel_shape"), "kernel_shape")
    stride, padding, dilation = _window(lower, c, x, kernel)
    ceil, count = bool(c.attribute("ceil_mode", 0)), bool(c.attribute("count_include_pad", 0))
    return lower.pool(x, kind, kernel, stride, padding, dilation, ceil, count)


@handles("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(lower: Lowering, c: Call) -> Result:
    x = c.tensor(0)
    kind: Literal["mean", "max"] = "mean" if c.kind == "GlobalAveragePool" else "max"
    return lower.reduce(x, kind, range(2, len(lower.shape(x))), True)


@handles("ReduceMean", "ReduceMax", "ReduceSum")
def _reduce(lower: Lowering, c: Call) -> Result:
    kinds: dict[str, Literal["mean", "max", "sum"]] = {
        "ReduceMean": "mean", "ReduceMax": "max", "ReduceSum": "sum",
    }  # fmt: skip
    x, axes = c.tensor(0), c.axes("axes", 1)
    if not axes and c.attribute("noop_with_empty_axes", 0):
        return x
    return lower.reduce(x, kinds[c.kind], axes or [], bool(c.attribute("keepdims", 1)))


_COORDINATES = {
    "half_pixel": "half_pixel", "asymmetric": "asymmetric", "align_corners": "align_corners",
    # these two differ from half_pixel only where refused below
    "pytorch_half_pixel": "half_pixel", "half_pixel_symmetric": "half_pixel",
}  # fmt: skip


@handles("Resize")
def _resize(lower: Lowering, c: Call) -> Result:
    x = c.tensor(0)
    shape = lower.shape(x)
    if len(shape) != 4:
        raise NotLowerable(f"Resize of {lower.type(x)}; only [N, C, H, W] can be taken")
    kinds: dict[str, Literal["nearest", "bilinear"]] = {"nearest": "nearest", "linear": "bilinear"}
    kind = kinds.get(c.attribute("mode", "nearest"))
    if kind is None:
        raise NotLowerable(f"Resize mode {c.attribute('mode')!r}; nearest and linear can be taken")
    mode = c.attribute("coordinate_transformation_mode", "half_pixel")
    if mode not in _COORDINATES:
        raise NotLowerable(f"Resize coordinates {mode!r}; known: {', '.join(_COORDINATES)}")
    if c.attribute("antialias", 0):
        raise NotLowerable("Resize with antialias")
    if c.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotLowerable("Resize that keeps the aspect ratio; give the sizes")
    size = _resized(c, shape)
    if mode == "pytorch_half_pixel" and any(n == 1 != m for n, m in zip(size, shape[2:])):
        raise NotLowerable("Resize to one pixel with coordinates 'pytorch_half_pixel'")
    rounding = c.attribute("nearest_mode", "round_prefer_floor") if kind == "nearest" else "floor"
    return lower.resize(x, size, kind, _COORDINATES[mode], rounding)


def _resized(c: Call, shape: tuple[int, ...]) -> Pair:
    """Height and width after a Resize; raises NotLowerable unless only those change."""
    axes = [int(a) % 4 for a in c.attribute("axes", (0, 1, 2, 3))]
    after = list(shape)
    if c.has(3):
        for axis, size in zip(axes, c.ints(3)):
            after[axis] = size
    else:
        for axis, factor in zip(axes, c.known(2).reshape(-1)):
            exact = shape[axis] * float(factor)
            after[axis] = math.floor(exact)
            if after[axis] != exact:
                raise NotLowerable(
                    f"Resize of {shape[axis]} by {float(factor):g} gives no whole size; "
                    "export with sizes"
                )
    if tuple(after[:2]) != shape[:2]:
        raise NotLowerable("Resize of batch or channels")
    return after[2], after[3]


@handles("QuantizeLinear")
def _quantize(lower: Lowering, c: Call) -> Result:
    from codesign.frontend.onnx_quantize import quantize

    return quantize(lower, c)


@handles("DequantizeLinear")
def _dequantize(lower: Lowering, c: Call) -> Result:
    from codesign.frontend.onnx_quantize import dequantize

    return dequantize(lower, c)
