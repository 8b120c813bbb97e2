# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution with channels in the lanes and pairs of window rows in the dot product.

A lane holds two inputs of one channel, one above the other (row h low, row h + 1 high), so that a
dot of two terms takes two rows of the window at once; the last row of an odd window is paired with
zero weights. The pairs are written once a chunk of rows and a block of channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx
from tvm.script.ir_builder import tirx as build

from codesign.targets.tvm_lower.isa.base import Dot
from codesign.targets.tvm_lower.kernel import Expr, const
from codesign.targets.tvm_lower.templates import write
from codesign.targets.tvm_lower.templates.request import Request
from codesign.targets.tvm_lower.tiles import DepthwiseTile

_SLOWER = 3
"""A product of a depthwise convolution takes so many times as long as another one."""


def depthwise(request: Request, dot: Dot, tile: DepthwiseTile) -> None:
    """Write the body of the function under construction; ``dot`` has ``each``."""
    _Depthwise(request, dot, tile).write()


class _Depthwise:
    def __init__(self, request: Request, dot: Dot, tile: DepthwiseTile) -> None:
        self.request, self.dot = request, dot
        p = self.product = request.product
        self.lanes = dot.lanes
        blocks = p.groups // self.lanes
        self.vectors = next(v for v in range(min(tile.vectors, blocks), 0, -1) if blocks % v == 0)
        self.span = self.vectors * self.lanes
        self.groups = blocks // self.vectors
        self.rows = next(
            r for r in range(min(tile.rows, p.out_height), 0, -1) if p.out_height % r == 0
        )
        self.columns = min(tile.columns, p.out_width)
        self.pairs = -(-p.kernel[0] // 2)
        self.width = p.width + p.padding[1] + p.padding[3]
        self.tall = (self.rows - 1) * p.stride[0] + (2 * self.pairs - 2) * p.dilation[0] + 1
        """Pair rows of a chunk."""

    def write(self) -> None:
        p, request = self.product, self.request
        packed = request.kernel.array(self._packed(), "weights")
        self.weights = packed.buffer
        self.epilogue = request.epilogue(0, self.lanes)
        self.out = build.arg("out", build.buffer(request.out_shape, request.dtype))
        chunks = p.n * (p.out_height // self.rows)
        with self.request.work(chunks * self.groups, _SLOWER * self.product.macs) as at:
            chunk, group = tirx.floordiv(at, self.groups), tirx.floormod(at, self.groups)
            image = write.array(self.tall * self.width * self.span, "int32")
            n = tirx.floordiv(chunk, p.out_height // self.rows)
            first = tirx.floormod(chunk, p.out_height // self.rows) * self.rows
            with write.loop(self.tall) as row:
                self._pair_row(image, row, n, first * p.stride[0] - p.padding[0] + row, group)
            with write.loop(self.rows) as r:
                whole, rest = divmod(p.out_width, self.columns)
                with write.loop(whole) as t:
                    self._tile(image, r, t * self.columns, self.columns, n, first + r, group)
                if rest:
                    self._tile(image, r, const(whole * self.columns, "int32"), rest, n, first + r,
                               group)

    def _packed(self) -> npt.NDArray[Any]:
        """Weights [group, pair of rows, column, vector, lane, 2]."""
        p = self.product
        kh, kw = p.kernel
        wide = np.zeros((p.groups, 2 * self.pairs, kw), np.int16)
        wide[:, :kh] = self.request.weights[:, 0]
        shaped = wide.reshape(self.groups, self.vectors, self.lanes, self.pairs, 2, kw)
        return shaped.transpose(0, 3, 5, 1, 2, 4).reshape(-1)

    def _pair_row(self, image: Any, row: Expr, n: Expr, h: Expr, group: Expr) -> None:
        """Row ``h`` of the input below row ``h + dilation`` in one lane; zeros outside."""
        p, span = self.product, self.span
        start = row * (self.width * span)
        below = h + p.dilation[0]

        def inside(at: Expr) -> Expr:
            return tirx.all(at >= 0, at < p.height)

        def part(at: Expr, w: Expr, channel: Expr, shift: int) -> Expr:
            value = p.data(n, at, w, channel, const(0, "int32")).astype("int32")
            if shift:
                return value << const(16, "int32")
            return value & const(0xFFFF, "int32")

        def line(value: Any) -> None:
            with write.loop(p.width) as w:
                for first, count in write.powers(span):
                    with write.loop(count, "vectorized") as v:
                        place = start + (w + p.padding[1]) * span + first + v
                        write.store(image, place, value(w, group * span + first + v), 1)

        for column in (*range(p.padding[1]), *range(p.padding[1] + p.width, self.width)):
            self._zeros(image, start + column * span)
        both = lambda w, c: part(h, w, c, 0) | part(below, w, c, 16)  # noqa: E731
        if p.dilation[0] == 1 and not p.padding[0] and not p.padding[2] and p.kernel[0] % 2 == 0:
            line(both)
            return
        with build.If(tirx.all(inside(h), inside(below))):
            with build.Then():
                line(both)
            with build.Else(), build.If(inside(h)):
                with build.Then():
                    line(lambda w, c: part(h, w, c, 0))
                with build.Else(), build.If(inside(below)):
                    with build.Then():
                        line(lambda w, c: part(below, w, c, 16))
                    with build.Else(), write.loop(p.width) as w:
                        self._zeros(image, start + (w + p.padding[1]) * span)

    def _zeros(self, image: Any, start: Expr) -> None:
        for b in range(self.vectors):
            at = start + b * self.lanes
            write.store(image, at, write.zeros("int32", self.lanes), self.lanes)

    def _tile(
        self, image: Any, row: Expr, first: Expr, count: int, n: Expr, h: Expr, group: Expr
    ) -> None:
        """``count`` pixels of one row and all channels of a group."""
        p, lanes, span = self.product, self.lanes, self.span
        sums = write.array(count * span, "int32")
        kw = p.kernel[1]
        each = self.dot.each
        assert each is not None
        for b in range(self.vectors):
            started = False
            for i in range(self.pairs):
                for j in range(kw):
                    at = ((group * self.pairs + i) * kw + j) * (2 * span) + b * 2 * lanes
                    weights = write.load(self.weights, at, 2 * lanes)
                    line = row * p.stride[0] + 2 * i * p.dilation[0]
                    for t in range(count):
                        column = (first + t) * p.stride[1] + j * p.dilation[1]
                        source = (line * self.width + column) * span + b * lanes
                        product = each(write.load(image, source, lanes), weights)
                        place = const(t * span + b * lanes, "int32")
                        if started:
                            product = write.load(sums, place, lanes) + product
                        write.store(sums, place, product, lanes)
                    started = True
            for t in range(count):
                place = const(t * span + b * lanes, "int32")
                value = write.load(sums, place, lanes)
                scaled = self.epilogue.vector(value, group * self.vectors + b, lanes)
                write.store(sums, place, scaled, lanes)
        for t in range(count):
            for start, size in write.powers(span):
                channel = group * span + start
                self.epilogue.store(
                    self.out, sums, const(t * span + start, "int32"), size,
                    lambda v: p.index((n, h, channel + v, first + t, const(0, "int32"))),  # noqa: B023
                    self.request.out_index,
                )  # fmt: skip
