# SPDX-License-Identifier: Apache-2.0
"""The project's own solver: best-first branch and bound over architectures, exact inside.

Every architecture gets a Lagrangian lower bound; multipliers that proved good for one are tried on
all that are still open. The one with the least bound gets multipliers of its own and, if its bound
still allows, is solved exactly as a knapsack below the best value so far. What remains above it
is pruned. Where the knapsack's passes do not end in a proof, CP-SAT decides that architecture.
"""

from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from codesign.solvers.base import Deadline, Feature, Result, Solver
from codesign.solvers.cpsat import CpSat
from codesign.solvers.knapsack import MAX_CLAUSES, Knapsack, Outcome, solve_knapsack
from codesign.solvers.lagrange import FloatArray, Relaxation, bounds_of_all
from codesign.solvers.problem import Problem
from codesign.solvers.reduce import Index, Reduced, reduce_problem
from codesign.solvers.solution import Status
from codesign.solvers.subproblem import (
    knapsack_model,
    least_sums,
    one_knapsack,
    trivial_bound,
    without_alike,
    without_slack_rows,
)

_POOL = 24
"""Sets of multipliers tried on all open architectures, at most."""


class Exact(Solver):
    """Branch and bound over architectures with exact knapsacks inside."""

    name = "exact"
    summary = "branch and bound over architectures, Lagrangian bounds, exact knapsacks inside"
    features: ClassVar[frozenset[Feature]] = frozenset(Feature)

    def solve(self, problem: Problem, time_limit: float | None = None) -> Result:
        start = time.perf_counter()
        deadline = Deadline.after(time_limit)
        reduced = reduce_problem(problem)
        sign = -1 if problem.maximize else 1
        if reduced.empty:
            return Result(
                status=Status.INFEASIBLE,
                seconds=time.perf_counter() - start,
                architectures_pruned=reduced.pruned,
                solver=self.name,
            )
        reduced, alike = without_alike(without_slack_rows(reduced))
        search = _Search(reduced, deadline)
        search.run()
        bound = search.bound()
        status = {
            (True, True): Status.OPTIMAL,
            (True, False): Status.FEASIBLE,
            (False, True): Status.INFEASIBLE,
            (False, False): Status.UNKNOWN,
        }[search.best is not None, search.done]
        choice, architecture, objective = None, None, None
        if search.best is not None:
            objective, arch, columns = search.best
            choice, architecture = reduced.lift(columns), reduced.architecture(arch)
        return Result(
            status=status,
            seconds=time.perf_counter() - start,
            choice=choice,
            architecture=architecture,
            objective=None if objective is None else sign * objective,
            bound=None if status is Status.INFEASIBLE else sign * bound,
            architectures_solved=search.solved,
            architectures_pruned=reduced.pruned + alike + search.pruned,
            solver=self.name,
        )


