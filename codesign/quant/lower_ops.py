# SPDX-License-Identifier: Apache-2.0
"""Integer forms of the operators without weights: one function per operator."""

from __future__ import annotations

import dataclasses
import math
from functools import singledispatch

import numpy as np

from codesign.errors import UnsupportedError
from codesign.ir import ops
from codesign.ir.graph import Node
from codesign.ir.types import S8, DType
from codesign.quant.activations import CLAMPS
from codesign.quant.dyadic import round_half_up
from codesign.quant.lower_layers import activation_table, clamp_limits, lower_layer
from codesign.quant.lowering import S16, Lowering
from codesign.quant.plan import TensorFormat, is_float_island


def lower_node(low: Lowering, node: Node) -> None:
    """Add what stands for ``node`` to the integer graph."""
    if node.name in low.done or isinstance(node.op, ops.Constant):
        return
    if isinstance(node.op, ops.Input):
        made = low.add(node.op, [], node.name, node)
        low.floats[node.name] = made
    elif node.name in low.formats and not low.formats[node.name].is_float:
        lower_layer(low, node)
    elif node.name in low.formats or is_float_island(low.graph, node) or _stays_float(low, node):
        lower_to_float(low, node)
    else:
        lower_op(node.op, low, node)


def lower_to_float(low: Lowering, node: Node) -> None:
    """The float operator itself, on float operands."""
    inputs = [low.as_float(value) for value in node.inputs]
    low.floats[node.name] = low.add(node.op, inputs, node.name, node)


def _stays_float(low: Lowering, node: Node) -> bool:
    """Whether all operands exist in float only and every reader is float, too: quantizing
    between two float operators would gain nothing."""
    if not node.inputs or any(
        v in low.integers or v not in (*low.floats, *low.graph.constants) for v in node.inputs
    ):
        return False
    return all(
        low.formats[user].is_float if user in low.formats
        else is_float_island(low.graph, low.graph.nodes[user])
        or _readers_float(low, user)
        for user in low.graph.users[node.name]
    )  # fmt: skip


def _readers_float(low: Lowering, name: str) -> bool:
    """Whether everything downstream of ``name`` up to layers and islands is float."""
    stack, seen = [name], set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        for user in low.graph.users[current]:
            node = low.graph.nodes[user]
            if user in low.formats:
                if not low.formats[user].is_float:
                    return False
            elif not is_float_island(low.graph, node):
                if any(v in low.integers for v in node.inputs):
                    return False
                stack.append(user)
    return True


@singledispatch
def lower_op(op: ops.Op, low: Lowering, node: Node) -> None:
    """Add the integer form of an operator that has one."""
    raise UnsupportedError(
        f"{low.graph.name}: node {node.name!r} ({op.name}) is an integer operator; "
        "quantization takes a float network"
    )


@lower_op.register(ops.Reshape)
@lower_op.register(ops.Transpose)
@lower_op.register(ops.Slice)
@lower_op.register(ops.Broadcast)
@lower_op.register(ops.Pad)
@lower_op.register(ops.Resize)
def _move(op: ops.Op, low: Lowering, node: Node) -> None:
    """Operators that only move elements work on integers as on floats."""
    value = node.inputs[0]
    if value in low.graph.constants:
        lower_to_float(low, node)
        return
    held = low.as_int(value)
    made = low.add(op, [held.name], node.name, node)
    low.hold(node.name, made, TensorFormat(held.dtype, held.scale))


@lower_op.register
def _(op: ops.Activation, low: Lowering, node: Node) -> None:
    held, form = low.as_int(node.inputs[0]), low.target(node.name)
    same = (held.dtype, held.scale) == (form.dtype, form.scale)
    if op.kind == "relu" and same and low.plan.non_negative[node.inputs[0]]:
        low.hold(node.name, held.name, form)
    elif op.kind in CLAMPS:
        made = low.requantize(
            node, held.name, held.scale / form.scale, "out", form.dtype,
            clamp_limits(op.kind, form),
        )  # fmt: skip
        low.hold(node.name, made, form)
    else:
        name, x = held.name, TensorFormat(held.dtype, held.scale)
        if held.dtype.bits > 8:
            root = low.plan.roots[node.inputs[0]]
            x = TensorFormat(S8, low.calibration.scale(root, 8, True, low.options.method))
            name = low.requantize(node, name, held.scale / x.scale, "pre", S8)
            low.scales[name] = np.array(x.scale)
        table = activation_table(op.kind, op.alpha, x, form)
        values = low.constant(node, "table", table, form.dtype)
        low.hold(node.name, low.add(ops.Lookup(), [name, values], node.name, node), form)


