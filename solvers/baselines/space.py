# SPDX-License-Identifier: Apache-2.0
"""What a baseline searches in: choices in floats to rank them, and the exact word on each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.solvers.certify import violations
from codesign.solvers.problem import Problem
from codesign.solvers.reduce import Reduced, reduce_problem

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Choice: TypeAlias = "tuple[tuple[int, ...], int | None]"
"""Option of each group, and the architecture, by place."""


class Space:
    """Groups of columns, one to be chosen in each, and architectures; limits are "at most", costs
    fall. Floats rank candidates; ``exact`` has the last word.

    Subclasses say where the tables come from. ``cost`` and ``weights`` are (architectures or 1,
    columns).
    """

    empty: bool
    archs: int
    starts: Ints
    sizes: Ints
    cost: Floats
    base: Floats
    """(architectures,): cost that depends on no choice."""
    weights: list[Floats]
    bounds: Floats
    scales: Floats
    """What a violation of a limit is measured in."""
    clauses: list[tuple[int, Ints]]
    """Columns not to be chosen together, under one architecture or all (-1)."""

    def _groups(self, offsets: Ints) -> None:
        self.starts, self.sizes = offsets[:-1], np.diff(offsets)
        self.groups = len(self.sizes)
        self.columns = int(offsets[-1])
        self.group_of: Ints = np.repeat(np.arange(self.groups), self.sizes)

    # ---- the exact word ----

    def lift(self, arch: int, columns: Ints) -> Choice:
        """The choice as the problem states it."""
        raise NotImplementedError

    def exact(self, choice: Choice) -> int | None:
        """Its value to be minimised, in the problem's units; None when it is not feasible."""
        raise NotImplementedError

    def names(self, choice: Choice) -> tuple[dict[str, str], str | None]:
        """A choice by name, for a measurement."""
        raise NotImplementedError

    def shown(self, value: int) -> Decimal:
        """A value in the user's unit."""
        raise NotImplementedError

    # ---- tables ----

    def mask(self, arch: int) -> Bools:
        """Columns that may be chosen under one architecture."""
        raise NotImplementedError

    def row(self, table: Floats, arch: int) -> Floats:
        """A table's columns under one architecture."""
        found: Floats = table[arch if len(table) > 1 else 0]
        return found

    def broken(self, archs: Ints, columns: Ints) -> Floats | int:
        """(n,): how many of the columns may not be chosen."""
        raise NotImplementedError

    def least(self) -> Floats:
        """(architectures or 1,): cost that no choice beats."""
        found: Floats = np.minimum.reduceat(self.cost, self.starts, axis=1).sum(axis=1) + self.base
        return found

    def span(self) -> tuple[float, float]:
        """Least and greatest cost, limits left out."""
        high = np.maximum.reduceat(self.cost, self.starts, axis=1).sum(axis=1).max()
        low = np.minimum.reduceat(self.cost, self.starts, axis=1).sum(axis=1).min()
        return float(low) + float(self.base.min()), float(high) + float(self.base.max())

    def able(self) -> Bools:
        """(architectures,): whether each limit by itself may be met."""
        return np.ones(self.archs, dtype=np.bool_)

    def visits(self, order: Sequence[int]) -> Iterator[int]:
        """Architectures in this order."""
        return iter(order)

    def draw(self, draw: random.Random) -> int:
        """Some architecture."""
        return draw.randrange(self.archs)

    def draw_archs(self, rng: np.random.Generator, count: int) -> Ints:
        """Some architectures."""
        return rng.integers(self.archs, size=count)

    # ---- many choices at once ----

    def price(self, archs: Ints, columns: Ints) -> tuple[Floats, Floats]:
        """Cost and violation (0: feasible, up to rounding) of choices (n,), (n, groups)."""
        cost = self.total(self.cost, archs, columns) + self.base[archs]
        violation = np.zeros(len(archs))
        for weights, bound, scale in zip(self.weights, self.bounds, self.scales):
            over = self.total(weights, archs, columns) - bound
            violation += np.maximum(over, 0.0) / scale
        violation += self.broken(archs, columns)
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
        archs = self.draw_archs(rng, count)
        columns = self.starts + (rng.random((count, self.groups)) * self.sizes).astype(np.int64)
        if self.weights and count > 1:
            half = count // 2
            weights = self.weights[int(rng.integers(len(self.weights)))]
            light = np.empty((half, self.groups), dtype=np.int64)
            for i, arch in enumerate(archs[:half]):
                light[i] = self.lightest(self.row(weights, int(arch)), self.mask(int(arch)))
            lean = rng.random((half, self.groups)) < rng.random((half, 1))
            columns[:half] = np.where(lean, light, columns[:half])
        return archs, columns

    def lightest(self, values: Floats, mask: Bools) -> Ints:
        """The column of the least value in each group."""
        values = np.where(mask, values, np.inf)
        low = np.minimum.reduceat(values, self.starts)
        places = np.where(values == low[self.group_of], np.arange(self.columns), self.columns)
        found: Ints = np.minimum.reduceat(places, self.starts)
        return found


