# SPDX-License-Identifier: Apache-2.0
"""Convolution and linear layers as dot products over rows of the kernel window.

Within a row of the window the inputs of neighbouring columns and channels are neighbours in
memory, so a row is one dot product of kw · depth terms. Sums of ``columns`` pixels by ``vectors``
output vectors stay in registers until they are finished (bias, requantisation, residual).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx
from tvm.script.ir_builder import tirx as build

from codesign.targets.tvm_lower.isa.base import Dot
from codesign.targets.tvm_lower.kernel import Expr, const
from codesign.targets.tvm_lower.templates import write
from codesign.targets.tvm_lower.templates.choose import FEW
from codesign.targets.tvm_lower.templates.request import Request
from codesign.targets.tvm_lower.tiles import DirectTile


def direct(request: Request, dot: Dot, tile: DirectTile) -> None:
    """Write the body of the function under construction."""
    _Direct(request, dot, tile).write()


@dataclass(frozen=True)
class _Taps:
    """Window rows and columns that are walked one by one, and the run of terms in each."""

    rows: int
    columns: int
    """1 where a window row is one run."""
    run: int
    """Dot steps of a run."""


_FIRST_CACHE = 1 << 15
"""Weights that stay in a core's first cache beside what else is there."""
_ALONE = 1 << 14
"""Elements that one thread copies sooner than others come to help."""