@dataclass
class _Search:
    """The state of one branch and bound; all values are to be minimised."""

    reduced: Reduced
    deadline: Deadline
    best: tuple[int, int, tuple[int, ...]] | None = None
    """Value, architecture, columns."""
    solved: int = 0
    closed: int = 0
    lower: FloatArray = field(init=False)
    """Safe lower bounds; infinite once an architecture is closed."""
    tables: list[FloatArray] = field(init=False)
    limits: FloatArray = field(init=False)
    base: FloatArray = field(init=False)
    pool: list[FloatArray] = field(default_factory=list)
    """Multipliers that were tried on all open architectures."""
    floors: dict[int, int] = field(default_factory=dict)
    """Solved architectures (without forbids of their own): no pick of them costs less."""
    shared_checked: bool = False

    @property
    def pruned(self) -> int:
        """Closed without a solve."""
        return self.closed - self.solved

    @property
    def done(self) -> bool:
        return self.closed == len(self.reduced.archs)

    def bound(self) -> int:
        """No feasible choice has a smaller value."""
        known = [] if self.best is None else [self.best[0]]
        if not self.done:
            least = float(self.lower.min())
            known.append(math.ceil(least) if math.isfinite(least) else trivial_bound(self.reduced))
        return min(known, default=0)

    def run(self) -> None:
        """Until every architecture is closed or time ends."""
        self._start()
        while not self.done:
            if self.deadline.passed:
                return
            self._prune()
            if self.done:
                return
            arch = int(self.lower.argmin())
            if not self._visit(arch):
                return

    def _start(self) -> None:
        """First bounds: no multipliers; and architectures where a limit alone cannot be met."""
        reduced = self.reduced
        archs = len(reduced.archs)
        self.base = reduced.base.astype(np.float64)
        self.base -= np.abs(self.base) * 2.0**-52
        self.limits = np.array([float(row.bound) for row in reduced.rows])
        alive = np.ones(archs, dtype=np.bool_)
        starts = reduced.offsets[:-1]
        if archs == 1:
            self.lower = np.full(1, -np.inf)
            return
        for row in reduced.rows:
            least = least_sums(row.weights, starts, reduced.mask)
            alive &= (least <= row.bound).astype(np.bool_)
        with np.errstate(over="ignore"):
            self.tables = [reduced.cost.astype(np.float64)]
            self.tables += [row.weights.astype(np.float64) for row in reduced.rows]
        if reduced.mask is not None:
            cost = np.where(reduced.mask, self.tables[0], np.inf)
            self.tables[0] = cost
        self.lower = np.full(archs, np.inf)
        places = np.flatnonzero(alive)
        self.closed = archs - len(places)
        self.lower[places] = self._bounds(np.zeros(len(reduced.rows)), places)

    def _bounds(self, u: FloatArray, places: Index) -> FloatArray:
        found = bounds_of_all(
            self.reduced.offsets, self.tables[0], self.tables[1:], self.limits, u, places
        )
        shifted: FloatArray = found + self.base[places]
        shifted -= np.abs(shifted) * 2.0**-50
        return np.where(np.isfinite(shifted), shifted, -np.inf)

    def _prune(self) -> None:
        if self.best is None:
            return
        over = (self.lower > float(self.best[0] - 1)) & np.isfinite(self.lower)
        self._close(np.flatnonzero(over))

    def _close(self, places: Index) -> None:
        self.lower[places] = np.inf
        self.closed += len(places)

    def _visit(self, arch: int) -> bool:
        """Improve the bound of one architecture, or solve it. False when time ended in it."""
        reduced = self.reduced
        base = int(reduced.base[arch])
        cutoff = None if self.best is None else self.best[0] - 1 - base
        if cutoff is not None and self._dominated(arch, cutoff):
            self._close(np.array([arch]))
            return True
        knapsack, columns = one_knapsack(reduced, arch)
        top = knapsack.ranges()[1]
        top = top if cutoff is None else min(top, cutoff)
        relaxed = self._relax(knapsack, top)
        if relaxed is not None and len(reduced.archs) > 1:
            relaxation, u = relaxed
            floor = relaxation.value(u)[0] - relaxation.margin(u)
            if floor > top:
                self._close(np.array([arch]))
                if cutoff is None:
                    self._spread_infeasible(u)
                    self._check_shared()
                return True
            if self._share(arch, u, base + floor):
                return True
        outcome = self._exactly(knapsack, cutoff, relaxed)
        if outcome.columns is not None and outcome.cost is not None:
            value = base + outcome.cost
            if self.best is None or value < self.best[0]:
                self.best = (value, arch, tuple(int(columns[j]) for j in outcome.columns))
        if not outcome.proven:
            self.lower[arch] = max(float(self.lower[arch]), _below(base + outcome.bound))
            return False
        self.solved += 1
        if all(clause.arch != arch for clause in reduced.clauses):
            self.floors[arch] = top + 1 if outcome.cost is None else outcome.cost
        self._close(np.array([arch]))
        if outcome.columns is None and cutoff is None:
            self._check_shared()
        return True

    def _relax(self, knapsack: Knapsack, top: int) -> tuple[Relaxation, FloatArray] | None:
        """The relaxation with good multipliers; None where the knapsack search does not apply."""
        if len(knapsack.clauses) > MAX_CLAUSES:
            return None
        try:
            relaxation = Relaxation.of(
                knapsack.offsets, knapsack.cost, knapsack.weights, knapsack.bounds
            )
        except OverflowError:
            return None
        start = self.pool[-1] if self.pool else None
        if start is not None and len(start) != len(knapsack.bounds):
            start = None
        return relaxation, relaxation.best(start, float(top) + 2 * relaxation.margin_at_zero())

    def _exactly(
        self,
        knapsack: Knapsack,
        cutoff: int | None,
        relaxed: tuple[Relaxation, FloatArray] | None,
    ) -> Outcome:
        """The best pick within the cutoff: by the knapsack search, else by CP-SAT."""
        found = Outcome(None, None, knapsack.ranges()[0], False)
        if relaxed is not None:
            found = solve_knapsack(knapsack, cutoff, self.deadline, *relaxed)
        if found.proven or self.deadline.passed or importlib.util.find_spec("ortools") is None:
            return found
        limit = cutoff if found.cost is None else found.cost - 1
        answer = CpSat().solve_model(knapsack_model(knapsack), self.deadline, limit)
        if answer.status is Status.INFEASIBLE:
            bound = found.bound if found.cost is None else found.cost
            return Outcome(found.columns, found.cost, bound, True)
        bound = found.bound if answer.bound is None else max(found.bound, answer.bound)
        if answer.values is None:
            return Outcome(found.columns, found.cost, bound, False)
        columns = tuple(j for j, value in enumerate(answer.values) if value)
        cost = sum(int(knapsack.cost[j]) for j in columns)
        proven = answer.status is Status.OPTIMAL
        return Outcome(columns, cost, cost if proven else min(bound, cost), proven)

    def _spread_infeasible(self, u: FloatArray) -> None:
        """Close the architectures that the multipliers prove infeasible, as they did for one:
        where Σ_g min Σ_k u[k] w[k] > Σ_k u[k] W[k] no pick meets all limits."""
        if len(u) == 0 or not float(u.max()) > 0:
            return
        places = np.flatnonzero(np.isfinite(self.lower))
        nothing = np.zeros(int(self.reduced.offsets[-1]))
        if self.reduced.mask is not None:
            nothing = np.where(self.reduced.mask, 0.0, np.inf)
        excess = bounds_of_all(
            self.reduced.offsets, nothing, self.tables[1:], self.limits, u / u.max(), places
        )
        self._close(places[excess > 0])

    def _check_shared(self) -> None:
        """After a first architecture without any choice: when the limits and forbids that do not
        depend on the architecture cannot hold together, no architecture has one."""
        if self.shared_checked or self.done:
            return
        self.shared_checked = True
        reduced = self.reduced
        rows = [row for row in reduced.rows if row.weights.ndim == 1]
        knapsack = Knapsack(
            reduced.offsets,
            np.zeros(int(reduced.offsets[-1]), dtype=np.int64),
            tuple(row.weights for row in rows),
            tuple(row.bound for row in rows),
            tuple(clause.columns for clause in reduced.clauses if clause.arch < 0),
        )
        outcome = self._exactly(knapsack, None, self._relax(knapsack, 0))
        if outcome.proven and outcome.columns is None:
            self._close(np.flatnonzero(np.isfinite(self.lower)))

    def _dominated(self, arch: int, cutoff: int) -> bool:
        """Whether a solved architecture, no worse in any entry, has no pick within the cutoff."""
        reduced = self.reduced
        solved = np.array([a for a, floor in self.floors.items() if floor > cutoff], dtype=np.int64)
        if not len(solved):
            return False
        free = np.zeros(int(reduced.offsets[-1]), dtype=np.bool_)
        better = np.ones(len(solved), dtype=np.bool_)
        if reduced.mask is not None:
            free = ~reduced.mask[arch]
            better &= (reduced.mask[solved] | free).all(axis=1)
        for table in (reduced.cost, *(row.weights for row in reduced.rows)):
            if table.ndim == 2:
                lower = (table[solved] <= table[arch]).astype(np.bool_)
                better &= (lower | free).all(axis=1)
        return bool(better.any())

    def _share(self, arch: int, u: FloatArray, floor: float) -> bool:
        """Try multipliers on all open architectures; True when another one is now lower."""
        floor -= abs(floor) * 2.0**-50
        self.lower[arch] = max(float(self.lower[arch]), floor)
        if len(self.pool) < _POOL:
            places = np.flatnonzero(np.isfinite(self.lower))
            self.lower[places] = np.maximum(self.lower[places], self._bounds(u, places))
            self.pool.append(u)
        return bool(self.lower.min() < self.lower[arch])


def _below(value: int) -> float:
    """A double not above ``value``."""
    try:
        double = float(value)
    except OverflowError:
        return -math.inf
    return double - abs(double) * 2.0**-52
