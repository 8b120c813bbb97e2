# SPDX-License-Identifier: Apache-2.0
"""The tiles that a tuner may try for a workload: enumerated, pruned, in order of promise."""

from __future__ import annotations

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet
from codesign.targets.tvm_lower.templates.choose import (
    PRODUCTS,
    SERIAL_MACS,
    Dots,
    default_tile,
    equal_blocks,
    winograd_cycles,
)
from codesign.targets.tvm_lower.templates.workload import Workload
from codesign.targets.tvm_lower.templates.write import shared
from codesign.targets.tvm_lower.tiles import DepthwiseTile, DirectTile, Tile, WinogradTile


def candidates(
    workload: Workload, isa: InstructionSet, dots: Dots, threads: int
) -> tuple[Tile, ...]:
    """The tiles worth measuring, the default first, then the likely ones first.

    Pruned: register tiles that spill, that waste more than a fifth of their work at the edges,
    or that read more operands than they multiply.
    """
    first = default_tile(workload, isa, dots, threads)
    found: list[tuple[float, Tile]] = []
    parallel = threads > 1 and workload.macs >= SERIAL_MACS // 8
    modes = (True, False) if parallel and workload.macs < SERIAL_MACS * 8 else (parallel,)
    if workload.depthwise:
        if dots.lanewise is None and dots.each and workload.groups % dots.each[0].lanes == 0:
            blocks = workload.groups // dots.each[0].lanes
            for vectors in (v for v in (1, 2, 3, 4, 6, 8) if blocks % v == 0):
                for columns in (c for c in (2, 3, 4, 6, 7) if c <= workload.out_width):
                    for rows in _divisors(workload.out_height, (1, 2, 4, 7, 8, 14, 16, 28)):
                        cost = abs(columns - 4) / 4 + abs(vectors - 3) / 4 + 1 / rows
                        found += [(cost, DepthwiseTile(columns, vectors, rows, mode))
                                  for mode in modes]
    else:
        pixels = workload.out_width * (workload.out_height * workload.n if workload.flat else 1)
        for number, dot in enumerate(dots.direct):
            equal = equal_blocks(workload, dot)
            for cost, columns, vectors in _shapes(isa, dot, pixels, workload.channels, equal):
                for outer in (True, False):
                    found += [(cost * dot.cost, DirectTile(columns, vectors, number, outer, mode))
                              for mode in modes]
        for shape, exact in dots.winograd.items():
            if workload.channels % exact[0].lanes == 0:
                found += _winograd_candidates(workload, isa, exact[0], modes, threads, shape)
    found.sort(key=lambda item: item[0])
    ordered = [tile for _, tile in found if tile != first]
    return tuple(ordered) if first is None else (first, *ordered)


def _divisors(n: int, options: tuple[int, ...]) -> list[int]:
    return [d for d in options if n % d == 0] or [1]


def _shapes(
    isa: InstructionSet, dot: Dot, pixels: int, channels: int, equal: bool = False
) -> list[tuple[float, int, int]]:
    """(estimated cycles a product, pixels, vectors) of register tiles worth trying."""
    room = isa.registers - 1 if dot.widen is None else isa.registers - 4
    blocks = -(-channels // dot.lanes)
    found = []
    for v in (v for v in (1, 2, 3, 4) if v <= blocks):
        for p in range(1, min(pixels, 14) + 1):
            if p * v + v + 1 > room + (v > 2) or (p * v < 4 and p < pixels):
                continue
            if shared(pixels, p)[0][1] < p or (equal and pixels % p):
                continue  # the same as with fewer pixels
            loads = sum(number * (size * v + 0.5 * (size + v))
                        for number, size in shared(pixels, p))  # fmt: skip
            found.append((-(-blocks // v) * loads / (pixels * blocks), p, v))
    return found


def _winograd_candidates(
    workload: Workload, isa: InstructionSet, dot: Dot, modes: tuple[bool, ...], threads: int,
    shape: tuple[int, int],
) -> list[tuple[float, Tile]]:  # fmt: skip
    high, across = shape
    tall, wide = -(-workload.out_height // high), -(-workload.out_width // across)
    blocks = workload.channels // dot.lanes
    direct = workload.macs / PRODUCTS / threads
    base = winograd_cycles(workload, shape, threads) / direct
    found: list[tuple[float, Tile]] = []
    for outer in (False, True):
        for rows in (1,) if outer else _divisors(tall, (1, 2, 4, 7)):
            tiles = (workload.n * tall if outer else rows) * wide
            for cost, count, vectors in _shapes(isa, dot, tiles, workload.channels):
                if blocks % vectors == 0:
                    total = cost * base * dot.cost
                    found += [(total, WinogradTile(count, vectors, rows, outer, mode, *shape))
                              for mode in modes]
    return found
