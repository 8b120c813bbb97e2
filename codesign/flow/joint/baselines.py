# SPDX-License-Identifier: Apache-2.0
"""Searches without a proof on the joint problem, to compare the exact solver with.

Tables are filled for the accelerators that a search visits, when it first visits them, in its own
time; what they cost is the same model that the exact solver has.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from codesign.cost.bounds import Bounds
from codesign.cost.fill import Filler
from codesign.errors import InputError
from codesign.flow.joint.design import design_of
from codesign.flow.joint.problem import CHOICE, JointProblem
from codesign.flow.joint.result import Certificate, JointResult
from codesign.flow.joint.search import Search
from codesign.solvers.base import Deadline
from codesign.solvers.baselines.base import Baseline, Improvement, Measure, Recorder, ready
from codesign.solvers.baselines.space import Bools, Choice, Floats, Ints, Space, scale
from codesign.solvers.decimals import to_decimal
from codesign.solvers.exact import Exact
from codesign.solvers.solution import Status

_AHEAD = 32
"""Accelerators whose tables are filled together: one alone takes a fifth of that time."""
_SAMPLES = 16
"""Samples on each accelerator that is drawn."""


@dataclass(frozen=True)
class JointRun:
    """What a baseline found: FEASIBLE with a design, or UNKNOWN. No bound."""

    result: JointResult
    trace: tuple[Improvement, ...]
    """Objectives in the problem's units (cycles for latency)."""
    evaluations: int
    tabled: int
    """Accelerators whose tables were filled."""
    seed: int
    measured: float | None = None


def baseline(
    problem: JointProblem, name: str | Baseline, time_limit: float | None = None, seed: int = 0,
    *, evaluations: int | None = None, measure: Measure | None = None,
) -> JointRun:  # fmt: skip
    """Search the joint problem for about ``time_limit`` seconds, tables included.

    As ``codesign.solvers.baselines.run``; ``measure`` is called with the layers' formats and the
    accelerator's name. The answer is priced again by the reference model. Raises InputError for
    objectives that no sum over layers gives (the interval of a stream, the reward).
    """
    if len(problem.parts(problem.objective)) > 1 or problem.reward is not None:
        raise InputError(
            "a baseline minimises a sum over layers; the interval of a stream and the reward are "
            "none: ask for latency, energy, traffic, loss, size or a resource"
        )
    found = ready(name, time_limit, seed, evaluations, measure)
    start = time.perf_counter()
    deadline = Deadline.after(time_limit)
    space = LazySpace(problem, deadline)
    record = Recorder(space, deadline, evaluations, measure, start)
    found.search(space, record, np.random.default_rng(seed))
    seconds = time.perf_counter() - start
    status = Status.UNKNOWN if record.best is None else Status.FEASIBLE
    objective, value = None, 0
    if record.best is not None:
        value = int(space.exact(record.best) or 0)
        objective = to_decimal(value, problem.digits[problem.objective])
    filled = int(space.filled.sum())
    certificate = Certificate(
        status, objective, None, problem.space.generated, len(problem.space), 0, 0, filled,
        space.seconds, seconds - space.seconds, seconds,
    )  # fmt: skip
    result = JointResult(certificate)
    if record.best is not None:
        columns, place = record.best
        assert place is not None
        result = design_of(problem, value, place, columns, certificate)
    measured = float(record.value) if measure is not None and record.best is not None else None
    return JointRun(result, tuple(record.trace), record.evaluations, filled, seed, measured)


