# SPDX-License-Identifier: Apache-2.0
"""What every baseline searches in, how its finds are kept, and the checked answer it gives."""

from __future__ import annotations

import importlib.util
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, TypeAlias

import numpy as np

from codesign.errors import InputError, SolverError, ToolNotFoundError
from codesign.solvers.base import Deadline
from codesign.solvers.baselines.space import Choice, Floats, Ints, ProblemSpace, Space
from codesign.solvers.certify import check_solution
from codesign.solvers.problem import Problem
from codesign.solvers.solution import Solution, Status

Measure: TypeAlias = Callable[[Mapping[str, str], "str | None"], float]
"""(choices, architecture) to a measured value, smaller is better: a metric that is not additive."""

REPAIRED = 400
"""Moves of a repair, at most."""


@dataclass(frozen=True)
class Improvement:
    """One point of a best-so-far curve."""

    seconds: float
    """Since the search began."""
    evaluations: int
    objective: Decimal
    """Of the problem, in the user's units."""
    measured: float | None = None


@dataclass(frozen=True)
class Run:
    """What a baseline found; the solution is checked, its status FEASIBLE or UNKNOWN."""

    solution: Solution
    trace: tuple[Improvement, ...]
    evaluations: int
    """Choices that were priced."""
    seed: int
    measured: float | None = None
    """Of the answer, where a measure was given."""


