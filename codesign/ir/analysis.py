# SPDX-License-Identifier: Apache-2.0
"""What a network costs before any target is chosen: operations, parameters, bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from codesign.ir import ops
from codesign.ir.graph import Graph, Node

_TRAINED = ("w", "bias", "gamma", "beta")
"""Operands that are parameters where they are constants."""


@dataclass(frozen=True)
class LayerStats:
    """Counts of one node, for the batch that the graph declares."""

    name: str
    op: str
    source: str
    macs: int
    """Multiply-accumulate operations of conv2d, linear and matmul; 0 elsewhere."""
    parameters: int
    """Trained elements that no earlier node reads: weights, biases, gammas, betas, and
    constant tensors (not scalars) that are added, multiplied, concatenated or expanded."""
    weight_bytes: int
    """Bytes of all constants that no earlier node reads, packed by their format's bits."""
    input_bytes: int
    """Bytes of the computed values read, packed."""
    output_bytes: int
    """Bytes of the result, packed."""


@dataclass(frozen=True)
class GraphStats:
    """Sums over a graph."""

    macs: int
    parameters: int
    weight_bytes: int
    peak_bytes: int
    """Most bytes of computed values that live at once when nodes run in graph order and a
    value is freed after its last reader; no operator works in place."""


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulate operations of a node; bias and activation are not counted."""
    match node.op:
        case ops.Conv2d():
            return node.type.size * math.prod(graph.type(node.inputs[1]).shape[1:])
        case ops.Linear():
            return node.type.size * graph.type(node.inputs[1]).shape[1]
        case ops.MatMul():
            return node.type.size * graph.type(node.inputs[0]).shape[-1]
    return 0


def layer_stats(graph: Graph) -> tuple[LayerStats, ...]:
    """Counts of every computing node, in graph order.

    A constant that several nodes read counts for the first, so that sums count it once.
    """
    seen: set[str] = set()
    return tuple(
        _stats(graph, node, seen)
        for node in graph.nodes.values()
        if not isinstance(node.op, (ops.Input, ops.Constant))
    )


def _stats(graph: Graph, node: Node, seen: set[str]) -> LayerStats:
    names = node.op.operand_names()
    parameters = weight_bytes = input_bytes = 0
    for value in dict.fromkeys(node.inputs):
        index = node.inputs.index(value)
        kind = graph.type(value)
        if not graph.is_constant(value):
            input_bytes += kind.bytes
        elif value not in seen:
            seen.add(value)
            weight_bytes += kind.bytes
            if isinstance(node.op, (ops.Add, ops.Mul, ops.Concat, ops.Broadcast)):
                trained = kind.size > 1
            else:
                trained = index < len(names) and names[index] in _TRAINED
            parameters += kind.size if trained else 0
    return LayerStats(
        node.name, node.op.name, node.source, macs(graph, node), parameters, weight_bytes,
        input_bytes, node.type.bytes,
    )  # fmt: skip


def graph_stats(graph: Graph) -> GraphStats:
    """Sums over the nodes, and the peak of the values' memory."""
    rows = layer_stats(graph)
    return GraphStats(
        sum(row.macs for row in rows),
        sum(row.parameters for row in rows),
        sum(row.weight_bytes for row in rows),
        peak_bytes(graph),
    )


def peak_bytes(graph: Graph) -> int:
    """Most bytes of computed values alive at once (see ``GraphStats.peak_bytes``)."""
    readers = {name: len(users) for name, users in graph.users.items()}
    for name in graph.outputs:
        readers[name] += 1
    live = peak = 0
    for node in graph.nodes.values():
        if graph.is_constant(node.name):
            continue
        live += node.type.bytes
        peak = max(peak, live)
        for value in node.inputs:
            readers[value] -= 1
            if not readers[value] and not graph.is_constant(value):
                live -= graph.type(value).bytes
        if not readers[node.name]:
            live -= node.type.bytes
    return peak


MOVES = frozenset(
    {"input", "constant", "dequantize", "reshape", "transpose", "slice", "concat", "broadcast"}
)
"""Float values that come about without rounding anew; ``dequantize`` is one exact product."""


def has_float_islands(graph: Graph) -> bool:
    """Whether float arithmetic, whose last bit differs between back ends, is part of the graph."""
    return any(
        node.type.dtype.is_float and node.op.name not in MOVES for node in graph.nodes.values()
    )