class LazySpace(Space):
    """The joint problem's accelerators and options. Totals stay below 2^53, so that sums in
    floats are exact."""

    empty = False

    def __init__(self, problem: JointProblem, deadline: Deadline) -> None:
        self.problem, self.deadline = problem, deadline
        self.search = Search(problem, Deadline(None), Exact())
        self.rows = self.search.rows
        self.archs = len(problem.space)
        self._groups(self.search.offsets)
        self.filled = np.zeros(self.archs, dtype=np.bool_)
        self.open = np.zeros((self.archs, self.columns), dtype=np.bool_)
        self.base = np.zeros(self.archs)
        (self.metric,) = problem.parts(problem.objective)
        self.cost = self._table(self.metric)
        self.weights = [self._table(row.metric) for row in self.rows]
        for row, table in zip(self.rows, self.weights):
            table *= row.sign
        self.bounds = np.array([float(row.sign * row.bound) for row in self.rows])
        self.scales = np.array([scale(w, b) for w, b in zip(self.weights, self.bounds)])
        self.clauses = []  # ties and forbids are in the units
        self.seconds = 0.0
        self.waiting: list[int] = []

    def _table(self, metric: str) -> Floats:
        if metric in CHOICE:
            return np.atleast_2d(self.search.fixed[metric].astype(np.float64))
        return np.zeros((self.archs, self.columns))

    def fill(self, archs: Ints) -> None:
        """Fill the tables of these accelerators, some dozens at a time, while there is time."""
        missing = np.unique(archs[~self.filled[archs]])
        for first in range(0, len(missing), 4 * _AHEAD):
            if self.deadline.passed:
                return
            self._fill(missing[first : first + 4 * _AHEAD])

    def _fill(self, places: Ints) -> None:
        start = time.perf_counter()
        problem, search = self.problem, self.search
        part = problem.space.take(places)
        filler = Filler(part, problem.timing, problem.tables.by, problem.pipelined)
        metrics = search._metrics(problem.tables.price(filler), part.use)
        self.open[places] = metrics["runs"]
        tables = [(self.metric, 1, self.cost)]
        tables += [(row.metric, row.sign, w) for row, w in zip(self.rows, self.weights)]
        for metric, sign, table in tables:
            if metric not in CHOICE:
                table[places] = np.where(metrics["runs"], sign * metrics[metric], 0)
        self.filled[places] = True
        self.seconds += time.perf_counter() - start

    # ---- the exact word ----

    def lift(self, arch: int, columns: Ints) -> Choice:
        """Column of each unit, and the accelerator's place."""
        return tuple(int(c) for c in (columns - self.starts)[:-1]), arch

    def exact(self, choice: Choice) -> int | None:
        """Sums of whole numbers below 2^53."""
        places, arch = choice
        assert arch is not None
        columns = self.starts + np.append(np.array(places, dtype=np.int64), 0)
        if not self.filled[arch] or not self.open[arch, columns].all():
            return None
        for weights, bound in zip(self.weights, self.bounds):
            if self.row(weights, arch)[columns].sum() > bound:
                return None
        return int(self.row(self.cost, arch)[columns].sum())

    def names(self, choice: Choice) -> tuple[dict[str, str], str | None]:
        """Layer to format, and the accelerator's name."""
        tables, (places, arch) = self.problem.tables, choice
        assert arch is not None
        layers = tables.workload.layers
        formats = {
            layers[at].name: fmt
            for unit, entries, column in zip(tables.units, tables.entries, places)
            for at, fmt in unit.chosen(entries[column].formats).items()
        }
        return formats, self.problem.space.accelerator(arch).name

    def shown(self, value: int) -> Decimal:
        """The objective, in the certificate's unit."""
        return to_decimal(value, self.problem.digits[self.problem.objective])

    # ---- tables ----

    def mask(self, arch: int) -> Bools:
        """Options that run on one accelerator."""
        self.fill(np.array([arch]))
        found: Bools = self.open[arch]
        return found

    def row(self, table: Floats, arch: int) -> Floats:
        """Filled first."""
        if len(table) > 1:
            self.fill(np.array([arch]))
        return super().row(table, arch)

    def broken(self, archs: Ints, columns: Ints) -> Floats:
        """Options that do not run; all of accelerators for which there was no time."""
        found: Floats = (~self.open[archs[:, None], columns]).sum(axis=1).astype(np.float64)
        return found

    def price(self, archs: Ints, columns: Ints) -> tuple[Floats, Floats]:
        """Filled first."""
        self.fill(archs)
        return super().price(archs, columns)

    def least(self) -> Floats:
        """By the bounds that need no tables, as the exact solver starts."""
        problem, search = self.problem, self.search
        bounds = Bounds(problem.space, problem.timing, problem.tables.by, problem.pipelined)
        metrics = search._metrics(problem.tables.price(bounds), search._least_use(bounds))
        cost = np.broadcast_to(metrics[self.metric], metrics["runs"].shape)
        cost = np.where(metrics["runs"], cost, np.inf)
        least = np.minimum.reduceat(cost, self.starts, axis=1).sum(axis=1)
        found: Floats = least[bounds.pair]
        return found

    def span(self) -> tuple[float, float]:
        """Over some accelerators."""
        some = np.linspace(0, self.archs - 1, min(_AHEAD, self.archs)).astype(np.int64)
        self.fill(some)
        cost = self.cost[some] if len(self.cost) > 1 else self.cost
        high = np.maximum.reduceat(cost, self.starts, axis=1).sum(axis=1).max()
        low = np.minimum.reduceat(cost, self.starts, axis=1).sum(axis=1).min()
        return float(low), float(high)

    def visits(self, order: Sequence[int]) -> Iterator[int]:
        """Some are filled ahead, fewer for the first."""
        first, ahead = 0, _AHEAD // 4
        while first < len(order):
            chunk = order[first : first + ahead]
            self.fill(np.array(chunk))
            yield from chunk
            first, ahead = first + ahead, _AHEAD

    def draw(self, draw: random.Random) -> int:
        """As likely each, in an order that lets some be filled ahead."""
        if not self.waiting:
            self.waiting = [draw.randrange(self.archs) for _ in range(_AHEAD)]
            self.fill(np.array(self.waiting))
        return self.waiting.pop()

    def draw_archs(self, rng: np.random.Generator, count: int) -> Ints:
        """Several samples on each accelerator, so that few have to be filled."""
        drawn: Ints = rng.integers(self.archs, size=-(-count // _SAMPLES))
        self.fill(drawn)  # together, before they are looked at one by one
        return drawn.repeat(_SAMPLES)[:count]
