# SPDX-License-Identifier: Apache-2.0
"""Infeasible is an answer: a minimal set of limits and the nearest feasible value of each."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from codesign.solvers import Conflict, Limit, Problem, Status, solve
from codesign.solvers.problem_file import problem_from_data

BASE: dict[str, Any] = {
    "format": "codesign-problem/1",
    "choices": {"a": ["low", "high"], "b": ["low", "high"]},
    "metrics": {
        "loss": {"a": {"low": 5, "high": 1}, "b": {"low": 4, "high": 2}},
        "latency": {"a": {"low": 1, "high": 7}, "b": {"low": 2, "high": 3}},
        "size": {"a": {"low": 10, "high": 10}, "b": {"low": 10, "high": 20}},
    },
    "minimize": "latency",
}


def problem(**limits: Any) -> Problem:
    return problem_from_data(BASE | {"limits": limits})


def test_two_limits_that_cannot_both_hold_are_named_with_what_would_do() -> None:
    # loss ≤ 4 takes both high (a alone gives 5): latency 10; latency ≤ 8 leaves a low: loss 7
    solution = solve(problem(loss=4, latency=8, size=100))
    assert solution.status is Status.INFEASIBLE
    assert solution.explanation is not None
    assert solution.explanation.limits == (
        Conflict("loss", "max", 4, Decimal(7)),
        Conflict("latency", "max", 8, Decimal(10)),
    )
    assert solution.explanation.text == (
        "infeasible: these limits cannot all hold: loss <= 4 (feasible from 7, the others kept); "
        "latency <= 8 (feasible from 10, the others kept)"
    )


def test_a_limit_no_choice_can_meet_stands_alone() -> None:
    solution = solve(problem(loss=2, size=100))
    assert solution.explanation is not None
    assert solution.explanation.text == (
        "infeasible: this limit cannot hold: loss <= 2 (feasible from 3, the others kept)"
    )
    assert '"nearest": 3' in solution.to_json()


def test_a_lower_limit_is_relaxed_downwards() -> None:
    solution = solve(problem(size={"min": 45}))
    assert solution.explanation is not None
    assert solution.explanation.limits == (Conflict("size", "min", 45, Decimal(30)),)


def test_where_two_conflicts_overlap_relaxing_one_alone_is_not_enough() -> None:
    solution = solve(problem(loss=2, size=19))
    assert solution.explanation is not None
    (conflict,) = solution.explanation.limits
    assert conflict.nearest is None
    assert "(relaxing it alone is not enough)" in solution.explanation.text


@pytest.mark.parametrize("seed", range(120))
def test_explanations_hold_on_generated_problems(
    generate: Callable[..., Problem], seed: int
) -> None:
    asked = generate(seed)
    solution = solve(asked)
    if solution.status is not Status.INFEASIBLE:
        assert solution.explanation is None
        return
    explanation = solution.explanation
    assert explanation is not None
    assert explanation.complete

    def status(limits: list[Limit]) -> Status:
        return solve(asked.with_limits(limits), "exhaustive", explain=False).status

    named = [Limit(item.metric, item.side, item.limit) for item in explanation.limits]
    assert status(named) is Status.INFEASIBLE
    for limit, item in zip(named, explanation.limits):
        assert status([other for other in named if other is not limit]) is Status.OPTIMAL
        others = [other for other in asked.limits if other != limit]
        if item.nearest is None:
            assert status(others) is Status.INFEASIBLE
            continue
        unit = Decimal(1).scaleb(-asked.metrics[limit.metric].digits)
        nearer = item.nearest - unit if limit.side == "max" else item.nearest + unit
        assert status([*others, Limit(limit.metric, limit.side, item.nearest)]) is Status.OPTIMAL
        assert status([*others, Limit(limit.metric, limit.side, nearer)]) is Status.INFEASIBLE


@pytest.mark.parametrize("solver", ["exact", "cp-sat", "exhaustive", "cbc"])
def test_every_back_end_gives_the_same_explanation(solver: str) -> None:
    asked = problem(loss=4, latency=8, size=100)
    assert solve(asked, solver).explanation == solve(asked).explanation


def test_the_explanation_can_be_left_out() -> None:
    assert solve(problem(loss=2), explain=False).explanation is None
