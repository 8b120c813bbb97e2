# SPDX-License-Identifier: Apache-2.0
"""Which template and tile a kernel gets: the fixed rules, and what a tuner may try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet, Lanewise
from codesign.targets.tvm_lower.templates.request import data_range, weight_range
from codesign.targets.tvm_lower.templates.winograd import winograd_dots
from codesign.targets.tvm_lower.templates.workload import Workload
from codesign.targets.tvm_lower.tiles import DepthwiseTile, DirectTile, Tile, WinogradTile


@dataclass(frozen=True)
class Dots:
    """The exact dot products of a workload, by template."""

    direct: tuple[Dot, ...]
    winograd: tuple[Dot, ...]
    lanewise: Lanewise | None = None

    @property
    def each(self) -> tuple[Dot, ...]:
        """Those that depthwise convolution can use."""
        return tuple(dot for dot in self.direct if dot.each is not None)


SERIAL_MACS = 1 << 17
"""Below this, starting threads costs more than it saves."""


def default_tile(
    workload: Workload, isa: InstructionSet, dots: Dots, threads: int
) -> Tile | None:
    """The tile by fixed rules; None for the compiler's own schedule."""
    if dots.winograd and workload.channels % dots.winograd[0].lanes == 0:
        cheap = dots.direct[0].cost if dots.direct else 4.0
        if 2.25 * cheap > 1.25:
            return _winograd_tile(workload, isa, dots.winograd[0], threads)
    if workload.depthwise and dots.lanewise is not None:
        if workload.groups % 8:
            return None
        parallel = threads > 1 and workload.macs >= SERIAL_MACS
        return DepthwiseTile(min(2, workload.out_width), 1, 1, parallel)
    if workload.depthwise:
        if not dots.each or workload.groups % dots.each[0].lanes:
            return None
        blocks = workload.groups // dots.each[0].lanes
        vectors = next(v for v in (4, 3, 2, 1) if blocks % v == 0)
        rows = next(r for r in (8, 7, 4, 2, 1) if workload.out_height % r == 0)
        parallel = threads > 1 and workload.macs >= SERIAL_MACS
        return DepthwiseTile(min(4, workload.out_width), vectors, rows, parallel)
    if not dots.direct:
        return None
    pixels = workload.out_width * (workload.out_height * workload.n if workload.flat else 1)
    dot = dots.direct[0]
    blocks = -(-workload.channels // dot.lanes)
    columns, vectors = best_shape(isa, dot, pixels, blocks)
    parallel = threads > 1 and workload.macs >= SERIAL_MACS
    return DirectTile(columns, vectors, 0, True, parallel)


def best_shape(isa: InstructionSet, dot: Dot, pixels: int, blocks: int) -> tuple[int, int]:
    """Pixels and vectors of a register tile: as many products a load as registers allow."""
    if dot.registers > 1:  # sums and narrow sums of an accumulator, weights, an input
        room = (isa.registers - 3) // (dot.registers * (2 if dot.widen else 1))
        most = 3
    else:
        room = isa.registers - 2 if dot.widen is None else isa.registers // 2
        most = 2 if isa.vector_bits > 128 else 4

    def cost(shape: tuple[int, int]) -> tuple[float, int]:
        p, v = shape
        passes = -(-pixels // p) * -(-blocks // v)  # each of p * v products, p + v loads
        return passes * (p * v + 0.5 * (p + v)), -v

    shapes = [
        (p, v) for v in range(1, most + 1) for p in range(1, 15)
        if p * v + (v + 1 if dot.registers == 1 else 0) <= room and v <= blocks and p <= pixels
    ]  # fmt: skip
    return min(shapes, key=cost)


def _winograd_tile(
    workload: Workload, isa: InstructionSet, dot: Dot, threads: int
) -> WinogradTile:
    tall, wide = -(-workload.out_height // 2), -(-workload.out_width // 2)
    outer = tall * workload.n < 8
    most = 1 if outer else max(1, min(4, 32 // wide))
    rows = next(r for r in range(most, 0, -1) if tall % r == 0)
    tiles = (workload.n * tall if outer else rows) * wide
    blocks = -(-workload.channels // dot.lanes)
    count, vectors = best_shape(isa, dot, tiles, blocks)
    parallel = threads > 1 and workload.macs >= SERIAL_MACS
    return WinogradTile(count, vectors, rows, outer, parallel)


def dots_for(workload: Workload, isa: InstructionSet, weights: npt.NDArray[Any]) -> Dots:
    """The exact dot products for a workload."""
    inputs, ranged = data_range(workload.data), weight_range(weights, workload.weight)
    lanewise = isa.lanewise(inputs, ranged) if workload.depthwise else None
    return Dots(isa.dots(inputs, ranged), winograd_dots(workload, isa, weights), lanewise)


def suits(tile: Tile, workload: Workload, dots: Dots) -> bool:
    """Whether a tile can be used; one from a database may be of other circumstances."""
    if isinstance(tile, WinogradTile):
        return bool(dots.winograd) and workload.channels % dots.winograd[0].lanes == 0
    if isinstance(tile, DepthwiseTile):
        lanes = 8 if dots.lanewise is not None else dots.each[0].lanes if dots.each else 0
        return workload.depthwise and lanes > 0 and workload.groups % lanes == 0
    if isinstance(tile, DirectTile):
        return not workload.depthwise and tile.dot < len(dots.direct)
    return True
