# SPDX-License-Identifier: Apache-2.0
"""Another batch size: rebuild a graph for it, or run a graph over many images in batches.

Each value is tracked by the axis that holds the batch, which may be merged with later
axes (attention heads folded into the batch). Operators that mix images are refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from codesign.errors import InputError, VerifyError
from codesign.ir import ops
from codesign.ir.graph import Array, Graph, GraphBuilder, Node, copy_node
from codesign.ir.interpret import run
from codesign.ir.types import TensorType


def batch_size(graph: Graph) -> int:
    """The leading dimension that all inputs share; raises InputError if they share none."""
    sizes = {graph.type(name).shape[:1] for name in graph.inputs}
    if len(sizes) != 1 or () in sizes:
        shapes = ", ".join(f"{name}: {graph.type(name)}" for name in graph.inputs)
        raise InputError(f"{graph.name}: the inputs share no batch dimension ({shapes or 'none'})")
    return sizes.pop()[0]


def with_batch(graph: Graph, size: int) -> Graph:
    """``graph`` with ``size`` images at once instead of those its inputs declare.

    Raises InputError that names the operator if one mixes the images of a batch.
    """
    old = batch_size(graph)
    if size < 1:
        raise InputError(f"{graph.name}: the batch must be at least 1, got {size}")
    if size == old:
        return graph
    builder = GraphBuilder(graph.name)
    new: dict[str, str] = {}
    axes: dict[str, int | None] = {}
    for node in graph.nodes.values():
        operands = [new[v] for v in node.inputs]
        types = [graph.type(v) for v in node.inputs]
        rule = _Rule(node, types, [axes[v] for v in node.inputs], old, size)
        try:
            op, axis = _rebatch(node.op, rule)
            if rule.widen:  # constants concatenated with the images: one copy for each
                operands = [
                    builder.add(ops.Broadcast(rule.wide(kind, rule.widen[0])), [value])
                    if index in rule.widen[1] else value
                    for index, (value, kind) in enumerate(zip(operands, types))
                ]  # fmt: skip
            if isinstance(op, ops.Constant):
                new[node.name] = copy_node(builder, graph, node, ())
            else:
                new[node.name] = builder.add(op, operands, node.name, node.source)
        except (_MixedError, VerifyError) as error:
            source = f" from {node.source!r}" if node.source else ""
            raise InputError(
                f"{graph.name}: the batch cannot be changed from {old} to {size}: node "
                f"{node.name!r} ({node.op.name}){source} {error}"
            ) from None
        axes[node.name] = axis
    return builder.finish([new[v] for v in graph.outputs])


def run_batched(graph: Graph, *arrays: Array, batch: int = 16) -> tuple[Array, ...]:
    """Results for any number of images, ``batch`` at a time, joined along axis 0."""
    if not arrays or len({len(a) for a in arrays}) != 1 or not len(arrays[0]):
        raise InputError(
            f"{graph.name}: run_batched needs the same number of images for each input, got "
            f"{[len(a) for a in arrays]}"
        )
    count = len(arrays[0])
    graphs: dict[int, Graph] = {}
    parts: list[tuple[Array, ...]] = []
    for start in range(0, count, batch):
        part = [a[start : start + batch] for a in arrays]
        size = len(part[0])
        if size not in graphs:
            graphs[size] = with_batch(graph, size)
        parts.append(run(graphs[size], *part))
    return tuple(np.concatenate(column) for column in zip(*parts))


class _MixedError(Exception):
    """The operator mixes images; the message continues "node 'x' (op) …"."""


@dataclass
class _Rule:
    """What an operator's rule sees: operand types and the axis of each that holds the batch."""

    node: Node
    types: Sequence[TensorType]
    axes: Sequence[int | None]
    old: int
    new: int
    widen: tuple[int, set[int]] | None = None

    def scale(self, size: int) -> int:
        """A dimension of ``size`` that holds the batch, for the new batch."""
        if size % self.old:
            raise _MixedError(f"has a dimension of {size} that does not hold whole images")
        return size // self.old * self.new

    def wide(self, kind: TensorType, axis: int) -> tuple[int, ...]:
        """The shape with the dimension ``axis`` scaled."""
        return tuple(self.scale(n) if i == axis else n for i, n in enumerate(kind.shape))

    def only_first(self) -> int | None:
        """The batch axis of operand 0; the others must hold no batch."""
        if any(axis is not None for axis in self.axes[1:]):
            raise _MixedError("has parameters that depend on the images")
        return self.axes[0]

    def apart(self, axis: int | None, *mixed: int) -> int | None:
        """``axis``, which must be none of those the operator mixes."""
        if axis is not None and axis in mixed:
            raise _MixedError(f"works along axis {axis}, which holds the images")
        return axis

    def aligned(self, operands: Sequence[int], rank: int) -> int | None:
        """The batch axis of the broadcast result of ``operands`` (result of ``rank`` axes)."""
        found = {
            axis + rank - self.types[i].rank
            for i in operands
            if (axis := self.axes[i]) is not None
        }
        if len(found) > 1:
            raise _MixedError("combines operands that hold the images on different axes")
        axis = found.pop() if found else None
        for i in operands:
            own = -1 if axis is None else axis - rank + self.types[i].rank
            if own >= 0 and self.axes[i] is None and self.types[i].shape[own] != 1:
                raise _MixedError("combines the images with a constant for each of them")
        return axis


