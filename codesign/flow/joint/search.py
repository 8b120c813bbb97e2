# SPDX-License-Identifier: Apache-2.0
"""Branch and bound over accelerators, in batches, best lower bound first.

Bounds need no tables, so only accelerators that may still be best have theirs filled; then bounds
from the tables, under multipliers that were good for others, discard more; the knapsacks that
remain are solved exactly.

An objective that is the greatest of several additive parts (the interval of images in a stream) has
for weights λ ≥ 0, Σ λ = 1, the bound max_k f_k ≥ Σ_k λ_k f_k, which is additive; the exact solve
of a batch halves the span between the bound and the best value found, with f_k ≤ middle as
limits.

A search starts from the designs that earlier solves of the problem found, where they keep the
limits, and from the multipliers learned then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.cost.bounds import Bounds
from codesign.cost.fill import Filler
from codesign.cost.option_tables import NEVER, Priced
from codesign.flow.joint.design import design_of
from codesign.flow.joint.problem import CHOICE, JOINT, JointProblem
from codesign.flow.joint.result import Certificate, JointResult
from codesign.solvers.base import Deadline, Solver
from codesign.solvers.decimals import to_decimal
from codesign.solvers.lagrange import FloatArray, Relaxation, bounds_of_all
from codesign.solvers.problem import Metric, Problem
from codesign.solvers.solution import Status
from codesign.solvers.solve import solve_raw
from codesign.space.generate import RESOURCES

Array: TypeAlias = npt.NDArray[np.int64]

_BATCHES = (48, 256, 1024)
"""Pairs of cores whose accelerators' tables are filled at once, first batch first."""
_CELLS = 12_000_000
"""Accelerators times options of one batch, at most (unless one pair has more)."""
_MULTIPLIERS = 8
"""Sets of multipliers kept for bounds."""
_WEIGHT = 1 << 10
"""Weights of the parts of an interval add up to about this in integer programs."""
_NARROW = 256
"""A span of less than one of so many parts of the value is not halved."""
_RECALLED = 2
"""Earlier designs whose tables are filled to start from them; others are used where theirs are."""


@dataclass
class _Best:
    value: int
    place: int
    """Accelerator, in the whole space."""
    options: tuple[int, ...]
    """Column of each unit."""


