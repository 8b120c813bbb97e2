# SPDX-License-Identifier: Apache-2.0
"""What each operator computes, in torch: one function per operator.

Integers are held as floats that represent them exactly: formats of up to 24 bits in float32,
wider ones in float64. Additions and products are exact as long as they fit the mantissa, which
``codesign.quant.torch_exec`` proves per layer before it picks float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.ir import ops
from codesign.ir.graph import Node
from codesign.ir.kernels import nearest_index
from codesign.ir.types import DType, TensorType


def holder(dtype: DType) -> torch.dtype:
    """The torch type that holds values of ``dtype`` exactly."""
    if dtype.is_float:
        return torch.float64 if dtype.bits == 64 else torch.float32
    return torch.float32 if dtype.bits <= 24 else torch.float64


class _StraightFloor(torch.autograd.Function):
    """floor whose gradient is that of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0]


@dataclass(frozen=True)
class Call:
    """One node at run time and the types of its operands."""

    node: Node
    types: tuple[TensorType, ...]
    straight_through: bool
    integer: bool
    exact_float32: bool
    """Whether float32 holds the accumulator of this integer layer."""

    def floor(self, x: Tensor) -> Tensor:
        """floor, with a straight-through gradient if asked for."""
        if self.straight_through:
            result: Tensor = _StraightFloor.apply(x)  # type: ignore[no-untyped-call]
            return result
        return x.floor()


