# SPDX-License-Identifier: Apache-2.0
"""The last word: which of the tiles that were faster alone are faster inside the network.

Within a budget of time: no network is built and no timing begun that would end after it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from codesign.targets.tuning.contest import FEWEST, Contest, ratio
from codesign.targets.tuning.database import Best
from codesign.targets.tuning.task import RIVALS, WORTH, Task
from codesign.targets.tvm_lower.tiles import Tile

ROUNDS = 12
"""Rounds of the last timings, in the network."""
_SHARE = 0.3
"""Share of a budget of time that is left for the last timings; more where builds are slow."""
_SLOWER = 1.25
"""Builds differ by so much."""


def reserve(contest: Contest, until: float) -> float:
    """Seconds before ``until`` that the last timings want: one network of each rival and one of the
    best; 0 if there is no time for a single one."""
    left = until - contest.now()
    one = _SLOWER * contest.build_seconds
    if left < 2 * one:
        return 0.0
    return min(max(_SHARE * left, (RIVALS + 1) * one), max(0.6 * left, 1.5 * one))


def can_settle(contest: Contest, until: float | None, timings: float = 0.0) -> bool:
    """Whether another network can be built, and ``timings`` seconds spent, before ``until``."""
    if until is None:
        return True
    return contest.now() + _SLOWER * contest.build_seconds + timings <= until


def settle(tasks: Sequence[Task], contest: Contest, until: float | None) -> dict[str, Best]:
    """The tiles, by kernel key, that are faster inside the network, with figures that were taken
    after the choice.

    The first network has the fixed rules' tiles, each further one the next best of every kernel. A
    last one has the fastest of each, and only what it confirms is kept. Where ``until`` leaves no
    time for it, the one of the others that gains most is timed again.
    """
    rivals = {task.key: able for task in tasks if (able := task.rivals())}
    if not rivals:
        return {}
    groups = {task.key: task.layers for task in tasks if task.key in rivals}
    names = {task.key: task.layer for task in tasks}
    if not contest.started:
        contest.add({})
    offered: dict[int, dict[str, Tile]] = {}
    for place in range(max(map(len, rivals.values()))):
        if not can_settle(contest, until, _timings(contest, len(offered) + 2)):
            break
        tiles = {key: found[place] for key, found in rivals.items() if place < len(found)}
        number = contest.add(tiles)
        if number is not None:
            offered[number] = tiles
    if not offered:
        return {}
    soon = None if until is None else until - _SLOWER * contest.build_seconds
    times = contest.watch([0, *offered], groups, ROUNDS, soon)
    shares = {
        number: {key: ratio(times[number][key], times[0][key]) for key in tiles}
        for number, tiles in offered.items()
    }
    chosen: dict[str, Tile] = {}
    for key in groups:
        having = [number for number, tiles in offered.items() if key in tiles]
        best = min(having, key=lambda n: shares[n][key], default=None)
        if best is not None and shares[best][key] < WORTH:
            chosen[key] = offered[best][key]
    if not chosen:
        return {}
    last = next((n for n, tiles in offered.items() if tiles == chosen), None)
    if last is None and can_settle(contest, until, _timings(contest, 2)):
        last = contest.add(chosen)
    if last is None:
        last = max(offered, key=lambda n: _gain(offered[n], chosen, shares[n], times[0]))
        chosen = {k: tile for k, tile in chosen.items() if offered[last].get(k) == tile}
    fresh = contest.watch([0, last], groups, ROUNDS, until)
    kept = {}
    for key, tile in chosen.items():
        share = ratio(fresh[last][key], fresh[0][key])
        if share < WORTH:
            default = statistics.median(fresh[0][key])
            kept[key] = Best(tile, default * share, default, names[key])
    return kept


def _gain(
    tiles: Mapping[str, Tile], chosen: Mapping[str, Tile], shares: Mapping[str, float],
    base: Mapping[str, Sequence[float]],
) -> float:  # fmt: skip
    """Milliseconds that a network saves with those of its tiles that were chosen."""
    return sum(
        (1 - shares[key]) * statistics.median(base[key])
        for key, tile in tiles.items() if chosen.get(key) == tile
    )  # fmt: skip


def _timings(contest: Contest, networks: int) -> float:
    """Seconds that the fewest rounds take, twice: to choose, and afresh."""
    return 2 * FEWEST * networks * contest.round_seconds