class ProblemSpace(Space):
    """A problem's smaller form: ties are merged, all tables are there."""

    def __init__(self, problem: Problem) -> None:
        reduced: Reduced = reduce_problem(problem)
        self.problem, self.reduced = problem, reduced
        self.empty = reduced.empty
        self.archs = len(reduced.archs)
        self._groups(reduced.offsets)
        self.cost = np.atleast_2d(reduced.cost.astype(np.float64))
        self.base = reduced.base.astype(np.float64)
        self.weights = [np.atleast_2d(row.weights.astype(np.float64)) for row in reduced.rows]
        self.bounds = np.array([float(row.bound) for row in reduced.rows])
        self.scales = np.array([scale(w, b) for w, b in zip(self.weights, self.bounds)])
        self.clauses = [(clause.arch, np.array(clause.columns)) for clause in reduced.clauses]

    def lift(self, arch: int, columns: Ints) -> Choice:
        """Tied groups are apart again."""
        reduced = self.reduced
        return reduced.lift([int(c) for c in columns]), reduced.architecture(arch)

    def exact(self, choice: Choice) -> int | None:
        """In whole numbers, against the problem as stated."""
        problem = self.problem
        if violations(problem, *choice):
            return None
        total = problem.total(problem.metric, *choice)
        return -total if problem.maximize else total

    def names(self, choice: Choice) -> tuple[dict[str, str], str | None]:
        """Group to option, and the architecture's name."""
        problem, (places, architecture) = self.problem, choice
        picked = {g: names[i] for g, names, i in zip(problem.groups, problem.options, places)}
        return picked, None if architecture is None else problem.architectures[architecture]

    def shown(self, value: int) -> Decimal:
        """The objective as the user wrote it."""
        return self.problem.metric.decimal(-value if self.problem.maximize else value)

    def mask(self, arch: int) -> Bools:
        """What forbids of one option leave."""
        mask = self.reduced.mask
        return np.ones(self.columns, dtype=np.bool_) if mask is None else mask[arch]

    def broken(self, archs: Ints, columns: Ints) -> Floats | int:
        """Columns outside the mask."""
        mask = self.reduced.mask
        return 0 if mask is None else (~mask[archs[:, None], columns]).sum(axis=1)

    def able(self) -> Bools:
        """By the least total of each limit."""
        able = np.ones(self.archs, dtype=np.bool_)
        mask = self.reduced.mask
        for weights, bound, unit in zip(self.weights, self.bounds, self.scales):
            values = weights if mask is None else np.where(mask, weights, np.inf)
            least = np.minimum.reduceat(values, self.starts, axis=1).sum(axis=1)
            able &= least <= bound + 1e-9 * unit
        return able


def scale(weights: Floats, bound: float) -> float:
    """What a violation of a limit is measured in: its bound, or the span of its weights."""
    return abs(bound) or float(np.abs(weights).max(initial=0.0)) or 1.0
