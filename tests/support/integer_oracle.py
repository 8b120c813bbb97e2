# SPDX-License-Identifier: Apache-2.0
"""What integer operators compute, one element at a time in Python's integers.

Slow and plain on purpose: the reference interpreter must agree with it exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from codesign.ir import Graph, Node, ops
from codesign.ir.graph import Array
from tests.support.torch_oracle import position, rounded


def requantize(x: int, m: int, e: int, lo: int, hi: int) -> int:
    """clip(round half up(x · m / 2^e)): by exact fractions, not by shifts."""
    return min(max(math.floor(Fraction(x * m, 2**e) + Fraction(1, 2)), lo), hi)


def integer_value(graph: Graph, node: Node, args: Sequence[Array]) -> Array:
    """Value of a node with an integer or quantized result, as an array of Python integers."""
    shape = node.type.shape
    result = np.empty(shape, object)
    rule = _rule(graph, node, [a.astype(object) if a.dtype.kind != "f" else a for a in args])
    for index in np.ndindex(*shape):
        result[index] = rule(index)
    return result


Index = tuple[int, ...]


def _channel(index: Index, axis: int) -> Index:
    return () if axis < 0 else (index[axis],)


def _window(
    op: ops.Conv2d | ops.Pool2d, kernel: tuple[int, int], index: Index, size: Sequence[int]
) -> list[tuple[int, int, int, int]]:
    """Kernel position and image position of what a window reads inside the image."""
    found = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            row = index[2] * op.stride[0] + i * op.dilation[0] - op.padding[0]
            column = index[3] * op.stride[1] + j * op.dilation[1] - op.padding[1]
            if 0 <= row < size[0] and 0 <= column < size[1]:
                found.append((i, j, row, column))
    return found


def _rule(graph: Graph, node: Node, args: list[Array]) -> Callable[[Index], Any]:
    """A function that gives one element of the result."""
    op, x = node.op, args[0]
    match op:
        case ops.Conv2d():
            return lambda index: _conv(op, args, index)
        case ops.Linear():
            return lambda index: (
                sum(x[(*index[:-1], k)] * args[1][index[-1], k] for k in range(x.shape[-1]))
                + (args[2][index[-1]] if op.bias else 0)
            )
        case ops.MatMul():
            b = args[1]
            return lambda index: sum(
                x[(*index[:-1], k)] * b[(*index[:-2], k, index[-1])] for k in range(x.shape[-1])
            )
        case ops.Add() | ops.Mul():
            a, b = np.broadcast_arrays(*args)
            add = isinstance(op, ops.Add)
            return lambda index: a[index] + b[index] if add else a[index] * b[index]
        case ops.Activation():
            return lambda index: max(x[index], 0)
        case ops.Pool2d():
            fold = max if op.kind == "max" else sum
            return lambda index: fold(
                x[index[0], index[1], r, c]
                for _, _, r, c in _window(op, op.kernel, index, x.shape[2:])
            )
        case ops.Reduce():
            fold = max if op.kind == "max" else sum
            return lambda index: fold(x[index[0], index[1]].ravel().tolist())
        case ops.Clip():
            return lambda index: min(max(x[index], op.lo), op.hi)
        case ops.Lookup():
            least = graph.type(node.inputs[0]).dtype.min
            return lambda index: args[1][x[index] - least]
        case ops.Requantize():
            return lambda index: requantize(
                x[index], args[1][_channel(index, op.axis)], args[2][_channel(index, op.axis)],
                op.lo, op.hi,
            )  # fmt: skip
        case ops.Quantize():
            return lambda index: _quantize(op, float(x[index]), args[1][_channel(index, op.axis)])
    return _moved(op, args)


def _moved(op: ops.Op, args: list[Array]) -> Callable[[Index], Any]:
    """Operators that only move elements."""
    x = args[0]
    match op:
        case ops.Concat():
            return lambda index: _concat(op.axis, args, index)
        case ops.Slice():
            axis = op.axis
            return lambda index: x[
                (*index[:axis], op.start + op.step * index[axis], *index[axis + 1 :])
            ]
        case ops.Reshape():
            return lambda index: x.flat[int(np.ravel_multi_index(index, op.shape))]
        case ops.Transpose():
            return lambda index: x[tuple(index[op.perm.index(k)] for k in range(x.ndim))]
        case ops.Broadcast():
            return lambda index: x[tuple(i % n for i, n in zip(index[-x.ndim :], x.shape))]
        case ops.Pad():
            return lambda index: _pad(op, x, index)
        case ops.Resize():
            return lambda index: x[
                (
                    *index[:2],
                    *(
                        min(max(rounded(op.rounding, position(op.coordinates, i, n, o)), 0), n - 1)
                        for i, n, o in zip(index[2:], x.shape[2:], op.size)
                    ),
                )
            ]
    raise NotImplementedError(op.name)


def _conv(op: ops.Conv2d, args: list[Array], index: Index) -> int:
    x, w = args[0], args[1]
    depth = w.shape[1]
    first = index[1] // (w.shape[0] // op.groups) * depth
    total = args[2][index[1]] if op.bias else 0
    for i, j, row, column in _window(op, w.shape[2:], index, x.shape[2:]):
        for c in range(depth):
            total += x[index[0], first + c, row, column] * w[index[1], c, i, j]
    return int(total)


def _quantize(op: ops.Quantize, x: float, scale: Any) -> int:
    # Division and addition in float32, as the rule says.
    steps = math.floor(np.float32(np.float32(x) / np.float32(scale)) + np.float32(0.5))
    return min(max(steps + op.zero_point[0], op.dtype.min), op.dtype.max)


def _concat(axis: int, args: list[Array], index: Index) -> Any:
    place = index[axis]
    for arg in args:
        if place < arg.shape[axis]:
            return arg[(*index[:axis], place, *index[axis + 1 :])]
        place -= arg.shape[axis]
    raise AssertionError("the index is inside one operand")


def _pad(op: ops.Pad, x: Array, index: Index) -> Any:
    places = [i - before for i, before in zip(index, op.before)]
    if op.mode == "edge":
        return x[tuple(min(max(p, 0), n - 1) for p, n in zip(places, x.shape))]
    inside = all(0 <= p < n for p, n in zip(places, x.shape))
    return x[tuple(places)] if inside else int(op.value)
