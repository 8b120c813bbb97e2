# SPDX-License-Identifier: Apache-2.0
"""A time limit that ends early: a feasible answer with a true bound and gap, or unknown."""

from __future__ import annotations

import time

import numpy as np
import pytest

from codesign.solvers import Metric, Problem, Solution, Status, registry, solve


def hard(seed: int = 0, archs: int = 0) -> Problem:
    """Many limits close to what can be met: hours for every back end."""
    rng = np.random.default_rng(seed)
    groups, options, rows = 60, 6, 7
    count = groups * options
    tables = {f"r{k}": rng.integers(1000, 100_000, count) for k in range(rows)}
    cost = rng.integers(1000, 100_000, (archs, count) if archs else count)
    return Problem.build(
        choices={f"g{g}": [f"o{o}" for o in range(options)] for g in range(groups)},
        architectures=[f"a{a}" for a in range(archs)] or None,
        metrics=[
            Metric.joint("cost", cost) if archs else Metric.choice("cost", cost),
            *(Metric.choice(name, table) for name, table in tables.items()),
        ],
        minimize="cost",
        limits={name: int(table.sum() / options * 0.8) for name, table in tables.items()},
    )


def check(solution: Solution, problem: Problem) -> None:
    assert solution.status in (Status.FEASIBLE, Status.UNKNOWN)
    assert solution.bound is not None
    least = sum(
        int(problem.metric.values[..., start:end].min())
        for start, end in zip(problem.offsets, problem.offsets[1:])
    )
    assert solution.bound >= least
    if solution.status is Status.FEASIBLE:
        assert solution.objective is not None
        assert solution.bound < solution.objective
        assert solution.gap == pytest.approx(
            float((solution.objective - solution.bound) / solution.objective)
        )
        assert '"status": "feasible"' in solution.to_json()
    else:
        assert solution.gap is None
        assert solution.choices is None


@pytest.mark.parametrize("solver", ["auto", "exact", "cp-sat", "highs", "cbc"])
def test_an_early_end_gives_a_true_gap(solver: str) -> None:
    if solver != "auto" and not registry.load(solver).availability():
        pytest.skip(f"{solver}: {registry.load(solver).availability().why}")
    problem = hard()
    start = time.perf_counter()
    solution = solve(problem, solver, time_limit=1.5)
    assert time.perf_counter() - start < 15
    check(solution, problem)
    if solver != "cbc":
        assert solution.status is Status.FEASIBLE


def test_architectures_left_open_are_neither_solved_nor_pruned() -> None:
    problem = hard(archs=12)
    solution = solve(problem, time_limit=1.5)
    check(solution, problem)
    assert solution.architectures_solved + solution.architectures_pruned < 12


def test_bounds_of_different_back_ends_do_not_contradict_each_other() -> None:
    problem = hard()
    found = [solve(problem, name, time_limit=1.0) for name in ("exact", "cp-sat")]
    best = min(s.objective for s in found if s.objective is not None)
    assert all(s.bound is not None and s.bound <= best for s in found)


def test_no_time_at_all_is_unknown_with_a_bound() -> None:
    problem = hard()
    for solver in ("exact", "cp-sat"):
        solution = solve(problem, solver, time_limit=1e-6)
        assert solution.status is Status.UNKNOWN
        check(solution, problem)
