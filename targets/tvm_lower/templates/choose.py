# SPDX-License-Identifier: Apache-2.0
"""Which template and tile a kernel gets: the fixed rules, and what a tuner may try."""

from __future__ import annotations

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet
from codesign.targets.tvm_lower.templates.request import data_range, weight_range
from codesign.targets.tvm_lower.templates.workload import Workload
from codesign.targets.tvm_lower.tiles import DirectTile, Tile

SERIAL_MACS = 1 << 17
"""Below this, starting threads costs more than it saves."""


def default_tile(workload: Workload, isa: InstructionSet, dots: tuple[Dot, ...],
                 threads: int) -> Tile | None:  # fmt: skip
    """The tile by fixed rules; None for the compiler's own schedule."""
    if not dots or workload.depthwise:
        return None
    pixels = workload.out_width * (workload.out_height * workload.n if workload.flat else 1)
    dot = dots[0]
    blocks = -(-workload.channels // dot.lanes)
    columns, vectors = best_shape(isa, dot, pixels, blocks)
    parallel = threads > 1 and workload.macs >= SERIAL_MACS
    return DirectTile(columns, vectors, 0, True, parallel)


def best_shape(isa: InstructionSet, dot: Dot, pixels: int, blocks: int) -> tuple[int, int]:
    """Pixels and vectors of a register tile: as many products a load as registers allow."""
    room = isa.registers - 2 if dot.widen is None else isa.registers // 2

    def cost(shape: tuple[int, int]) -> tuple[float, int]:
        p, v = shape
        passes = -(-pixels // p) * -(-blocks // v)  # each of p * v products, p + v loads
        return passes * (p * v + 0.5 * (p + v)), -v

    shapes = [
        (p, v) for v in (1, 2, 3, 4) for p in range(1, 15)
        if p * v + v + 1 <= room and v <= blocks and p <= pixels
    ]  # fmt: skip
    return min(shapes, key=cost)


def dots_for(workload: Workload, isa: InstructionSet, weights: object) -> tuple[Dot, ...]:
    """The exact dot products for a workload."""
    return isa.dots(data_range(workload.data), weight_range(weights, workload.weight))  # type: ignore[arg-type]
