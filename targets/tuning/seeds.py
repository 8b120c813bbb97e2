# SPDX-License-Identifier: Apache-2.0
"""Traces to begin a search with: register tiles that the CPU can hold, in MetaSchedule's terms.

Of a tiling drawn at random one in a hundred keeps its sums in registers. The fixed rules' do, so
the first candidates are their neighbours: the innermost level of a tiling is a register tile, the
loops of the sum stand right outside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from codesign.targets.tvm_lower.machine import Machine

_SPATIAL, _SUM = 4, 2
"""Levels of a tiling ("SSRSRS") for an axis of the result and of the sum."""
_LEAST = 4
"""Registers with sums that a tile should have, so that one waits for no other."""
_EACH = 8
"""Seeds of one way to tile."""


def seeds(spaces: Sequence[Any], machine: Machine) -> Iterator[Any]:
    """Traces without postprocessing, from the design spaces (schedules) of a function, in turns."""
    for turn in zip_longest(*(_of_space(space, machine) for space in spaces)):
        yield from (trace for trace in turn if trace is not None)


def _of_space(space: Any, machine: Machine) -> Iterator[Any]:
    trace = space.trace
    tilings = [i for i in trace.insts if str(i.kind.name) == "SamplePerfectTile"]
    result = [i for i in tilings if int(i.attrs[0]) == _SPATIAL]
    sums = [i for i in tilings if int(i.attrs[0]) == _SUM]
    if len(result) < 2 or not sums or len(result) + len(sums) != len(tilings):
        return  # no product, or with a sum that was split in two
    sizes = [_size(trace, i) for i in result]
    for tile in _chosen(sizes, machine):
        made = trace
        for axis, size, inner in zip(result, sizes, tile):
            made = made.with_decision(axis, [size // inner, 1, 1, inner], True)
        for axis in sums:
            made = made.with_decision(axis, [_size(trace, axis), 1], True)
        yield made


def _size(trace: Any, tiling: Any) -> int:
    """Extent of the axis that is tiled."""
    return math.prod(int(n) for n in trace.get_decision(tiling))


def _chosen(sizes: Sequence[int], machine: Machine) -> list[tuple[int, ...]]:
    """Register tiles, those first that load least for what they add up: the last axis in vectors,
    the two before it, or one where the last has more channels than vectors."""
    lanes, most = _vectors(machine)
    *rest, last = sizes
    found: dict[tuple[int, ...], float] = {}
    for vector in (n for n in (8, 16, 32, 64) if last % n == 0):
        taken = -(-vector // lanes)
        for near in _divisors(rest[-1]):
            for far in _divisors(rest[-2]) if len(rest) > 1 else (1,):
                count = taken * near * far
                if _LEAST <= count <= most:
                    tile = (*(1 for _ in rest[:-2]), far, near, vector)
                    found[tile[-len(sizes) :]] = count / (far + near * taken)
    best = sorted(found, key=lambda tile: -found[tile])
    return best[:_EACH]


def _vectors(machine: Machine) -> tuple[int, int]:
    """32-bit lanes of a register, and registers that hold sums."""
    if "avx512f" in machine.features:
        return 16, 28
    if machine.arch == "x86_64":
        return (8 if "avx2" in machine.features else 4), 14
    return 4, 24


def _divisors(size: int) -> list[int]:
    return [n for n in range(1, min(size, 16) + 1) if size % n == 0]