class Baseline(ABC):
    """One search. Subclasses hold their settings as fields with defaults."""

    name: ClassVar[str]
    summary: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    """Importable modules that it needs."""
    takes_measure: ClassVar[bool] = False

    @classmethod
    def require(cls) -> None:
        """Raise ToolNotFoundError, with the way to get it, when a module is missing."""
        missing = [name for name in cls.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise ToolNotFoundError(
                f"baseline {cls.name!r} cannot run: not installed: {', '.join(missing)}; "
                "pip install 'codesign[baselines]'"
            )

    def prepare(self) -> None:  # noqa: B027  (most have nothing to import)
        """Import what takes long, before the clock starts."""

    @abstractmethod
    def search(self, space: Space, record: Recorder, rng: np.random.Generator) -> None:
        """Offer choices to ``record`` until ``record.stop``."""


def ready(
    baseline: str | Baseline, time_limit: float | None, seed: int, evaluations: int | None,
    measure: Measure | None,
) -> Baseline:  # fmt: skip
    """A baseline that can run, imports done. Raises InputError, ToolNotFoundError."""
    from codesign.solvers.baselines import BASELINES  # the registry's module imports this one

    if time_limit is None and evaluations is None:
        raise InputError("a baseline needs an end: give time_limit= or evaluations=")
    if time_limit is not None and not (
        isinstance(time_limit, int | float) and time_limit > 0 and math.isfinite(time_limit)
    ):
        raise InputError(f"time limit {time_limit!r}: expected a number of seconds above 0")
    if evaluations is not None and evaluations < 1:
        raise InputError(f"evaluations {evaluations}: expected at least 1")
    if seed < 0:
        raise InputError(f"seed {seed}: expected a whole number of at least 0")
    found: Baseline = BASELINES.load(baseline)() if isinstance(baseline, str) else baseline
    found.require()
    if measure is not None and not found.takes_measure:
        able = [name for name in BASELINES if BASELINES.load(name).takes_measure]
        raise InputError(
            f"baseline {found.name!r} takes additive metrics only; measure= needs "
            f"{' or '.join(able)}"
        )
    found.prepare()
    return found


def run(
    problem: Problem,
    baseline: str | Baseline,
    time_limit: float | None = None,
    seed: int = 0,
    *,
    evaluations: int | None = None,
    measure: Measure | None = None,
) -> Run:
    """Search for at most ``time_limit`` seconds and ``evaluations`` choices (one must be given).

    Best effort, no bound: the status is FEASIBLE, or UNKNOWN when nothing feasible was found.
    With ``evaluations`` alone the same seed gives the same answer. ``measure`` replaces the
    objective (the problem's limits still hold) for baselines that take one. Raises InputError,
    ToolNotFoundError; SolverError for a wrong answer (a defect).
    """
    found = ready(baseline, time_limit, seed, evaluations, measure)
    start = time.perf_counter()
    space = ProblemSpace(problem)
    record = Recorder(space, Deadline.after(time_limit), evaluations, measure, start)
    if not space.empty:
        found.search(space, record, np.random.default_rng(seed))
    seconds = time.perf_counter() - start
    solution = Solution(Status.UNKNOWN, found.name, seconds, problem.name)
    if record.best is not None:
        choice, architecture = record.best
        totals = {
            name: metric.decimal(problem.total(metric, choice, architecture))
            for name, metric in problem.metrics.items()
        }
        solution = Solution(
            status=Status.FEASIBLE,
            solver=found.name,
            seconds=seconds,
            name=problem.name,
            objective=totals[problem.objective],
            architecture=space.names(record.best)[1],
            choices=space.names(record.best)[0],
            totals=totals,
        )
        broken = check_solution(problem, solution)
        if broken:
            raise SolverError(f"defect in baseline {found.name!r}: {'; '.join(broken)}")
    value = record.value if measure is not None and record.best is not None else None
    return Run(
        solution, tuple(record.trace), record.evaluations, seed,
        None if value is None else float(value),
    )  # fmt: skip


@dataclass
class Recorder:
    """Keeps the best feasible choice, exactly checked, and when it was found."""

    space: Space
    deadline: Deadline
    most: int | None
    measure: Measure | None
    start: float
    best: Choice | None = None
    value: float | int = 0
    """Of the best: units of the objective to be minimised, or the measured value."""
    last: float | int = 0
    """Value of the last feasible choice that was offered."""
    evaluations: int = 0
    trace: list[Improvement] = field(default_factory=list)
    known: dict[Choice, float] = field(default_factory=dict)
    """What was measured."""
    worst: float = -math.inf
    """Of what was measured by ``price``."""

    @property
    def stop(self) -> bool:
        """Whether the budget is used up."""
        return self.deadline.passed or (self.most is not None and self.evaluations >= self.most)

    @property
    def room(self) -> int:
        """Evaluations left, at least 1."""
        return 1 << 30 if self.most is None else max(1, self.most - self.evaluations)

    def price(self, archs: Ints, columns: Ints) -> tuple[Floats, Floats]:
        """``Space.price``, counted, the best of it offered. With a measure the cost of what is
        feasible is measured, the rest is as bad as the worst that was."""
        cost, violation = self.space.price(archs, columns)
        if self.measure is None:
            self.evaluations += len(archs)
            self.offer_best(archs, columns, cost, violation)
            return cost, violation
        good = np.zeros(len(archs), dtype=np.bool_)
        for place in np.flatnonzero(violation <= 1e-9):
            if self.stop:
                break
            self.evaluations += 1
            if self.offer(int(archs[place]), columns[place]):
                cost[place], good[place] = self.last, True
        self.worst = max([self.worst, *cost[good].tolist()])
        return np.where(good, cost, max(self.worst, 0.0)), np.where(good, 0.0, violation + 1e-6)

    def offer_best(self, archs: Ints, columns: Ints, cost: Floats, violation: Floats) -> None:
        """Offer the cheapest that look feasible."""
        good = np.flatnonzero(violation <= 1e-9)
        for place in good[np.argsort(cost[good], kind="stable")[:4]]:
            if self.offer(int(archs[place]), columns[place]):
                break

    def offer(self, arch: int, columns: Ints) -> bool:
        """Keep a choice if it is feasible and better; whether it was feasible."""
        choice = self.space.lift(arch, columns)
        exact = self.space.exact(choice)
        if exact is None:
            return False
        value: float | int = exact
        measured = None
        if self.measure is not None:
            if choice not in self.known:
                self.known[choice] = float(self.measure(*self.space.names(choice)))
            value = measured = self.known[choice]
        self.last = value
        if self.best is None or value < self.value:
            self.best, self.value = choice, value
            seconds = time.perf_counter() - self.start
            shown = self.space.shown(exact)
            self.trace.append(Improvement(seconds, self.evaluations, shown, measured))
        return True
