# SPDX-License-Identifier: Apache-2.0
"""Exhaustive search: the oracle. It shares no step with the other solvers (no merging of ties, no
sign changes, no reduction): every combination of options is laid out and tested as the problem
states it."""

from __future__ import annotations

import time
from math import prod
from typing import ClassVar

import numpy as np

from codesign.solvers.base import CapabilityError, Deadline, Feature, Result, Solver
from codesign.solvers.problem import ARCHITECTURE, BoolArray, IntArray, Problem, Shape
from codesign.solvers.solution import Status

MAX_COMBINATIONS = 4_000_000
"""Combinations of options of one architecture; more are refused."""


class Exhaustive(Solver):
    """Tests every combination."""

    name = "exhaustive"
    summary = "every combination; the oracle for small problems"
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.INTEGER_PROOF, Feature.BIG_INTEGERS, Feature.TIME_LIMIT}
    )

    def solve(self, problem: Problem, time_limit: float | None = None) -> Result:
        start = time.perf_counter()
        deadline = Deadline.after(time_limit)
        count = prod(len(options) for options in problem.options)
        if count > MAX_COMBINATIONS:
            shown = str(count) if count < 10**15 else "more than 10^15"
            raise CapabilityError(
                f"exhaustive search would test {shown} combinations, more than "
                f"{MAX_COMBINATIONS}; use the solver 'exact'"
            )
        sizes = [len(options) for options in problem.options]
        common = self._structure(problem, sizes, count)
        archs: list[int | None] = list(range(len(problem.architectures))) or [None]
        best: tuple[int, tuple[int, ...], int | None] | None = None
        solved = 0
        for arch in archs:
            if deadline.passed:
                break
            solved += 1
            found = self._one(problem, arch, sizes, common)
            if found is None:
                continue
            value, place = found
            if best is None or (value > best[0] if problem.maximize else value < best[0]):
                best = (value, tuple(int(i) for i in np.unravel_index(place, sizes)), arch)
        complete = solved == len(archs)
        seconds = time.perf_counter() - start
        if best is None:
            status = Status.INFEASIBLE if complete else Status.UNKNOWN
            return Result(status, seconds, architectures_solved=solved, solver=self.name)
        value, choice, arch = best
        return Result(
            status=Status.OPTIMAL if complete else Status.FEASIBLE,
            seconds=seconds,
            choice=choice,
            architecture=arch,
            objective=value,
            bound=value if complete else _trivial_bound(problem),
            architectures_solved=solved,
            solver=self.name,
        )

    def _structure(self, problem: Problem, sizes: list[int], count: int) -> BoolArray:
        """Combinations that meet the ties and every forbid that names no architecture."""
        good = np.ones(count, dtype=np.bool_)
        for tie in problem.ties:
            names = problem.options[tie[0]]
            first = _digit(tie[0], sizes, count)
            for group in tie[1:]:
                rename = np.array([names.index(name) for name in problem.options[group]])
                good &= rename[_digit(group, sizes, count)] == first
        for clause in problem.forbid:
            if all(group != ARCHITECTURE for group, _ in clause):
                good &= ~self._met(clause, None, sizes, count)
        return good

    @staticmethod
    def _met(
        clause: tuple[tuple[int, int], ...], arch: int | None, sizes: list[int], count: int
    ) -> BoolArray:
        met = np.ones(count, dtype=np.bool_)
        for group, option in clause:
            if group == ARCHITECTURE:
                met &= option == arch
            else:
                met &= _digit(group, sizes, count) == option
        return met

    def _one(
        self, problem: Problem, arch: int | None, sizes: list[int], common: BoolArray
    ) -> tuple[int, int] | None:
        """The best value under one architecture and the place of its combination."""
        good = common.copy()
        for clause in problem.forbid:
            if any(group == ARCHITECTURE for group, _ in clause):
                good &= ~self._met(clause, arch, sizes, len(good))
        if problem.allowed is not None:
            row = problem.allowed[arch] if problem.allowed.ndim == 2 else problem.allowed
            for group, start in enumerate(problem.offsets[:-1]):
                good &= row[start + _digit(group, sizes, len(good))]
        for limit in problem.limits:
            totals = self._totals(problem, limit.metric, arch)
            bound = problem.bound(limit)
            good &= (totals <= bound if limit.side == "max" else totals >= bound).astype(np.bool_)
        places = np.flatnonzero(good)
        if not len(places):
            return None
        values = self._totals(problem, problem.objective, arch)[places]
        at = int(values.argmax() if problem.maximize else values.argmin())
        return int(values[at]), int(places[at])

    @staticmethod
    def _totals(problem: Problem, name: str, arch: int | None) -> IntArray:
        """The metric's total of every combination."""
        metric = problem.metrics[name]
        count = prod(len(options) for options in problem.options)
        if metric.shape is Shape.ARCHITECTURE:
            assert arch is not None
            return np.full(count, metric.values[arch], dtype=metric.values.dtype)
        row = metric.row(arch)
        totals: IntArray = np.zeros(1, dtype=row.dtype)
        for start, end in zip(problem.offsets, problem.offsets[1:]):
            totals = (totals[:, None] + row[None, start:end]).ravel()
        return totals


def _digit(group: int, sizes: list[int], count: int) -> IntArray:
    """The option of ``group`` in every combination (the last group varies fastest)."""
    below = prod(sizes[group + 1 :])
    return (np.arange(count) // below) % sizes[group]


def _trivial_bound(problem: Problem) -> int:
    """The sum of each group's best value over all architectures."""
    metric = problem.metric
    best = np.max if problem.maximize else np.min
    if metric.shape is Shape.ARCHITECTURE:
        return int(best(metric.values))
    table = np.atleast_2d(metric.values)
    return sum(
        int(best(table[:, start:end])) for start, end in zip(problem.offsets, problem.offsets[1:])
    )
