# SPDX-License-Identifier: Apache-2.0
"""Exact multiple-choice knapsack: dynamic programming over groups, with bounds and dominance.

States after some groups are (cost, weights, clauses still open). A state is dropped when it cannot
be completed within a limit, when its Lagrangian bound exceeds the cutoff, or when another state
with the same open clauses is no worse in cost and every weight. A pass keeps at most ``width``
states by their bounds; a pass that never had to cut any proves its answer, otherwise the next
pass is wider and starts from the better cutoff. Costs and weights are exact integers; doubles
serve only for bounds, with their rounding error taken off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.solvers.base import Deadline
from codesign.solvers.lagrange import FloatArray, Relaxation
from codesign.solvers.problem import BoolArray, IntArray
from codesign.solvers.reduce import Index

WIDTHS = (64, 2_048, 32_768, 131_072)
"""States kept by the passes, one after the other, with at most one limit …"""
WIDTHS_TWO = (64, 1_024)
"""… with two, and …"""
WIDTHS_MANY = (64, 256)
"""… with more, where few states dominate each other and CP-SAT is faster (docs/solvers.md)."""
_CELLS = 4_000_000
"""States times options of one group laid out at once."""
_PAIRS = 400_000
"""Pairs of states compared for dominance where there are two weights or more."""
_FEW = 8
"""Groups with at most this many options are not searched for dominated ones beforehand."""
MAX_CLAUSES = 62
"""Open clauses are bits of a 64-bit integer."""


@dataclass(frozen=True, eq=False)
class Knapsack:
    """Pick one column per group: minimise Σ cost subject to Σ weights[k] ≤ bounds[k] and to no
    clause (a set of columns of different groups) being picked in full."""

    offsets: Index
    cost: IntArray
    weights: tuple[IntArray, ...]
    bounds: tuple[int, ...]
    clauses: tuple[tuple[int, ...], ...] = ()

    def ranges(self) -> tuple[int, int]:
        """The sums of the groups' least and greatest costs."""
        starts = self.offsets[:-1]
        low = sum(map(int, np.minimum.reduceat(self.cost, starts)))
        return low, sum(map(int, np.maximum.reduceat(self.cost, starts)))


@dataclass(frozen=True)
class Outcome:
    """``columns`` is the best pick found (None: none within the cutoff was found); every pick
    within the cutoff costs at least ``bound``; ``proven`` when the search is complete, so that
    ``columns`` is optimal, or None means that nothing is within the cutoff."""

    columns: tuple[int, ...] | None
    cost: int | None
    bound: int
    proven: bool


def solve_knapsack(
    knapsack: Knapsack,
    cutoff: int | None,
    deadline: Deadline,
    relaxation: Relaxation,
    u: FloatArray,
) -> Outcome:
    """The cheapest pick of cost ≤ ``cutoff``; ``u`` are good multipliers of ``relaxation``.

    Not proven when time ends, or when the widest pass had to cut states.
    """
    low, high = knapsack.ranges()
    best: tuple[int, tuple[int, ...]] | None = None
    limit = high if cutoff is None else min(cutoff, high)
    bound = low
    search = _Search(knapsack, relaxation, u)
    bound = max(bound, search.floor)
    for width in (WIDTHS, WIDTHS, WIDTHS_TWO, WIDTHS_MANY)[min(3, len(knapsack.weights))]:
        if bound > limit:
            break
        found = search.run(limit, width, deadline)
        if found.columns is not None:
            cost = sum(int(knapsack.cost[column]) for column in found.columns)
            best = (cost, found.columns)
            limit = cost - 1
        if found.complete:
            bound = limit + 1
            break
        bound = max(bound, min(found.cut, limit + 1))
        if deadline.passed:
            break
    proven = bound > limit
    if best is None:
        return Outcome(None, None, bound, proven)
    return Outcome(best[1], best[0], best[0] if proven else min(bound, best[0]), proven)


@dataclass(frozen=True)
class _Pass:
    columns: tuple[int, ...] | None
    complete: bool
    cut: int
    """No pick through a state that was cut costs less."""


