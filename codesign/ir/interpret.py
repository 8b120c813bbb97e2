# SPDX-License-Identifier: Apache-2.0
"""The reference interpreter: what every operator computes, in NumPy, float and integer.

Values are held in logical order (NCHW) whatever their layout. Float operators compute in the
operands' float type. Integer operators are exact: they give the mathematical result, and a
result that does not fit its declared format raises VerifyError that names the node; nothing
wraps. Every back end must equal integer graphs bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

import numpy as np

from codesign.errors import InputError, VerifyError
from codesign.ir import kernels, ops
from codesign.ir.graph import Array, Graph, Node
from codesign.ir.types import TensorType

__all__ = ["Call", "check_inputs", "evaluate", "run", "run_node", "run_values"]


@dataclass(frozen=True, slots=True)
class Call:
    """One evaluation of a node: the node and what it reads."""

    node: Node
    types: tuple[TensorType, ...]
    args: tuple[Array, ...]

    def arg(self, label: str) -> Array | None:
        """The operand called ``label``, or None if the operator takes no such operand."""
        names = self.node.op.operand_names()
        return self.args[names.index(label)] if label in names else None

    def fail(self, message: str) -> VerifyError:
        """An error that names the node."""
        node = self.node
        source = f" from {node.source!r}" if node.source else ""
        return VerifyError(f"node {node.name!r} ({node.op.name}){source}: {message}")


def run(graph: Graph, *arrays: Array) -> tuple[Array, ...]:
    """Results of ``graph`` for inputs given in the order of ``graph.inputs``.

    Raises InputError if the inputs do not fit, VerifyError if an integer overflows.
    """
    values = run_values(graph, arrays)
    return tuple(values[name] for name in graph.outputs)


def run_values(
    graph: Graph,
    inputs: Mapping[str, Array] | Sequence[Array],
    keep: Collection[str] | Literal["all"] = (),
    observe: Callable[[str, Array], None] | None = None,
) -> dict[str, Array]:
    """Values of the outputs and of the nodes named in ``keep``, by name, in graph order.

    Other values are dropped as soon as their last reader has run. ``observe`` sees the inputs
    and every computed value (no constants) when it is ready, for statistics over many values.
    """
    unknown = sorted(set(keep) - set(graph.nodes)) if keep != "all" else []
    if unknown:
        raise InputError(f"{graph.name} has no value called {', '.join(map(repr, unknown))}")
    kept = set(graph.nodes) if keep == "all" else {*keep, *graph.outputs}
    values = dict(check_inputs(graph, inputs))
    readers = {name: len(users) for name, users in graph.users.items()}
    for node in graph.nodes.values():
        if isinstance(node.op, ops.Constant):
            values[node.name] = graph.constants[node.name]
            continue
        if not isinstance(node.op, ops.Input):
            values[node.name] = run_node(graph, node, tuple(values[v] for v in node.inputs))
        if observe is not None:
            observe(node.name, values[node.name])
        for value in node.inputs:
            readers[value] -= 1
            if not readers[value] and value not in kept:
                values.pop(value, None)
    return {name: values[name] for name in graph.nodes if name in kept}


def check_inputs(graph: Graph, inputs: Mapping[str, Array] | Sequence[Array]) -> dict[str, Array]:
    """The inputs by name, checked against names, shapes, formats; raises InputError."""
    names = graph.inputs
    if not isinstance(inputs, Mapping):
        if len(inputs) != len(names):
            raise InputError(
                f"{graph.name} takes {len(names)} inputs ({', '.join(names)}), got {len(inputs)}"
            )
        inputs = dict(zip(names, inputs))
    if inputs.keys() != set(names):
        raise InputError(
            f"{graph.name} takes the inputs {', '.join(names)}, got {', '.join(inputs) or 'none'}"
        )
    checked = {name: np.asarray(inputs[name]) for name in names}
    for name, value in checked.items():
        kind = graph.type(name)
        if value.shape != kind.shape or value.dtype != kind.dtype.numpy:
            hint = ""
            if value.shape[1:] == kind.shape[1:] and value.dtype == kind.dtype.numpy:
                hint = f"; for another batch use with_batch(graph, {len(value)}) or run_batched"
            raise InputError(
                f"{graph.name}: input {name!r} must be {kind.dtype.numpy}{list(kind.shape)}, "
                f"got {value.dtype}{list(value.shape)}{hint}"
            )
        if kind.dtype.is_integer and value.size:
            least, most = int(value.min()), int(value.max())
            if least < kind.dtype.min or most > kind.dtype.max:
                raise InputError(
                    f"{graph.name}: input {name!r} holds {least}..{most}, which does not fit "
                    f"{kind.dtype} ({kind.dtype.min}..{kind.dtype.max})"
                )
    return checked


def run_node(graph: Graph, node: Node, args: tuple[Array, ...]) -> Array:
    """Value of one node for the values of its operands, stored in the node's format."""
    call = Call(node, tuple(graph.type(v) for v in node.inputs), args)
    return _store(evaluate(node.op, call), call)


