# SPDX-License-Identifier: Apache-2.0
"""Windows and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from codesign.ir.ops.base import Op, need
from codesign.ir.ops.layers import conv_output
from codesign.ir.types import S32, TensorType


@dataclass(frozen=True)
class Pool2d(Op):
    """Max, average or sum over windows of [N, C, H, W].

    Padding counts as minus infinity for max and zero for avg and sum. ``avg`` divides by the
    window size, or by the number of real elements when ``count_include_pad`` is false.
    ``sum`` is what integer graphs use: exact, in s32, the division is left to Requantize.
    """

    name: ClassVar[str] = "pool2d"
    kind: Literal["max", "avg", "sum"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, left, bottom, right; a ceil-mode pool is one with more padding at the end."""
    dilation: tuple[int, int] = (1, 1)
    count_include_pad: bool = True

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """[N, C, OH, OW]; sums of integers are s32."""
        self._arity(args)
        x = args[0]
        need(x.rank == 4, f"pool2d input must have 4 axes (N, C, H, W), got {x}")
        need(self.kind in ("max", "avg", "sum"), f"unknown pool2d kind {self.kind!r}")
        need(
            min(*self.kernel, *self.stride, *self.dilation) > 0 and min(self.padding) >= 0,
            f"pool2d kernel, stride and dilation must be positive: {self}",
        )
        top, left, bottom, right = self.padding
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation)]
        need(
            max(top, bottom) < reach[0] and max(left, right) < reach[1],
            f"pool2d padding {self.padding} must be smaller than the window {self.kernel}",
        )
        need(
            not (self.kind == "avg" and x.dtype.is_integer),
            "pool2d 'avg' has no integer form; integer graphs use 'sum' and requantize",
        )
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        out_h = conv_output(x.shape[2], kh, sh, top, bottom, dh)
        out_w = conv_output(x.shape[3], kw, sw, left, right, dw)
        need(out_h > 0 and out_w > 0, f"pool2d window {self.kernel} is larger than padded {x}")
        dtype = S32 if self.kind == "sum" and x.dtype.is_integer else x.dtype
        return TensorType((*x.shape[:2], out_h, out_w), dtype, x.layout)


@dataclass(frozen=True)
class Reduce(Op):
    """Mean, max or sum over ``axes``; over (2, 3) of an image it is the global pooling."""

    name: ClassVar[str] = "reduce"
    kind: Literal["mean", "max", "sum"]
    axes: tuple[int, ...]
    keepdims: bool = True

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The reduced shape; sums of integers are s32."""
        self._arity(args)
        x = args[0]
        need(self.kind in ("mean", "max", "sum"), f"unknown reduce kind {self.kind!r}")
        need(
            len(set(self.axes)) == len(self.axes) > 0 and all(0 <= a < x.rank for a in self.axes),
            f"reduce axes {self.axes} do not fit {x}",
        )
        need(
            not (self.kind == "mean" and x.dtype.is_integer),
            "reduce 'mean' has no integer form; integer graphs use 'sum' and requantize",
        )
        dtype = S32 if self.kind == "sum" and x.dtype.is_integer else x.dtype
        if self.keepdims:
            shape = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
        else:
            shape = tuple(n for i, n in enumerate(x.shape) if i not in self.axes)
        return TensorType(shape, dtype)
