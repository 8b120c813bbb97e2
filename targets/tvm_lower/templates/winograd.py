# SPDX-License-Identifier: Apache-2.0
"""Stride-1 3x3 convolution by Winograd's F(2x2, 3x3), in exact integers.

Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A with 16 products for 4 results instead of 36 (Lavin and Gray,
2016). Bᵀ holds 0 and ±1 only; G is taken twice, so that it does too, and the result is divided by
4, which is exact. For u8 inputs and s8 weights the transformed operands stay within ±1020 and
±1143, so 16-bit multiplications do; sums wrap modulo 2^32 on the way and are right in the end
if four times the true sum fits 32 bits, which ``fits`` proves from the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx
from tvm.script.ir_builder import tirx as build

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet, Range
from codesign.targets.tvm_lower.kernel import Expr, const
from codesign.targets.tvm_lower.templates import write
from codesign.targets.tvm_lower.templates.request import Request, data_range
from codesign.targets.tvm_lower.templates.workload import Workload
from codesign.targets.tvm_lower.tiles import WinogradTile

G2 = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.int64)
"""Twice the weight transform."""
POSITIONS = 16
LANES = 16
"""Channels that the input transform takes at once."""


def fits(workload: Workload) -> bool:
    """Whether the shapes are Winograd's."""
    w = workload
    return (
        w.groups == 1 and w.kernel == (3, 3) and w.stride == (1, 1) and w.dilation == (1, 1)
        and w.depth % LANES == 0 and w.out_height > 1 and w.out_width > 1
    )  # fmt: skip