def _store(value: Array, call: Call) -> Array:
    """Bring an exact result to its storage type; raises VerifyError if it does not fit."""
    dtype = call.node.type.dtype
    if value.shape != call.node.type.shape:
        raise call.fail(f"computed {list(value.shape)}, the type is {call.node.type}")
    if value.dtype == dtype.numpy:
        return value
    if dtype.is_integer and value.size:
        least, most = int(value.min()), int(value.max())
        if least < dtype.min or most > dtype.max:
            raise call.fail(
                f"overflow: results {least}..{most} do not fit {dtype} ({dtype.min}..{dtype.max})"
            )
    return value.astype(dtype.numpy)


def _exact(bound: int, *arrays: Array) -> list[Array]:
    """The integer arrays in a type that is exact for sums of ``bound``."""
    dtype = kernels.exact_dtype(bound)
    return [array.astype(dtype) for array in arrays]


def _wide(bound: int, *arrays: Array) -> list[Array]:
    """The integer arrays in an integer type that is exact up to ``bound``."""
    return [array.astype(np.int64 if bound < 1 << 63 else object) for array in arrays]


@singledispatch
def evaluate(op: ops.Op, call: Call) -> Array:
    """Exact value of ``op``, before it is stored in the result's format."""
    raise call.fail(f"the interpreter has no rule for operator {op.name!r}")


@evaluate.register
def _(op: ops.Conv2d, call: Call) -> Array:
    def product(x: Array, w: Array) -> Array:
        return kernels.conv2d(x, w, op)

    return _layer(call, product, (1, -1, 1, 1), op.activation, op.alpha)


@evaluate.register
def _(op: ops.Linear, call: Call) -> Array:
    return _layer(call, lambda x, w: np.matmul(x, w.T), (-1,), op.activation, op.alpha)


def _layer(
    call: Call,
    product: Callable[[Array, Array], Array],
    bias_shape: tuple[int, ...],
    activation: str,
    alpha: float,
) -> Array:
    x, w, bias, residual = call.args[0], call.args[1], call.arg("bias"), call.arg("residual")
    if call.node.type.dtype.is_integer:
        extra = [a for a in (bias, residual) if a is not None]
        bound = kernels.dot_bound(x, w) + sum(kernels.abs_max(a) for a in extra)
        dtype = kernels.exact_dtype(bound)
        x, w = x.astype(dtype), w.astype(dtype)
        bias = None if bias is None else bias.astype(dtype)
        residual = None if residual is None else residual.astype(dtype)
    total = product(x, w)
    if bias is not None:
        total = total + bias.reshape(bias_shape)
    if residual is not None:
        total = total + residual
    if call.node.type.dtype.is_float:
        return kernels.activation(activation, total, alpha)
    # The accumulator itself must fit, also where relu would hide that it did not.
    total = _store(total, call)
    return np.asarray(np.maximum(total, 0)) if activation == "relu" else total


@evaluate.register
def _(op: ops.MatMul, call: Call) -> Array:
    a, b = call.args
    if call.node.type.dtype.is_integer:
        a, b = _exact(kernels.abs_max(a) * kernels.abs_max(b) * a.shape[-1], a, b)
    return np.asarray(np.matmul(a, b))


@evaluate.register
def _(op: ops.BatchNorm, call: Call) -> Array:
    shape = (1, -1) + (1,) * (call.args[0].ndim - 2)
    x, gamma, beta, mean, var = call.args[0], *(a.reshape(shape) for a in call.args[1:])
    return np.asarray((x - mean) / np.sqrt(var + x.dtype.type(op.eps)) * gamma + beta)


@evaluate.register
def _(op: ops.Add, call: Call) -> Array:
    a, b = call.args
    if call.node.type.dtype.is_integer:
        a, b = _wide(kernels.abs_max(a) + kernels.abs_max(b), a, b)
    return np.asarray(a + b)


@evaluate.register
def _(op: ops.Mul, call: Call) -> Array:
    a, b = call.args
    if call.node.type.dtype.is_integer:
        a, b = _wide(kernels.abs_max(a) * kernels.abs_max(b), a, b)
    return np.asarray(a * b)


@evaluate.register
def _(op: ops.Concat, call: Call) -> Array:
    return np.concatenate(call.args, axis=op.axis)


@evaluate.register
def _(op: ops.Slice, call: Call) -> Array:
    index = [slice(None)] * call.args[0].ndim
    index[op.axis] = slice(op.start, op.stop, op.step)
    return call.args[0][tuple(index)]


@evaluate.register
def _(op: ops.Activation, call: Call) -> Array:
    x = call.args[0]
    if x.dtype.kind != "f":
        return np.asarray(np.maximum(x, x.dtype.type(0)))
    return kernels.activation(op.kind, x, op.alpha)