def conv2d(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Convolution without bias, residual and activation (the executor adds them)."""
    op = call.node.op
    assert isinstance(op, ops.Conv2d)
    x, w = _widen(call, args[0], args[1])
    top, left, bottom, right = op.padding
    if (top, left) == (bottom, right):
        return F.conv2d(x, w, None, op.stride, (top, left), op.dilation, op.groups)
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, w, None, op.stride, 0, op.dilation, op.groups)


def linear(call: Call, args: Sequence[Tensor]) -> Tensor:
    """x @ w.T without bias, residual and activation (the executor adds them)."""
    x, w = _widen(call, args[0], args[1])
    return F.linear(x, w)


def _widen(call: Call, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    if call.integer and not call.exact_float32:
        return x.double(), w.double()
    return x, w


def add_bias(call: Call, y: Tensor, args: Sequence[Tensor]) -> Tensor:
    """The product ``y`` of a layer with its bias, if it has one."""
    op = call.node.op
    assert isinstance(op, ops.Conv2d | ops.Linear)
    if not op.bias:
        return y
    bias = args[2].to(y.dtype)
    return y + (bias.view(1, -1, 1, 1) if isinstance(op, ops.Conv2d) else bias)


def activate(kind: str, alpha: float, x: Tensor) -> Tensor:
    """An activation function."""
    match kind:
        case "none":
            return x
        case "relu":
            return F.relu(x)
        case "relu6":
            return x.clamp(0, 6)
        case "leaky_relu":
            return F.leaky_relu(x, alpha)
        case "hardswish":
            return F.hardswish(x)
        case "hardsigmoid":
            return F.hardsigmoid(x)
        case "sigmoid":
            return torch.sigmoid(x)
        case "silu":
            return F.silu(x)
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "tanh":
            return torch.tanh(x)
    raise ValueError(f"unknown activation {kind!r}")


def activation(call: Call, args: Sequence[Tensor]) -> Tensor:
    """A standalone activation."""
    op = call.node.op
    assert isinstance(op, ops.Activation)
    return activate(op.kind, op.alpha, args[0])


def matmul(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Batched matrix product."""
    a, b = args
    return torch.matmul(a.double(), b.double()) if call.integer else torch.matmul(a, b)


def batch_norm(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Inference-time batch normalisation over axis 1."""
    op = call.node.op
    assert isinstance(op, ops.BatchNorm)
    x, gamma, beta, mean, var = args
    return F.batch_norm(x, mean, var, gamma, beta, False, 0.0, op.eps)


def add(call: Call, args: Sequence[Tensor]) -> Tensor:
    """a + b."""
    a, b = args
    return a.double() + b.double() if call.integer else a + b


def mul(call: Call, args: Sequence[Tensor]) -> Tensor:
    """a · b."""
    a, b = args
    return a.double() * b.double() if call.integer else a * b


def concat(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Concatenation."""
    op = call.node.op
    assert isinstance(op, ops.Concat)
    return torch.cat(list(args), op.axis)


def slice_(call: Call, args: Sequence[Tensor]) -> Tensor:
    """x[..., start:stop:step, ...]."""
    op = call.node.op
    assert isinstance(op, ops.Slice)
    index = [slice(None)] * args[0].dim()
    index[op.axis] = slice(op.start, op.stop, op.step)
    return args[0][tuple(index)]


def pool2d(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Max, average or sum over windows."""
    op = call.node.op
    assert isinstance(op, ops.Pool2d)
    x = args[0]
    top, left, bottom, right = op.padding
    if op.kind == "max":
        x = F.pad(x, (left, right, top, bottom), value=-torch.inf)
        return F.max_pool2d(x, op.kernel, op.stride, 0, op.dilation)
    if call.integer:
        x = x.double()
    sums = _window_sums(op, F.pad(x, (left, right, top, bottom)))
    if op.kind == "sum":
        return sums
    if op.count_include_pad or not any(op.padding):
        return sums / (op.kernel[0] * op.kernel[1])
    ones = F.pad(torch.ones_like(x[:1, :1]), (left, right, top, bottom))
    return sums / _window_sums(op, ones)


def _window_sums(op: ops.Pool2d, x: Tensor) -> Tensor:
    area = op.kernel[0] * op.kernel[1]
    if op.dilation == (1, 1):
        return F.avg_pool2d(x, op.kernel, op.stride, divisor_override=1)
    windows = F.unfold(x.flatten(0, 1)[:, None], op.kernel, op.dilation, 0, op.stride)
    height = (x.shape[2] - op.dilation[0] * (op.kernel[0] - 1) - 1) // op.stride[0] + 1
    return windows.view(*x.shape[:2], area, height, -1).sum(2)


def reduce(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Mean, max or sum over axes."""
    op = call.node.op
    assert isinstance(op, ops.Reduce)
    x = args[0].double() if call.integer and op.kind == "sum" else args[0]
    if op.kind == "mean":
        return x.mean(op.axes, keepdim=op.keepdims)
    return (
        x.amax(op.axes, keepdim=op.keepdims) if op.kind == "max"
        else x.sum(op.axes, keepdim=op.keepdims)
    )  # fmt: skip


def softmax(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Softmax along an axis."""
    op = call.node.op
    assert isinstance(op, ops.Softmax)
    return torch.softmax(args[0], op.axis)


def layer_norm(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Normalisation over trailing axes."""
    op = call.node.op
    assert isinstance(op, ops.LayerNorm)
    x, gamma, beta = args
    return F.layer_norm(x, gamma.shape, gamma, beta, op.eps)


def reshape(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Row-major reshape."""
    return args[0].reshape(call.node.type.shape)


def broadcast(call: Call, args: Sequence[Tensor]) -> Tensor:
    """NumPy broadcast."""
    return args[0].expand(call.node.type.shape)


def transpose(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Permutation of the axes."""
    op = call.node.op
    assert isinstance(op, ops.Transpose)
    return args[0].permute(op.perm)


def pad(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Constant, reflecting or edge padding, axis by axis."""
    op = call.node.op
    assert isinstance(op, ops.Pad)
    x = args[0]
    if op.mode == "constant":
        pairs = [n for b, a in reversed(list(zip(op.before, op.after))) for n in (b, a)]
        return F.pad(x, pairs, value=op.value)
    for axis, (before, after) in enumerate(zip(op.before, op.after)):
        if before or after:
            index = np.pad(np.arange(x.shape[axis]), (before, after), mode=op.mode)
            x = x.index_select(axis, torch.from_numpy(index))
    return x


def resize(call: Call, args: Sequence[Tensor]) -> Tensor:
    """Nearest or bilinear resize of H and W."""
    op = call.node.op
    assert isinstance(op, ops.Resize)
    x = args[0]
    for axis, wanted in ((2, op.size[0]), (3, op.size[1])):
        size = x.shape[axis]
        if op.kind == "nearest":
            x = x.index_select(axis, torch.from_numpy(nearest_index(op, size, wanted)))
            continue
        low, high, weight = bilinear_taps(op, size, wanted)
        share = torch.from_numpy(weight).to(x.dtype)
        share = share.view([-1 if i == axis else 1 for i in range(4)])
        x = x.index_select(axis, torch.from_numpy(low)) * (1 - share) + (
            x.index_select(axis, torch.from_numpy(high)) * share
        )
    return x


def bilinear_taps(op: ops.Resize, size: int, wanted: int) -> tuple[Any, Any, Any]:
    """For each output position along an axis the two inputs it reads and the second's share."""
    i = np.arange(wanted, dtype=np.float64)
    if op.coordinates == "half_pixel":
        place = ((2 * i + 1) * size - wanted) / (2 * wanted)
    elif op.coordinates == "asymmetric" or wanted == 1:
        place = i * size / wanted
    else:
        place = i * (size - 1) / (wanted - 1)
    place = np.clip(place, 0, size - 1)
    low = np.floor(place).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), place - low


def quantize(call: Call, args: Sequence[Tensor]) -> Tensor:
    """clip(floor(x / scale + 1/2) + zero_point) in float32."""
    op = call.node.op
    assert isinstance(op, ops.Quantize)
    x, scale = args
    zero = _along(torch.tensor(op.zero_point, dtype=x.dtype), op.axis, x.dim())
    y = call.floor(x / _along(scale, op.axis, x.dim()) + 0.5) + zero
    return y.clamp(op.dtype.min, op.dtype.max).to(holder(op.dtype))


def dequantize(call: Call, args: Sequence[Tensor]) -> Tensor:
    """(x − zero_point) · scale in float32."""
    op = call.node.op
    assert isinstance(op, ops.Dequantize)
    x, scale = args
    zero = _along(torch.tensor(op.zero_point, dtype=x.dtype), op.axis, x.dim())
    return (x - zero).float() * _along(scale, op.axis, x.dim())


def requantize(call: Call, args: Sequence[Tensor]) -> Tensor:
    """clip((x·m + 2^(e−1)) >> e, lo, hi), as floor(x·m·2^−e + 1/2) in float64.

    The product has at most 47 bits and the scaling by a power of two is exact. Adding one half
    is exact up to e = 53; beyond, |x·m·2^−e| < 2^−6, so both forms give 0.
    """
    op = call.node.op
    assert isinstance(op, ops.Requantize)
    x, m, e = args
    factor = _along(torch.ldexp(m.double(), -e.to(torch.int32)), op.axis, x.dim())
    y = call.floor(x.double() * factor + 0.5)
    return y.clamp(op.lo, op.hi).to(holder(op.dtype))


def clip(call: Call, args: Sequence[Tensor]) -> Tensor:
    """clip(x, lo, hi)."""
    op = call.node.op
    assert isinstance(op, ops.Clip)
    return args[0].clamp(op.lo, op.hi).to(holder(op.dtype))


def lookup(call: Call, args: Sequence[Tensor]) -> Tensor:
    """table[x − min]; the straight-through gradient is the table's slope."""
    x, table = args
    index = (x - call.types[0].dtype.min).long()
    y = table[index]
    if call.straight_through:
        last = len(table) - 1
        above, below = (index + 1).clamp(max=last), (index - 1).clamp(min=0)
        slope = (table[above] - table[below]) / (above - below)
        y = y + slope * (x - x.detach())  # adds an exact zero
    return y


def _along(values: Tensor, axis: int, rank: int) -> Tensor:
    if axis < 0 or values.numel() == 1:
        return values.reshape(())
    return values.view([-1 if i == axis else 1 for i in range(rank)])


FUNCTIONS = {
    "conv2d": conv2d, "linear": linear, "matmul": matmul, "batch_norm": batch_norm, "add": add,
    "mul": mul, "concat": concat, "slice": slice_, "activation": activation, "pool2d": pool2d,
    "reduce": reduce, "softmax": softmax, "layer_norm": layer_norm, "reshape": reshape,
    "broadcast": broadcast, "transpose": transpose, "pad": pad, "resize": resize,
    "quantize": quantize, "dequantize": dequantize, "requantize": requantize, "clip": clip,
    "lookup": lookup,
}  # fmt: skip
"""Operator name to function; input and constant are the executor's business."""