class Search:
    """One branch and bound over accelerators, in batches."""

    def __init__(
        self, problem: JointProblem, deadline: Deadline, solver: Solver, tolerance: float = 0.0
    ) -> None:  # fmt: skip
        self.tolerance = Fraction(tolerance)
        self.problem, self.deadline, self.solver = problem, deadline, solver
        self.tables, self.space = problem.tables, problem.space
        self.rows, self.parts = problem.rows, problem.parts(problem.objective)
        # one more group of one option carries what does not depend on any choice
        self.offsets = np.append(self.tables.offsets, self.tables.offsets[-1] + 1)
        self.choices = {
            f"unit{i}": [str(place) for place in range(len(entries))]
            for i, entries in enumerate(self.tables.entries)
        } | {"other": ["-"]}
        self.fixed = {
            name: np.append(self.tables.choice_metric(name), 0)
            for name in CHOICE
            if name in problem.metrics
        }
        self.allowed = np.ones(int(self.offsets[-1]), dtype=np.bool_)
        for layer, format in problem.banned:
            self.allowed[self.tables.columns_of(layer, format)] = False
        self.best: _Best | None = None
        count = len(self.rows)
        weights = [np.ones(1)] if len(self.parts) == 1 else list(np.eye(len(self.parts)))
        # weights of the parts, then multipliers of the limits
        self.multipliers = [np.concatenate([w, np.zeros(count)]) for w in weights]
        self.key = (problem.objective, *((row.metric, row.sign) for row in self.rows))
        self.multipliers += problem.store.multipliers.get(self.key, [])
        self.learned: list[FloatArray] = []
        self.solved = self.tabled = 0
        self.seconds_space = problem.seconds_space if problem.store.bounds is None else 0.0
        self.seconds_tables = self.seconds_space
        self.complete = True
        self.warm = False

    def run(self) -> JointResult:
        """Until every accelerator is solved or discarded, or time ends."""
        start = time.perf_counter()
        problem = self.problem
        if problem.store.bounds is None:
            fresh = Bounds(self.space, problem.timing, self.tables.by, problem.pipelined)
            problem.store.bounds = fresh, self.tables.price(fresh)
        bounds, priced = problem.store.bounds
        metrics = self._metrics(priced, self._least_use(bounds))
        lower, open_pairs = self._lower(metrics, np.arange(len(bounds)), exact=False)
        lower[~open_pairs] = np.inf
        self.members = _members(bounds.pair, len(bounds))
        self._recall(bounds)
        room = _CELLS // int(self.offsets[-1])
        batch = 0
        bound_left = np.inf
        while True:
            if self.best is not None:
                lower[lower > self._cutoff(self.best)] = np.inf
            waiting = np.flatnonzero(np.isfinite(lower))
            if not len(waiting):
                break
            if self.deadline.passed:
                self.complete, bound_left = False, float(lower.min())
                break
            size = _BATCHES[min(batch, len(_BATCHES) - 1)]
            chosen = waiting[np.argsort(lower[waiting], kind="stable")[:size]]
            held = np.cumsum([len(self.members[p]) for p in chosen])
            chosen = chosen[: max(1, int((held <= room).sum()))]
            before = len(self.learned)
            least = float(lower[chosen].min())
            lower[chosen] = np.inf
            left = self._batch([int(p) for p in chosen])
            if left is not None:
                bound_left = min(max(least, left), float(lower.min()))
                self.complete = False
                break
            if len(self.learned) > before:
                rest = np.flatnonzero(np.isfinite(lower))
                if len(rest):
                    raised = self._raise(metrics, rest, self.learned[before:], exact=False)
                    lower[rest] = np.maximum(lower[rest], raised)
            batch += 1
        if self.best is not None:
            problem.store.learn((self.best.place, self.best.options))
        problem.store.learn_multipliers(self.key, self.learned)
        return self._result(bound_left, time.perf_counter() - start)

    # ---- bounds ----

    def _least_use(self, bounds: Bounds) -> dict[str, Array]:
        """The least use of each resource among a pair's accelerators."""
        found = {}
        for name, column in self.space.use.items():
            least = np.full(len(bounds), np.iinfo(np.int64).max)
            np.minimum.at(least, bounds.pair, column)
            found[name] = least
        return found

    def _metrics(self, priced: Priced, use: Mapping[str, Array]) -> dict[str, Array]:
        """Metric to (rows, options + 1) or (options + 1,)."""
        found: dict[str, Any] = dict(self.fixed)
        for name in self.problem.metrics:
            if name in JOINT and name not in found:
                table, other = self.tables.joint_metric(name, priced)
                found[name] = np.concatenate([table, other[:, None]], axis=1)
            elif name in RESOURCES:
                found[name] = np.zeros((len(priced.cycles), int(self.offsets[-1])), np.int64)
                found[name][:, -1] = use[name]
        runs = np.concatenate(
            [priced.cycles < NEVER, np.ones((len(priced.cycles), 1), dtype=np.bool_)], axis=1
        )
        found["runs"] = runs & self.allowed
        return found

    def _lower(
        self, metrics: Mapping[str, Array], places: Array, exact: bool = True
    ) -> tuple[FloatArray, Any]:  # fmt: skip
        """Bounds under all multipliers, and which rows can meet every limit by itself. Metrics that
        are bounds themselves (not ``exact``) say nothing of limits that ask for a least value."""
        alive = np.logical_or.reduceat(metrics["runs"], self.offsets[:-1], axis=1).all(axis=1)
        for row in self.rows:
            if not exact and not row.bounded:
                continue
            values = np.broadcast_to(row.sign * metrics[row.metric], metrics["runs"].shape)
            values = np.where(metrics["runs"], values, values.max())
            least = np.minimum.reduceat(values, self.offsets[:-1], axis=1).sum(axis=1)
            alive &= (least <= row.sign * row.bound).astype(np.bool_)
        lower = np.full(len(places), -np.inf)
        rows = np.flatnonzero(alive)
        if len(rows):
            known = [*self.multipliers, *self.learned]
            lower[rows] = self._raise(metrics, rows, known, exact)
        return lower, alive

    def _raise(
        self, metrics: Mapping[str, Array], rows: Array, multipliers: Sequence[FloatArray],
        exact: bool = True,
    ) -> FloatArray:  # fmt: skip
        parts = [metrics[name].astype(np.float64) for name in self.parts]
        weights = [row.sign * metrics[row.metric].astype(np.float64) for row in self.rows]
        limits = np.array([float(row.sign * row.bound) for row in self.rows])
        taken = np.array([exact or row.bounded for row in self.rows], dtype=np.float64)
        count = len(parts)
        found = []
        for known in multipliers:
            u = np.concatenate([known[:count], known[count:] * taken])
            cost = sum((w * part for w, part in zip(u[:count], parts)), np.zeros(1))
            cost = np.where(metrics["runs"], cost, np.inf)
            found.append(bounds_of_all(self.offsets, cost, weights, limits, u[count:], rows))
        highest: FloatArray = np.maximum.reduce(found)
        return highest

    def _recall(self, bounds: Bounds) -> None:
        """Start from the best design of earlier solves that keeps the limits."""
        store, missing = self.problem.store, 0
        for place, columns in reversed(list(store.designs)):
            pair = int(bounds.pair[place])
            missing += pair not in store.pairs
            if self.deadline.passed or missing > _RECALLED:
                return
            priced = self._price([pair])
            at = int(np.flatnonzero(self.members[pair] == place)[0])
            use = {name: column[[place]] for name, column in self.space.use.items()}
            metrics = self._metrics(priced.rows(slice(at, at + 1)), use)
            picked = self.offsets[:-1] + np.append(columns, 0)
            if not metrics["runs"][0, picked].all():
                continue
            if all(
                row.sign * self._total(metrics, row.metric, 0, picked) <= row.sign * row.bound
                for row in self.rows
            ):
                value = max(self._total(metrics, name, 0, picked) for name in self.parts)
                if self.best is None or value < self.best.value:
                    self.best, self.warm = _Best(value, place, columns), True

    @staticmethod
    def _total(metrics: Mapping[str, Array], name: str, row: int, picked: Array) -> int:
        values = metrics[name]
        line = values[row] if values.ndim == 2 else values
        return sum(int(v) for v in line[picked])

    # ---- one batch ----

    def _price(self, pairs: Sequence[int]) -> Priced:
        """Tables of the accelerators of these pairs, filled unless kept from an earlier solve."""
        problem, store = self.problem, self.problem.store
        known = {p: store.pairs[p] for p in pairs if p in store.pairs}
        missing = [p for p in pairs if p not in known]
        if missing:
            part = self.space.take(np.concatenate([self.members[p] for p in missing]))
            filler = Filler(part, problem.timing, self.tables.by, problem.pipelined, problem.cache)
            priced = self.tables.price(filler)
            ends = np.cumsum([0, *(len(self.members[p]) for p in missing)])
            for pair, (a, b) in zip(missing, pairwise(ends)):
                known[pair] = priced.rows(slice(a, b))
                store.keep(pair, known[pair])
            if len(missing) == len(pairs):
                return priced
        return Priced.join([known[p] for p in pairs])

    def _cutoff(self, best: _Best) -> int:
        """Only designs of at most this value are looked for."""
        return min(best.value - 1, floor(best.value * (1 - self.tolerance)))

    def _batch(self, pairs: Sequence[int]) -> float | None:
        """Fill tables, discard by bounds, solve the rest. None when that was done, else what was
        proven of these pairs when time ended."""
        start = time.perf_counter()
        places = np.concatenate([self.members[p] for p in pairs])
        use = {name: column[places] for name, column in self.space.use.items()}
        metrics = self._metrics(self._price(pairs), use)
        self.seconds_tables += time.perf_counter() - start
        self.tabled += len(places)
        lower, alive = self._lower(metrics, places)
        if self.best is not None:
            alive &= lower <= self._cutoff(self.best)
        rows = np.flatnonzero(alive)
        if not len(rows):
            return None
        low = float(lower[rows].min())
        if len(self.parts) > 1:
            return self._halve(metrics, rows, places, low)
        settled, _ = self._ask(metrics, rows, places, {}, metrics[self.parts[0]])
        return None if settled else low

    def _ask(
        self, metrics: Mapping[str, Array], rows: Array, places: Array,
        caps: Mapping[str, int], cost: Array,
    ) -> tuple[bool, int | None]:  # fmt: skip
        """The least ``cost`` over some accelerators under all limits and ``caps``: whether it was
        settled, and its value. What is found improves ``best``."""
        runs = metrics["runs"][rows]

        def metric(name: str, values: Array) -> Metric:
            if values.ndim == 1:
                return Metric.choice(name, values)
            # what does not run has a price so large that solvers in floats would lose the others
            return Metric.joint(name, np.where(runs, values[rows], 0))

        limits: dict[str, dict[str, int]] = {}
        for row in self.rows:
            limits.setdefault(row.metric, {})["max" if row.sign > 0 else "min"] = row.bound
        for name, cap in caps.items():
            sides = limits.setdefault(name, {})
            sides["max"] = min(cap, sides.get("max", cap))
        question = Problem.build(
            choices=self.choices,
            metrics=[metric("cost", cost), *(metric(name, metrics[name]) for name in limits)],
            minimize="cost",
            architectures=[str(row) for row in rows],
            limits=limits,
            allowed=None if runs.all() else runs,
        )
        answer = solve_raw(question, self.solver, self.deadline.remaining())
        self.solved += answer.architectures_solved
        if answer.choice is not None:
            assert answer.architecture is not None
            at = int(rows[answer.architecture])
            picked = self.offsets[:-1] + np.array(answer.choice)
            value = max(self._total(metrics, name, at, picked) for name in self.parts)
            if self.best is None or value < self.best.value:
                self.best = _Best(value, int(places[at]), answer.choice[:-1])
            self._learn(metrics, at)
        return answer.status in (Status.OPTIMAL, Status.INFEASIBLE), answer.objective

    def _halve(
        self, metrics: Mapping[str, Array], rows: Array, places: Array, low: float
    ) -> float | None:
        """The least greatest part over some accelerators: the span between what is proven and
        what was found is halved while it is wide, then the rest is asked at once, until it is
        empty. None, or what is proven when time ended."""
        solved = self.solved
        try:
            return self._narrow(metrics, rows, places, low)
        finally:
            self.solved = min(self.solved, solved + len(rows))

    def _narrow(
        self, metrics: Mapping[str, Array], rows: Array, places: Array, low: float
    ) -> float | None:
        wide = True
        least = max(0, ceil(low)) if np.isfinite(low) else 0
        while self.best is None or least <= self._cutoff(self.best):
            learned = (self.learned or self.multipliers)[-1][: len(self.parts)]
            whole = [round(_WEIGHT * float(w)) for w in learned]
            cost = np.add.reduce([w * metrics[name] for w, name in zip(whole, self.parts)])
            cap = None if self.best is None else self._cutoff(self.best)
            if cap is not None:
                wide = wide and cap - least > cap // _NARROW
                cap = (least + cap) // 2 if wide else cap
            caps = {} if cap is None else dict.fromkeys(self.parts, cap)
            settled, value = self._ask(metrics, rows, places, caps, cost)
            if not settled:
                return float(least)
            if value is not None:  # Σ w f ≤ Σ w · greatest, so none has less than this
                proven = -(-value // sum(whole))
                least = max(least, proven if cap is None else min(proven, cap + 1))
            elif cap is None:
                break  # nothing keeps the limits
            else:
                least, wide = cap + 1, False
        return None

    def _learn(self, metrics: Mapping[str, Array], row: int) -> None:
        """Keep the weights and multipliers that are best for one accelerator."""
        if len(self.parts) + len(self.rows) == 1 or len(self.learned) > _MULTIPLIERS:
            return
        runs = metrics["runs"][row]
        sizes = np.add.reduceat(runs.astype(np.int64), self.offsets[:-1])

        def line(name: str) -> Array:
            values = metrics[name]
            picked: Array = (values[row] if values.ndim == 2 else values)[runs]
            return picked

        values = [line(name) for name in self.parts]
        # the part that is greatest is the cost, the others must not exceed what was reached
        lead, others = 0, []
        if self.best is not None and len(self.parts) > 1:
            lead = self._lead(values, np.concatenate(([0], np.cumsum(sizes))))
            others = [k for k in range(len(self.parts)) if k != lead]
        cap = 0 if self.best is None else self.best.value
        relaxation = Relaxation.of(
            np.concatenate(([0], np.cumsum(sizes))),
            values[lead],
            [*(values[k] for k in others), *(r.sign * line(r.metric) for r in self.rows)],
            [*(cap for _ in others), *(r.sign * r.bound for r in self.rows)],
        )
        found = relaxation.best(None)
        weights = np.zeros(len(self.parts))
        weights[lead] = 1.0
        weights[others] = found[: len(others)]
        total = float(weights.sum())
        self.learned.append(np.concatenate([weights, found[len(others) :]]) / total)

    @staticmethod
    def _lead(values: Sequence[Array], offsets: Array) -> int:
        """The part whose least total is greatest."""
        least = [int(np.minimum.reduceat(v, offsets[:-1]).sum()) for v in values]
        return int(np.argmax(least))

    # ---- the answer ----

    def _result(self, bound_left: float, seconds: float) -> JointResult:
        problem, best = self.problem, self.best
        digits = problem.digits[problem.objective]
        if best is None:
            status = Status.INFEASIBLE if self.complete else Status.UNKNOWN
            objective = bound = None
        else:
            objective = to_decimal(best.value, digits)
            least = self._cutoff(best) + 1
            if np.isfinite(bound_left):
                least = min(least, ceil(bound_left))
            elif not self.complete:
                least = 0
            status = Status.OPTIMAL if least == best.value else Status.FEASIBLE
            bound = to_decimal(least, digits)
        certificate = Certificate(
            status=status,
            objective=objective,
            bound=bound,
            generated=self.space.generated,
            undominated=len(self.space),
            solved=self.solved,
            pruned=len(self.space) - self.solved if self.complete else self.tabled - self.solved,
            warm=self.warm,
            tabled=self.tabled,
            seconds_tables=self.seconds_tables,
            seconds_solve=seconds - self.seconds_tables + self.seconds_space,
            seconds=seconds + self.seconds_space,
        )
        if best is None:
            return JointResult(certificate)
        return design_of(self.problem, best.value, best.place, best.options, certificate)


def _members(pair: Array, count: int) -> list[Array]:
    """Accelerators of each pair."""
    order = np.argsort(pair, kind="stable")
    ends = np.searchsorted(pair[order], np.arange(count + 1))
    return [order[a:b] for a, b in pairwise(ends)]
