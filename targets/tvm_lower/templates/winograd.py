# SPDX-License-Identifier: Apache-2.0
"""Stride-1 3x3 convolution by Winograd's F(m x n, 3x3) with m, n of 2 or 4, in exact integers.

Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A (Lavin and Gray, 2016): 16 products for 4 results of F(2x2), 36 for
16 of F(4x4), instead of 9 a result. G is scaled row by row to small integers; a result then comes
out a known multiple of the sum, 3^i · 2^j times it. Everything is kept modulo 2^32 (unsigned, so
that it may wrap), where dividing by 3^i is a multiplication by its inverse; a shift undoes 2^j.
That is exact if 2^j times the sum fits 32 bits, which ``winograd_dots`` proves from the weights at
hand, as it does that the transformed operands fit the dot product: for u8 inputs and s8 weights
F(4x4) has inputs of at most 17340 and weights of at most 6223.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx
from tvm.script.ir_builder import tirx as build

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet, Range
from codesign.targets.tvm_lower.kernel import Expr, const
from codesign.targets.tvm_lower.templates import write
from codesign.targets.tvm_lower.templates.request import Request, data_range
from codesign.targets.tvm_lower.templates.winograd_steps import STEPS, shift_of
from codesign.targets.tvm_lower.templates.workload import Workload
from codesign.targets.tvm_lower.tiles import WinogradTile

LANES = 16
"""Channels that the input transform takes at once."""
Integers = npt.NDArray[Any]


def fits(workload: Workload) -> bool:
    """Whether the shapes are Winograd's."""
    w = workload
    return (
        w.groups == 1 and w.kernel == (3, 3) and w.stride == (1, 1) and w.dilation == (1, 1)
        and w.depth % LANES == 0 and w.out_height > 1 and w.out_width > 1
    )  # fmt: skip


def transformed(weights: Integers, high: int = 2, wide: int = 2) -> npt.NDArray[np.int64]:
    """Weights [o, k, 3, 3] as [points of a tile, o, k], scaled to integers."""
    moved = _moved(weights, high, wide).T.astype(np.int64)
    return np.ascontiguousarray(moved).reshape(-1, *weights.shape[:2])


def _moved(weights: Integers, high: int, wide: int) -> npt.NDArray[np.float64]:
    """Transformed weights [o · k, points] by one matrix product: small ones for every filter take
    ten times as long. They are small integers, which float64 keeps exactly."""
    both = np.kron(STEPS[high].weights, STEPS[wide].weights).astype(np.float64)
    found: npt.NDArray[np.float64] = weights.reshape(-1, 9).astype(np.float64) @ both.T
    return found


def winograd_dots(
    workload: Workload, isa: InstructionSet, weights: Integers, high: int = 2, wide: int = 2
) -> tuple[Dot, ...]:
    """Dots that take the transformed operands of tiles of ``high`` by ``wide`` results, if the
    whole is exact."""
    if not fits(workload):
        return ()
    rows, columns, inputs = STEPS[high], STEPS[wide], data_range(workload.data)
    flat = weights.astype(np.int64).reshape(len(weights), -1)
    above = np.where(flat > 0, flat, 0).sum(axis=1)
    below = above - flat.sum(axis=1)
    least, most = -min(inputs.low, 0), max(inputs.high, 0)
    sums = max(int((above * most + below * least).max(initial=0)),
               int((below * most + above * least).max(initial=0)))
    if sums << (rows.shift + columns.shift) >= 2**31:
        return ()
    both = np.kron(rows.inputs, columns.inputs)
    plus = np.where(both > 0, both, 0).sum(axis=1)
    minus = np.where(both < 0, both, 0).sum(axis=1)
    data = Range(int((plus * inputs.low + minus * inputs.high).min()),
                 int((plus * inputs.high + minus * inputs.low).max()))
    moved = _moved(weights, high, wide)
    limit = int(max(moved.max(initial=0), -moved.min(initial=0)))
    return tuple(d for d in isa.dots(data, Range(-limit, limit)) if d.data == d.weight == "int16")


def winograd(request: Request, dot: Dot, tile: WinogradTile) -> None:
    """Write the body of the function under construction."""
    _Winograd(request, dot, tile).write()


@dataclass(frozen=True)
class _Place:
    """A tile of results: its image, its first row and column."""

    n: Expr
    top: Expr
    left: Expr


