# SPDX-License-Identifier: Apache-2.0
"""ONNX arithmetic and activations, and the patterns that stand for gelu and layer norm."""

from __future__ import annotations

import math

import numpy as np

from codesign.frontend.lowering import Lowering
from codesign.frontend.onnx_table import Call, Handler, Item, Known, Part, Result, handles
from codesign.frontend.report import NotLowerable
from codesign.ir import ops
from codesign.ir.ops import ActivationKind

_CLOSE = 1e-5
"""Relative difference up to which a constant of a pattern is taken for what it should be."""


def _is(item: Item | None, value: float) -> bool:
    if not isinstance(item, Known) or item.value.size != 1:
        return False
    return math.isclose(float(item.value.reshape(())), value, rel_tol=_CLOSE)


def _times(lower: Lowering, x: str, factor: float) -> str | None:
    """y if value ``x`` was computed as y · factor."""
    node = lower.builder.node(x)
    if not isinstance(node.op, ops.Mul):
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        array = lower.known(other)
        if array is not None and array.size == 1:
            found = float(array.reshape(()))
            return value if math.isclose(found, factor, rel_tol=_CLOSE) else None
    return None


@handles("Erf")
def _erf(lower: Lowering, c: Call) -> Result:
    x = _times(lower, c.tensor(0), math.sqrt(0.5))
    if x is None:
        raise NotLowerable(Part("erf", "").complaint)
    return Part("erf", x)


def _gelu_step(lower: Lowering, part: Part, other: Item | None, factor: bool) -> Result | None:
    """The next step of x · (1 + erf(x / √2)) · ½, in any order of the products."""
    if part.kind == "1+erf":
        if factor and _is(other, 0.5):
            return Part("(1+erf)/2", part.x)
        if other == part.x:
            return Part("x(1+erf)", part.x)
        if isinstance(other, str) and _times(lower, other, 0.5) == part.x:
            return lower.activation(part.x, "gelu")
    done = (part.kind == "(1+erf)/2" and other == part.x) or (
        part.kind == "x(1+erf)" and factor and _is(other, 0.5)
    )
    return lower.activation(part.x, "gelu") if done else None


@handles("Add")
def _add(lower: Lowering, c: Call) -> Result:
    for first, second in ((0, 1), (1, 0)):
        part = c.item(first)
        if isinstance(part, Part) and part.kind == "erf" and _is(c.item(second), 1.0):
            return Part("1+erf", part.x)
    a, b = c.tensor(0), c.tensor(1)
    for x, shift in ((a, b), (b, a)):
        merged = _with_bias(lower, x, shift)
        if merged is not None:
            return merged
    return lower.add(a, b)


def _with_bias(lower: Lowering, x: str, shift: str) -> str | None:
    """MatMul and Add, as exporters write a linear layer, in one; a layer norm with its beta.

    The node without the addition stays in the builder and is dropped if nothing else reads it.
    """
    node, value = lower.builder.node(x), lower.known(shift)
    if value is None or value.dtype.kind != "f":
        return None
    if isinstance(node.op, ops.Linear) and not node.op.bias:
        outputs = lower.shape(x)[-1]
        if value.shape in ((outputs,), (1, outputs)):
            return lower.linear(node.inputs[0], node.inputs[1], lower.reshape(shift, (outputs,)))
    if isinstance(node.op, ops.LayerNorm) and value.shape == lower.shape(node.inputs[1]):
        beta = lower.known(node.inputs[2])
        if beta is not None and not beta.any():
            return lower.emit(node.op, [*node.inputs[:2], shift])
    return None


@handles("Mul")
def _mul(lower: Lowering, c: Call) -> Result:
    for first, second in ((0, 1), (1, 0)):
        part, other = c.item(first), c.item(second)
        if isinstance(part, Part):
            step = _gelu_step(lower, part, other, factor=True)
            if step is not None:
                return step
    a, b = c.tensor(0), c.tensor(1)
    for x, scale in ((a, b), (b, a)):
        node, value = lower.builder.node(x), lower.known(scale)
        if (
            isinstance(node.op, ops.LayerNorm)
            and value is not None
            and value.shape == lower.shape(node.inputs[1])
        ):
            gamma, beta = (lower.known(v) for v in node.inputs[1:])
            if gamma is not None and beta is not None and (gamma == 1).all() and not beta.any():
                return lower.emit(node.op, [node.inputs[0], scale, node.inputs[2]])
    return lower.mul(a, b)


@handles("Sub")
def _sub(lower: Lowering, c: Call) -> Result:
    return lower.sub(c.tensor(0), c.tensor(1))


@handles("Div")
def _div(lower: Lowering, c: Call) -> Result:
    part = c.item(0)
    if isinstance(part, Part) and _is(c.item(1), 2.0):
        step = _gelu_step(lower, part, Known(np.array(0.5)), factor=True)
        if step is not None:
            return step
    deviation = c.item(1)
    if isinstance(deviation, Part) and deviation.kind == "std" and deviation.x == c.item(0):
        x = _centred(lower, deviation.x)
        if x is not None:
            return lower.layer_norm(x, None, None, lower.shape(x)[-1:], deviation.eps)
    return lower.div(c.tensor(0), c.tensor(1))


