# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution with channels in the lanes and products of bytes in s16 (NEON).

Every tap multiplies a vector of inputs with a vector of weights, both of bytes, into s16; as many
taps as provably fit are added there (two of 8 bits, all of 4-bit weights) before the sums are
widened to s32. The image is copied once, with its borders, shifted into s8 where it is unsigned.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as build

from codesign.targets.tvm_lower.isa.base import Lanewise
from codesign.targets.tvm_lower.kernel import Expr, const
from codesign.targets.tvm_lower.templates import write
from codesign.targets.tvm_lower.templates.request import Request
from codesign.targets.tvm_lower.tiles import DepthwiseTile

_FINISHED = 8
"""Lanes finished at once: requantisation takes 64 bits a lane and several registers."""


def depthwise_bytes(request: Request, form: Lanewise, tile: DepthwiseTile) -> None:
    """Write the body of the function under construction; channels are a multiple of 8."""
    _DepthwiseBytes(request, form, tile).write()


class _DepthwiseBytes:
    def __init__(self, request: Request, form: Lanewise, tile: DepthwiseTile) -> None:
        self.request, self.form = request, form
        p = self.product = request.product
        self.lanes = 16 if p.groups % 16 == 0 else 8
        self.blocks = p.groups // self.lanes
        self.columns = min(tile.columns, p.out_width)
        top, left, bottom, right = p.padding
        self.rows, self.width = p.height + top + bottom, p.width + left + right

    def write(self) -> None:
        p, request = self.product, self.request
        kh, kw = p.kernel
        taps = request.weights[:, 0].reshape(self.blocks, self.lanes, kh * kw)
        packed = np.ascontiguousarray(taps.transpose(0, 2, 1), np.int8).reshape(-1)
        self.weights = request.kernel.array(packed, "weights").buffer
        self.epilogue = request.epilogue(self.form.offset, self.lanes)
        self.out = build.arg("out", build.buffer(request.out_shape, request.dtype))
        in_place = (
            request.source is not None
            and str(request.data.numpy) == "int8"
            and not self.form.offset
            and not any(p.padding)
        )
        self.image = write.flat(request.source) if in_place else self._padded()
        whole, rest = divmod(p.out_width, self.columns)
        with self.request.work(p.n * p.out_height * self.blocks, self.product.macs) as at:
            row, block = tirx.floordiv(at, self.blocks), tirx.floormod(at, self.blocks)
            n, h = tirx.floordiv(row, p.out_height), tirx.floormod(row, p.out_height)
            with write.loop(whole) as t:
                self._tile(n, h, t * self.columns, self.columns, block)
            if rest:
                self._tile(n, h, const(whole * self.columns, "int32"), rest, block)

    def _padded(self) -> Any:
        """The image [n, h, w, c] in s8 with its borders."""
        p, offset = self.product, self.form.offset
        top, left, _, _ = p.padding
        channels = p.groups
        image = write.array(p.n * self.rows * self.width * channels, "int8")
        lanes = self.lanes

        def fill(start: Expr) -> None:
            border = tirx.Broadcast(const(offset, "int8"), lanes)
            with write.loop(self.blocks) as b:
                write.store(image, start + b * lanes, border, lanes)

        with self.request.work(p.n * self.rows, self.product.macs) as row:
            n, h = tirx.floordiv(row, self.rows), tirx.floormod(row, self.rows) - top
            start = row * (self.width * channels)
            with build.If(tirx.all(h >= 0, h < p.height)):
                with build.Then():
                    for w in (*range(left), *range(left + p.width, self.width)):
                        fill(start + w * channels)
                    with (
                        write.loop(p.width) as w, write.loop(self.blocks) as b,
                        write.loop(lanes, "vectorized") as v,
                    ):  # fmt: skip
                        channel = b * lanes + v
                        value = p.data(n, h, w, channel, const(0, "int32"))
                        if offset:
                            value = value.astype("int32") + const(offset, "int32")
                        place = start + (w + left) * channels + channel
                        write.store(image, place, value.astype("int8"), 1)
                with build.Else(), write.loop(self.width) as w:
                    fill(start + w * channels)
        return image

    def _tile(self, n: Expr, h: Expr, first: Expr, count: int, block: Expr) -> None:
        """``count`` pixels of one row, one block of channels."""
        p, lanes = self.product, self.lanes
        kh, kw = p.kernel
        wide, narrow = f"int32x{lanes}", f"int16x{lanes}"
        sums = write.array(count * lanes, "int32")
        line = n * self.rows + h * p.stride[0]
        for t in range(count):
            total = None
            for start in range(0, kh * kw, self.form.steps):
                part = None
                for tap in range(start, min(start + self.form.steps, kh * kw)):
                    i, j = divmod(tap, kw)
                    column = (first + t) * p.stride[1] + j * p.dilation[1]
                    source = ((line + i * p.dilation[0]) * self.width + column) * p.groups
                    x = write.load(self.image, source + block * lanes, lanes)
                    w = write.load(self.weights, (block * (kh * kw) + tap) * lanes, lanes)
                    product = tirx.Cast(narrow, x) * tirx.Cast(narrow, w)
                    part = product if part is None else part + product
                added = tirx.Cast(wide, part)
                total = added if total is None else total + added
            scaled = self.epilogue.vector(total, block, lanes)
            write.store(sums, const(t * lanes, "int32"), scaled, lanes)
        for t, v0 in itertools.product(range(count), range(0, lanes, _FINISHED)):
            channel = block * lanes + v0
            self.epilogue.store(
                self.out, sums, const(t * lanes + v0, "int32"), _FINISHED,
                lambda v: p.index((n, h, channel + v, first + t, const(0, "int32"))),  # noqa: B023
                self.request.out_index,
            )  # fmt: skip
