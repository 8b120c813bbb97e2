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
import numpy.typing as npt

from codesign.errors import InputError, SolverError, ToolNotFoundError
from codesign.solvers.base import Deadline
from codesign.solvers.certify import check_solution, violations
from codesign.solvers.problem import Problem
from codesign.solvers.reduce import Reduced, reduce_problem
from codesign.solvers.solution import Solution, Status

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
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
    start = time.perf_counter()
    space = Space(reduce_problem(problem))
    record = Recorder(problem, space, Deadline.after(time_limit), evaluations, measure, start)
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
            architecture=None if architecture is None else problem.architectures[architecture],
            choices=problem_names(problem, choice),
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


def problem_names(problem: Problem, choice: tuple[int, ...]) -> dict[str, str]:
    """Group to the name of its option."""
    return {g: names[i] for g, names, i in zip(problem.groups, problem.options, choice)}


class Space:
    """The problem's smaller form in floats: ties are merged, limits are "at most", costs fall.

    Floats rank candidates; what is kept is checked in integers by ``Recorder``.
    """

    def __init__(self, reduced: Reduced) -> None:
        self.reduced = reduced
        self.empty = reduced.empty
        self.archs = len(reduced.archs)
        self.starts: Ints = reduced.offsets[:-1]
        self.sizes: Ints = reduced.sizes
        self.groups = len(self.sizes)
        self.columns = int(reduced.offsets[-1])
        self.group_of: Ints = np.repeat(np.arange(self.groups), self.sizes)
        self.cost: Floats = np.atleast_2d(reduced.cost.astype(np.float64))
        self.base: Floats = reduced.base.astype(np.float64)
        self.weights: list[Floats] = [
            np.atleast_2d(row.weights.astype(np.float64)) for row in reduced.rows
        ]
        self.bounds: Floats = np.array([float(row.bound) for row in reduced.rows])
        self.scales: Floats = np.array(
            [self._scale(w, b) for w, b in zip(self.weights, self.bounds)]
        )
        self.clauses = [(clause.arch, np.array(clause.columns)) for clause in reduced.clauses]

    def _scale(self, weights: Floats, bound: float) -> float:
        """What a violation of a limit is measured in: its bound, or the span of its weights."""
        return abs(bound) or float(np.abs(weights).max(initial=0.0)) or 1.0

    def row(self, table: Floats, arch: int) -> Floats:
        """A table's columns under one architecture."""
        found: Floats = table[arch if len(table) > 1 else 0]
        return found

    def mask(self, arch: int) -> npt.NDArray[np.bool_]:
        """Columns that may be chosen under one architecture."""
        mask = self.reduced.mask
        return np.ones(self.columns, dtype=np.bool_) if mask is None else mask[arch]

    def price(self, archs: Ints, columns: Ints) -> tuple[Floats, Floats]:
        """Cost and violation (0: feasible, up to rounding) of choices (n,), (n, groups)."""
        cost = self.total(self.cost, archs, columns) + self.base[archs]
        violation = np.zeros(len(archs))
        for weights, bound, scale in zip(self.weights, self.bounds, self.scales):
            over = self.total(weights, archs, columns) - bound
            violation += np.maximum(over, 0.0) / scale
        if self.reduced.mask is not None:
            violation += (~self.reduced.mask[archs[:, None], columns]).sum(axis=1)
        for arch, clause in self.clauses:
            hit = (columns[:, self.group_of[clause]] == clause).all(axis=1)
            violation += hit if arch < 0 else hit & (archs == arch)
        return cost, violation

    def ratios(self, archs: Ints, columns: Ints) -> Floats:
        """(n, limits): how far above its limit each total is, 0 where the limit holds."""
        over = [
            np.maximum(self.total(w, archs, columns) - b, 0.0) / s
            for w, b, s in zip(self.weights, self.bounds, self.scales)
        ]
        return np.stack(over, axis=1) if over else np.zeros((len(archs), 0))

    def total(self, table: Floats, archs: Ints, columns: Ints) -> Floats:
        """(n,): sums of a table over the chosen columns."""
        if len(table) == 1:
            found: Floats = table[0][columns].sum(axis=1)
        else:
            found = table[archs[:, None], columns].sum(axis=1)
        return found

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Random choices: half uniform, half leaning to the options that need the least."""
        archs = rng.integers(self.archs, size=count)
        columns = self.starts + (rng.random((count, self.groups)) * self.sizes).astype(np.int64)
        if self.weights and count > 1:
            half = count // 2
            weights = self.weights[int(rng.integers(len(self.weights)))]
            light = np.empty((half, self.groups), dtype=np.int64)
            for i, arch in enumerate(archs[:half]):
                light[i] = self.least(self.row(weights, int(arch)), self.mask(int(arch)))
            lean = rng.random((half, self.groups)) < rng.random((half, 1))
            columns[:half] = np.where(lean, light, columns[:half])
        return archs, columns

    def least(self, values: Floats, mask: npt.NDArray[np.bool_]) -> Ints:
        """The column of the least value in each group."""
        values = np.where(mask, values, np.inf)
        low = np.minimum.reduceat(values, self.starts)
        places = np.where(values == low[self.group_of], np.arange(self.columns), self.columns)
        found: Ints = np.minimum.reduceat(places, self.starts)
        return found


@dataclass
class Recorder:
    """Keeps the best feasible choice, exactly checked, and when it was found."""

    problem: Problem
    space: Space
    deadline: Deadline
    most: int | None
    measure: Measure | None
    start: float
    best: tuple[tuple[int, ...], int | None] | None = None
    value: float | int = 0
    """Of the best: units of the objective to be minimised, or the measured value."""
    last: float | int = 0
    """Value of the last feasible choice that was offered."""
    evaluations: int = 0
    trace: list[Improvement] = field(default_factory=list)

    @property
    def stop(self) -> bool:
        """Whether the budget is used up."""
        return self.deadline.passed or (self.most is not None and self.evaluations >= self.most)

    @property
    def room(self) -> int:
        """Evaluations left, at least 1."""
        return 1 << 30 if self.most is None else max(1, self.most - self.evaluations)

    def price(self, archs: Ints, columns: Ints) -> tuple[Floats, Floats]:
        """``Space.price``, counted, the best of it offered."""
        cost, violation = self.space.price(archs, columns)
        self.evaluations += len(archs)
        self.offer_best(archs, columns, cost, violation)
        return cost, violation

    def offer_best(self, archs: Ints, columns: Ints, cost: Floats, violation: Floats) -> None:
        """Offer the cheapest that look feasible."""
        good = np.flatnonzero(violation <= 1e-9)
        for place in good[np.argsort(cost[good], kind="stable")[:4]]:
            if self.offer(int(archs[place]), columns[place]):
                break

    def offer(self, arch: int, columns: Ints) -> bool:
        """Keep a choice if it is feasible and better; whether it was feasible."""
        reduced, problem = self.space.reduced, self.problem
        choice, architecture = reduced.lift([int(c) for c in columns]), reduced.architecture(arch)
        if violations(problem, choice, architecture):
            return False
        total = problem.total(problem.metric, choice, architecture)
        value: float | int = -total if problem.maximize else total
        measured = None
        if self.measure is not None:
            name = None if architecture is None else problem.architectures[architecture]
            value = measured = self.measure(problem_names(problem, choice), name)
        self.last = value
        if self.best is None or value < self.value:
            self.best, self.value = (choice, architecture), value
            self.trace.append(
                Improvement(
                    time.perf_counter() - self.start,
                    self.evaluations,
                    problem.metric.decimal(total),
                    measured,
                )
            )
        return True
