# SPDX-License-Identifier: Apache-2.0
"""Branch and bound over accelerators, in batches, best lower bound first.

Bounds need no tables, so only accelerators that may still be best have theirs filled; then bounds
from the tables, under multipliers that were good for others, discard more; the knapsacks that
remain are solved exactly.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
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

_BATCHES = (16, 64, 256, 1024)
"""Pairs of cores whose accelerators' tables are filled at once, first batch first."""
_CELLS = 12_000_000
"""Accelerators times options of one batch, at most (unless one pair has more)."""
_MULTIPLIERS = 8
"""Sets of multipliers kept for bounds."""


@dataclass
class _Best:
    value: int
    place: int
    """Accelerator, in the whole space."""
    options: tuple[int, ...]


class Search:
    """One branch and bound over accelerators, in batches."""

    def __init__(self, problem: JointProblem, deadline: Deadline, solver: Solver) -> None:
        self.problem, self.deadline, self.solver = problem, deadline, solver
        self.tables, self.space = problem.tables, problem.space
        units = self.tables.units
        # one more group of one option carries what does not depend on any choice
        self.offsets = np.append(self.tables.offsets, self.tables.offsets[-1] + 1)
        self.choices = {
            f"unit{i}": [",".join(option) for option in unit.options]
            for i, unit in enumerate(units)
        } | {"other": ["-"]}
        self.fixed = {
            name: np.append(self.tables.choice_metric(name), 0)
            for name in CHOICE
            if name in (problem.objective, *problem.limits)
        }
        self.best: _Best | None = None
        self.multipliers: list[FloatArray] = [np.zeros(len(problem.limits))]
        self.solved = self.tabled = 0
        self.seconds_tables = problem.seconds_space
        self.complete = True

    def run(self) -> JointResult:
        """Until every accelerator is solved or discarded, or time ends."""
        start = time.perf_counter()
        problem = self.problem
        if problem.store.bounds is None:
            fresh = Bounds(self.space, problem.timing, self.tables.by, problem.pipelined)
            problem.store.bounds = fresh, self.tables.price(fresh)
        bounds, priced = problem.store.bounds
        metrics = self._metrics(priced, self._least_use(bounds))
        lower, open_pairs = self._lower(metrics, np.arange(len(bounds)))
        lower[~open_pairs] = np.inf
        self.members = _members(bounds.pair, len(bounds))
        room = _CELLS // int(self.offsets[-1])
        batch = 0
        bound_left = np.inf
        while True:
            if self.best is not None:
                lower[lower > self.best.value - 1] = np.inf
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
            before = len(self.multipliers)
            least = float(lower[chosen].min())
            lower[chosen] = np.inf
            if not self._batch([int(p) for p in chosen]):
                self.complete, bound_left = False, least
                break
            if len(self.multipliers) > before:
                rest = np.flatnonzero(np.isfinite(lower))
                if len(rest):
                    raised = self._raise(metrics, rest, self.multipliers[before:])
                    lower[rest] = np.maximum(lower[rest], raised)
            batch += 1
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
        for name in (self.problem.objective, *self.problem.limits):
            if name in JOINT and name not in found:
                table, other = self.tables.joint_metric(name, priced)
                found[name] = np.concatenate([table, other[:, None]], axis=1)
            elif name in RESOURCES:
                found[name] = np.zeros((len(priced.cycles), int(self.offsets[-1])), np.int64)
                found[name][:, -1] = use[name]
        runs = np.concatenate(
            [priced.cycles < NEVER, np.ones((len(priced.cycles), 1), dtype=np.bool_)], axis=1
        )
        found["runs"] = runs
        return found

    def _float(self, metrics: Mapping[str, Array]) -> tuple[FloatArray, list[FloatArray]]:
        cost = metrics[self.problem.objective].astype(np.float64)
        cost = np.where(metrics["runs"], cost, np.inf)
        return cost, [metrics[name].astype(np.float64) for name in self.problem.limits]

    def _lower(self, metrics: Mapping[str, Array], places: Array) -> tuple[FloatArray, Any]:
        """Bounds under all multipliers, and which rows can meet every limit by itself."""
        alive = np.logical_or.reduceat(metrics["runs"], self.offsets[:-1], axis=1).all(axis=1)
        for name, limit in self.problem.limits.items():
            values = np.broadcast_to(metrics[name], metrics["runs"].shape)
            values = np.where(metrics["runs"], values, values.max())
            least = np.minimum.reduceat(values, self.offsets[:-1], axis=1).sum(axis=1)
            alive &= (least <= limit).astype(np.bool_)
        lower = np.full(len(places), -np.inf)
        rows = np.flatnonzero(alive)
        if len(rows):
            lower[rows] = self._raise(metrics, rows, self.multipliers)
        return lower, alive

    def _raise(
        self, metrics: Mapping[str, Array], rows: Array, multipliers: Sequence[FloatArray]
    ) -> FloatArray:
        cost, weights = self._float(metrics)
        limits = np.array([float(v) for v in self.problem.limits.values()])
        found = [bounds_of_all(self.offsets, cost, weights, limits, u, rows) for u in multipliers]
        highest: FloatArray = np.maximum.reduce(found)
        return highest

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

    def _batch(self, pairs: Sequence[int]) -> bool:
        """Fill tables, discard by bounds, solve the rest. False when time ended in it."""
        start = time.perf_counter()
        problem = self.problem
        places = np.concatenate([self.members[p] for p in pairs])
        use = {name: column[places] for name, column in self.space.use.items()}
        metrics = self._metrics(self._price(pairs), use)
        self.seconds_tables += time.perf_counter() - start
        self.tabled += len(places)
        lower, alive = self._lower(metrics, places)
        if self.best is not None:
            alive &= lower <= self.best.value - 1
        rows = np.flatnonzero(alive)
        if not len(rows):
            return True
        runs = metrics["runs"][rows]
        made = [
            Metric.joint(name, metrics[name][rows])
            if metrics[name].ndim == 2
            else Metric.choice(name, metrics[name])
            for name in dict.fromkeys((problem.objective, *problem.limits))
        ]
        question = Problem.build(
            choices=self.choices,
            metrics=made,
            minimize=problem.objective,
            architectures=[str(row) for row in rows],
            limits=dict(problem.limits),
            allowed=None if runs.all() else runs,
        )
        answer = solve_raw(question, self.solver, self.deadline.remaining())
        self.solved += answer.architectures_solved
        if answer.choice is not None and answer.objective is not None:
            assert answer.architecture is not None
            row = int(rows[answer.architecture])
            if self.best is None or answer.objective < self.best.value:
                self.best = _Best(answer.objective, int(places[row]), answer.choice[:-1])
            self._learn(metrics, row)
        return answer.status in (Status.OPTIMAL, Status.INFEASIBLE)

    def _learn(self, metrics: Mapping[str, Array], row: int) -> None:
        """Keep the multipliers that are best for one accelerator."""
        if not self.problem.limits or len(self.multipliers) > _MULTIPLIERS:
            return
        runs = metrics["runs"][row]
        sizes = np.add.reduceat(runs.astype(np.int64), self.offsets[:-1])

        def line(name: str) -> Array:
            values = metrics[name]
            picked: Array = (values[row] if values.ndim == 2 else values)[runs]
            return picked

        relaxation = Relaxation.of(
            np.concatenate(([0], np.cumsum(sizes))),
            line(self.problem.objective),
            [line(name) for name in self.problem.limits],
            list(self.problem.limits.values()),
        )
        self.multipliers.append(relaxation.best(None))

    # ---- the answer ----

    def _result(self, bound_left: float, seconds: float) -> JointResult:
        problem, best = self.problem, self.best
        digits = problem.digits[problem.objective]
        if best is None:
            status = Status.INFEASIBLE if self.complete else Status.UNKNOWN
            objective = bound = None
        else:
            status = Status.OPTIMAL if self.complete else Status.FEASIBLE
            objective = to_decimal(best.value, digits)
            least = best.value
            if np.isfinite(bound_left):
                least = min(least, int(np.ceil(bound_left)))
            bound = to_decimal(least, digits)
        certificate = Certificate(
            status=status,
            objective=objective,
            bound=bound,
            generated=self.space.generated,
            undominated=len(self.space),
            solved=self.solved,
            pruned=len(self.space) - self.solved if self.complete else self.tabled - self.solved,
            tabled=self.tabled,
            seconds_tables=self.seconds_tables,
            seconds_solve=seconds - self.seconds_tables + problem.seconds_space,
            seconds=seconds + problem.seconds_space,
        )
        if best is None:
            return JointResult(certificate)
        return design_of(self.problem, best.value, best.place, best.options, certificate)


def _members(pair: Array, count: int) -> list[Array]:
    """Accelerators of each pair."""
    order = np.argsort(pair, kind="stable")
    ends = np.searchsorted(pair[order], np.arange(count + 1))
    return [order[a:b] for a, b in pairwise(ends)]
