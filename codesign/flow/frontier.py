# SPDX-License-Identifier: Apache-2.0
"""The exact frontier of two metrics, widest gap first: parallel, resumable, even when cut short.

Each point comes from ``codesign.solvers.pareto`` under one bound on the second metric. A point
answers every bound from its own second metric up to the one it was found under; what no point
answers are the gaps. Where a number of points is asked for, the widest gap is asked in its
middle, so that the points known at any time are spread over the whole range. Without one, gaps
are swept from their upper end, which asks fewer questions for the same whole frontier. Neighbours
tell where a gap is closed, so nothing is proven twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from codesign.errors import InfeasibleError, InputError
from codesign.flow.store import digest, write_text
from codesign.solvers import Limit, Problem, Solution, Status, parse_solution, solve
from codesign.solvers.certify import check_solution
from codesign.solvers.decimals import plain, to_decimal
from codesign.solvers.pareto import ParetoPoint
from codesign.solvers.pareto import pareto as sweep
from codesign.solvers.problem_file import problem_to_json

_EVERYTHING = 1 << 4000
"""Above every total: the reach of the point found under no bound."""
_HEAD = "codesign-pareto-points/1"


@dataclass(frozen=True)
class Question:
    """A frontier to be found: the least ``first`` under every bound on ``second``."""

    problem: Problem
    first: str
    second: str
    solver: str = "auto"
    time_limit: float | None = None
    """Seconds for each point."""

    @property
    def key(self) -> str:
        """The same for the same problem and metrics."""
        return digest(problem_to_json(self.problem), self.first, self.second)

    def ask(self, bound: Decimal | None) -> ParetoPoint | Status:
        """The point under a bound on the second metric, or why there is none."""
        found: list[ParetoPoint] = []

        def enough(point: ParetoPoint) -> None:
            found.append(point)
            raise _Enough

        extra = () if bound is None else (Limit(self.second, "max", bound),)
        asked = self.problem.with_limits((*self.problem.limits, *extra))
        try:
            rest = sweep(
                asked,
                self.first,
                self.second,
                solver=self.solver,
                time_limit=self.time_limit,
                on_point=enough,
            )
        except _Enough:
            return replace(found[0], bound=bound)
        return Status.INFEASIBLE if rest.complete else Status.UNKNOWN

    def units(self, value: Decimal) -> int:
        """A total of the second metric as a whole number of its units."""
        return self.problem.bound(Limit(self.second, "max", value))

    def decimal(self, units: int) -> Decimal:
        """Inverse of ``units``."""
        return to_decimal(units, self.problem.metrics[self.second].digits)

    def least(self) -> Decimal | None:
        """The least second metric under the problem's limits; None where time ended."""
        found = solve(
            self.problem.with_objective(self.second), self.solver, self.time_limit, explain=False
        )
        return found.objective if found.status is Status.OPTIMAL else None

    def no_points(self, status: Status) -> InfeasibleError:
        """Why there is no frontier."""
        return _no_points(self, status)


class AnyPoint(Protocol):
    """What the explorer knows of a point."""

    @property
    def second(self) -> Decimal:
        """The second metric's total."""

    @property
    def bound(self) -> Decimal | None:
        """The bound on it that the point was found under."""


P = TypeVar("P", bound=AnyPoint)
Q = TypeVar("Q", bound=AnyPoint, covariant=True)


class Asks(Protocol[Q]):
    """A question that the explorer can ask: ``Question``, or one of a joint problem."""

    def ask(self, bound: Decimal | None) -> Q | Status:
        """The point under a bound on the second metric, or why there is none."""

    def least(self) -> Decimal | None:
        """The least second metric."""

    def units(self, value: Decimal) -> int:
        """A total of the second metric in its units."""

    def decimal(self, units: int) -> Decimal:
        """Inverse of ``units``."""

    def no_points(self, status: Status) -> InfeasibleError:
        """Why there is no frontier."""


class _Enough(Exception):
    """One point was wanted."""