@evaluate.register
def _(op: ops.Pool2d, call: Call) -> Array:
    x, dtype = call.args[0], call.types[0].dtype
    if dtype.is_integer and op.kind == "sum":
        (x,) = _exact(kernels.abs_max(x) * op.kernel[0] * op.kernel[1], x)
    return kernels.pool2d(x, op, -np.inf if dtype.is_float else dtype.min)


@evaluate.register
def _(op: ops.Reduce, call: Call) -> Array:
    x = call.args[0]
    if op.kind == "max":
        return np.asarray(x.max(axis=op.axes, keepdims=op.keepdims))
    if x.dtype.kind == "f":
        function = np.mean if op.kind == "mean" else np.sum
        return np.asarray(function(x, axis=op.axes, keepdims=op.keepdims))
    count = math.prod(x.shape[axis] for axis in op.axes)
    (x,) = _exact(kernels.abs_max(x) * count, x)
    return np.asarray(x.sum(axis=op.axes, keepdims=op.keepdims))


@evaluate.register
def _(op: ops.Softmax, call: Call) -> Array:
    return kernels.softmax(call.args[0], op.axis)


@evaluate.register
def _(op: ops.LayerNorm, call: Call) -> Array:
    x, gamma, beta = call.args
    return kernels.layer_norm(x, gamma, beta, op.eps)


@evaluate.register
def _(op: ops.Reshape, call: Call) -> Array:
    return call.args[0].reshape(op.shape)


@evaluate.register
def _(op: ops.Broadcast, call: Call) -> Array:
    return np.broadcast_to(call.args[0], op.shape)


@evaluate.register
def _(op: ops.Transpose, call: Call) -> Array:
    return call.args[0].transpose(op.perm)


@evaluate.register
def _(op: ops.Pad, call: Call) -> Array:
    x, widths = call.args[0], list(zip(op.before, op.after))
    if op.mode == "constant":
        return np.pad(x, widths, constant_values=x.dtype.type(op.value))
    return np.pad(x, widths, mode=op.mode)


@evaluate.register
def _(op: ops.Resize, call: Call) -> Array:
    return kernels.resize(call.args[0], op)


def _along(value: Array, axis: int, rank: int) -> Array:
    """Per-channel parameters shaped to broadcast along ``axis``; scalars as they are."""
    if axis < 0 or value.size == 1:
        return value.reshape(())
    return value.reshape([-1 if i == axis else 1 for i in range(rank)])


@evaluate.register
def _(op: ops.Quantize, call: Call) -> Array:
    x = call.args[0].astype(np.float32)
    scale = _along(call.args[1], op.axis, x.ndim)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        steps = np.floor(x / scale + np.float32(0.5))
    if np.isnan(steps).any():
        raise call.fail("cannot quantize NaN")
    zero = _along(np.array(op.zero_point, np.float64), op.axis, x.ndim)
    clipped = np.clip(steps.astype(np.float64) + zero, op.dtype.min, op.dtype.max)
    return np.asarray(clipped).astype(op.dtype.numpy)


@evaluate.register
def _(op: ops.Dequantize, call: Call) -> Array:
    x = call.args[0].astype(np.int64)
    x = x - _along(np.array(op.zero_point, np.int64), op.axis, x.ndim)
    scale = _along(call.args[1], op.axis, x.ndim)
    if kernels.abs_max(x) <= 1 << 24:  # exact in float32, so the product rounds once
        return np.asarray(x.astype(np.float32) * scale)
    # Up to 33 bits times 24: exact in extended precision, so that only the end rounds.
    return np.asarray(x.astype(np.longdouble) * scale.astype(np.longdouble)).astype(np.float32)


@evaluate.register
def _(op: ops.Requantize, call: Call) -> Array:
    x, m, e = call.args
    if m.min() < 0 or m.max() >= 1 << 16 or ((m > 0) & (m < 1 << 15)).any():
        raise call.fail("multipliers m must be 0 or within 2^15..2^16-1")
    if e.min() < 1 or e.max() > 62:
        raise call.fail("shifts e must be within 1..62")
    shift = _along(e.astype(np.int64), op.axis, x.ndim)
    result = x.astype(np.int64)
    result *= _along(m.astype(np.int64), op.axis, x.ndim)
    result += np.left_shift(np.int64(1), shift - 1)
    result >>= shift
    return np.clip(result, op.lo, op.hi, out=result).astype(op.dtype.numpy)


@evaluate.register
def _(op: ops.Clip, call: Call) -> Array:
    (x,) = _wide(max(kernels.abs_max(call.args[0]), -op.lo, op.hi), call.args[0])
    return np.clip(x, op.lo, op.hi)


@evaluate.register
def _(op: ops.Lookup, call: Call) -> Array:
    x, table = call.args
    return np.asarray(table[x.astype(np.int64) - call.types[0].dtype.min])
