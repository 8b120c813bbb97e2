# SPDX-License-Identifier: Apache-2.0
"""Operators of the graph IR: frozen dataclasses whose fields are the attributes.

Every operator has one result. ``infer`` checks the operand types and gives the result type;
it raises ``OpError`` with a message that names expected and got. What an operator computes is
written once, in ``codesign.ir.interpret``. Weights, biases and scales are operands (constants
of the graph), so that passes treat them like any other value.

Integer graphs use the same operators on integer types: a convolution, linear, matmul, add,
mul or sum of integers gives the exact ``s32`` result; ``Requantize`` and ``Clip`` bring it
back to a narrow format (DESIGN, section 3).
"""

from __future__ import annotations

from codesign.ir.ops.activations import ACTIVATIONS, ActivationKind
from codesign.ir.ops.base import Constant, Input, Op, OpError, broadcast_shapes, need, result_dtype
from codesign.ir.ops.elementwise import Activation, Add, LayerNorm, Mul, Softmax, check_activation
from codesign.ir.ops.integer import Clip, Dequantize, Lookup, Quantize, Requantize
from codesign.ir.ops.layers import BatchNorm, Conv2d, Linear, MatMul, conv_output
from codesign.ir.ops.pooling import Pool2d, Reduce
from codesign.ir.ops.shapes import Broadcast, Concat, Pad, Reshape, Resize, Slice, Transpose

OPS: dict[str, type[Op]] = {
    cls.name: cls
    for cls in (
        Input, Constant, Conv2d, Linear, MatMul, BatchNorm, Add, Mul, Concat, Slice, Activation,
        Pool2d, Reduce, Softmax, LayerNorm, Reshape, Broadcast, Transpose, Pad, Resize, Quantize,
        Dequantize, Requantize, Clip, Lookup,
    )
}  # fmt: skip
"""All operators by their text name."""

__all__ = [
    "ACTIVATIONS",
    "OPS",
    "Activation",
    "ActivationKind",
    "Add",
    "BatchNorm",
    "Broadcast",
    "Clip",
    "Concat",
    "Constant",
    "Conv2d",
    "Dequantize",
    "Input",
    "LayerNorm",
    "Linear",
    "Lookup",
    "MatMul",
    "Mul",
    "Op",
    "OpError",
    "Pad",
    "Pool2d",
    "Quantize",
    "Reduce",
    "Requantize",
    "Reshape",
    "Resize",
    "Slice",
    "Softmax",
    "Transpose",
    "broadcast_shapes",
    "check_activation",
    "conv_output",
    "need",
    "result_dtype",
]