@handles("Sqrt")
def _sqrt(lower: Lowering, c: Call) -> Result:
    """Only sqrt(mean(d · d) + eps) of a layer norm; what d is shows at the division."""
    complaint = Part("std", "").complaint
    total = lower.builder.node(c.tensor(0))
    if not isinstance(total.op, ops.Add):
        raise NotLowerable(complaint)
    for variance, eps in (total.inputs, total.inputs[::-1]):
        mean, value = lower.builder.node(variance), lower.known(eps)
        if value is not None and value.size == 1 and _over_last(lower, variance):
            square = lower.builder.node(mean.inputs[0])
            if isinstance(square.op, ops.Mul) and square.inputs[0] == square.inputs[1]:
                return Part("std", square.inputs[0], float(value.reshape(())))
    raise NotLowerable(complaint)


def _over_last(lower: Lowering, x: str) -> bool:
    """Whether x is a mean over the last axis, which stays."""
    op = lower.builder.node(x).op
    last = (len(lower.shape(x)) - 1,)
    return isinstance(op, ops.Reduce) and (op.kind, op.axes, op.keepdims) == ("mean", last, True)


def _centred(lower: Lowering, d: str) -> str | None:
    """x if d was computed as x − mean(x) over the last axis."""
    node = lower.builder.node(d)
    if isinstance(node.op, ops.Add):
        x, negated = node.inputs
        mean = _times(lower, negated, -1.0)
        if mean is not None and _over_last(lower, mean):
            return x if lower.builder.node(mean).inputs == (x,) else None
    return None


@handles("Pow")
def _pow(lower: Lowering, c: Call) -> Result:
    exponent = c.scalar(1)
    assert exponent is not None
    return lower.power(c.tensor(0), exponent)


@handles("Neg")
def _neg(lower: Lowering, c: Call) -> Result:
    return lower.mul(c.tensor(0), lower.scalar(-1.0, "minus_one"))


@handles("Sum")
def _sum(lower: Lowering, c: Call) -> Result:
    total = c.tensor(0)
    for index in range(1, len(c)):
        part = "" if index == len(c) - 1 else f"sum{index}"
        total = lower.add(total, c.tensor(index), part)
    return total


def _plain(kind: ActivationKind) -> Handler:
    def handler(lower: Lowering, c: Call) -> Result:
        return lower.activation(c.tensor(0), kind)

    return handler


handles("Relu")(_plain("relu"))
handles("Sigmoid")(_plain("sigmoid"))
handles("Tanh")(_plain("tanh"))
handles("HardSwish")(_plain("hardswish"))


@handles("Swish")
def _swish(lower: Lowering, c: Call) -> Result:
    if c.attribute("alpha", 1.0) != 1.0:
        raise NotLowerable(f"Swish with alpha {c.attribute('alpha'):g}; 1 can be taken")
    return lower.activation(c.tensor(0), "silu")


@handles("Gelu")
def _gelu(lower: Lowering, c: Call) -> Result:
    tanh = c.attribute("approximate", "none") == "tanh"
    return lower.activation(c.tensor(0), "gelu_tanh" if tanh else "gelu")


@handles("LeakyRelu")
def _leaky(lower: Lowering, c: Call) -> Result:
    return lower.activation(c.tensor(0), "leaky_relu", float(c.attribute("alpha", 0.01)))


@handles("PRelu")
def _prelu(lower: Lowering, c: Call) -> Result:
    slope = c.known(1)
    if slope.size != 1:
        raise NotLowerable("PRelu with a slope per channel; one slope can be taken")
    return lower.activation(c.tensor(0), "leaky_relu", float(slope.reshape(())))


@handles("HardSigmoid")
def _hard_sigmoid(lower: Lowering, c: Call) -> Result:
    """max(0, min(1, alpha · x + beta)); the IR's has alpha 1/6 and beta 1/2."""
    alpha, beta = float(c.attribute("alpha", 0.2)), float(c.attribute("beta", 0.5))
    x = c.tensor(0)
    if not math.isclose(alpha, 1 / 6, rel_tol=_CLOSE):
        x = lower.mul(x, lower.scalar(6 * alpha, "slope"), "scaled")
    if beta != 0.5:
        x = lower.add(x, lower.scalar(6 * (beta - 0.5), "offset"), "shifted")
    return lower.activation(x, "hardsigmoid")


@handles("Clip")
def _clip(lower: Lowering, c: Call) -> Result:
    return lower.clamp(c.tensor(0), c.scalar(1), c.scalar(2))


@handles("Max", "Min")
def _extreme(lower: Lowering, c: Call) -> Result:
    if len(c) != 2:
        raise NotLowerable(f"{c.kind} of {len(c)} operands; one and a constant can be taken")
    x, bound = (1, 0) if isinstance(c.item(0), Known) else (0, 1)
    value = c.scalar(bound)
    return lower.clamp(c.tensor(x), *((value, None) if c.kind == "Max" else (None, value)))


@handles("Identity", "Dropout")
def _identity(lower: Lowering, c: Call) -> Result:
    if c.outputs > 1:
        raise NotLowerable(f"the mask of {c.kind}")
    return c.item(0)


@handles("Cast")
def _cast(lower: Lowering, c: Call) -> Result:
    x = c.tensor(0)
    if c.attribute("to") != 1 or not lower.type(x).dtype.is_float:  # 1: float
        raise NotLowerable("conversion between types; networks compute in float32")
    return x
