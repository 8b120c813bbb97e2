# SPDX-License-Identifier: Apache-2.0
"""What a template needs to know of an instruction set: registers and exact dot products.

A dot product multiplies ``terms`` neighbouring inputs, the same for all lanes, with a vector of
``lanes`` x ``terms`` weights and adds the sums to ``lanes`` int32 accumulators. Some sets first
add into narrow accumulators, exactly, for a proven number of steps, and widen then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from codesign.targets.tvm_lower.kernel import Expr

Integers = npt.NDArray[Any]


@dataclass(frozen=True)
class Range:
    """The integers from ``low`` to ``high``, both included."""

    low: int
    high: int

    @property
    def limit(self) -> int:
        """The greatest absolute value."""
        return max(-self.low, self.high)


@dataclass(frozen=True)
class Dot:
    """One exact integer dot product: sum over ``terms`` of data[t] · weights[lane, t]."""

    name: str
    lanes: int
    """Output channels of one accumulator vector (int32)."""
    terms: int
    """Input channels of one step; they are neighbours in memory."""
    data: str
    """TVM's type of the inputs as the template lays them out: int16, uint8, int8."""
    weight: str
    """TVM's type of the packed weights, laid out [..., lanes, terms] if ``pack`` is None."""
    first: Callable[[Expr, Expr], Expr]
    """(data, weights) → accumulator of one step: data are ``terms`` elements as a vector,
    weights ``lanes * terms``."""
    add: Callable[[Expr, Expr, Expr], Expr]
    """(accumulator, data, weights) → accumulator one step on."""
    narrow: str = ""
    """Vector type of the narrow accumulator that ``first`` and ``add`` work on, e.g. int16x16;
    empty where they work on the int32 accumulator itself."""
    steps: int = 1
    """Steps that a narrow accumulator takes without overflow, proven from the ranges."""
    widen: Callable[[Expr, Expr], Expr] | None = None
    """(int32 accumulator, narrow accumulator) → their sum per lane; None without ``narrow``."""
    offset: int = 0
    """Added to every input so that it fits ``data``; the template corrects the bias."""
    each: Callable[[Expr, Expr], Expr] | None = None
    """(int32 lanes that hold two int16 inputs each, int16 weights of the same layout) → int32
    sums of the two products a lane: what depthwise convolution needs. None if there is none."""
    prefetch: bool = False
    """Whether weights are fetched before they are needed: it was measured to pay."""
    registers: int = 1
    """Vector registers of one accumulator."""
    cost: float = 1.0
    """Relative time of one multiply-accumulate, to choose among the dots that are exact."""

    @property
    def wide(self) -> str:
        """Vector type of the int32 accumulator."""
        return f"int32x{self.lanes}"


@dataclass(frozen=True)
class Lanewise:
    """Products of bytes lane by lane, kept in s16: what depthwise convolution can use."""

    offset: int
    """Added to every input so that it fits s8; the template corrects the bias."""
    steps: int
    """Products that s16 holds without overflow, proven from the ranges."""


@dataclass(frozen=True)
class Scaling:
    """Requantisation of a vector of sums: (x · m + bias · m + 2^(e-1)) >> e, saturated to s32."""

    pack: Callable[[Integers, Integers, Integers, int], Integers]
    """(m, e, bias, lanes) → int64 constants, ``words`` of them a block of ``lanes`` channels."""
    words: Callable[[int], int]
    """int64 constants of a block of so many lanes."""
    apply: Callable[[Callable[[int, int], Expr], Expr, int], Expr]
    """(load, sums, lanes) → scaled int32 vector; ``load(start, count)`` reads a block's
    constants as a vector."""


SUM_LIMIT = 1 << 30
LEAST_SHIFT = 17
"""What ``InstructionSet.short_scaling`` asks for."""


def _no_lanewise(data: Range, weights: Range) -> Lanewise | None:
    return None


@dataclass(frozen=True)
class InstructionSet:
    """Registers and dot products of one instruction set."""

    name: str
    vector_bits: int
    registers: int
    """Vector registers; accumulators, weights and an input share them."""
    dots: Callable[[Range, Range], tuple[Dot, ...]]
    """(inputs, weights) → the dot products that are exact for these ranges, best first. Empty
    where there is none: the template then multiplies in int32 as the compiler likes."""

    pairs: bool = False
    """Whether even 32-bit lanes are multiplied to 64 bits quickly (x86); requantisation uses it."""

    lanewise: Callable[[Range, Range], Lanewise | None] = _no_lanewise
    """(inputs, weights) → products of bytes in s16, where the set has them in one instruction."""

    scaling: Scaling | None = None
    """How requantisation is done in vectors, where ``pairs`` is not the way."""

    short_scaling: Scaling | None = None
    """A quicker way for sums (bias included) that are proven below 2^30 and shifts of at least
    ``LEAST_SHIFT``; None if there is none."""

    @property
    def lanes(self) -> int:
        """int32 lanes of a register."""
        return self.vector_bits // 32