class _Winograd:
    def __init__(self, request: Request, dot: Dot, tile: WinogradTile) -> None:
        self.request, self.dot, self.tile = request, dot, tile
        self.down, self.along = STEPS[tile.high], STEPS[tile.wide]
        self.points = self.down.points * self.along.points
        p = self.product = request.product
        self.tall, self.wide = -(-p.out_height // tile.high), -(-p.out_width // tile.wide)
        self.rows = next(r for r in range(min(tile.rows, self.tall), 0, -1) if self.tall % r == 0)
        self.chunks = p.n * self.tall // self.rows
        self.blocks = -(-p.channels // dot.lanes)
        self.vectors = next(
            v for v in range(min(tile.vectors, self.blocks), 0, -1) if self.blocks % v == 0
        )
        self.groups = self.blocks // self.vectors
        self.steps = p.depth // dot.terms
        self.span = self.vectors * dot.lanes
        """Output channels of a group."""

    def write(self) -> None:
        kernel, dot = self.request.kernel, self.dot
        packed = kernel.array(self._packed(), "weights")
        self.epilogue = self.request.epilogue(0, dot.lanes)
        self.out = build.arg("out", build.buffer(self.request.out_shape, self.request.dtype))
        self.weights = packed.buffer
        depth = self.product.depth
        if not self.tile.channels_outer:
            tiles = self.rows * self.wide
            with self.request.work(self.chunks, self.product.macs) as chunk:
                moved = write.array(self.points * tiles * depth, "int16")
                self._transform(moved, chunk, const(0, "int32"), tiles)
                with write.loop(self.groups) as group:
                    self._group(moved, group, tiles, chunk * tiles)
            return
        tiles = self.chunks * self.rows * self.wide
        moved = write.array(self.points * tiles * depth, "int16")
        with self.request.work(self.chunks, self.product.macs) as chunk:
            self._transform(moved, chunk, chunk * (self.rows * self.wide), tiles)
        with self.request.work(self.groups, self.product.macs) as group:
            self._group(moved, group, tiles, const(0, "int32"))

    def _packed(self) -> npt.NDArray[Any]:
        """Transformed weights [group, point, step, vector, lane, term]."""
        p, dot = self.product, self.dot
        moved = transformed(self.request.weights, self.tile.high, self.tile.wide)
        wide = np.zeros((self.points, self.blocks * dot.lanes, p.depth), dot.weight)
        wide[:, : p.channels] = moved
        shaped = wide.reshape(
            self.points, self.groups, self.vectors, dot.lanes, self.steps, dot.terms
        )
        return shaped.transpose(1, 0, 4, 2, 3, 5).reshape(-1)

    # Input

    def _transform(self, moved: Any, chunk: Expr, first: Expr, tiles: int) -> None:
        """Transform the rows of a chunk into ``moved`` [points, tiles, depth] from ``first`` on."""
        p, high, step = self.product, self.tile.high, self.tile.wide
        depth, width = p.depth, step * self.wide + 2
        tall = high * self.rows + 2
        image = write.array(tall * width * depth, "int16")
        per_image = self.tall // self.rows
        n = tirx.floordiv(chunk, per_image)
        top = tirx.floormod(chunk, per_image) * (high * self.rows) - p.padding[0]
        with write.loop(tall) as row:
            start, h = row * (width * depth), top + row
            with build.If(tirx.all(h >= 0, h < p.height)):
                with build.Then():
                    self._row(image, start, n, h, width)
                with build.Else():
                    self._zeros(image, start, width * depth)
        chunks = depth // LANES
        half = write.array(self.points * LANES, "int16")
        with write.loop(self.rows) as ty, write.loop(self.wide) as tx, write.loop(chunks) as c:
            source = (ty * high * width + tx * step) * depth + c * LANES
            target = (first + ty * self.wide + tx) * depth + c * LANES
            self._one(image, source, width * depth, half, moved, target, tiles * depth)

    def _row(self, image: Any, start: Expr, n: Expr, h: Expr, width: int) -> None:
        p = self.product
        depth, left = p.depth, p.padding[1]
        zero = const(0, "int32")
        shown = min(p.width, width - left)
        if left:
            self._zeros(image, start, left * depth)
        vector = write.loop(LANES, "vectorized")
        with write.loop(shown) as w, write.loop(depth // LANES) as c, vector as v:
            at = c * LANES + v
            value = p.data(n, h, w, zero, at).astype("int16")
            write.store(image, start + left * depth + w * depth + at, value, 1)
        right = width - left - shown
        if right:
            self._zeros(image, start + (left + shown) * depth, right * depth)

    def _zeros(self, image: Any, start: Expr, count: int) -> None:
        with write.loop(count // LANES) as i:
            write.store(image, start + i * LANES, write.zeros("int16", LANES), LANES)

    def _one(
        self, image: Any, source: Expr, pitch: int, half: Any, moved: Any, target: Expr,
        plane: int,
    ) -> None:  # fmt: skip
        """Bᵀ d B of one tile and LANES channels."""
        depth, down, along = self.product.depth, self.down, self.along
        for j in range(along.points):
            d = [write.load(image, source + i * pitch + j * depth, LANES)
                 for i in range(down.points)]
            for i, value in enumerate(down.input(d)):
                write.store(half, const((i * along.points + j) * LANES, "int32"), value, LANES)
        for i in range(down.points):
            d = [write.load(half, const((i * along.points + j) * LANES, "int32"), LANES)
                 for j in range(along.points)]
            for j, value in enumerate(along.input(d)):
                write.store(moved, target + (i * along.points + j) * plane, value, LANES)

    # Products and output

    def _group(self, moved: Any, group: Expr, tiles: int, first: Expr) -> None:
        """All tiles of one group of output channels; ``first`` is the first tile's number."""
        sums = write.array(self.points * tiles * self.span, "int32")
        with write.loop(self.points) as point:
            write.blocks(tiles, self.tile.tiles, lambda t, count: self._products(
                moved, sums, group, point, t, count, tiles))
        half = write.array(self.down.results * self.along.points * self.span, "uint32")
        with write.loop(tiles) as t:
            self._results(sums, half, group, t, first + t, tiles)

    def _products(
        self, moved: Any, sums: Any, group: Expr, point: Expr, tile: Expr, count: int,
        tiles: int,
    ) -> None:  # fmt: skip
        dot, vectors, depth = self.dot, self.vectors, self.product.depth
        lanes, terms = dot.lanes, dot.terms
        size = lanes * terms
        kind = f"uint32x{lanes}"
        total = write.array(count * vectors * lanes, "uint32")
        for s in range(count * vectors):
            write.store(total, const(s * lanes, "int32"), write.zeros("uint32", lanes), lanes)
        data = (point * tiles + tile) * depth
        weights = (group * self.points + point) * (self.steps * vectors * size)
        with write.loop(self.steps) as k:
            at = weights + k * (vectors * size)
            columns = [write.load(self.weights, at + b * size, size) for b in range(vectors)]
            if dot.prefetch:  # the next point's weights come while these are multiplied
                write.prefetch(self.weights, at + self.steps * vectors * size)
            for t in range(count):
                word = write.load(moved, data + t * depth + k * terms, terms)
                for b in range(vectors):
                    place = const((t * vectors + b) * lanes, "int32")
                    product = tirx.reinterpret(kind, dot.first(word, columns[b]))
                    write.store(total, place, write.load(total, place, lanes) + product, lanes)
        for t in range(count):
            for b in range(vectors):
                value = write.load(total, const((t * vectors + b) * lanes, "int32"), lanes)
                place = (point * tiles + tile + t) * self.span + b * lanes
                write.store(sums, place, tirx.reinterpret(f"int32x{lanes}", value), lanes)

    def _results(
        self, sums: Any, half: Any, group: Expr, tile: Expr, number: Expr, tiles: int
    ) -> None:
        """Transform the sums of a tile back, finish and store its pixels."""
        p, lanes, span = self.product, self.dot.lanes, self.span
        down, along, kind = self.down, self.along, f"uint32x{lanes}"
        row = tirx.floordiv(number, self.wide)
        place = _Place(
            tirx.floordiv(row, self.tall), tirx.floormod(row, self.tall) * down.results,
            tirx.floormod(number, self.wide) * along.results,
        )  # fmt: skip
        for b in range(self.vectors):
            for j in range(along.points):
                m = [
                    tirx.reinterpret(kind, write.load(
                        sums, ((i * along.points + j) * tiles + tile) * span + b * lanes, lanes))
                    for i in range(down.points)
                ]  # fmt: skip
                for i, value in enumerate(down.even(m)):
                    at = const((i * along.points + j) * span + b * lanes, "int32")
                    write.store(half, at, value, lanes)
        with write.loop(down.results) as u:
            if p.out_height % down.results:
                with write.when(place.top + u < p.out_height):
                    self._line(half, group, u, place)
            else:
                self._line(half, group, u, place)

    def _line(self, half: Any, group: Expr, u: Expr, place: _Place) -> None:
        """Finish and store row ``u`` of a tile of results."""
        p, lanes, span, along = self.product, self.dot.lanes, self.span, self.along
        result = write.array(along.results * span, "int32")
        for b in range(self.vectors):
            m = [write.load(half, (u * along.points + j) * span + b * lanes, lanes)
                 for j in range(along.points)]
            for v, value in enumerate(along.output(m)):
                sums = self._divided(value, max(self.down.scales) * along.scales[v])
                scaled = self.epilogue.vector(sums, group * self.vectors + b, lanes)
                write.store(result, const(v * span + b * lanes, "int32"), scaled, lanes)
        for v in range(along.results):
            if p.out_width % along.results and v:
                with write.when(place.left + v < p.out_width):
                    self._finish(result, v * span, group, place, u, v)
            else:
                self._finish(result, v * span, group, place, u, v)

    def _divided(self, value: Expr, scale: int) -> Expr:
        """A vector of ``scale`` times the sums, modulo 2^32, as the sums."""
        lanes, odd = self.dot.lanes, self.down.odd * self.along.odd
        if odd > 1:
            value = value * tirx.Broadcast(const(pow(odd, -1, 2**32), "uint32"), lanes)
        shift = tirx.Broadcast(const(shift_of(scale), "int32"), lanes)
        return tirx.reinterpret(f"int32x{lanes}", value) >> shift

    def _finish(
        self, result: Any, at: int, group: Expr, place: _Place, u: Expr, v: int
    ) -> None:
        zero = const(0, "int32")
        for first, count in write.powers(self.span):
            channel = group * self.span + first
            self.epilogue.store(
                self.out, result, const(at + first, "int32"), count,
                lambda c: self.product.index(
                    (place.n, place.top + u, zero, place.left + v, channel + c)),  # noqa: B023
                self.request.out_index,
            )  # fmt: skip
