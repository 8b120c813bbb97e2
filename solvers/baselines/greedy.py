# SPDX-License-Identifier: Apache-2.0
"""Greedy descent to the limits, by price of each step.

Mixed precision as AIMET orders it: start where the objective is best, then change, one at a time,
the layer that loses least for what it gains, until the budget holds. Folding as FINN does it is the
same walk with the objective and the limit exchanged, the slowest layer first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.solvers.baselines.base import REPAIRED, Baseline, Recorder
from codesign.solvers.baselines.space import Bools, Floats, Ints, Space


@dataclass
class Greedy(Baseline):
    """Per architecture, the most promising first; then again with prices disturbed, while time
    is left."""

    name = "greedy"
    summary = "best objective first, then the cheapest steps into the limits (as AIMET, FINN)"
    noise: float = 0.3
    """Spread of the disturbance of prices in repeats."""

    def search(self, space: Space, record: Recorder, rng: np.random.Generator) -> None:
        least = space.least()
        order = np.flatnonzero(space.able())
        if len(least) == space.archs:
            order = order[np.argsort(least[order], kind="stable")]
        if not len(order):
            return
        spread = 0.0
        while not record.stop:
            for arch in space.visits(order.tolist()):
                if record.stop:
                    return
                _descend(space, record, arch, spread, rng)
            spread = self.noise


def _descend(
    space: Space, record: Recorder, arch: int, spread: float, rng: np.random.Generator
) -> None:
    cost = space.row(space.cost, arch)
    mask = space.mask(arch)
    if spread:
        cost = cost * np.exp(spread * rng.standard_normal(len(cost)))
    chosen = space.lightest(cost, mask)
    true = space.row(space.cost, arch)
    weights = [space.row(w, arch) for w in space.weights]
    for _ in range(REPAIRED):
        record.evaluations += space.columns
        over = _over(space, weights, chosen)
        blocked = _blocked(space, arch, chosen)
        worse = cost - cost[chosen][space.group_of]
        gain = over.sum() - _after(space, weights, chosen)
        gain += blocked[chosen][space.group_of] - blocked
        usable = mask & (gain > 1e-12)
        if record.stop or not usable.any():
            break
        price = np.where(usable, np.maximum(worse, 0.0) / np.where(usable, gain, 1.0), np.inf)
        best = price.min()
        ties = np.flatnonzero(price == best)
        pick = int(ties[np.argmax(gain[ties])])
        chosen[space.group_of[pick]] = pick
    _improve(space, record, arch, chosen, true, weights, mask)
    record.offer(arch, chosen)


def _improve(
    space: Space, record: Recorder, arch: int, chosen: Ints, cost: Floats,
    weights: list[Floats], mask: Bools,
) -> None:  # fmt: skip
    """Single changes that keep the limits and lower the cost, the greatest first."""
    for _ in range(REPAIRED):
        record.evaluations += space.columns
        gain = cost[chosen][space.group_of] - cost
        usable = mask & (_after(space, weights, chosen) <= 0) & (gain > 0)
        usable &= _blocked(space, arch, chosen) == 0
        if record.stop or not usable.any():
            return
        pick = int(np.argmax(np.where(usable, gain, -np.inf)))
        chosen[space.group_of[pick]] = pick


def _over(space: Space, weights: list[Floats], chosen: Ints) -> Floats:
    """(limits,): how far above its limit each total is."""
    totals = np.array([w[chosen].sum() for w in weights])
    found: Floats = np.maximum(totals - space.bounds, 0.0) / space.scales
    return found


def _after(space: Space, weights: list[Floats], chosen: Ints) -> Floats:
    """(columns,): violation of the limits after changing to each column."""
    found = np.zeros(space.columns)
    for w, bound, scale in zip(weights, space.bounds, space.scales):
        total = w[chosen].sum() - w[chosen][space.group_of] + w
        found += np.maximum(total - bound, 0.0) / scale
    return found


def _blocked(space: Space, arch: int, chosen: Ints) -> Floats:
    """(columns,): forbids that each column would complete, all others kept."""
    found = np.zeros(space.columns)
    taken = np.zeros(space.columns, dtype=np.bool_)
    taken[chosen] = True
    for only, clause in space.clauses:
        if only in (-1, arch):
            missing = clause[~taken[clause]]
            if len(missing) == 0:
                found[clause] += 1
            elif len(missing) == 1:
                found[missing] += 1
    return found
