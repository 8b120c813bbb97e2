# SPDX-License-Identifier: Apache-2.0
"""Analysis: an interval that each value of a graph stays in, whatever the input."""

from __future__ import annotations

import math

from codesign.ir.graph import Graph, Node
from codesign.ir.ops import (
    Activation,
    Add,
    Broadcast,
    Concat,
    Conv2d,
    Linear,
    Mul,
    Pad,
    Pool2d,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Transpose,
)  # fmt: skip

Interval = tuple[float, float]
ANY: Interval = (-math.inf, math.inf)
_RANGES: dict[str, Interval] = {
    "relu": (0, math.inf), "relu6": (0, 6), "sigmoid": (0, 1), "hardsigmoid": (0, 1),
    "tanh": (-1, 1),
}  # fmt: skip


def bounds(graph: Graph) -> dict[str, Interval]:
    """Least and greatest value of each node, as far as simple rules tell (NaN aside)."""
    found: dict[str, Interval] = {}
    for node in graph.nodes.values():
        if node.type.dtype.is_integer and node.name not in graph.constants:
            found[node.name] = (node.type.dtype.min, node.type.dtype.max)
            continue
        if node.name in graph.constants:
            value = graph.constants[node.name]
            found[node.name] = (float(value.min()), float(value.max())) if value.size else ANY
        else:
            found[node.name] = _float_bounds(node, [found[v] for v in node.inputs])
    return found


def _float_bounds(node: Node, args: list[Interval]) -> Interval:
    op = node.op
    if isinstance(op, (Conv2d, Linear)):
        return activation_bounds(op.activation, ANY)
    if isinstance(op, Activation):
        return activation_bounds(op.kind, args[0])
    if isinstance(op, Softmax):
        return (0, 1)
    if isinstance(op, (Reshape, Transpose, Slice, Broadcast, Resize)):
        return args[0]
    if isinstance(op, Concat):
        return (min(a[0] for a in args), max(a[1] for a in args))
    if isinstance(op, Add):
        return (args[0][0] + args[1][0], args[0][1] + args[1][1])
    if isinstance(op, Mul):
        products = [a * b if a and b else 0.0 for a in args[0] for b in args[1]]
        return (min(products), max(products))
    if isinstance(op, Pad):
        value = op.value if op.mode == "constant" else args[0][0]
        return (min(args[0][0], value), max(args[0][1], value))
    if isinstance(op, (Pool2d, Reduce)):
        return _window_bounds(op, *args[0])
    return ANY


def activation_bounds(kind: str, x: Interval) -> Interval:
    """Interval of an activation for inputs in ``x``."""
    if kind == "none" or (kind == "leaky_relu" and x[0] >= 0):
        return x
    if kind in ("relu", "relu6"):
        low, high = _RANGES[kind]
        return (min(max(x[0], low), high), min(max(x[1], low), high))
    if kind in ("hardswish", "silu", "gelu", "gelu_tanh"):
        return (0, max(x[1], 0)) if x[0] >= 0 else ANY
    return _RANGES.get(kind, ANY)


def _window_bounds(op: Pool2d | Reduce, low: float, high: float) -> Interval:
    if op.kind == "sum":
        return (0.0 if low >= 0 else -math.inf, 0.0 if high <= 0 else math.inf)
    if isinstance(op, Reduce):
        return (low, high)
    if op.kind == "max":  # a window of nothing but padding exists only with dilation
        return (low, high) if op.dilation == (1, 1) else ANY
    return (min(low, 0.0), max(high, 0.0)) if any(op.padding) else (low, high)
