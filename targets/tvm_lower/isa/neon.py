# SPDX-License-Identifier: Apache-2.0
"""Plain NEON (Cortex-A53, A72): ``smull``/``smlal`` into s16 sums, ``sadalp`` into s32.

Bytes are multiplied to s16, which holds at least two products of 8-bit weights and inputs
(2 · 128 · 127 < 2^15) and 36 of 4-bit weights; only then a pair of sums is added to its s32
lane. Unsigned inputs above 127 are shifted by 128, the template corrects the bias. TVM's own
intrinsic widens after every product and adds pairs across registers, which takes more
instructions for the same sums.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx
from tvm.target.codegen import llvm_lookup_intrinsic_id

from codesign.targets.tvm_lower.isa.base import (
    Dot,
    InstructionSet,
    Integers,
    Lanewise,
    Range,
    Scaling,
)
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
        pairs = _intrinsic("int32x4", "saddlp.v4i32.v8i16", half("int16x8", narrow))
        halves.append(half("int32x4", total) + pairs)
    return tirx.vectorcombine("int32x8", *halves)


def _intrinsic(kind: str, name: str, *operands: Expr) -> Expr:
    identity = llvm_lookup_intrinsic_id(f"llvm.aarch64.neon.{name}")
    return tirx.call_llvm_pure_intrin(kind, identity, *operands)


def _scaling_words(lanes: int) -> int:
    return 2 * lanes + lanes // 2


def _pack_scaling(m: Integers, e: Integers, bias: Integers, lanes: int) -> Integers:
    """Constants [block, (bias · m + 2^(e-1), -e, two multipliers a word)]."""
    blocks = -(-bias.size // lanes)

    def padded(values: Integers, fill: int) -> Integers:
        wide = np.full(blocks * lanes, fill, np.int64)
        wide[: bias.size] = values
        return wide.reshape(blocks, lanes)

    multiplier, shift = padded(m, 0), padded(e, 16)
    term = padded(bias, 0) * multiplier + (1 << (shift - 1))
    pairs = np.ascontiguousarray(multiplier.astype(np.int32)).view(np.int64)
    return np.concatenate([term, -shift, pairs], axis=1)


def _scaled(load: Callable[[int, int], Expr], sums: Expr, lanes: int) -> Expr:
    """smlal, sshl and sqxtn on pairs of lanes; saturation is exact before any clip to 32 bits.

    As intrinsics: of a product of sign-extended operands that it has moved apart, LLVM makes
    scalar code.
    """

    def part(value: Expr, start: int, count: int) -> Expr:
        if count > 2:
            half = count // 2
            return tirx.vectorcombine(
                f"int32x{count}",
                part(tirx.vectorlow(f"int32x{half}", value), start, half),
                part(tirx.vectorhigh(f"int32x{half}", value), start + half, half),
            )
        multiplier = tirx.reinterpret("int32x2", load(2 * lanes + start // 2, 1))
        total = load(start, 2) + _intrinsic("int64x2", "smull.v2i64", value, multiplier)
        shifted = _intrinsic("int64x2", "sshl.v2i64", total, load(lanes + start, 2))
        return _intrinsic("int32x2", "sqxtn.v2i32", shifted)

    return part(sums, 0, lanes)


SCALING = Scaling(_pack_scaling, _scaling_words, _scaled)


def byte_offset(data: Range) -> int:
    """What brings inputs into s8; 0 if they are there already."""
    if data.low >= -128 and data.high <= 127:
        return 0
    return -128 - data.low


def fit_bytes(data: Range, weights: Range) -> bool:
    """Whether inputs, shifted, and weights are bytes."""
    in_bytes = weights.low >= -128 and weights.high <= 127
    return in_bytes and data.high + byte_offset(data) <= 127


def lanewise(data: Range, weights: Range) -> Lanewise | None:
    """Products of bytes in s16, if it holds at least one."""
    if not fit_bytes(data, weights):
        return None
    offset = byte_offset(data)
    greatest = Range(data.low + offset, data.high + offset).limit * weights.limit
    steps = _S16 // max(1, greatest)
    return Lanewise(offset, steps) if steps else None


def _dots(data: Range, weights: Range) -> tuple[Dot, ...]:
    found = lanewise(data, weights)
    if found is None:
        return ()
    steps = found.steps
    return (
        Dot(
            "smlal", _LANES, 2, "int8", "int8",
            first=_products, add=lambda total, data, weights: total + _products(data, weights),
            narrow="int16x16", steps=steps, widen=_widen, offset=found.offset,
            registers=2, cost=1 + 1 / steps,
        ),
    )  # fmt: skip


SET = InstructionSet(
    "neon", vector_bits=128, registers=32, dots=_dots, lanewise=lanewise,
    scaling=SCALING)  # fmt: skip