@dataclass
class PointFile:
    """Finished points of one question, a line each; a half-written last line is left out."""

    path: Path
    question: Question

    def load(self) -> list[ParetoPoint]:
        """Points of an earlier run of the same question; starts the file anew otherwise."""
        head = json.dumps([_HEAD, self.question.key])
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except (FileNotFoundError, UnicodeDecodeError):
            lines = [""]
        kept = [p for p in map(self._parse, lines[1:]) if p] if lines[0] == head else []
        write_text(self.path, "".join(f"{line}\n" for line in (head, *map(_line, kept))))
        return kept

    def add(self, point: ParetoPoint) -> None:
        """Keep a point, now."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_line(point) + "\n")

    def _parse(self, line: str) -> ParetoPoint | None:
        """A kept point, checked against the problem; None for what cannot be trusted."""
        try:
            bound, *texts = json.loads(line)
            solution, certificate = map(parse_solution, texts)
        except (ValueError, TypeError, InputError):
            return None
        question = self.question
        if check_solution(question.problem.with_objective(question.second), solution):
            return None
        if not certificate.status is solution.status is Status.OPTIMAL:
            return None
        assert certificate.objective is not None
        assert solution.objective is not None
        return ParetoPoint(
            certificate.objective,
            solution.objective,
            None if bound is None else Decimal(bound),
            solution,
            certificate,
        )


def _line(point: ParetoPoint) -> str:
    bound = None if point.bound is None else plain(point.bound)
    return json.dumps([bound, point.solution.to_json(), point.certificate.to_json()])


@dataclass
class Explorer(Generic[P]):
    """Fills the gaps of a frontier."""

    question: Asks[P]
    cap: int = 0
    """Most points; 0 for all."""
    jobs: int = 1
    on_point: Callable[[P], None] = lambda point: None
    """Called for every answer as it comes in, in this process."""
    on_count: Callable[[int], None] = lambda count: None
    points: dict[int, P] = field(default_factory=dict)
    """By the second metric in its units."""
    reach: dict[int, int] = field(default_factory=dict)
    """The greatest bound that each of them is known to answer."""
    met: set[int] = field(default_factory=set)
    """Points that answered the middle of the gap above them: what is missing is higher up."""
    given_up: set[int] = field(default_factory=set)
    """Bounds whose point was not proven in time."""

    def run(self, known: Sequence[P] = ()) -> bool:
        """Fill ``points``; True when the frontier is complete. Raises InfeasibleError."""
        for point in known:
            self._take(point)
        self._ends()
        while gaps := self._gaps():
            room = self.cap - len(self.points) if self.cap else len(gaps)
            if room <= 0:
                return False
            bounds = self._bounds(gaps)
            for bound, answer in self._answers(bounds[: max(1, room)] if self.cap else bounds):
                self._record(bound, answer)
        return not self.given_up

    def _ends(self) -> None:
        """The two ends of the frontier, which bound everything between."""
        question = self.question
        if _EVERYTHING not in self.reach.values():
            top = question.ask(None)
            if isinstance(top, Status):
                raise question.no_points(top)
            self._record(None, top)
        least = question.least()
        if least is None:
            self.given_up.add(min(self.points) - 1)
            return
        bound = question.units(least)
        if bound not in self.points:
            self._record(bound, question.ask(least))

    def _record(self, bound: int | None, answer: P | Status) -> None:
        if isinstance(answer, Status):
            assert bound is not None
            self.given_up.add(bound)
            return
        self.on_point(answer)
        if self._take(answer):
            self.on_count(len(self.points))
        else:
            self.met.add(self.question.units(answer.second))

    def _take(self, point: P) -> bool:
        """Whether the point is new."""
        low = self.question.units(point.second)
        top = _EVERYTHING if point.bound is None else self.question.units(point.bound)
        new = low not in self.points
        if new or point.bound is None:
            self.points[low] = point
        self.reach[low] = max(top, self.reach.get(low, low))
        return new

    def _gaps(self) -> list[tuple[int, int, int]]:
        """(width, last bound answered below, first answered above), widest first."""
        gaps = []
        for below, above in pairwise(sorted(self.points)):
            width = above - 1 - self.reach[below]
            if width > 0 and not any(self.reach[below] < b < above for b in self.given_up):
                gaps.append((width, below, above))
        return sorted(gaps, reverse=True)

    def _bounds(self, gaps: Sequence[tuple[int, int, int]]) -> list[int]:
        """Bounds to ask at once, in different gaps as far as there are enough."""
        wanted = 1 if self.jobs == 1 else 2 * self.jobs
        share = -(-wanted // len(gaps))
        # a sweep needs as many gaps as there are workers, found by halving
        spread = self.cap > 0 or len(self.points) < 2 * wanted
        found: list[int] = []
        for width, below, above in gaps[:wanted]:
            start = self.reach[below]
            if below in self.met or not spread or width == 1:
                found.append(above - 1)
                continue
            found += sorted({start + max(1, width * k // (share + 1)) for k in range(1, share + 1)})
        return found

    def _answers(self, bounds: Sequence[int]) -> Iterable[tuple[int, P | Status]]:
        question = self.question
        if self.jobs == 1 or len(bounds) == 1:
            return ((b, question.ask(question.decimal(b))) for b in bounds)
        return self._parallel(bounds)

    def _parallel(self, bounds: Sequence[int]) -> Iterator[tuple[int, P | Status]]:
        import joblib

        tasks = [joblib.delayed(_asked)(self.question, bound) for bound in bounds]
        try:
            pool = joblib.Parallel(n_jobs=self.jobs, return_as="generator_unordered")
        except ValueError:  # a back end, such as ray, that hands everything over at once
            pool = joblib.Parallel(n_jobs=self.jobs)
        answers: Any = pool(tasks)
        yield from answers


def _asked(question: Asks[P], bound: int) -> tuple[int, P | Status]:
    return bound, question.ask(question.decimal(bound))


def _no_points(question: Question, status: Status) -> InfeasibleError:
    if status is Status.UNKNOWN:
        return InfeasibleError(
            f"no design was proven within --time-limit {question.time_limit:g} s; allow more time"
        )
    why: Solution = solve(
        question.problem.with_objective(question.first), question.solver, question.time_limit
    )
    assert why.explanation is not None
    return InfeasibleError(why.explanation.text)