def transformed(weights: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Weights [o, k, 3, 3] as [16, o, k], four times Winograd's."""
    # at most 9 · 127: float64 is exact, and its matrix products are fast
    wide = weights.astype(np.float64)
    moved: npt.NDArray[np.int64] = (G2 @ wide @ G2.T).astype(np.int64).transpose(2, 3, 0, 1)
    return moved.reshape(POSITIONS, *weights.shape[:2])


def winograd_dots(
    workload: Workload, isa: InstructionSet, weights: npt.NDArray[Any]
) -> tuple[Dot, ...]:
    """Dots that take the transformed operands, if the whole is exact."""
    if not fits(workload):
        return ()
    inputs = data_range(workload.data)
    sums = np.abs(weights.astype(np.int64)).sum(axis=(1, 2, 3)).max(initial=0)
    if 4 * int(sums) * inputs.limit >= 2**31:
        return ()
    # Two differences or sums of two inputs; three weights in each of two directions.
    low, high = min(inputs.low, -inputs.high), max(inputs.high, -inputs.low)
    data = Range(2 * (low + min(inputs.low, 0)), 2 * (high + max(inputs.high, 0)))
    limit = int(np.abs(transformed(weights)).max(initial=0))
    return tuple(d for d in isa.dots(data, Range(-limit, limit)) if d.data == "int16")


def winograd(request: Request, dot: Dot, tile: WinogradTile) -> None:
    """Write the body of the function under construction."""
    _Winograd(request, dot, tile).write()


class _Winograd:
    def __init__(self, request: Request, dot: Dot, tile: WinogradTile) -> None:
        self.request, self.dot, self.tile = request, dot, tile
        p = self.product = request.product
        self.tall, self.wide = -(-p.out_height // 2), -(-p.out_width // 2)
        self.rows = next(r for r in range(min(tile.rows, self.tall), 0, -1) if self.tall % r == 0)
        self.chunks = p.n * self.tall // self.rows
        self.blocks = -(-p.channels // dot.lanes)
        self.vectors = next(
            v for v in range(min(tile.vectors, self.blocks), 0, -1) if self.blocks % v == 0
        )
        self.groups = self.blocks // self.vectors
        self.steps = p.depth // dot.terms
        self.parallel = "parallel" if tile.parallel else "serial"
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
            with write.loop(self.chunks, self.parallel) as chunk:
                moved = write.array(POSITIONS * tiles * depth, "int16")
                self._transform(moved, chunk, const(0, "int32"), tiles)
                with write.loop(self.groups) as group:
                    self._group(moved, group, tiles, chunk * tiles)
            return
        tiles = self.chunks * self.rows * self.wide
        moved = write.array(POSITIONS * tiles * depth, "int16")
        with write.loop(self.chunks, self.parallel) as chunk:
            self._transform(moved, chunk, chunk * (self.rows * self.wide), tiles)
        with write.loop(self.groups, self.parallel) as group:
            self._group(moved, group, tiles, const(0, "int32"))

    def _packed(self) -> npt.NDArray[Any]:
        """Transformed weights [group, position, step, vector, lane, term]."""
        p, dot = self.product, self.dot
        moved = transformed(self.request.weights)
        wide = np.zeros((POSITIONS, self.blocks * dot.lanes, p.depth), dot.weight)
        wide[:, : p.channels] = moved
        shaped = wide.reshape(
            POSITIONS, self.groups, self.vectors, dot.lanes, self.steps, dot.terms
        )
        return shaped.transpose(1, 0, 4, 2, 3, 5).reshape(-1)

    # Input

    def _transform(self, moved: Any, chunk: Expr, first: Expr, tiles: int) -> None:
        """Transform the rows of a chunk into ``moved`` [16, tiles, depth] from tile ``first``."""
        p = self.product
        depth, width = p.depth, 2 * self.wide + 2
        tall = 2 * self.rows + 2
        image = write.array(tall * width * depth, "int16")
        per_image = self.tall // self.rows
        n = tirx.floordiv(chunk, per_image)
        top = tirx.floormod(chunk, per_image) * (2 * self.rows) - p.padding[0]
        with write.loop(tall) as row:
            start, h = row * (width * depth), top + row
            with build.If(tirx.all(h >= 0, h < p.height)):
                with build.Then():
                    self._row(image, start, n, h, width)
                with build.Else():
                    self._zeros(image, start, width * depth)
        chunks = depth // LANES
        with write.loop(self.rows) as ty, write.loop(self.wide) as tx, write.loop(chunks) as c:
            source = (ty * 2 * width + tx * 2) * depth + c * LANES
            target = (first + ty * self.wide + tx) * depth + c * LANES
            self._one(image, source, width * depth, moved, target, tiles * depth)

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
        self, image: Any, source: Expr, pitch: int, moved: Any, target: Expr, plane: int
    ) -> None:
        """Bᵀ d B of one tile and LANES channels."""
        depth = self.product.depth
        half = write.array(POSITIONS * LANES, "int16")

        def get(i: int, j: int) -> Expr:
            return write.load(half, const((i * 4 + j) * LANES, "int32"), LANES)

        for j in range(4):
            d = [write.load(image, source + i * pitch + j * depth, LANES) for i in range(4)]
            for i, value in enumerate(_input(d)):
                write.store(half, const((i * 4 + j) * LANES, "int32"), value, LANES)
        for i in range(4):
            for j, value in enumerate(_input([get(i, j) for j in range(4)])):
                write.store(moved, target + (i * 4 + j) * plane, value, LANES)

    # Products and output

    def _group(self, moved: Any, group: Expr, tiles: int, first: Expr) -> None:
        """All tiles of one group of output channels; ``first`` is the first tile's number."""
        sums = write.array(POSITIONS * tiles * self.span, "int32")
        count = min(self.tile.tiles, tiles)
        whole, rest = divmod(tiles, count)
        with write.loop(POSITIONS) as position:
            with write.loop(whole) as t:
                self._products(moved, sums, group, position, t * count, count, tiles)
            if rest:
                self._products(moved, sums, group, position, const(whole * count, "int32"), rest,
                               tiles)
        with write.loop(tiles) as t:
            self._results(sums, group, t, first + t, tiles)

    def _products(
        self, moved: Any, sums: Any, group: Expr, position: Expr, tile: Expr, count: int,
        tiles: int,
    ) -> None:  # fmt: skip
        dot, vectors, depth = self.dot, self.vectors, self.product.depth
        lanes, terms = dot.lanes, dot.terms
        size = lanes * terms
        total = write.array(count * vectors * lanes, "int32")
        for s in range(count * vectors):
            write.store(total, const(s * lanes, "int32"), write.zeros("int32", lanes), lanes)
        data = (position * tiles + tile) * depth
        weights = (group * POSITIONS + position) * (self.steps * vectors * size)
        with write.loop(self.steps) as k:
            at = weights + k * (vectors * size)
            columns = [write.load(self.weights, at + b * size, size) for b in range(vectors)]
            for t in range(count):
                word = write.load(moved, data + t * depth + k * terms, terms)
                for b in range(vectors):
                    place = const((t * vectors + b) * lanes, "int32")
                    old = write.load(total, place, lanes)
                    write.store(total, place, dot.add(old, word, columns[b]), lanes)
        for t in range(count):
            for b in range(vectors):
                value = write.load(total, const((t * vectors + b) * lanes, "int32"), lanes)
                place = (position * tiles + tile + t) * self.span + b * lanes
                write.store(sums, place, value, lanes)

    def _results(self, sums: Any, group: Expr, tile: Expr, number: Expr, tiles: int) -> None:
        """Transform the sums of a tile back, finish and store its four pixels."""
        p, lanes, span = self.product, self.dot.lanes, self.span
        row = tirx.floordiv(number, self.wide)
        column = tirx.floormod(number, self.wide) * 2
        n, top = tirx.floordiv(row, self.tall), tirx.floormod(row, self.tall) * 2
        result = write.array(4 * span, "int32")
        for b in range(self.vectors):
            half = write.array(8 * lanes, "int32")
            for j in range(4):
                m = [
                    write.load(sums, ((i * 4 + j) * tiles + tile) * span + b * lanes, lanes)
                    for i in range(4)
                ]
                for i, value in enumerate(_output(m)):
                    write.store(half, const((i * 4 + j) * lanes, "int32"), value, lanes)
            for u in range(2):
                m = [write.load(half, const((u * 4 + j) * lanes, "int32"), lanes)
                     for j in range(4)]
                for v, value in enumerate(_output(m)):
                    quarter = value >> tirx.Broadcast(const(2, "int32"), lanes)
                    scaled = self.epilogue.vector(quarter, group * self.vectors + b, lanes)
                    at = const((u * 2 + v) * span + b * lanes, "int32")
                    write.store(result, at, scaled, lanes)
        for u in range(2):
            for v in range(2):
                conditions = []
                if u and p.out_height % 2:
                    conditions.append(top + 1 < p.out_height)
                if v and p.out_width % 2:
                    conditions.append(column + 1 < p.out_width)
                at = (u * 2 + v) * span
                place = (n, top + u, column + v)
                if conditions:
                    with write.when(tirx.all(*conditions)):
                        self._finish(result, at, group, place)
                else:
                    self._finish(result, at, group, place)

    def _finish(
        self, result: Any, at: int, group: Expr, place: tuple[Expr, Expr, Expr]
    ) -> None:
        n, h, w = place
        for first, count in write.powers(self.span):
            channel = group * self.span + first
            self.epilogue.store(
                self.out, result, const(at + first, "int32"), count,
                lambda v: self.product.index((n, h, const(0, "int32"), w, channel + v)),  # noqa: B023
                self.request.out_index,
            )  # fmt: skip


def _input(d: list[Expr]) -> list[Expr]:
    """Bᵀ along one direction."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output(m: list[Expr]) -> list[Expr]:
    """Aᵀ along one direction."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
