# SPDX-License-Identifier: Apache-2.0
"""Small TFLite networks, one operator or pattern each, with what torch says of them.

Arrays have the file's order of axes (images: N, H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from codesign.ir.graph import Array
from tests.frontend.tflite_writer import Net

Case = tuple[Net, Array, list[Array]]
CASES: dict[str, Callable[[], Case]] = {}
SAME, VALID = 0, 1
RELU, RELU_N1_TO_1, RELU6 = 1, 2, 3


def case(function: Callable[[], Case]) -> Callable[[], Case]:
    CASES[function.__name__] = function
    return function


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def nchw(x: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def nhwc(x: torch.Tensor) -> Array:
    return np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))


def conv_net(
    x: Array, w: Array, b: Array, stride: int, padding: int, dilation: int, act: int, out: Array
) -> Net:
    net = Net()
    options = [padding, stride, stride, act, dilation, dilation]
    net.op("CONV_2D", [net.input(x.shape), net.const(w), net.const(b)], out.shape, options)
    return net


@case
def conv_same_stride_two() -> Case:
    """On an odd and an even size: padding 1, 1 in height and 0, 1 in width."""
    x, w, b = normal(2, 7, 8, 3), normal(5, 3, 3, 3), normal(5)
    padded = F.pad(nchw(x), (0, 1, 1, 1))
    y = nhwc(F.relu(F.conv2d(padded, nchw(w), torch.from_numpy(b), 2)))
    return conv_net(x, w, b, 2, SAME, 1, RELU, y), x, [y]


@case
def conv_valid_dilated() -> Case:
    x, w, b = normal(1, 9, 9, 2), normal(4, 3, 3, 2), normal(4)
    y = nhwc(F.relu6(3 * F.conv2d(nchw(x), nchw(w), torch.from_numpy(b), 1, 0, 2)))
    return conv_net(x, 3 * w, 3 * b, 1, VALID, 2, RELU6, y), x, [y]


@case
def conv_same_dilated() -> Case:
    x, w, b = normal(1, 9, 6, 2), normal(4, 3, 3, 2), normal(4)
    y = nhwc(F.conv2d(nchw(x), nchw(w), torch.from_numpy(b), 1, 2, 2))
    return conv_net(x, w, b, 1, SAME, 2, 0, y), x, [y]


@case
def conv_grouped() -> Case:
    x, w, b = normal(1, 5, 5, 6), normal(4, 3, 3, 3), normal(4)
    y = nhwc(F.conv2d(nchw(x), nchw(w), torch.from_numpy(b), 1, 1, 1, 2).clamp(-1, 1))
    return conv_net(x, w, b, 1, SAME, 1, RELU_N1_TO_1, y), x, [y]


@case
def depthwise_with_multiplier() -> Case:
    x, w = normal(1, 6, 6, 3), normal(1, 3, 3, 6)
    weight = torch.from_numpy(w.transpose(3, 0, 1, 2).copy())
    y = nhwc(F.conv2d(nchw(x), weight, None, 1, 1, 1, 3))
    net = Net()
    options = [SAME, 1, 1, 2, 0, 1, 1]
    bias = net.const(np.zeros(6, np.float32))
    net.op("DEPTHWISE_CONV_2D", [net.input(x.shape), net.const(w), bias], y.shape, options)
    return net, x, [y]


@case
def flatten_and_fully_connected() -> Case:
    """The rows have the order H, W, C."""
    x, w, b = normal(2, 3, 4, 5), normal(7, 60), normal(7)
    y = np.maximum(x.reshape(2, 60) @ w.T + b, 0)
    net = Net()
    flat = net.op("RESHAPE", [net.input(x.shape), net.ints(2, 60)], (2, 60), [(2, 60)])
    net.op("FULLY_CONNECTED", [flat, net.const(w), net.const(b)], (2, 7), [RELU, 0, 0, 0])
    return net, x, [y]


@case
def fully_connected_without_bias_keeps_axes() -> Case:
    x, w = normal(2, 3, 5), normal(4, 5)
    net = Net()
    net.op("FULLY_CONNECTED", [net.input(x.shape), net.const(w), -1], (2, 3, 4), [0, 0, 1, 0])
    return net, x, [x @ w.T]


@case
def half_precision_weights() -> Case:
    x, w = normal(2, 5), normal(4, 5).astype(np.float16)
    net = Net()
    x_, half = net.input(x.shape), net.const(w)
    real = net.op("DEQUANTIZE", [half], w.shape)
    net.op("FULLY_CONNECTED", [x_, real, -1], (2, 4), [0, 0, 0, 0])
    return net, x, [x @ w.astype(np.float32).T]


@case
def max_pool_same() -> Case:
    x = normal(1, 7, 6, 3)
    y = nhwc(F.max_pool2d(F.pad(nchw(x), (0, 1, 1, 1), value=-9e9), 3, 2))
    net = Net()
    net.op("MAX_POOL_2D", [net.input(x.shape)], y.shape, [SAME, 2, 2, 3, 3, 0])
    return net, x, [y]


@case
def average_pool_same() -> Case:
    """Padding does not count."""
    x = normal(1, 7, 7, 3)
    y = nhwc(F.avg_pool2d(nchw(x), 3, 2, 1, count_include_pad=False))
    net = Net()
    net.op("AVERAGE_POOL_2D", [net.input(x.shape)], y.shape, [SAME, 2, 2, 3, 3, 0])
    return net, x, [y]


@case
def average_pool_valid_window() -> Case:
    x = normal(1, 6, 8, 3)
    y = nhwc(F.relu(F.avg_pool2d(nchw(x), (2, 4), (1, 2))))
    net = Net()
    net.op("AVERAGE_POOL_2D", [net.input(x.shape)], y.shape, [VALID, 2, 1, 4, 2, RELU])
    return net, x, [y]


def _reduced(kind: str, axes: tuple[int, ...], keep: bool) -> Case:
    x = normal(2, 4, 5, 3)
    if kind == "MEAN":
        y = x.mean(axes, keepdims=keep)
    else:
        y = x.sum(axes, keepdims=keep) if kind == "SUM" else x.max(axes, keepdims=keep)
    net = Net()
    net.op(kind, [net.input(x.shape), net.ints(*axes)], y.shape, [int(keep)])
    return net, x, [y]


@case
def mean_global() -> Case:
    return _reduced("MEAN", (1, 2), False)


@case
def mean_keeps_axes() -> Case:
    return _reduced("MEAN", (-2, 1), True)


@case
def sum_of_rows() -> Case:
    """What is left, [N, W, C], is no image."""
    return _reduced("SUM", (1,), False)


@case
def max_of_channels() -> Case:
    return _reduced("REDUCE_MAX", (3,), False)


@case
def arithmetic_with_constants() -> Case:
    """A vector of channels, one of rows, a scalar, one that comes first."""
    x, c, r = normal(1, 4, 5, 3), normal(3), normal(4, 1, 1, seed=3)
    y = (2.0 - (x * c + r)) / 4.0
    net = Net()
    t = net.op("MUL", [net.input(x.shape), net.const(c)], x.shape, [0])
    t = net.op("ADD", [t, net.const(r)], x.shape, [0])
    t = net.op("SUB", [net.const(np.float32(2.0)), t], x.shape, [0])
    net.op("DIV", [t, net.const(np.float32(4.0))], x.shape, [0])
    return net, x, [y]


@case
def squeeze_and_excite() -> Case:
    """Mean, reshape of [N, C] to [N, 1, 1, C], sigmoid, product with the image."""
    x = normal(1, 4, 5, 3)
    net = Net()
    x_ = net.input(x.shape)
    t = net.op("MEAN", [x_, net.ints(1, 2)], (1, 3), [0])
    t = net.op("RESHAPE", [t, net.ints(-1, 1, 1, 3)], (1, 1, 1, 3), [(1, 1, 1, 3)])
    t = net.op("LOGISTIC", [t], (1, 1, 1, 3))
    net.op("MUL", [x_, t], x.shape, [0])
    mean = x.mean((1, 2), keepdims=True)
    return net, x, [x / (1 + np.exp(-mean))]


Function = Callable[[torch.Tensor], torch.Tensor]


def _unary(kind: str, function: Function, *options: float) -> Case:
    x = 4 * normal(1, 3, 4, 5)
    net = Net()
    net.op(kind, [net.input(x.shape)], x.shape, options)
    return net, x, [function(torch.from_numpy(x)).numpy()]


_UNARY: tuple[tuple[str, Function, tuple[float, ...]], ...] = (
    ("RELU", F.relu, ()), ("RELU6", F.relu6, ()), ("LOGISTIC", torch.sigmoid, ()),
    ("TANH", torch.tanh, ()), ("HARD_SWISH", F.hardswish, ()),
    ("LEAKY_RELU", lambda x: F.leaky_relu(x, 0.25), (0.25,)),
    ("RELU_N1_TO_1", lambda x: x.clamp(-1, 1), ()), ("GELU", F.gelu, (0,)),
    ("SOFTMAX", lambda x: F.softmax(0.5 * x, -1), (0.5,)),
)  # fmt: skip
for _kind, _function, _options in _UNARY:
    CASES[_kind.lower()] = partial(_unary, _kind, _function, *_options)


@case
def maximum_and_minimum() -> Case:
    x = normal(1, 3, 4, 5)
    net = Net()
    t = net.op("MAXIMUM", [net.input(x.shape), net.const(np.float32(-0.5))], x.shape)
    net.op("MINIMUM", [net.const(np.float32(0.75)), t], x.shape)
    return net, x, [np.clip(x, -0.5, 0.75)]


@case
def concat_of_channels_with_constant() -> Case:
    x, more = normal(1, 3, 4, 2), normal(1, 3, 4, 3)
    net = Net()
    net.op("CONCATENATION", [net.input(x.shape), net.const(more)], (1, 3, 4, 5), [-1, 0])
    return net, x, [np.concatenate([x, more], 3)]


@case
def pad_with_value() -> Case:
    x = normal(1, 3, 4, 2)
    amounts = np.array([[0, 0], [1, 2], [0, 3], [1, 0]], np.int32)
    net = Net()
    operands = [net.input(x.shape), net.const(amounts), net.const(np.float32(1.5))]
    net.op("PADV2", operands, (1, 6, 7, 3))
    return net, x, [np.pad(x, amounts, constant_values=1.5)]


@case
def pad_and_valid_conv() -> Case:
    x, w, b = normal(1, 6, 6, 2), normal(3, 3, 3, 2), normal(3)
    amounts = np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.int32)
    y = nhwc(F.conv2d(F.pad(nchw(x), (0, 1, 0, 1)), nchw(w), torch.from_numpy(b), 2))
    net = Net()
    t = net.op("PAD", [net.input(x.shape), net.const(amounts)], (1, 7, 7, 2))
    net.op("CONV_2D", [t, net.const(w), net.const(b)], y.shape, [VALID, 2, 2, 0, 1, 1])
    return net, x, [y]


@case
def mirror_pad() -> Case:
    x = normal(1, 4, 4, 2)
    amounts = np.array([[0, 0], [1, 2], [0, 3], [0, 0]], np.int32)
    net = Net()
    net.op("MIRROR_PAD", [net.input(x.shape), net.const(amounts)], (1, 7, 7, 2), [0])
    return net, x, [np.pad(x, amounts, mode="reflect")]


@case
def split_in_channels() -> Case:
    x = normal(1, 3, 4, 6)
    net = Net()
    net.ops("SPLIT", [net.const(np.int32(3)), net.input(x.shape)], [(1, 3, 4, 2)] * 3, [3])
    return net, x, np.split(x, 3, 3)


@case
def split_in_rows() -> Case:
    x = normal(1, 6, 4, 2)
    net = Net()
    operands = [net.input(x.shape), net.ints(1, -1, 2), net.const(np.int32(1))]
    net.ops("SPLIT_V", operands, [(1, 1, 4, 2), (1, 3, 4, 2), (1, 2, 4, 2)], [3])
    return net, x, np.split(x, [1, 4], 1)


@case
def slice_of_image() -> Case:
    x = normal(1, 6, 5, 4)
    net = Net()
    operands = [net.input(x.shape), net.ints(0, 1, 2, 1), net.ints(1, 3, -1, 2)]
    net.op("SLICE", operands, (1, 3, 3, 2))
    return net, x, [x[:, 1:4, 2:, 1:3]]


@case
def strided_slice() -> Case:
    x = normal(1, 6, 5, 4)
    net = Net()
    operands = [net.input(x.shape), net.ints(0, 1, 9, 0), net.ints(1, -1, 2, 3)]
    net.op("STRIDED_SLICE", [*operands, net.ints(1, 2, 2, 1)], (1, 2, 3, 3), [0, 4, 0, 0, 0, 0])
    # axis 2 begins behind the end unless the mask of begins says 0
    net.operators[-1] = (*net.operators[-1][:3], (4, 5, 0, 0, 0, 0))
    net.tensors[net.outputs[0]]["shape"] = (1, 2, 3, 3)
    return net, x, [x[:, 1:-1:2, ::2, :3]]


@case
def strided_slice_drops_an_axis() -> Case:
    x = normal(1, 6, 5, 4)
    net = Net()
    operands = [net.input(x.shape), net.ints(0, -2, 0, 0), net.ints(1, 5, 5, 4)]
    net.op("STRIDED_SLICE", [*operands, net.ints(1, 1, 1, 1)], (1, 5, 4), [0, 0, 0, 0, 2, 0])
    return net, x, [x[:, -2]]


def _resized(kind: str, size: tuple[int, int], align: int, half: int) -> Case:
    x = normal(1, 4, 5, 3)
    mode = "bilinear" if kind == "RESIZE_BILINEAR" else "nearest"
    options = [0, 0, align, half] if mode == "bilinear" else [align, half]
    if mode == "bilinear":
        y = nhwc(F.interpolate(nchw(x), size, mode=mode, align_corners=bool(align)))
    else:
        y = nhwc(F.interpolate(nchw(x), size, mode="nearest-exact" if half else mode))
    net = Net()
    net.op(kind, [net.input(x.shape), net.ints(*size)], y.shape, options)
    return net, x, [y]


@case
def resize_bilinear_half_pixel() -> Case:
    return _resized("RESIZE_BILINEAR", (7, 15), 0, 1)


@case
def resize_bilinear_aligned() -> Case:
    return _resized("RESIZE_BILINEAR", (8, 9), 1, 0)


@case
def resize_nearest() -> Case:
    return _resized("RESIZE_NEAREST_NEIGHBOR", (8, 10), 0, 0)


@case
def resize_nearest_half_pixel() -> Case:
    return _resized("RESIZE_NEAREST_NEIGHBOR", (3, 11), 0, 1)


@case
def resize_nearest_aligned() -> Case:
    """Positions i * 3 / 6 and i * 4 / 8, halves rounded up."""
    x = normal(1, 4, 5, 3)
    rows, columns = [0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 2, 3, 3, 4, 4]
    net = Net()
    operands = [net.input(x.shape), net.ints(7, 9)]
    net.op("RESIZE_NEAREST_NEIGHBOR", operands, (1, 7, 9, 3), [1, 0])
    return net, x, [x[:, rows][:, :, columns]]


@case
def attention() -> Case:
    """Transposes and products of matrices with three and four axes."""
    x, w = normal(1, 6, 8), normal(8, 8)
    net = Net()
    x_ = net.input(x.shape)
    q = net.op("FULLY_CONNECTED", [x_, net.const(w), -1], (1, 6, 8), [0, 0, 1, 0])
    q = net.op("RESHAPE", [q, net.ints(1, 6, 2, 4)], (1, 6, 2, 4), [(1, 6, 2, 4)])
    q = net.op("TRANSPOSE", [q, net.ints(0, 2, 1, 3)], (1, 2, 6, 4))
    s = net.op("BATCH_MATMUL", [q, q], (1, 2, 6, 6), [0, 1, 0])
    s = net.op("SOFTMAX", [s], (1, 2, 6, 6), [1.0])
    y = net.op("BATCH_MATMUL", [s, q], (1, 2, 6, 4), [0, 0, 0])
    y = net.op("TRANSPOSE", [y, net.ints(0, 2, 1, 3)], (1, 6, 2, 4))
    net.op("RESHAPE", [y, net.ints(1, 6, 8)], (1, 6, 8), [(1, 6, 8)])
    heads = torch.from_numpy((x @ w.T).reshape(1, 6, 2, 4).transpose(0, 2, 1, 3).copy())
    want = torch.softmax(heads @ heads.transpose(2, 3), -1) @ heads
    return net, x, [want.numpy().transpose(0, 2, 1, 3).reshape(1, 6, 8)]


@case
def shape_computed_in_the_network() -> Case:
    """Keras writes Flatten as SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    x = normal(2, 3, 4, 5)
    net = Net()
    x_ = net.input(x.shape)
    s = net.op("SHAPE", [x_], (4,), [2], dtype=np.int32)
    operands = [s, net.ints(0), net.ints(1), net.ints(1)]
    s = net.op("STRIDED_SLICE", operands, (), [0, 0, 0, 0, 1, 0], dtype=np.int32)
    s = net.op("PACK", [s, net.const(np.int32(60))], (2,), [2, 0], dtype=np.int32)
    net.op("RESHAPE", [x_, s], (2, 60))
    return net, x, [x.reshape(2, 60)]


@case
def squeeze_and_expand() -> Case:
    x = normal(1, 1, 4, 5)
    net = Net()
    t = net.op("SQUEEZE", [net.input(x.shape)], (1, 4, 5), [(1,)])
    net.op("EXPAND_DIMS", [t, net.const(np.int32(-1))], (1, 4, 5, 1))
    return net, x, [x[:, 0, :, :, None]]


@case
def transpose_of_image() -> Case:
    x = normal(1, 3, 4, 5)
    net = Net()
    t = net.op("RELU", [net.input(x.shape)], x.shape)
    net.op("TRANSPOSE", [t, net.ints(0, 2, 3, 1)], (1, 4, 5, 3))
    return net, x, [np.maximum(x, 0).transpose(0, 2, 3, 1)]
