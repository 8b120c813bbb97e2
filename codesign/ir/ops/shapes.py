# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from codesign.ir.ops.base import Op, broadcast_shapes, need
from codesign.ir.types import TensorType


@dataclass(frozen=True)
class Concat(Op):
    """Concatenation along ``axis``."""

    name: ClassVar[str] = "concat"
    operands: ClassVar[tuple[str, ...]] = ("*",)
    axis: int = 1

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The joined shape."""
        need(len(args) > 0, "concat takes at least one operand")
        first = args[0]
        need(0 <= self.axis < first.rank, f"concat axis {self.axis} is not one of {first}")
        for arg in args:
            same = arg.rank == first.rank and all(
                m == n for i, (m, n) in enumerate(zip(arg.shape, first.shape)) if i != self.axis
            )
            need(same and arg.dtype == first.dtype, f"concat operands do not fit: {first}, {arg}")
        total = sum(arg.shape[self.axis] for arg in args)
        shape = tuple(total if i == self.axis else n for i, n in enumerate(first.shape))
        return TensorType(shape, first.dtype, first.layout)


@dataclass(frozen=True)
class Slice(Op):
    """x[..., start:stop:step, ...] along ``axis``; a split is several slices."""

    name: ClassVar[str] = "slice"
    axis: int
    start: int
    stop: int
    step: int = 1

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The sliced shape."""
        self._arity(args)
        x = args[0]
        need(0 <= self.axis < x.rank, f"slice axis {self.axis} is not one of {x}")
        need(
            self.step > 0 and 0 <= self.start < self.stop <= x.shape[self.axis],
            f"slice [{self.start}:{self.stop}:{self.step}] does not fit axis {self.axis} of {x}",
        )
        n = -(-(self.stop - self.start) // self.step)
        shape = tuple(n if i == self.axis else m for i, m in enumerate(x.shape))
        return TensorType(shape, x.dtype, x.layout)


@dataclass(frozen=True)
class Reshape(Op):
    """Same elements in row-major order, another shape (also flatten, squeeze, unsqueeze)."""

    name: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The new shape."""
        self._arity(args)
        x = args[0]
        need(
            math.prod(self.shape) == x.size,
            f"reshape of {x} ({x.size} elements) to {list(self.shape)} "
            f"({math.prod(self.shape)} elements)",
        )
        return x.with_shape(self.shape)


@dataclass(frozen=True)
class Broadcast(Op):
    """NumPy broadcast to ``shape`` (torch expand)."""

    name: ClassVar[str] = "broadcast"
    shape: tuple[int, ...]

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The new shape."""
        self._arity(args)
        need(
            broadcast_shapes("broadcast", args[0].shape, self.shape) == self.shape,
            f"broadcast cannot take {args[0]} to {list(self.shape)}",
        )
        return args[0].with_shape(self.shape)


@dataclass(frozen=True)
class Transpose(Op):
    """Permute the logical axes."""

    name: ClassVar[str] = "transpose"
    perm: tuple[int, ...]

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The permuted shape."""
        self._arity(args)
        x = args[0]
        need(
            sorted(self.perm) == list(range(x.rank)),
            f"transpose {list(self.perm)} is no permutation of the axes of {x}",
        )
        return x.with_shape(tuple(x.shape[i] for i in self.perm))


@dataclass(frozen=True)
class Pad(Op):
    """Pad each axis: ``before`` and ``after`` hold one count an axis."""

    name: ClassVar[str] = "pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    mode: Literal["constant", "reflect", "edge"] = "constant"
    value: float = 0.0

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The padded shape."""
        self._arity(args)
        x = args[0]
        need(
            len(self.before) == len(self.after) == x.rank and min(*self.before, *self.after) >= 0,
            f"pad {self.before}, {self.after} does not fit {x}",
        )
        need(self.mode in ("constant", "reflect", "edge"), f"unknown pad mode {self.mode!r}")
        need(
            x.dtype.is_float
            or (float(self.value).is_integer() and x.dtype.min <= self.value <= x.dtype.max),
            f"pad value {self.value} does not fit {x}",
        )
        if self.mode == "reflect":
            need(
                all(max(b, a) < n for b, a, n in zip(self.before, self.after, x.shape)),
                f"reflect pad {self.before}, {self.after} is larger than {x}",
            )
        shape = tuple(b + n + a for b, n, a in zip(self.before, x.shape, self.after))
        return TensorType(shape, x.dtype, x.layout)


@dataclass(frozen=True)
class Resize(Op):
    """Resize H and W of [N, C, H, W] to ``size``.

    ``coordinates`` maps an output position i to an input position (ONNX names):
    half_pixel (i + 0.5)·in/out − 0.5, asymmetric i·in/out, align_corners i·(in−1)/(out−1).
    ``nearest`` rounds as ``rounding`` says; ``bilinear`` interpolates and clamps at the edge.
    """

    name: ClassVar[str] = "resize"
    size: tuple[int, int]
    kind: Literal["nearest", "bilinear"] = "nearest"
    coordinates: Literal["half_pixel", "asymmetric", "align_corners"] = "asymmetric"
    rounding: Literal["floor", "round_prefer_floor", "round_prefer_ceil", "ceil"] = "floor"

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """[N, C, *size]."""
        self._arity(args)
        x = args[0]
        need(x.rank == 4 and min(self.size) > 0, f"resize of {x} to {self.size}")
        need(self.kind in ("nearest", "bilinear"), f"unknown resize kind {self.kind!r}")
        need(self.kind == "nearest" or x.dtype.is_float, "bilinear resize has no integer form")
        need(
            self.coordinates in ("half_pixel", "asymmetric", "align_corners"),
            f"unknown resize coordinates {self.coordinates!r}",
        )
        need(
            self.rounding in ("floor", "round_prefer_floor", "round_prefer_ceil", "ceil"),
            f"unknown resize rounding {self.rounding!r}",
        )
        return TensorType((*x.shape[:2], *self.size), x.dtype, x.layout)
