# SPDX-License-Identifier: Apache-2.0
"""AVX2 without VNNI: exact dot products from ``vpmaddwd`` and, where it is exact, ``vpmaddubsw``.

``vpmaddwd`` multiplies s16 and adds pairs in s32: exact for all formats up to 8 bits (and for
Winograd's wider operands), 16 products an instruction. ``vpmaddubsw`` multiplies u8 by s8 and adds
pairs in s16, *saturating*: with 8-bit weights and inputs it is wrong (2 · 255 · 127 > 32767), and
never used. With narrower formats it is exact, 32 products an instruction, and the s16 sums of
several steps may be added before they are widened.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx
from tvm.target.codegen import llvm_lookup_intrinsic_id

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet, Integers, Range, Scaling
from codesign.targets.tvm_lower.kernel import Expr, const

_LANES = 8
_S16 = 32767


def _call(kind: str, name: str, *operands: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(kind, llvm_lookup_intrinsic_id(name), *operands)


def _spread(data: Expr, kind: str) -> Expr:
    """Two s16 or four u8 inputs in every 32-bit lane."""
    return tirx.reinterpret(kind, tirx.Broadcast(tirx.reinterpret("int32", data), _LANES))


def _pairs(data: Expr, weights: Expr) -> Expr:
    return _call("int32x8", "llvm.x86.avx2.pmadd.wd", _spread(data, "int16x16"), weights)


def _each(data: Expr, weights: Expr) -> Expr:
    pairs = tirx.reinterpret("int16x16", data)
    return _call("int32x8", "llvm.x86.avx2.pmadd.wd", pairs, weights)


def _quads(data: Expr, weights: Expr) -> Expr:
    return _call("int16x16", "llvm.x86.avx2.pmadd.ub.sw", _spread(data, "uint8x32"), weights)


def _widen(total: Expr, narrow: Expr) -> Expr:
    ones = tirx.Broadcast(const(1, "int16"), 2 * _LANES)
    return total + _call("int32x8", "llvm.x86.avx2.pmadd.wd", narrow, ones)


WORDS = Dot(
    "vpmaddwd", _LANES, 2, "int16", "int16",
    first=_pairs, add=lambda total, data, weights: total + _pairs(data, weights),
    each=_each, prefetch=True,
)  # fmt: skip
"""Any operands of 16 bits."""


def _widened(data: Expr, weights: Expr) -> Expr:
    return _pairs(data, weights.astype(f"int16x{2 * _LANES}"))


BYTES = Dot(
    "vpmaddwd, weights in bytes", _LANES, 2, "int16", "int8",
    first=_widened, add=lambda total, data, weights: total + _widened(data, weights),
    cost=1.1, prefetch=True,
)  # fmt: skip
"""The same with weights that lie in memory as bytes and are widened as they are loaded
(``vpmovsxbw``): half as much to read where no cache holds them."""


def _bytes(data: Range, weights: Range) -> Dot | None:
    """The dot of bytes, if its s16 sums cannot saturate."""
    offset = -data.low if data.low < 0 else 0
    high = data.high + offset
    if high > 255 or weights.low < -128 or weights.high > 127:
        return None
    steps = _S16 // max(1, 2 * high * weights.limit)
    if steps < 1:
        return None
    # 32 products take a vpmaddubsw, an addition and a share of a widening (vpmaddwd, an addition
    # less), or else two times vpmaddwd and an addition: 2 + 1 / steps instructions instead of 4.
    return Dot(
        "vpmaddubsw", _LANES, 4, "uint8", "int8",
        first=_quads, add=lambda total, data, weights: total + _quads(data, weights),
        narrow="int16x16", steps=steps, widen=_widen, offset=offset,
        cost=(2 + 1 / steps) / 4, prefetch=True,
    )  # fmt: skip


def _dots(data: Range, weights: Range) -> tuple[Dot, ...]:
    narrow = _bytes(data, weights)
    found = [narrow] if narrow is not None else []
    if max(data.limit, weights.limit) <= _S16:
        found.append(WORDS)
        if weights.low >= -128 and weights.high <= 127:
            found.append(BYTES)
    return tuple(sorted(found, key=lambda dot: dot.cost))


def _pack_short(m: Integers, e: Integers, bias: Integers, lanes: int) -> Integers:
    """Constants [block, (bias, multiplier, 2^(s-1), s)] as int32, two of them in an int64."""
    blocks = -(-bias.size // lanes)
    shift = np.broadcast_to(e, bias.shape) - 16
    rows = bias, np.broadcast_to(m, bias.shape), 1 << (shift - 1), shift
    wide = np.zeros((len(rows), blocks * lanes), np.int32)
    for row, values in zip(wide, rows):
        row[: bias.size] = values
    ordered = np.ascontiguousarray(wide.reshape(len(rows), blocks, lanes).transpose(1, 0, 2))
    return ordered.reshape(-1).view(np.int64)


def _short(load: Callable[[int, int], Expr], sums: Expr, lanes: int) -> Expr:
    """(x · m + 2^(e-1)) >> e in 32 bits, x with its bias below 2^30, m < 2^16, e = 16 + s.

    With x = h · 2^16 + l, l ≥ 0, and 2^(e-1) = 2^16 · 2^(s-1), this is
    (h · m + (l · m >> 16) + 2^(s-1)) >> s, since floors of floors are floors; no term passes 2^31.
    ``vpmulhuw`` gives (l · m) >> 16: the upper halves of the multipliers are zero.
    """
    wide, halves = f"int32x{lanes}", f"int16x{2 * lanes}"

    def row(number: int) -> Expr:
        return tirx.reinterpret(wide, load(number * lanes // 2, lanes // 2))

    x, m = sums + row(0), row(1)
    low = _call(halves, "llvm.x86.avx2.pmulhu.w", tirx.reinterpret(halves, x),
                tirx.reinterpret(halves, m))  # fmt: skip
    high = (x >> tirx.Broadcast(const(16, "int32"), lanes)) * m
    return (high + tirx.reinterpret(wide, low) + row(2)) >> row(3)


SHORT_SCALING = Scaling(_pack_short, lambda lanes: 2 * lanes, _short)

SET = InstructionSet("avx2", vector_bits=256, registers=16, dots=_dots, pairs=True,
                     short_scaling=SHORT_SCALING)  # fmt: skip