Result = tuple[ops.Op, int | None]


@singledispatch
def _rebatch(op: ops.Op, rule: _Rule) -> Result:
    """The operator for the new batch and the axis of its result that holds the batch.

    This general rule serves element-wise operators.
    """
    return op, rule.only_first()


@_rebatch.register
def _(op: ops.Input, rule: _Rule) -> Result:
    return ops.Input(dataclasses.replace(op.type, shape=(rule.new, *op.type.shape[1:]))), 0


@_rebatch.register
def _(op: ops.Constant, rule: _Rule) -> Result:
    return op, None


@_rebatch.register(ops.Conv2d)
@_rebatch.register(ops.Linear)
def _(op: ops.Conv2d | ops.Linear, rule: _Rule) -> Result:
    x = rule.axes[0]
    if rule.axes[1] is not None or (op.bias and rule.axes[2] is not None):
        raise _MixedError("has parameters that depend on the images")
    mixed = (1, 2, 3) if isinstance(op, ops.Conv2d) else (rule.types[0].rank - 1,)
    if op.residual and rule.axes[-1] != x:
        raise _MixedError("combines operands that hold the images on different axes")
    return op, rule.apart(x, *mixed)


@_rebatch.register
def _(op: ops.MatMul, rule: _Rule) -> Result:
    rank = rule.node.type.rank
    a, b = rule.axes
    if b is None and a == rule.types[0].rank - 2:
        return op, rank - 2
    for axis, kind in zip(rule.axes, rule.types):
        rule.apart(axis, kind.rank - 1, kind.rank - 2)
    return op, rule.aligned((0, 1), rank)


@_rebatch.register(ops.Add)
@_rebatch.register(ops.Mul)
def _(op: ops.Add | ops.Mul, rule: _Rule) -> Result:
    return op, rule.aligned((0, 1), rule.node.type.rank)


@_rebatch.register(ops.BatchNorm)
@_rebatch.register(ops.Pool2d)
@_rebatch.register(ops.Resize)
def _(op: ops.Op, rule: _Rule) -> Result:
    return op, rule.apart(rule.only_first(), *range(1, rule.types[0].rank))


@_rebatch.register
def _(op: ops.Concat, rule: _Rule) -> Result:
    found = {axis for axis in rule.axes if axis is not None}
    if len(found) > 1:
        raise _MixedError("combines operands that hold the images on different axes")
    if not found:
        return op, None
    axis = found.pop()
    rule.apart(axis, op.axis)
    alone = {i for i, own in enumerate(rule.axes) if own is None}
    if any(rule.types[i].shape[axis] != 1 for i in alone):
        raise _MixedError("combines the images with a constant for each of them")
    rule.widen = (axis, alone) if alone else None
    return op, axis


@_rebatch.register(ops.Slice)
@_rebatch.register(ops.Softmax)
@_rebatch.register(ops.Quantize)
@_rebatch.register(ops.Dequantize)
@_rebatch.register(ops.Requantize)
def _(
    op: ops.Slice | ops.Softmax | ops.Quantize | ops.Dequantize | ops.Requantize, rule: _Rule
) -> Result:
    return op, rule.apart(rule.only_first(), op.axis)


@_rebatch.register
def _(op: ops.LayerNorm, rule: _Rule) -> Result:
    rank = rule.types[0].rank
    return op, rule.apart(rule.only_first(), *range(rank - rule.types[1].rank, rank))


@_rebatch.register
def _(op: ops.Reduce, rule: _Rule) -> Result:
    axis = rule.apart(rule.axes[0], *op.axes)
    if axis is not None and not op.keepdims:
        axis -= sum(other < axis for other in op.axes)
    return op, axis


@_rebatch.register
def _(op: ops.Pad, rule: _Rule) -> Result:
    axis = rule.axes[0]
    if axis is not None and (op.before[axis] or op.after[axis]):
        rule.apart(axis, axis)
    return op, axis


@_rebatch.register
def _(op: ops.Transpose, rule: _Rule) -> Result:
    axis = rule.axes[0]
    return op, None if axis is None else op.perm.index(axis)


@_rebatch.register
def _(op: ops.Reshape, rule: _Rule) -> Result:
    axis, kind = rule.axes[0], rule.types[0]
    if axis is None:
        return op, None
    # The images are outermost from ``axis`` on: find where the new shape continues from there.
    before = math.prod(kind.shape[:axis])
    for place, size in enumerate(op.shape):
        if math.prod(op.shape[:place]) == before and size % rule.old == 0:
            shape = (*op.shape[:place], rule.scale(size), *op.shape[place + 1 :])
            return ops.Reshape(shape), place
    raise _MixedError(f"takes the images of {kind} apart")


@_rebatch.register
def _(op: ops.Broadcast, rule: _Rule) -> Result:
    axis, kind = rule.axes[0], rule.types[0]
    if axis is None:
        return op, None
    place = axis + len(op.shape) - kind.rank
    if op.shape[place] != kind.shape[axis]:
        rule.apart(axis, axis)
    shape = tuple(rule.scale(n) if i == place else n for i, n in enumerate(op.shape))
    return ops.Broadcast(shape), place
