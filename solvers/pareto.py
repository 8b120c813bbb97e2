# SPDX-License-Identifier: Apache-2.0
"""The exact Pareto frontier over two metrics, by the ε-constraint method.

For a bound e on the second metric: the best first metric under it, then the best second metric at
that value. Both solves are certified, so the point is on the frontier, and it answers every bound
from its own second metric up to e. The next bound is one unit beyond the point's second metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from codesign.errors import InputError
from codesign.solvers.base import Deadline, Solver
from codesign.solvers.problem import Limit, Metric, Problem
from codesign.solvers.solution import Solution, Status
from codesign.solvers.solve import AUTO, solve
from codesign.solvers.validate import Checker


@dataclass(frozen=True)
class ParetoPoint:
    """One point of the frontier, with its certificates."""

    first: Decimal
    second: Decimal
    bound: Decimal | None
    """The bound on the second metric it was found under (None: no bound)."""
    solution: Solution
    """The choice; its certificate says that the second metric is the best at this first one."""
    certificate: Solution
    """Says that the first metric is the best under ``bound``."""


@dataclass(frozen=True)
class Frontier:
    """Points from the best first metric to the best second one."""

    metrics: tuple[str, str]
    points: tuple[ParetoPoint, ...]
    complete: bool
    """Every point of the frontier is there and proven (within ``step`` where one was given)."""


def pareto(
    problem: Problem,
    first: str,
    second: str,
    *,
    maximize: Sequence[str] = (),
    solver: str | Solver = AUTO,
    time_limit: float | None = None,
    step: Decimal | int | None = None,
    jobs: int = 1,
    known: Sequence[ParetoPoint] = (),
    on_point: Callable[[ParetoPoint], None] | None = None,
) -> Frontier:
    """The frontier of two metrics, minimised unless named in ``maximize``, under the problem's
    limits, ties and forbids (its own objective is left aside).

    ``step`` asks for at least that distance in the second metric between points. ``known`` are
    points of an earlier, interrupted run, which are not solved again; ``on_point`` is called for
    each new one (in this process, only with ``jobs`` = 1). ``jobs`` slices the second metric's
    range for joblib, whose back ends (loky, dask, ray) decide where the slices run. ``time_limit``
    is in seconds for everything; an early end leaves ``complete`` False.
    """
    check = Checker()
    for name in (first, second, *maximize):
        check.known(name, "pareto", "metric", problem.metrics)
    if first == second:
        raise InputError(f"pareto: the two metrics are the same, {first!r}")
    if step is not None and check.number(step, "step") <= 0:
        check.fail("step", "expected a number above 0")
    sweep = _Sweep(
        problem, first, second, first in maximize, second in maximize, solver, step, tuple(known)
    )
    deadline = Deadline.after(time_limit)
    if jobs == 1:
        points, complete = sweep.run(None, None, deadline, on_point)
    else:
        points, complete = _parallel(sweep, jobs, deadline)
    unique = {(point.first, point.second): point for point in points}
    ordered = sorted(unique.values(), key=lambda point: point.first, reverse=first in maximize)
    return Frontier((first, second), tuple(ordered), complete)


@dataclass(frozen=True)
class _Sweep:
    problem: Problem
    first: str
    second: str
    first_up: bool
    second_up: bool
    solver: str | Solver
    step: Decimal | int | None
    known: tuple[ParetoPoint, ...]

    @property
    def metric(self) -> Metric:
        return self.problem.metrics[self.second]

    def units(self, value: Decimal) -> int:
        """The second metric in its units, negated when maximised: smaller is better."""
        probe = self.problem.bound(Limit(self.second, "max", value))
        return -probe if self.second_up else probe

    def decimal(self, units: int) -> Decimal:
        return self.metric.decimal(-units if self.second_up else units)

    def stride(self) -> int:
        if self.step is None:
            return 1
        return max(1, self.problem.bound(Limit(self.second, "min", self.step)))

    def best(self, name: str, up: bool, limits: list[Limit], deadline: Deadline) -> Solution:
        """Optimum of one metric under the problem's limits and more."""
        left = deadline.remaining()
        asked = self.problem.with_limits([*self.problem.limits, *limits])
        return solve(
            asked.with_objective(name, up),
            self.solver,
            None if left is None else max(left, 1e-3),
            explain=False,
        )

    def point(self, bound: int | None, deadline: Deadline) -> ParetoPoint | Status:
        """The frontier's point under a bound (in units), or why there is none."""
        for point in self.known:
            top = None if point.bound is None else self.units(point.bound)
            low = self.units(point.second)
            if (top is None or (bound is not None and bound <= top)) and (
                bound is None or bound >= low
            ):
                return point
        limits: list[Limit] = []
        side = "min" if self.second_up else "max"
        if bound is not None:
            limits = [Limit(self.second, "min" if side == "min" else "max", self.decimal(bound))]
        certificate = self.best(self.first, self.first_up, limits, deadline)
        if certificate.status is not Status.OPTIMAL or certificate.objective is None:
            return certificate.status
        if deadline.passed:
            return Status.UNKNOWN
        at = Limit(self.first, "min" if self.first_up else "max", certificate.objective)
        solution = self.best(self.second, self.second_up, [*limits, at], deadline)
        if solution.status is not Status.OPTIMAL or solution.objective is None:
            return Status.UNKNOWN
        return ParetoPoint(
            first=certificate.objective,
            second=solution.objective,
            bound=None if bound is None else self.decimal(bound),
            solution=solution,
            certificate=certificate,
        )

    def run(
        self,
        bound: int | None,
        stop: int | None,
        deadline: Deadline,
        on_point: Callable[[ParetoPoint], None] | None = None,
    ) -> tuple[list[ParetoPoint], bool]:
        """Points from ``bound`` down to ``stop`` (not included), and whether all were found."""
        points: list[ParetoPoint] = []
        while stop is None or bound is None or bound > stop:
            if deadline.passed:
                return points, False
            found = self.point(bound, deadline)
            if isinstance(found, Status):
                return points, found is Status.INFEASIBLE
            low = self.units(found.second)
            if stop is not None and low <= stop and points:
                break
            points.append(found)
            if on_point is not None and found not in self.known:
                on_point(found)
            bound = low - self.stride()
        return points, True


def _parallel(sweep: _Sweep, jobs: int, deadline: Deadline) -> tuple[list[ParetoPoint], bool]:
    """The range of the second metric cut into slices, each swept on its own."""
    import joblib

    top = sweep.point(None, deadline)
    if isinstance(top, Status):
        return [], top is Status.INFEASIBLE
    end = sweep.best(sweep.second, sweep.second_up, [], deadline)
    if end.status is not Status.OPTIMAL or end.objective is None:
        return [top], False
    high, low = sweep.units(top.second) - sweep.stride(), sweep.units(end.objective) - 1
    workers = joblib.effective_n_jobs(jobs)
    cuts = sorted({low + (high - low) * k // workers for k in range(workers + 1)}, reverse=True)
    left = deadline.remaining()
    parts = joblib.Parallel(n_jobs=jobs)(
        joblib.delayed(_slice)(sweep, upper, lower, left) for upper, lower in pairwise(cuts)
    )
    points = [top, *(point for found, _ in parts for point in found)]
    return points, all(complete for _, complete in parts)


def _slice(
    sweep: _Sweep, upper: int, lower: int, seconds: float | None
) -> tuple[list[ParetoPoint], bool]:
    return sweep.run(upper, lower, Deadline.after(seconds))
