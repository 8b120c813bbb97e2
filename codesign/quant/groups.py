# SPDX-License-Identifier: Apache-2.0
"""Which values share one quantization: groups through operators that only move elements.

All values of a group have one format and one scale. The *root* is the value whose statistics
count: the one that every other value of the group is taken from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

from codesign.ir import ops
from codesign.ir.graph import Graph, Node
from codesign.quant.activations import NON_NEGATIVE


def passes_through(graph: Graph, node: Node, non_negative: Mapping[str, bool]) -> bool:
    """Whether the node's result holds elements of its first operand (or zeros) only."""
    op = node.op
    if isinstance(op, ops.Reshape | ops.Transpose | ops.Slice | ops.Broadcast):
        return True
    if isinstance(op, ops.Pad):
        return op.mode != "constant" or op.value == 0
    if isinstance(op, ops.Resize):
        return op.kind == "nearest"
    if isinstance(op, ops.Pool2d | ops.Reduce):
        return op.kind == "max"
    if isinstance(op, ops.Activation):
        return op.kind == "relu" and non_negative[node.inputs[0]]
    return False


def non_negative(graph: Graph, least: Mapping[str, float]) -> Mapping[str, bool]:
    """For each value whether it is provably never below zero.

    ``least`` holds the least value seen of each graph input (inputs cannot be proven).
    """
    known: dict[str, bool] = {}
    for node in graph.nodes.values():
        if isinstance(node.op, ops.Constant):
            value = graph.constants[node.name]
            known[node.name] = bool(value.size == 0 or value.min() >= 0)
        elif isinstance(node.op, ops.Input):
            known[node.name] = least.get(node.name, -1.0) >= 0
        else:
            known[node.name] = _result(node.op, [known[v] for v in node.inputs])
    return known


@singledispatch
def _result(op: ops.Op, operands: list[bool]) -> bool:
    """Whether the result is never negative, given which operands are not."""
    return False


@_result.register(ops.Add)
@_result.register(ops.Mul)
@_result.register(ops.Concat)
@_result.register(ops.MatMul)
def _(op: ops.Op, operands: list[bool]) -> bool:
    return all(operands)


@_result.register(ops.Slice)
@_result.register(ops.Pool2d)
@_result.register(ops.Reduce)
@_result.register(ops.Reshape)
@_result.register(ops.Broadcast)
@_result.register(ops.Transpose)
@_result.register(ops.Resize)
def _(op: ops.Op, operands: list[bool]) -> bool:
    return operands[0]


@_result.register
def _(op: ops.Pad, operands: list[bool]) -> bool:
    return operands[0] and (op.mode != "constant" or op.value >= 0)


@_result.register
def _(op: ops.Quantize, operands: list[bool]) -> bool:
    return op.dtype.kind == "unsigned" and not any(op.zero_point)


@_result.register
def _(op: ops.Dequantize, operands: list[bool]) -> bool:
    return operands[0] and not any(op.zero_point)


@_result.register
def _(op: ops.Softmax, operands: list[bool]) -> bool:
    return True


@_result.register(ops.Conv2d)
@_result.register(ops.Linear)
def _(op: ops.Conv2d | ops.Linear, operands: list[bool]) -> bool:
    return op.activation in NON_NEGATIVE


@_result.register
def _(op: ops.Activation, operands: list[bool]) -> bool:
    return op.kind in NON_NEGATIVE or operands[0]


def roots(graph: Graph, signs: Mapping[str, bool]) -> Mapping[str, str]:
    """The root of each value's group.

    An operand that only a concat reads joins the concat's group, so that its producer
    requantises straight to the scale of the whole.
    """
    parent: dict[str, str] = {name: name for name in graph.nodes}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in graph.nodes.values():
        if (
            node.name not in graph.constants
            and node.inputs
            and (passes_through(graph, node, signs) and node.inputs[0] not in graph.constants)
        ):
            parent[node.name] = find(node.inputs[0])
    members: dict[str, list[str]] = {}
    for name in graph.nodes:
        members.setdefault(find(name), []).append(name)
    for node in reversed(list(graph.nodes.values())):
        if not isinstance(node.op, ops.Concat):
            continue
        for value in node.inputs:
            root = find(value)
            if (
                root not in graph.constants
                and root not in graph.inputs
                and (_only_read_by(graph, members[root], node.name) and root != find(node.name))
            ):
                parent[root] = find(node.name)
    return {name: find(name) for name in graph.nodes}


def _only_read_by(graph: Graph, group: list[str], reader: str) -> bool:
    inside = set(group)
    return all(
        user == reader or user in inside for name in group for user in graph.users[name]
    ) and not inside & set(graph.outputs)


def shared_inputs(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Groups of layer names that read one tensor and so share its activation bits.

    Every layer with weights is in exactly one group; most are alone in theirs.
    """
    group_of = roots(graph, non_negative(graph, {}))
    groups: dict[str, list[str]] = {}
    for layer in graph.layers():
        groups.setdefault(group_of[layer.inputs[0]], []).append(layer.name)
    return tuple(tuple(names) for names in groups.values())
