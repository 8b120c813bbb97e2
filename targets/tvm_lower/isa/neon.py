# SPDX-License-Identifier: Apache-2.0
"""Plain NEON (Cortex-A53, A72): ``smull``/``smlal`` into s16 sums, ``sadalp`` into s32.

Bytes are multiplied to s16, which holds at least two products of 8-bit weights and inputs
(2 · 128 · 127 < 2^15) and 36 of 4-bit weights; only then a pair of sums is added to its s32
lane. Unsigned inputs above 127 are shifted by 128, the template corrects the bias. TVM's own
intrinsic widens after every product and adds pairs across registers, which takes more
instructions for the same sums.
"""

from __future__ import annotations

from tvm import tirx
from tvm.target.codegen import llvm_lookup_intrinsic_id

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet, Range
from codesign.targets.tvm_lower.kernel import Expr

_LANES = 8
_S16 = 32767


def _products(data: Expr, weights: Expr) -> Expr:
    """Two inputs times 8 x 2 weights; LLVM makes smull and smull2 of it, smlal with a sum."""
    pair = tirx.Broadcast(tirx.reinterpret("int16", data), _LANES)
    spread = tirx.reinterpret("int8x16", pair)
    return tirx.Cast("int16x16", spread) * tirx.Cast("int16x16", weights)


def _widen(total: Expr, narrow: Expr) -> Expr:
    halves = []
    for half in (tirx.vectorlow, tirx.vectorhigh):
        pairs = tirx.call_llvm_pure_intrin(
            "int32x4", llvm_lookup_intrinsic_id("llvm.aarch64.neon.saddlp.v4i32.v8i16"),
            half("int16x8", narrow),
        )  # fmt: skip
        halves.append(half("int32x4", total) + pairs)
    return tirx.vectorcombine("int32x8", *halves)


def byte_offset(data: Range) -> int:
    """What brings inputs into s8; 0 if they are there already."""
    if data.low >= -128 and data.high <= 127:
        return 0
    return -128 - data.low


def fit_bytes(data: Range, weights: Range) -> bool:
    """Whether inputs, shifted, and weights are bytes."""
    in_bytes = weights.low >= -128 and weights.high <= 127
    return in_bytes and data.high + byte_offset(data) <= 127


def _dots(data: Range, weights: Range) -> tuple[Dot, ...]:
    if not fit_bytes(data, weights):
        return ()
    offset = byte_offset(data)
    greatest = Range(data.low + offset, data.high + offset).limit * weights.limit
    steps = _S16 // max(1, greatest)
    if steps < 1:
        return ()
    return (
        Dot(
            "smlal", _LANES, 2, "int8", "int8",
            first=_products, add=lambda total, data, weights: total + _products(data, weights),
            narrow="int16x16", steps=steps, widen=_widen, offset=offset, cost=1 + 1 / steps,
        ),
    )  # fmt: skip


SET = InstructionSet("neon", vector_bits=128, registers=32, dots=_dots)
