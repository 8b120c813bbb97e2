# SPDX-License-Identifier: Apache-2.0
"""One layer of a network as a network of its own, to be measured alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph, GraphBuilder, Node, copy_node
from codesign.ir.ops import Constant
from codesign.ir.types import DType, TensorType
from codesign.targets.tvm_lower.groups import Group, make_groups


def extract_layer(graph: Graph, layer: str) -> Graph:
    """The layer with what is fused into it (requantize, add, clip, …) as a graph.

    Its inputs are the tensors that the layer reads, its result what it hands on. Raises
    InputError if ``layer`` is no layer of ``graph``.
    """
    return _extract(graph, _group_of(graph, layer), layer)


def extract_layers(graph: Graph) -> dict[str, Graph]:
    """``extract_layer`` of every layer of ``graph``, in order."""
    groups = {group.head: group for group in make_groups(graph)}
    names = [node.name for node in graph.layers()]
    return {name: _extract(graph, groups[name], name) for name in names if name in groups}


def extract_group(graph: Graph, group: Group) -> Graph:
    """A kernel as a graph of its own."""
    return _extract(graph, group, group.head)


def _group_of(graph: Graph, layer: str) -> Group:
    if layer not in {node.name for node in graph.layers()}:
        raise InputError(f"{graph.name} has no layer {layer!r}")
    return next(group for group in make_groups(graph) if group.head == layer)


def _extract(graph: Graph, group: Group, layer: str) -> Graph:
    builder = GraphBuilder(layer)
    new: dict[str, str] = {}

    def operand(name: str) -> str:
        if name not in new:
            if name in graph.constants:
                new[name] = copy_node(builder, graph, graph.nodes[name], ())
            else:
                new[name] = builder.input(f"in{len(new)}", TensorType(
                    graph.type(name).shape, graph.type(name).dtype))
        return new[name]

    for name in group.members:
        node = graph.nodes[name]
        inputs = [operand(value) for value in node.inputs]
        new[name] = builder.add(node.op, inputs, node.name, node.source)
    return builder.finish([new[group.tail]])


_VALUES = frozenset({"lo", "hi", "alpha", "eps", "zero_point", "value"})
"""Attributes that change results but not the work."""


def structure_key(graph: Graph, stored: Callable[[DType], str] = str) -> str:
    """Hash of operators, shapes and formats; graphs with one key take the same time.

    ``stored`` names how a format is kept on the target: formats kept alike count as the same.
    Names, weights and bounds do not count, nor in which order independent nodes are listed.
    """
    seen: dict[str, str] = {}
    for node in graph.nodes.values():
        operands = [seen[v] for v in node.inputs]
        seen[node.name] = _digest(_describe(node, stored), *operands)
    ends = [*(seen[v] for v in graph.inputs), *(seen[v] for v in graph.outputs)]
    return _digest(*ends)


def _describe(node: Node, stored: Callable[[DType], str]) -> str:
    shape = "x".join(map(str, node.type.shape))
    kind = f"{stored(node.type.dtype)}[{shape}]"
    if isinstance(node.op, Constant):
        return f"constant {kind}"
    attributes = [
        f"{f.name}={getattr(node.op, f.name)}"
        for f in fields(node.op)
        if f.name not in _VALUES and not isinstance(getattr(node.op, f.name), DType | TensorType)
    ]
    return f"{node.op.name}({','.join(attributes)}) {kind}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def random_inputs(graph: Graph, seed: int = 0) -> tuple[Array, ...]:
    """Valid inputs: integers over the whole range of their format, floats around zero."""
    rng = np.random.default_rng(seed)
    arrays: list[Array] = []
    for name in graph.inputs:
        kind = graph.type(name)
        if kind.dtype.is_float:
            arrays.append(rng.standard_normal(kind.shape).astype(kind.dtype.numpy))
        else:
            low, high = kind.dtype.min, kind.dtype.max
            values = rng.integers(low, high, kind.shape, endpoint=True)
            arrays.append(values.astype(kind.dtype.numpy))
    return tuple(arrays)