@lower_op.register
def _(op: ops.Add, low: Lowering, node: Node) -> None:
    """Each operand in s16 at the output scale, the sum clipped; a lone relu is taken in."""
    result, kind = node.name, "none"
    users = low.graph.users[node.name]
    if len(users) == 1 and node.name not in low.graph.outputs:
        after = low.graph.nodes[users[0]].op
        if isinstance(after, ops.Activation) and after.kind in CLAMPS:
            result, kind = users[0], after.kind
            low.done.add(result)
    form = low.target(result)
    names = []
    for label, value in zip("ab", node.inputs):
        if value in low.graph.constants:
            array = low.graph.constants[value].astype(np.float64) / form.scale
            integers = np.clip(round_half_up(array), S16.min, S16.max).astype(np.int16)
            names.append(low.constant(node, label, integers, S16))
        else:
            held = low.as_int(value)
            names.append(low.requantize(node, held.name, held.scale / form.scale, label, S16))
        low.scales[names[-1]] = np.array(form.scale)
    total = low.add(op, names, node.name, node)
    low.scales[total] = np.array(form.scale)
    clip = ops.Clip(form.dtype, *clamp_limits(kind, form))
    low.hold(result, low.add(clip, [total], low.name(node.name, "out"), node), form)


@lower_op.register(ops.Mul)
@lower_op.register(ops.MatMul)
def _product(op: ops.Op, low: Lowering, node: Node) -> None:
    """Exact s32 products, requantised."""
    a, b = (low.as_int(value) for value in node.inputs)
    terms = low.graph.type(node.inputs[0]).shape[-1] if isinstance(op, ops.MatMul) else 1
    reach = terms * max(-a.dtype.min, a.dtype.max) * max(-b.dtype.min, b.dtype.max)
    if reach >= 1 << 31:
        raise UnsupportedError(
            f"{low.graph.name}: {node.name!r} ({op.name}) of {a.dtype} and {b.dtype} over "
            f"{terms} terms does not fit a 32-bit accumulator"
        )
    form = low.target(node.name)
    total = low.add(op, [a.name, b.name], node.name, node)
    low.scales[total] = np.array(a.scale * b.scale)
    factor = a.scale * b.scale / form.scale
    low.hold(node.name, low.requantize(node, total, factor, "out", form.dtype), form)


@lower_op.register
def _(op: ops.Concat, low: Lowering, node: Node) -> None:
    """Operands are brought to the output format where they are not in it."""
    form = low.target(node.name)
    names = []
    for index, value in enumerate(node.inputs):
        if value in low.graph.constants:
            array = low.graph.constants[value].astype(np.float64) / form.scale
            clipped = np.clip(round_half_up(array), form.dtype.min, form.dtype.max)
            made = low.constant(node, f"in{index}", clipped, form.dtype)
            low.scales[made] = np.array(form.scale)
        else:
            held = low.as_int(value)
            made = low.rescale(node, held, form, f"in{index}")
        low.scales[made] = np.array(form.scale)
        names.append(made)
    low.hold(node.name, low.add(op, names, node.name, node), form)


@lower_op.register
def _(op: ops.Pool2d, low: Lowering, node: Node) -> None:
    """Maximum as it is; sum and average as an exact sum with the area in the factor."""
    held = low.as_int(node.inputs[0])
    if op.kind == "max":
        made = low.add(op, [held.name], node.name, node)
        low.hold(node.name, made, TensorFormat(held.dtype, held.scale))
        return
    area = math.prod(op.kernel) if op.kind == "avg" else 1
    total = dataclasses.replace(op, kind="sum", count_include_pad=True)
    _sum(low, node, total, math.prod(op.kernel), area)


@lower_op.register
def _(op: ops.Reduce, low: Lowering, node: Node) -> None:
    """Maximum as it is; sum and mean as an exact sum with the count in the factor."""
    held = low.as_int(node.inputs[0])
    if op.kind == "max":
        made = low.add(op, [held.name], node.name, node)
        low.hold(node.name, made, TensorFormat(held.dtype, held.scale))
        return
    shape = low.graph.type(node.inputs[0]).shape
    terms = math.prod(shape[axis] for axis in op.axes)
    total = dataclasses.replace(op, kind="sum")
    _sum(low, node, total, terms, terms if op.kind == "mean" else 1)


def _sum(low: Lowering, node: Node, op: ops.Op, terms: int, divisor: int) -> None:
    held = low.as_int(node.inputs[0])
    _check_sum(low, node, held.dtype, terms)
    form = low.target(node.name)
    total = low.add(op, [held.name], node.name, node)
    low.scales[total] = np.array(held.scale / divisor)
    factor = held.scale / divisor / form.scale
    low.hold(node.name, low.requantize(node, total, factor, "out", form.dtype), form)


def _check_sum(low: Lowering, node: Node, dtype: DType, terms: int) -> None:
    if terms * max(-dtype.min, dtype.max) >= 1 << 31:
        raise UnsupportedError(
            f"{low.graph.name}: {node.name!r} ({node.op.name}) sums {terms} elements of "
            f"{dtype}, which does not fit a 32-bit accumulator"
        )
