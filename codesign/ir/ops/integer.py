# SPDX-License-Identifier: Apache-2.0
"""From float to integers and between integer formats (DESIGN, section 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.ops.base import Op, need
from codesign.ir.types import F32, S32, DType, TensorType


def _check_scale(op: str, x: TensorType, scale: TensorType, axis: int) -> None:
    need(scale.dtype == F32, f"{op} scale must be f32, got {scale}")
    if axis < 0:
        need(scale.shape == (), f"{op} scale must be a scalar f32[], got {scale}")
    else:
        need(
            axis < x.rank and scale.shape == (x.shape[axis],),
            f"{op} scale must be f32[{x.shape[axis] if axis < x.rank else '?'}] for axis {axis} "
            f"of {x}, got {scale}",
        )


@dataclass(frozen=True)
class Quantize(Op):
    """clip(floor(x / scale + 1/2) + zero_point) in float32, to an integer format.

    scale: f32[] with ``axis`` −1, else f32[size of axis]. Our own networks have zero point 0;
    imported ones may not.
    """

    name: ClassVar[str] = "quantize"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale")
    dtype: DType
    axis: int = -1
    zero_point: tuple[int, ...] = (0,)
    """One value, or one for each position of ``axis``."""

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in ``dtype``."""
        self._arity(args)
        x, scale = args
        need(x.dtype.is_float, f"quantize takes a float, got {x}")
        need(
            self.dtype.is_integer and self.dtype.bits <= 32,
            f"quantize gives an integer of up to 32 bits, not {self.dtype}",
        )
        _check_scale("quantize", x, scale, self.axis)
        need(len(self.zero_point) in (1, scale.size), "quantize zero_point does not fit scale")
        return dataclasses.replace(x, dtype=self.dtype)


@dataclass(frozen=True)
class Dequantize(Op):
    """(x − zero_point) · scale, in float32 with one rounding."""

    name: ClassVar[str] = "dequantize"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale")
    axis: int = -1
    zero_point: tuple[int, ...] = (0,)

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in f32."""
        self._arity(args)
        x, scale = args
        need(x.dtype.is_integer, f"dequantize takes an integer, got {x}")
        _check_scale("dequantize", x, scale, self.axis)
        need(len(self.zero_point) in (1, scale.size), "dequantize zero_point does not fit scale")
        return dataclasses.replace(x, dtype=F32)


@dataclass(frozen=True)
class Requantize(Op):
    """clip((x·m + 2^(e−1)) >> e, lo, hi): dyadic rescaling, round half up (DESIGN, section 3).

    m and e: s32 constants, scalars with ``axis`` −1, else one for each position of ``axis``;
    2^15 ≤ m < 2^16 or m = 0; 1 ≤ e ≤ 62. The product is taken in 64 bits.
    """

    name: ClassVar[str] = "requantize"
    operands: ClassVar[tuple[str, ...]] = ("x", "m", "e")
    dtype: DType
    lo: int
    hi: int
    axis: int = -1

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in ``dtype``."""
        self._arity(args)
        x, m, e = args
        need(x.dtype.is_integer and x.dtype.bits <= 32, f"requantize takes up to s32, got {x}")
        _check_range("requantize", self.dtype, self.lo, self.hi)
        shape = () if self.axis < 0 else (x.shape[self.axis],) if self.axis < x.rank else None
        for label, arg in (("m", m), ("e", e)):
            need(
                arg.shape == shape and arg.dtype == S32,
                f"requantize {label} must be s32{list(shape or ())} for axis {self.axis} of {x}, "
                f"got {arg}",
            )
        return dataclasses.replace(x, dtype=self.dtype)


def _check_range(op: str, dtype: DType, lo: int, hi: int) -> None:
    need(dtype.is_integer, f"{op} gives an integer, not {dtype}")
    need(
        dtype.min <= lo <= hi <= dtype.max,
        f"{op} range [{lo}, {hi}] does not fit {dtype} [{dtype.min}, {dtype.max}]",
    )


@dataclass(frozen=True)
class Clip(Op):
    """clip(x, lo, hi) of an integer, stored as ``dtype``."""

    name: ClassVar[str] = "clip"
    dtype: DType
    lo: int
    hi: int

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in ``dtype``."""
        self._arity(args)
        need(args[0].dtype.is_integer, f"clip takes an integer, got {args[0]}")
        _check_range("clip", self.dtype, self.lo, self.hi)
        return dataclasses.replace(args[0], dtype=self.dtype)


@dataclass(frozen=True)
class Lookup(Op):
    """table[x − min(dtype of x)]: any function of one narrow integer (sigmoid, hardswish, …)."""

    name: ClassVar[str] = "lookup"
    operands: ClassVar[tuple[str, ...]] = ("x", "table")

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in the table's format."""
        self._arity(args)
        x, table = args
        need(x.dtype.is_integer and x.dtype.bits <= 16, f"lookup takes up to 16 bits, got {x}")
        need(
            table.shape == (1 << x.dtype.bits,) and table.dtype.is_integer,
            f"lookup table must hold {1 << x.dtype.bits} integers, got {table}",
        )
        return dataclasses.replace(x, dtype=table.dtype)
