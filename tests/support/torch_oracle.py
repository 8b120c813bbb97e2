# SPDX-License-Identifier: Apache-2.0
"""What float operators compute, told by torch in float64: an independent opinion."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from codesign.ir import Graph, Node, ops
from codesign.ir.graph import Array

Tensor = torch.Tensor


def torch_value(graph: Graph, node: Node, args: Sequence[Array]) -> Array:
    """Value of a float node for the given operand values, in float64."""
    with torch.no_grad():
        tensors = [torch.from_numpy(np.array(a, np.float64)) for a in args]
        return np.asarray(_compute(node.op, tensors, graph.type(node.name).shape).numpy())


def activation(kind: str, x: Tensor, alpha: float) -> Tensor:
    """An activation by its torch function."""
    functions: dict[str, Any] = {
        "none": lambda t: t, "relu": F.relu, "relu6": F.relu6, "hardswish": F.hardswish,
        "hardsigmoid": F.hardsigmoid, "sigmoid": torch.sigmoid, "silu": F.silu, "gelu": F.gelu,
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"), "tanh": torch.tanh,
        "leaky_relu": lambda t: F.leaky_relu(t, alpha),
    }  # fmt: skip
    result: Tensor = functions[kind](x)
    return result


def _layer(op: ops.Conv2d | ops.Linear, total: Tensor, args: list[Tensor]) -> Tensor:
    if op.residual:
        total = total + args[-1]
    return activation(op.activation, total, op.alpha)


def _sides(padding: tuple[int, int, int, int]) -> list[int]:
    top, left, bottom, right = padding
    return [left, right, top, bottom]


def _compute(op: ops.Op, args: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    x = args[0]
    match op:
        case ops.Conv2d():
            padded = F.pad(x, _sides(op.padding))
            bias = args[2] if op.bias else None
            out = F.conv2d(padded, args[1], bias, op.stride, 0, op.dilation, op.groups)
            return _layer(op, out, args)
        case ops.Linear():
            return _layer(op, F.linear(x, args[1], args[2] if op.bias else None), args)
        case ops.MatMul():
            return x @ args[1]
        case ops.BatchNorm():
            return F.batch_norm(x, args[3], args[4], args[1], args[2], False, 0.0, op.eps)
        case ops.Add():
            return x + args[1]
        case ops.Mul():
            return x * args[1]
        case ops.Concat():
            return torch.cat(args, op.axis)
        case ops.Slice():
            return x.index_select(op.axis, torch.arange(op.start, op.stop, op.step))
        case ops.Activation():
            return activation(op.kind, x, op.alpha)
        case ops.Pool2d():
            return _pool(op, x)
        case ops.Reduce():
            return _reduce(op, x)
        case ops.Softmax():
            return F.softmax(x, op.axis)
        case ops.LayerNorm():
            return F.layer_norm(x, args[1].shape, args[1], args[2], op.eps)
        case ops.Reshape():
            return x.reshape(op.shape)
        case ops.Broadcast():
            return x.expand(op.shape)
        case ops.Transpose():
            return x.permute(op.perm)
        case ops.Pad():
            sides = [n for pair in zip(op.before[::-1], op.after[::-1]) for n in pair]
            if op.mode == "constant":
                return F.pad(x, sides, value=op.value)
            mode = {"reflect": "reflect", "edge": "replicate"}[op.mode]
            return F.pad(x, sides[:4], mode=mode)
        case ops.Resize():
            return torch.from_numpy(resize(op, x.numpy()))
    raise NotImplementedError(op.name)


def _pool(op: ops.Pool2d, x: Tensor) -> Tensor:
    if op.kind == "max":
        padded = F.pad(x, _sides(op.padding), value=-torch.inf)
        return F.max_pool2d(padded, op.kernel, op.stride, 0, op.dilation)
    window = torch.ones(1, 1, *op.kernel, dtype=x.dtype)
    images = x.reshape(-1, 1, *x.shape[2:])
    total = F.conv2d(F.pad(images, _sides(op.padding)), window, None, op.stride, 0, op.dilation)
    total = total.reshape(*x.shape[:2], *total.shape[2:])
    if op.kind == "sum":
        return total
    if op.count_include_pad:
        return total / (op.kernel[0] * op.kernel[1])
    ones = F.pad(torch.ones(1, 1, *x.shape[2:], dtype=x.dtype), _sides(op.padding))
    return total / F.conv2d(ones, window, None, op.stride, 0, op.dilation)


def _reduce(op: ops.Reduce, x: Tensor) -> Tensor:
    if op.kind == "max":
        return x.amax(op.axes, op.keepdims)
    return x.mean(op.axes, op.keepdims) if op.kind == "mean" else x.sum(op.axes, op.keepdims)


def position(coordinates: str, i: int, size: int, out: int) -> Fraction:
    """Input position of output position i, by the definition of ONNX Resize."""
    if coordinates == "half_pixel":
        return (i + Fraction(1, 2)) * Fraction(size, out) - Fraction(1, 2)
    if coordinates == "asymmetric":
        return i * Fraction(size, out)
    return Fraction(i * (size - 1), out - 1) if out > 1 else Fraction(0)


def rounded(rounding: str, place: Fraction) -> int:
    """A position as an index, by the definition of ONNX Resize."""
    half = Fraction(1, 2)
    return {
        "floor": floor(place), "ceil": ceil(place),
        "round_prefer_floor": ceil(place - half), "round_prefer_ceil": floor(place + half),
    }[rounding]  # fmt: skip


def resize(op: ops.Resize, x: Array) -> Array:
    """Resize one output pixel at a time."""
    height, width = x.shape[2:]
    result = np.empty((*x.shape[:2], *op.size), x.dtype)
    for i, j in np.ndindex(*op.size):
        row = position(op.coordinates, i, height, op.size[0])
        column = position(op.coordinates, j, width, op.size[1])
        if op.kind == "nearest":
            r = min(max(rounded(op.rounding, row), 0), height - 1)
            c = min(max(rounded(op.rounding, column), 0), width - 1)
            result[:, :, i, j] = x[:, :, r, c]
            continue
        row = min(max(row, Fraction(0)), Fraction(height - 1))
        column = min(max(column, Fraction(0)), Fraction(width - 1))
        r, c = floor(row), floor(column)
        below, right = min(r + 1, height - 1), min(c + 1, width - 1)
        a, b = float(row - r), float(column - c)
        result[:, :, i, j] = (1 - a) * ((1 - b) * x[:, :, r, c] + b * x[:, :, r, right]) + a * (
            (1 - b) * x[:, :, below, c] + b * x[:, :, below, right]
        )
    return result