class _Search:
    """One knapsack with fixed multipliers, prepared for passes of different width."""

    def __init__(self, knapsack: Knapsack, relaxation: Relaxation, u: FloatArray) -> None:
        self.knapsack = knapsack
        reduced = relaxation.reduced(u)
        least = np.minimum.reduceat(reduced, relaxation.starts)
        self.excess = reduced - np.repeat(least, relaxation.sizes)
        margin = relaxation.margin(u)
        self.base = float(least.sum() - u @ relaxation.bounds) - 2.0 * margin
        """Safe: base plus the excesses of a pick never exceeds its cost, if it is feasible."""
        self.floor = math.ceil(self.base)
        order = self._order()
        self.order = order
        starts = knapsack.offsets
        self.suffix = []
        for weights in (knapsack.cost, *knapsack.weights):
            lows = np.minimum.reduceat(weights, starts[:-1])[order]
            tail = np.zeros(len(order) + 1, dtype=lows.dtype)
            tail[:-1] = np.cumsum(lows[::-1])[::-1]
            self.suffix.append(tail)
        self._prepare_clauses()
        self.options = [self._useful(int(group)) for group in order]

    def _useful(self, group: int) -> Index:
        """The group's columns that no other one of it dominates."""
        knapsack = self.knapsack
        columns = np.arange(knapsack.offsets[group], knapsack.offsets[group + 1])
        if len(columns) <= _FEW:
            return columns
        weights = [w[columns] for w in knapsack.weights]
        cost, excess = knapsack.cost[columns], self.excess[columns]
        return columns[undominated(cost, weights, self.keep[columns], excess)]

    def _order(self) -> Index:
        """Groups in clauses first (their states are told apart), then by spread of weight."""
        knapsack = self.knapsack
        starts = knapsack.offsets[:-1]
        if not knapsack.weights:
            spread = np.zeros(len(starts))
        else:
            weights = knapsack.weights[0].astype(np.float64)
            spread = np.maximum.reduceat(weights, starts) - np.minimum.reduceat(weights, starts)
        spread = spread.copy()
        rank = np.zeros(len(starts))
        for place, clause in enumerate(knapsack.clauses):
            for column in clause:
                group = int(np.searchsorted(knapsack.offsets, column, side="right")) - 1
                if rank[group] == 0:
                    rank[group] = place - len(knapsack.clauses)
        return np.lexsort((-spread, rank))

    def _prepare_clauses(self) -> None:
        """keep[column]: the clauses that stay open when it is picked; closed[level]: the clauses
        whose last group is at that level."""
        knapsack = self.knapsack
        count = len(knapsack.clauses)
        everything = (1 << count) - 1
        position = np.empty(len(self.order), dtype=np.int64)
        position[self.order] = np.arange(len(self.order))
        self.keep = np.full(len(knapsack.cost), everything, dtype=np.int64)
        self.closed = [0] * len(self.order)
        self.start = everything
        for bit, clause in enumerate(knapsack.clauses):
            last = 0
            for column in clause:
                group = int(np.searchsorted(knapsack.offsets, column, side="right")) - 1
                start, end = int(knapsack.offsets[group]), int(knapsack.offsets[group + 1])
                others = np.arange(start, end) != column
                self.keep[start:end][others] &= ~(1 << bit)
                last = max(last, int(position[group]))
            self.closed[last] |= 1 << bit

    def run(self, limit: int, width: int, deadline: Deadline) -> _Pass:
        """One pass over all groups for picks of cost at most ``limit``."""
        knapsack = self.knapsack
        room = float(limit) - self.base
        room += abs(room) * 1e-12 + abs(float(limit)) * 2.0**-50
        cost: IntArray = np.zeros(1, dtype=knapsack.cost.dtype)
        weights: list[IntArray] = [np.zeros(1, dtype=w.dtype) for w in knapsack.weights]
        excess = np.zeros(1)
        opened = np.full(1, self.start, dtype=np.int64)
        trail: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]] = []
        cut = math.inf
        for level in range(len(self.order)):
            if level and deadline.passed:
                return _Pass(None, False, self.floor)
            options = self.options[level]
            options = options[self.excess[options] <= room - excess.min()]
            if len(options) and len(cost) * len(options) > _CELLS:
                fewer = max(1, _CELLS // len(options))
                order = np.argpartition(excess, fewer)
                cut = min(cut, float(excess[order[fewer:]].min()))
                first = order[:fewer]
            else:
                first = np.arange(len(cost))
            total = excess[first][:, None] + self.excess[options][None, :]
            alive = total <= room
            for held, table, tail, bound in zip(
                (cost, *weights),
                (knapsack.cost, *knapsack.weights),
                self.suffix,
                (limit, *knapsack.bounds),
            ):
                sums = held[first][:, None] + table[options][None, :]
                alive &= (sums <= bound - int(tail[level + 1])).astype(np.bool_)
            if self.closed[level]:
                after = opened[first][:, None] & self.keep[options][None, :]
                alive &= (after & self.closed[level]) == 0
            parent, option = np.nonzero(alive)
            if not len(parent):
                return _Pass(None, cut == math.inf, self._ceil(cut))
            excess = total[parent, option]
            parent, column = first[parent], options[option]
            cost = cost[parent] + knapsack.cost[column]
            weights = [w[parent] + table[column] for w, table in zip(weights, knapsack.weights)]
            opened = opened[parent] & self.keep[column]
            kept = undominated(cost, weights, opened, excess)
            if len(kept) > width:
                order = np.argpartition(excess[kept], width)
                cut = min(cut, float(excess[kept[order[width:]]].min()))
                kept = kept[order[:width]]
            trail.append((parent[kept].astype(np.int32), column[kept].astype(np.int32)))
            excess, cost, opened = excess[kept], cost[kept], opened[kept]
            weights = [w[kept] for w in weights]
        at = int(cost.argmin())
        picks = np.empty(len(self.order), dtype=np.int64)
        for level in range(len(self.order) - 1, -1, -1):
            parents, columns = trail[level]
            picks[self.order[level]] = columns[at]
            at = int(parents[at])
        return _Pass(tuple(int(p) for p in picks), cut == math.inf, self._ceil(cut))

    def _ceil(self, excess: float) -> int:
        if excess == math.inf:
            return self.floor
        value = self.base + excess
        return max(self.floor, math.ceil(value - abs(value) * 1e-12))


def undominated(
    cost: IntArray, weights: Sequence[IntArray], opened: Index, score: FloatArray
) -> Index:
    """Places of the states that no other one with the same open clauses dominates.

    Exact for at most one weight; for more, the states of least ``score`` are compared with all.
    """
    if len(cost) == 1:
        return np.zeros(1, dtype=np.int64)
    kinds = np.zeros(len(cost), dtype=np.int64)
    if (opened != opened[0]).any():
        kinds = np.unique(opened, return_inverse=True)[1]
    order = _sorted(cost, weights, kinds)
    kinds = kinds[order]
    if len(weights) >= 2:
        keys = [cost[order], *(w[order] for w in weights)]
        return order[_alive(keys, kinds, score[order])]
    if kinds[0] == kinds[-1]:
        falling = np.minimum.accumulate(cost[order])
    else:  # ranks shifted down from kind to kind, so that the running minimum starts afresh
        rank = np.unique(cost, return_inverse=True)[1][order]
        falling = np.minimum.accumulate(rank - kinds * len(cost))
    keep = np.ones(len(order), dtype=np.bool_)
    keep[1:] = (falling[1:] < falling[:-1]).astype(np.bool_)
    return order[keep]


def _sorted(cost: IntArray, weights: Sequence[IntArray], kinds: Index) -> Index:
    """By kind, then weights, then cost; for integers of any size."""
    order = np.argsort(cost, kind="stable")
    for weight in reversed(weights):
        order = order[np.argsort(weight[order], kind="stable")]
    if kinds.any():
        order = order[np.argsort(kinds[order], kind="stable")]
    return order


def _alive(keys: list[IntArray], kinds: Index, score: FloatArray) -> BoolArray:
    """Which of the sorted states survive a comparison with the ``_PAIRS / count`` best ones."""
    count = len(kinds)
    some = min(count, max(8, _PAIRS // count))
    killers = np.arange(count) if some == count else np.argpartition(score, some)[:some]
    worse = kinds[killers][:, None] == kinds[None, :]
    worse &= killers[:, None] < np.arange(count)[None, :]
    for key in keys:
        worse &= (key[killers][:, None] <= key[None, :]).astype(np.bool_)
    result: BoolArray = np.logical_not(worse.any(axis=0))
    return result
