# SPDX-License-Identifier: Apache-2.0
"""Integer forms of convolution and linear layers with weights, and of fused activations."""

from __future__ import annotations

import dataclasses

import numpy as np

from codesign.errors import UnsupportedError
from codesign.ir import kernels, ops
from codesign.ir.graph import Array, Node
from codesign.ir.types import S8, S32, DType
from codesign.quant.accumulator import accumulator_range, signed_bits
from codesign.quant.activations import CLAMPS
from codesign.quant.dyadic import FloatArray, round_half_up
from codesign.quant.lowering import S16, Held, Lowering
from codesign.quant.plan import TensorFormat
from codesign.quant.weights import integer_bias, integer_weights, layer_scales


def lower_layer(low: Lowering, node: Node) -> None:
    """acc = conv(x, w) + bias in s32, then requantised per output channel."""
    op = node.op
    assert isinstance(op, ops.Conv2d | ops.Linear)
    bits = low.formats[node.name].weight_bits
    assert bits is not None
    x = low.as_int(node.inputs[0])
    weight = low.graph.constants[node.inputs[1]]
    bias_name = low.graph.operand(node, "bias")
    if bias_name is not None and bias_name not in low.graph.constants:
        raise UnsupportedError(
            f"{low.graph.name}: layer {node.name!r} has a computed bias; keep it in float"
        )
    bias = np.zeros(len(weight))
    if bias_name is not None:
        bias = low.graph.constants[bias_name].astype(np.float64)
    bias = bias + low.biases.get(node.name, 0.0)

    given = low.options.weight_scales.get(node.inputs[1])
    scale = layer_scales(weight, bias, bits, x.scale, low.options.weight_clip, given)
    q = integer_weights(weight, bits, scale)
    q_bias = integer_bias(node.name, bias, scale * x.scale)
    _check_accumulator(low, node, q, x.dtype, q_bias)
    w = low.constant(node, "weight", q, DType("signed", bits))
    b = low.constant(node, "bias", q_bias, S32)
    low.scales[w], low.scales[b] = scale, scale * x.scale
    plain = dataclasses.replace(op, bias=True, residual=False, activation="none", alpha=0.0)
    acc = low.add(plain, [x.name, w, b], node.name, node)
    low.scales[acc] = scale * x.scale
    axis = 1 if isinstance(op, ops.Conv2d) else node.type.rank - 1
    residual = low.graph.operand(node, "residual")
    held = None if residual is None else low.as_int(residual)
    finish(low, node, acc, scale * x.scale, axis, held, op.activation, op.alpha)


def _check_accumulator(low: Lowering, node: Node, weight: Array, x: DType, bias: Array) -> None:
    least, most = accumulator_range(weight, x, bias)
    bits = signed_bits(int(least.min(initial=0)), int(most.max(initial=0)))
    if bits > 32:
        raise UnsupportedError(
            f"{low.graph.name}: layer {node.name!r} in {low.formats[node.name]} needs a "
            f"{bits}-bit accumulator, 32 is the limit; choose fewer bits or keep it in float"
        )


def clamp_limits(kind: str, form: TensorFormat) -> tuple[int, int]:
    """Integer range of a value after one of the activations in ``CLAMPS``."""
    lo = form.dtype.min if kind == "none" else 0
    hi = form.dtype.max
    if kind == "relu6":
        hi = min(hi, int(np.floor(6 / form.scale + 0.5)))
    return lo, hi


def finish(
    low: Lowering,
    node: Node,
    acc: str,
    scale: float | FloatArray,
    axis: int,
    residual: Held | None,
    kind: str,
    alpha: float,
) -> None:
    """From accumulators of step ``scale`` to the node's planned format.

    A residual is added in s16 at the step of the sum. Activations that are no clamp read the
    sum in s8 and go through a table.
    """
    form = low.target(node.name)
    direct = kind in CLAMPS
    before = form if direct else table_input(low, node)
    lo, hi = clamp_limits(kind if direct else "none", before)
    if residual is None:
        made = low.requantize(
            node, acc, scale / before.scale, "out" if direct else "pre", before.dtype,
            (lo, hi), axis,
        )  # fmt: skip
    else:
        one = low.requantize(node, acc, scale / before.scale, "sum", S16, axis=axis)
        two = low.requantize(node, residual.name, residual.scale / before.scale, "residual", S16)
        total = low.add(ops.Add(), [one, two], low.name(node.name, "add"), node)
        for name in (one, two, total):
            low.scales[name] = np.array(before.scale)
        name = low.name(node.name, "out" if direct else "pre")
        made = low.add(ops.Clip(before.dtype, lo, hi), [total], name, node)
    if not direct:
        low.scales[made] = np.array(before.scale)
        table = activation_table(kind, alpha, before, form)
        values = low.constant(node, "table", table, form.dtype)
        made = low.add(ops.Lookup(), [made, values], low.name(node.name, "out"), node)
    low.hold(node.name, made, form)


def table_input(low: Lowering, node: Node) -> TensorFormat:
    """Format of the pre-activation that a fused table reads: s8."""
    scale = low.calibration.scale(f"{node.name}:pre", S8.bits, True, low.options.method)
    return TensorFormat(S8, scale)


def activation_table(kind: str, alpha: float, x: TensorFormat, y: TensorFormat) -> Array:
    """Integers of format ``y`` for every integer of format ``x``."""
    inputs = np.arange(x.dtype.min, x.dtype.max + 1, dtype=np.float64) * x.scale
    values = kernels.activation(kind, inputs, alpha).astype(np.float64) / y.scale
    return np.clip(round_half_up(values), y.dtype.min, y.dtype.max).astype(y.dtype.numpy)
