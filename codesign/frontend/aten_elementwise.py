# SPDX-License-Identifier: Apache-2.0
"""ATen arithmetic and activations."""

from __future__ import annotations

import numpy as np

from codesign.frontend.aten import Args, Handler, Result, handles
from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable
from codesign.ir.ops import ActivationKind


def _scaled(lower: Lowering, a: Args, name: str) -> str:
    """Operand ``name`` times ``alpha``."""
    alpha = a.values.get("alpha", 1)
    value = a[name]
    if alpha == 1:
        return a.operand(name)
    if isinstance(value, int | float):
        return lower.scalar(float(value) * alpha, name)
    return lower.mul(a.tensor(name), lower.scalar(float(alpha), "alpha"), "times_alpha")


@handles("add.Tensor", "add.Scalar")
def _add(lower: Lowering, a: Args) -> Result:
    return lower.add(a.operand("self"), _scaled(lower, a, "other"))


@handles("sub.Tensor", "sub.Scalar")
def _sub(lower: Lowering, a: Args) -> Result:
    return lower.sub(a.operand("self"), _scaled(lower, a, "other"))


@handles("rsub.Scalar", "rsub.Tensor")
def _rsub(lower: Lowering, a: Args) -> Result:
    return lower.sub(a.operand("other"), _scaled(lower, a, "self"))


@handles("mul.Tensor", "mul.Scalar")
def _mul(lower: Lowering, a: Args) -> Result:
    return lower.mul(a.operand("self"), a.operand("other"))


@handles("div.Tensor", "div.Scalar")
def _div(lower: Lowering, a: Args) -> Result:
    return lower.div(a.operand("self"), a.operand("other"))


@handles("neg.default")
def _neg(lower: Lowering, a: Args) -> Result:
    return lower.mul(a.tensor("self"), lower.scalar(-1.0, "minus_one"))


@handles("pow.Tensor_Scalar")
def _pow(lower: Lowering, a: Args) -> Result:
    return lower.power(a.tensor("self"), float(a["exponent"]))


@handles("square.default")
def _square(lower: Lowering, a: Args) -> Result:
    return lower.power(a.tensor("self"), 2.0)


def _plain(kind: ActivationKind) -> Handler:
    def handler(lower: Lowering, a: Args) -> Result:
        return lower.activation(a.tensor("self"), kind)

    return handler


for _name, _kind in {
    "relu": "relu", "relu6": "relu6", "hardswish": "hardswish", "hardsigmoid": "hardsigmoid",
    "sigmoid": "sigmoid", "silu": "silu", "tanh": "tanh",
}.items():  # fmt: skip
    handles(f"{_name}.default")(_plain(_kind))  # type: ignore[arg-type]


@handles("gelu.default")
def _gelu(lower: Lowering, a: Args) -> Result:
    return lower.activation(a.tensor("self"), "gelu_tanh" if a["approximate"] == "tanh" else "gelu")


@handles("leaky_relu.default")
def _leaky_relu(lower: Lowering, a: Args) -> Result:
    return lower.activation(a.tensor("self"), "leaky_relu", float(a["negative_slope"]))


@handles("prelu.default")
def _prelu(lower: Lowering, a: Args) -> Result:
    slope = lower.known(a.tensor("weight"))
    if slope is None or slope.size != 1:
        raise NotLowerable("prelu with a slope per channel; use one slope (num_parameters=1)")
    return lower.activation(a.tensor("self"), "leaky_relu", float(slope.reshape(())))


@handles("hardtanh.default")
def _hardtanh(lower: Lowering, a: Args) -> Result:
    return lower.clamp(a.tensor("self"), a.number("min_val"), a.number("max_val"))


@handles("clamp.default")
def _clamp(lower: Lowering, a: Args) -> Result:
    return lower.clamp(a.tensor("self"), a.number("min"), a.number("max"))


@handles("clamp_min.default")
def _clamp_min(lower: Lowering, a: Args) -> Result:
    return lower.clamp(a.tensor("self"), a.number("min"), None)


@handles("clamp_max.default")
def _clamp_max(lower: Lowering, a: Args) -> Result:
    return lower.clamp(a.tensor("self"), None, a.number("max"))


@handles(
    "clone.default", "contiguous.default", "detach.default", "detach_.default", "alias.default",
    "lift_fresh_copy.default", "dropout.default", "to.dtype", "to.device", "to.dtype_layout",
    "_to_copy.default",
)  # fmt: skip
def _identity(lower: Lowering, a: Args) -> Result:
    x = a.tensor("self") if "self" in a.values else a.tensor("input")
    if a.values.get("train"):
        raise NotLowerable("dropout in training mode; call eval() before the export")
    dtype = a.values.get("dtype")
    if dtype is not None and str(dtype) != "torch.float32":
        raise NotLowerable(f"conversion to {dtype}; networks compute in float32")
    return x


@handles("full.default")
def _full(lower: Lowering, a: Args) -> Result:
    return lower.constant(np.full(tuple(a["size"]), a["fill_value"], np.float32), "full")


@handles("scalar_tensor.default")
def _scalar_tensor(lower: Lowering, a: Args) -> Result:
    return lower.scalar(float(a["s"]), "scalar")


@handles("zeros.default")
def _zeros(lower: Lowering, a: Args) -> Result:
    return lower.constant(np.zeros(tuple(a["size"]), np.float32), "zeros")


@handles("ones.default")
def _ones(lower: Lowering, a: Args) -> Result:
    return lower.constant(np.ones(tuple(a["size"]), np.float32), "ones")
