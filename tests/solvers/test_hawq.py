# SPDX-License-Identifier: Apache-2.0
"""HAWQ-V3's nine ResNet18 programs (published tables, ../shared/data/hawq)."""

from __future__ import annotations

import json
from decimal import Decimal
from types import ModuleType

import pytest

from codesign.solvers import Problem, Status, registry, solve
from codesign.solvers.explain import explain

# sums of trace x squared weight error; by exhaustive search over all 2^19 choices
OPTIMA = {
    "size-0.25": "0.118299578238",
    "size-0.50": "0.074505929638",
    "size-0.75": "0.033440591234",
    "bops-0.25": "0.460424008427",
    "bops-0.50": "0.215689323024",
    "bops-0.75": "0.079964698323",
    "latency-0.25": "0.460424008427",
    "latency-0.50": "0.202673794034",
    "latency-0.75": "0.079964698323",
}


@pytest.mark.parametrize("solver", ["auto", *registry])
def test_every_back_end_proves_the_same_optimum(hawq: dict[str, Problem], solver: str) -> None:
    if solver != "auto" and not registry.load(solver).availability():
        pytest.skip(f"{solver}: {registry.load(solver).availability().why}")
    assert set(hawq) == set(OPTIMA)
    for name, problem in hawq.items():
        solution = solve(problem, solver)
        assert solution.status is Status.OPTIMAL, name
        assert solution.objective == solution.bound == Decimal(OPTIMA[name]), name
        assert solution.choices is not None
        assert solution.choices["layer4"] == solution.choices["layer6"]


def test_the_programs_are_the_published_ones(hawq: dict[str, Problem]) -> None:
    problem = hawq["size-0.50"]
    assert len(problem.groups) == 19
    assert problem.ties == ((4, 6), (9, 11), (14, 16))
    (limit,) = problem.limits
    # 11,157,504 weights: half a byte each at 4 bits, one at 8; the limit is half way
    assert limit.value == Decimal(11_157_504) * 3 / 4


def test_a_time_limit_that_suffices_changes_nothing(hawq: dict[str, Problem]) -> None:
    for name, problem in hawq.items():
        solution = solve(problem, time_limit=5)
        assert (solution.status, solution.gap) == (Status.OPTIMAL, 0.0)
        assert solution.objective == Decimal(OPTIMA[name])


def test_a_time_limit_that_ends_at_once_is_honest(hawq: dict[str, Problem]) -> None:
    for name, problem in hawq.items():
        solution = solve(problem, time_limit=1e-6)
        assert solution.status in (Status.UNKNOWN, Status.FEASIBLE)
        assert solution.bound is not None
        assert solution.bound <= Decimal(OPTIMA[name])


def test_an_impossible_budget_names_the_nearest_feasible_one(hawq: dict[str, Problem]) -> None:
    problem = hawq["latency-0.25"]
    low = sum(int(problem.metrics["latency"].values[2 * i]) for i in range(19))
    least = problem.metrics["latency"].decimal(low)
    (limit,) = problem.limits
    solution = solve(problem.with_limits([type(limit)("latency", "max", least / 2)]))
    assert solution.status is Status.INFEASIBLE
    assert solution.explanation is not None
    assert solution.explanation.limits[0].nearest == least


def test_every_choice_is_explained(hawq: dict[str, Problem]) -> None:
    explanation = explain(hawq["latency-0.50"])
    assert explanation.limits[0].binds
    assert explanation.limits[0].next_limit == Decimal("4.28039517")
    assert len(explanation.options) == 16
    assert all(item.cost is not None and item.cost > 0 for item in explanation.options)


def test_the_benchmark_prints_json(
    hawq: dict[str, Problem], hawq_module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    code = hawq_module.main(["--solvers", "exact,cp-sat", "--repeat", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert report["all_optimal_and_agree"]
    assert set(report["programs"]) == set(OPTIMA)
