# SPDX-License-Identifier: Apache-2.0
"""Which template and tile a kernel gets: the fixed rules, and what a tuner may try."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet, Lanewise
from codesign.targets.tvm_lower.templates.request import data_range, weight_range
from codesign.targets.tvm_lower.templates.winograd import winograd_dots
from codesign.targets.tvm_lower.templates.workload import Workload
from codesign.targets.tvm_lower.templates.write import shared
from codesign.targets.tvm_lower.tiles import DepthwiseTile, DirectTile, Tile, WinogradTile


@dataclass(frozen=True)
class Dots:
    """The exact dot products of a workload, by template."""

    direct: tuple[Dot, ...]
    winograd: Mapping[tuple[int, int], tuple[Dot, ...]]
    """By the rows and columns of an output tile; those without an exact dot are left out."""
    lanewise: Lanewise | None = None

    @property
    def each(self) -> tuple[Dot, ...]:
        """Those that depthwise convolution can use."""
        return tuple(dot for dot in self.direct if dot.each is not None)


WINOGRAD_SHAPES = ((2, 2), (2, 4), (4, 2), (4, 4))
"""Rows and columns of the output tiles that there are transforms for."""

FEW = 2
"""Steps of a narrow accumulator up to which each is widened by itself."""
SERIAL_MACS = 1 << 17
"""Below this, starting threads costs more than it saves."""


def default_tile(
    workload: Workload, isa: InstructionSet, dots: Dots, threads: int
) -> Tile | None:
    """The tile by fixed rules; None for the compiler's own schedule."""
    winograd = _best_winograd(workload, isa, dots, threads)
    if winograd is not None:
        return winograd
    if workload.depthwise and dots.lanewise is not None:
        if workload.groups % 8:
            return None
        parallel = threads > 1 and workload.macs >= SERIAL_MACS
        return DepthwiseTile(min(2, workload.out_width), 1, 1, parallel)
    if workload.depthwise:
        if not dots.each or workload.groups % dots.each[0].lanes:
            return None
        blocks = workload.groups // dots.each[0].lanes
        vectors = next(v for v in (2, 3, 1) if blocks % v == 0)
        rows = next(r for r in (8, 7, 4, 2, 1) if workload.out_height % r == 0)
        parallel = threads > 1 and workload.macs >= SERIAL_MACS
        return DepthwiseTile(min(4, workload.out_width), vectors, rows, parallel)
    if not dots.direct:
        return None
    pixels = workload.out_width * (workload.out_height * workload.n if workload.flat else 1)
    dot = dots.direct[0]
    blocks = -(-workload.channels // dot.lanes)
    equal = equal_blocks(workload, dot)
    columns, vectors = best_shape(isa, dot, pixels, blocks, equal)
    parallel = threads > 1 and workload.macs >= SERIAL_MACS
    return DirectTile(columns, vectors, _stored_dot(workload, dots), True, parallel)


def _stored_dot(workload: Workload, dots: Dots) -> int:
    """The first dot, or the same with weights in bytes where they are too many for words."""
    first = dots.direct[0]
    weights = workload.depth * workload.channels * math.prod(workload.kernel)
    if first.weight != "int16" or 2 * weights < _WORDS:
        return 0
    alike = (i for i, d in enumerate(dots.direct) if (d.data, d.weight) == (first.data, "int8"))
    return next(alike, 0)


def equal_blocks(workload: Workload, dot: Dot) -> bool:
    """Whether the template needs blocks of one size: it does where all pixels are one row of an
    image that it copies."""
    return workload.flat and (workload.stored != dot.data or dot.offset != 0)


def best_shape(
    isa: InstructionSet, dot: Dot, pixels: int, blocks: int, equal: bool = False
) -> tuple[int, int]:
    """Pixels and vectors of a register tile: as many products a load as registers allow.

    With ``equal`` the pixels divide into blocks of that size.
    """
    if dot.registers > 1:  # sums and narrow sums of an accumulator, weights, an input
        room = (isa.registers - 3) // (dot.registers * (2 if dot.widen else 1))
        most = 3
    else:
        room = isa.registers - 1
        if dot.widen is not None:
            room = isa.registers - 4 if dot.steps <= FEW else isa.registers // 2
        most = 2 if isa.vector_bits > 128 else 4

    def cost(shape: tuple[int, int]) -> tuple[float, int]:
        p, v = shape  # each step of a block multiplies size * v times and loads size + v vectors
        parts = sum(number * (size * v + 0.5 * (size + v)) for number, size in shared(pixels, p))
        return -(-blocks // v) * parts, -v

    shapes = [
        (p, v) for v in range(1, most + 1) for p in range(1, 15)
        if p * v + (v + 1 if dot.registers == 1 else 0) <= room and v <= blocks and p <= pixels
        and not (equal and pixels % p)
    ]  # fmt: skip
    return min(shapes, key=cost)


def _best_winograd(
    workload: Workload, isa: InstructionSet, dots: Dots, threads: int
) -> WinogradTile | None:
    """The output tile that costs least, or None where direct products cost no more."""
    cheap = dots.direct[0].cost if dots.direct else 4.0
    direct = workload.macs * cheap * _DIRECT / PRODUCTS / threads
    costs = {
        shape: winograd_cycles(workload, shape, threads)
        for shape, found in dots.winograd.items()
        if workload.channels % found[0].lanes == 0
    }
    shape = min(costs, key=lambda s: costs[s], default=None)
    if shape is None or costs[shape] > direct:
        return None
    return _winograd_tile(workload, isa, dots.winograd[shape][0], threads, shape)


PRODUCTS = 26
"""16-bit products a cycle of one core with 256-bit vectors, as measured on an AMD Zen 3."""
_BYTES = 12
"""Weights that all cores together read a cycle in a network, whose weights no cache holds; they
are fetched while others are multiplied."""
_DIRECT = 1.25
"""Direct products reach so much less of ``PRODUCTS`` than Winograd's, whose loops are longer."""
_WORDS = 1 << 17
"""Bytes of weights in words from which on reading bytes and widening them is faster."""
_CACHED = 1 << 19
"""Bytes of weights that stay in a core's own cache."""


def winograd_cycles(workload: Workload, shape: tuple[int, int], threads: int) -> float:
    """About how long Winograd's algorithm takes with output tiles of this shape."""
    tall, wide = -(-workload.out_height // shape[0]), -(-workload.out_width // shape[1])
    points = workload.n * tall * wide * (shape[0] + 2) * (shape[1] + 2)
    products = points * workload.depth * workload.channels / PRODUCTS
    moved = points * (5 * workload.depth / 16 + 3 * workload.channels / 8)
    weights = 2 * (shape[0] + 2) * (shape[1] + 2) * workload.depth * workload.channels
    read = weights / _BYTES if weights > _CACHED else 0.0
    return max((products + moved) / threads, read) + 0.25 * read


def _winograd_tile(
    workload: Workload, isa: InstructionSet, dot: Dot, threads: int, shape: tuple[int, int]
) -> WinogradTile:
    high, across = shape
    tall, wide = -(-workload.out_height // high), -(-workload.out_width // across)
    outer = tall * workload.n < 8
    most = 1 if outer else max(1, min(4, 32 // wide))

    def waiting(rows: int) -> float:
        """How much longer than alone the slowest thread takes; fewer rows load more weights."""
        chunks = workload.n * tall // rows
        return -(-chunks // threads) * threads / chunks * (1 + 0.05 / rows)

    rows = min((r for r in range(most, 0, -1) if tall % r == 0), key=waiting)
    tiles = (workload.n * tall if outer else rows) * wide
    blocks = -(-workload.channels // dot.lanes)
    count, vectors = best_shape(isa, dot, tiles, blocks)
    parallel = threads > 1 and workload.macs >= SERIAL_MACS
    return WinogradTile(count, vectors, rows, outer, parallel, high, across)


def dots_for(workload: Workload, isa: InstructionSet, weights: npt.NDArray[Any]) -> Dots:
    """The exact dot products for a workload."""
    inputs, ranged = data_range(workload.data), weight_range(weights, workload.weight)
    lanewise = isa.lanewise(inputs, ranged) if workload.depthwise else None
    shapes = {
        (high, wide): winograd_dots(workload, isa, weights, high, wide)
        for high, wide in WINOGRAD_SHAPES
        if (high <= workload.out_height or high == 2) and (wide <= workload.out_width or wide == 2)
    }
    winograd = {shape: found for shape, found in shapes.items() if found}
    return Dots(isa.dots(inputs, ranged), winograd, lanewise)


def suits(tile: Tile, workload: Workload, dots: Dots) -> bool:
    """Whether a tile can be used; one from a database may be of other circumstances."""
    if isinstance(tile, WinogradTile):
        found = dots.winograd.get((tile.high, tile.wide))
        return found is not None and workload.channels % found[0].lanes == 0
    if isinstance(tile, DepthwiseTile):
        lanes = 8 if dots.lanewise is not None else dots.each[0].lanes if dots.each else 0
        return workload.depthwise and lanes > 0 and workload.groups % lanes == 0
    if isinstance(tile, DirectTile):
        return not workload.depthwise and tile.dot < len(dots.direct)
    return True
