# SPDX-License-Identifier: Apache-2.0
"""AVX-512 VNNI: ``vpdpbusd`` adds four products u8 · s8 to each of 16 int32 lanes, exactly.

TVM ships a tensor intrinsic for it (``dot_16x4_vnni``), but LLVM 22 changed the operand types,
and importing the module it lives in parses every GPU intrinsic first, which takes a minute.
"""

from __future__ import annotations

from tvm import tirx
from tvm.target.codegen import llvm_lookup_intrinsic_id

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet, Range
from codesign.targets.tvm_lower.kernel import Expr, const

_LANES = 16


def _add(total: Expr, data: Expr, weights: Expr) -> Expr:
    word = tirx.Broadcast(tirx.reinterpret("int32", data), _LANES)
    return tirx.call_llvm_pure_intrin(
        "int32x16", llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
        total, tirx.reinterpret("uint8x64", word), weights,
    )  # fmt: skip


def _first(data: Expr, weights: Expr) -> Expr:
    return _add(tirx.Broadcast(const(0, "int32"), _LANES), data, weights)


def _pairs(data: Expr, weights: Expr) -> Expr:
    word = tirx.Broadcast(tirx.reinterpret("int32", data), _LANES)
    return _each(word, weights)


def _each(data: Expr, weights: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(
        "int32x16", llvm_lookup_intrinsic_id("llvm.x86.avx512.pmaddw.d.512"),
        tirx.reinterpret("int16x32", data), weights,
    )  # fmt: skip


WORDS = Dot(
    "vpmaddwd", _LANES, 2, "int16", "int16",
    first=_pairs, add=lambda total, data, weights: total + _pairs(data, weights),
    each=_each, cost=2.0,
)  # fmt: skip
"""Any operands of 16 bits: for Winograd and depthwise convolution."""


def _dots(data: Range, weights: Range) -> tuple[Dot, ...]:
    offset = -data.low if data.low < 0 else 0
    if data.high + offset > 255 or weights.low < -128 or weights.high > 127:
        return (WORDS,) if max(data.limit, weights.limit) <= 32767 else ()
    return Dot("vpdpbusd", _LANES, 4, "uint8", "int8", _first, _add, offset=offset), WORDS


SET = InstructionSet("avx512-vnni", vector_bits=512, registers=32, dots=_dots, pairs=True)