class _Direct:
    def __init__(self, request: Request, dot: Dot, tile: DirectTile) -> None:
        self.request, self.dot, self.tile = request, dot, tile
        p = self.product = request.product
        kh, kw = p.kernel
        merged = kw == 1 or p.dilation[1] == 1
        terms = kw * p.depth if merged else p.depth
        self.taps = _Taps(kh, 1 if merged else kw, -(-terms // dot.terms))
        top, left, bottom, right = p.padding
        self.rows, self.columns = p.height + top + bottom, p.width + left + right
        self.blocks = -(-p.channels // dot.lanes)
        self.pixels = min(tile.columns, self._row_pixels())
        self.vectors = min(tile.vectors, self.blocks)

    def _flat(self) -> bool:
        """Whether all pixels can be taken as one row."""
        p = self.product
        return p.kernel == (1, 1) and p.stride == (1, 1) and not any(p.padding)

    def _row_pixels(self) -> int:
        p = self.product
        return p.n * p.out_height * p.out_width if self._flat() else p.out_width

    def write(self) -> None:
        p, kernel = self.product, self.request.kernel
        terms = self.taps.run * self.dot.terms
        in_place = (
            self.request.source is not None
            and str(self.request.source.dtype) == self.dot.data
            and not self.dot.offset
            and not any(p.padding)
            and (terms == p.depth or terms == p.kernel[1] * p.depth)
        )
        packed = kernel.array(self._packed(), "weights")
        self.epilogue = self.request.epilogue(self.dot.offset, self.dot.lanes)
        out = build.arg("out", build.buffer(self.request.out_shape, self.request.dtype))
        self.weights = write.flat(packed.buffer)
        self.in_place = in_place
        if in_place:
            self.image = write.flat(self.request.source)
        else:
            self.image = self._padded()
        self._main(out)

    def _packed(self) -> npt.NDArray[Any]:
        """Weights [group of vectors, tap, step, vector, lane, term], zeros at the ends."""
        p, dot, taps = self.product, self.dot, self.taps
        rows = self.request.weights.transpose(0, 2, 3, 1)  # o, kh, kw, k
        rows = rows.reshape(p.channels, taps.rows, taps.columns, -1)
        wide = np.zeros(
            (self.blocks * dot.lanes, taps.rows, taps.columns, taps.run * dot.terms), dot.weight
        )
        wide[: p.channels, :, :, : rows.shape[-1]] = rows
        wide = wide.reshape(
            self.blocks, dot.lanes, taps.rows, taps.columns, taps.run, dot.terms
        ).transpose(0, 2, 3, 4, 1, 5)
        parts = []
        for first in range(0, self.blocks, self.vectors):
            part = wide[first : first + self.vectors]  # vector, i, j, step, lane, term
            parts.append(part.transpose(1, 2, 3, 0, 4, 5).reshape(-1))
        return np.concatenate(parts)

    def _padded(self) -> Any:
        """The image with its borders in the type of the dot, channels last."""
        p, dot = self.product, self.dot
        top, left, bottom, right = p.padding
        width, depth = self.columns, p.depth
        size = p.n * self.rows * width * depth
        image = write.array(size + dot.terms, dot.data)
        run = p.width * depth
        lanes = next(v for v in (32, 16, 8, 4, 2, 1) if depth % v == 0)

        def fill(start: Expr, count: int) -> None:
            whole, rest = divmod(count, 32)
            value = const(dot.offset, dot.data)
            if whole:
                with write.loop(whole) as i:
                    write.store(image, start + i * 32, tirx.Broadcast(value, 32), 32)
            if rest:
                with write.loop(rest, "vectorized" if rest & (rest - 1) == 0 else "serial") as i:
                    write.store(image, start + (whole * 32 + i), value, 1)

        def inside(n: Expr, h: Expr, start: Expr) -> None:
            if left:
                fill(start, left * depth)
            def copy(w: Expr, channel: Expr) -> None:
                value = p.data(n, h, w, const(0, "int32"), channel)
                if dot.offset:
                    value = value.astype("int32") + const(dot.offset, "int32")
                write.store(image, start + left * depth + w * depth + channel,
                            value.astype(dot.data), 1)

            with write.loop(p.width) as w:
                if depth <= 4:  # unrolled: the compiler makes a mess of such short loops
                    for channel in range(depth):
                        copy(w, const(channel, "int32"))
                else:
                    with write.loop(depth // lanes) as c, write.loop(lanes, "vectorized") as v:
                        copy(w, c * lanes + v)
            if right:
                fill(start + left * depth + run, right * depth)

        few = size <= _ALONE
        rows = p.n * self.rows
        with write.loop(rows) if few else self.request.work(rows, self.product.macs) as row:
            n, h = tirx.floordiv(row, self.rows), tirx.floormod(row, self.rows)
            start = row * (width * depth)
            if not top and not bottom:
                inside(n, h, start)
            else:
                with build.If(tirx.all(h >= top, h < p.height + top)):
                    with build.Then():
                        inside(n, h - top, start)
                    with build.Else():
                        fill(start, width * depth)
        return image

    def _main(self, out: Any) -> None:
        p = self.product
        row = self._row_pixels()
        (many, size), (few, _) = write.shared(row, self.pixels)
        if few and self._flat() and not self.in_place:
            # Equal blocks alone: TVM 0.27 sizes a copied input by the loop's variable where a
            # condition on it tells blocks apart (buffer compaction), and refuses the result.
            size = max(n for n in range(1, self.pixels + 1) if row % n == 0)
            many, few = row // size, 0
        outer = many + few if self._flat() else p.n * p.out_height
        groups = -(-self.blocks // self.vectors)
        short = self.blocks % self.vectors
        ragged = bool(short or p.channels % self.dot.lanes)

        def columns(group: Expr, q: Expr, vectors: int, last: bool) -> None:
            """All pixels of outer step ``q``."""

            def emit(first: Expr, count: int) -> None:
                self._tile(out, group, q, first, count, vectors, last)

            if not self._flat():
                write.blocks(row, self.pixels, emit)
            elif few:
                write.either(q, many, lambda: emit(q * size, size),
                             lambda: emit(q * (size - 1) + many, size - 1))
            else:
                emit(q * size, size)

        def block(group: Expr, q: Expr) -> None:
            if not ragged:
                columns(group, q, self.vectors, False)
                return
            write.either(group, groups - 1,
                         lambda: columns(group, q, self.vectors, False),
                         lambda: columns(group, q, short or self.vectors, True))

        if not self.tile.channels_outer:
            with self.request.work(groups * outer, self.product.macs) as at:
                block(tirx.floormod(at, groups), tirx.floordiv(at, groups))
        else:
            with self.request.work(groups * outer, self.product.macs) as at:
                block(tirx.floordiv(at, outer), tirx.floormod(at, outer))

    def _tile(
        self, out: Any, group: Expr, q: Expr, first: Expr, count: int, vectors: int, last: bool,
    ) -> None:  # fmt: skip
        """One register tile: ``count`` pixels from column ``first``, ``vectors`` vectors."""
        p, dot = self.product, self.dot
        lanes = dot.lanes
        sums = write.array(count * vectors * lanes, "int32")
        for s in range(count * vectors):
            write.store(sums, const(s * lanes, "int32"), write.zeros("int32", lanes), lanes)
        image_row = self.columns * p.depth
        if self._flat():
            start = first * p.depth
        else:
            n, h = tirx.floordiv(q, p.out_height), tirx.floormod(q, p.out_height)
            start = (n * self.rows + h * p.stride[0]) * image_row
            start = start + first * (p.stride[1] * p.depth)
        group_elements = self.vectors * self._group_elements()
        for_pixel = p.stride[1] * p.depth
        with write.loop(self.taps.rows) as i, write.loop(self.taps.columns) as j:
            data = start + i * (p.dilation[0] * image_row) + j * (p.dilation[1] * p.depth)
            tap = (i * self.taps.columns + j) * (self.taps.run * vectors * lanes * dot.terms)
            self._run(sums, data, group * group_elements + tap, count, vectors, for_pixel)
        for b in range(vectors):
            for t in range(count):
                at = const((t * vectors + b) * lanes, "int32")
                value = write.load(sums, at, lanes)
                value = self.epilogue.vector(value, group * self.vectors + b, lanes)
                write.store(sums, at, value, lanes)
        valid = vectors * lanes
        if last and p.channels % lanes:
            valid -= lanes - p.channels % lanes
        for t in range(count):
            self._finish(out, sums, t * vectors * lanes, group, q, first + t, valid)

    def _group_elements(self) -> int:
        """Packed weights of one vector of outputs."""
        taps = self.taps
        return taps.rows * taps.columns * taps.run * self.dot.lanes * self.dot.terms

    def _ahead(self) -> int:
        """How far before their use weights are fetched: the next group's while this one's are
        multiplied, if they are too many for the first cache and pixels enough to hide it."""
        pixels = self._row_pixels() * (1 if self._flat() else self.product.out_height)
        elements = self._group_elements() * self.vectors
        many = elements * -(-self.blocks // self.vectors) > _FIRST_CACHE
        apart = self.tile.channels_outer and pixels >= 4 * self.pixels
        return elements if self.dot.prefetch and many and apart else 0

    def _run(
        self, sums: Any, data: Expr, weights: Expr, count: int, vectors: int, pixel: int
    ) -> None:
        """Add one run of dot steps to the sums."""
        dot, steps = self.dot, self.taps.run
        lanes, terms = dot.lanes, dot.terms

        def operands(k: Expr) -> tuple[list[Expr], list[Expr]]:
            at = weights + k * (vectors * lanes * terms)
            columns = [
                write.load(self.weights, at + b * lanes * terms, lanes * terms)
                for b in range(vectors)
            ]
            words = [
                write.load(self.image, data + (t * pixel) + k * terms, terms)
                for t in range(count)
            ]
            return columns, words

        ahead = self._ahead()

        def each(buffer: Any, width: int, value: Callable[[Expr, Expr, Expr], Expr],
                 k: Expr) -> None:  # fmt: skip
            columns, words = operands(k)
            if ahead:
                write.prefetch(self.weights, weights + k * (vectors * lanes * terms) + ahead)
            for t in range(count):
                for b in range(vectors):
                    at = const((t * vectors + b) * width, "int32")
                    old = write.load(buffer, at, width)
                    write.store(buffer, at, value(old, words[t], columns[b]), width)

        if dot.widen is None:
            with write.kept_loop(steps) as k:
                each(sums, lanes, dot.add, k)
            return
        kind, width = dot.narrow.rsplit("x", 1)
        narrow = write.array(count * vectors * int(width), kind)
        widen = dot.widen
        chunk = math.ceil(steps / math.ceil(steps / dot.steps))

        def few(first: Expr, size: int) -> None:
            """Each sum at once: its narrow accumulator lives in one register for a moment."""
            read = [operands(first + u) for u in range(size)]
            for t in range(count):
                for b in range(vectors):
                    part = dot.first(read[0][1][t], read[0][0][b])
                    for columns, words in read[1:]:
                        part = dot.add(part, words[t], columns[b])
                    at = const((t * vectors + b) * lanes, "int32")
                    write.store(sums, at, widen(write.load(sums, at, lanes), part), lanes)

        def some(first: Expr, size: int) -> None:
            if chunk <= FEW and dot.registers == 1:
                few(first, size)
                return
            each(narrow, int(width), lambda old, x, w: dot.first(x, w), first)
            with write.loop(size - 1) if size > 2 else _once(size - 1) as k:
                if size > 1:
                    each(narrow, int(width), dot.add, first + 1 + k)
            for s in range(count * vectors):
                at = const(s * lanes, "int32")
                total = write.load(sums, at, lanes)
                part = write.load(narrow, const(s * int(width), "int32"), int(width))
                write.store(sums, at, widen(total, part), lanes)

        whole, rest = divmod(steps, chunk)
        with write.kept_loop(whole) as c:
            some(c * chunk, chunk)
        if rest:
            some(const(whole * chunk, "int32"), rest)

    def _finish(
        self, out: Any, sums: Any, start: int, group: Expr, q: Expr, column: Expr, valid: int
    ) -> None:
        """Store the first ``valid`` channels of a pixel."""
        p, lanes = self.product, self.dot.lanes
        if self._flat():
            n = tirx.floordiv(column, p.out_height * p.out_width)
            h = tirx.floordiv(tirx.floormod(column, p.out_height * p.out_width), p.out_width)
            w = tirx.floormod(column, p.out_width)
        else:
            n, h, w = tirx.floordiv(q, p.out_height), tirx.floormod(q, p.out_height), column
        for first, count in write.powers(valid):
            channel = group * (self.vectors * lanes) + first
            self.epilogue.store(
                out, sums, const(start + first, "int32"), count,
                lambda v: p.index((n, h, const(0, "int32"), w, channel + v)),  # noqa: B023
                self.request.out_index,
            )  # fmt: skip


def _once(count: int) -> Any:
    return write.loop(1)
