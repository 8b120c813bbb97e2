# SPDX-License-Identifier: Apache-2.0
"""Explanations and frontiers against brute force."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise, product
from typing import Any

import pytest

from codesign.errors import InputError
from codesign.solvers import Limit, Problem, Status, solve
from codesign.solvers.certify import violations
from codesign.solvers.decimals import dump_json
from codesign.solvers.explain import explain
from codesign.solvers.pareto import ParetoPoint, pareto
from codesign.solvers.problem_file import problem_from_data

DATA: dict[str, Any] = {
    "format": "codesign-problem/1",
    "choices": {"a": ["4", "8"], "b": ["4", "8"], "c": ["4", "8"]},
    "metrics": {
        "loss": {"a": {"4": 9, "8": 1}, "b": {"4": 5, "8": 2}, "c": {"4": 4, "8": 1}},
        "time": {"a": {"4": 2, "8": 6}, "b": {"4": 1, "8": 3}, "c": {"4": 3, "8": 4}},
        "size": {"a": {"4": 1, "8": 2}, "b": {"4": 1, "8": 2}, "c": {"4": 1, "8": 2}},
    },
    "minimize": "time",
    "limits": {"loss": 10, "size": 6},
}


def test_hand_computed_explanation() -> None:
    # loss ≤ 10 takes a at 8 (9 + 5 + 4 too much): {a8,b4,c4}: loss 10, time 10; a4 needs
    # b and c at 8: 12 > 10. Next looser step: {a4,b8,c8} at loss 12, time 9; loss 18: time 6.
    explanation = explain(problem_from_data(DATA))
    assert explanation.objective == 10
    loss, size = explanation.limits
    assert (loss.binds, loss.slack, loss.gain_without) == (True, Decimal(0), Decimal(4))
    assert loss.gain_of_unit == 0
    assert (loss.next_limit, loss.gain_at_next) == (Decimal(12), Decimal(1))
    assert (size.binds, size.slack, size.gain_of_unit) == (False, Decimal(2), Decimal(0))
    assert loss.text == (
        "loss <= 10 (total 10): binds; 1 more is worth 0; the next step is 12, worth 1"
    )
    assert size.text == "size <= 6 (total 4): does not bind"
    assert [item.text for item in explanation.options] == [
        "a: 8; no other option is feasible",
        "b: 4; next best 8, 2 worse",
        "c: 4; next best 8, 1 worse",
    ]
    assert '"gain_at_next": 1' in dump_json(explanation.to_data())


def test_a_unit_of_ones_own_size() -> None:
    explanation = explain(problem_from_data(DATA), units={"loss": 2}, groups=["b"])
    assert explanation.limits[0].gain_of_unit == 1
    assert len(explanation.options) == 1
    with pytest.raises(InputError, match=r"units\.loss: expected a number above 0"):
        explain(problem_from_data(DATA), units={"loss": 0})
    with pytest.raises(InputError, match="unknown group 'd'"):
        explain(problem_from_data(DATA), groups=["d"])


def test_nothing_to_explain_in_an_infeasible_problem() -> None:
    problem = problem_from_data(DATA | {"limits": {"loss": 3}})
    with pytest.raises(InputError, match="nothing to explain: the problem's status is infeasible"):
        explain(problem)


@pytest.mark.parametrize("seed", range(25))
def test_explanations_agree_with_the_oracle(generate: Callable[..., Problem], seed: int) -> None:
    problem = generate(seed, 30)
    if solve(problem, explain=False).status is not Status.OPTIMAL:
        return
    ours, truth = explain(problem), explain(problem, "exhaustive")
    assert ours.objective == truth.objective
    for mine, theirs in zip(ours.limits, truth.limits):
        assert (mine.binds, mine.gain_without) == (theirs.binds, theirs.gain_without)
        assert (mine.gain_of_unit, mine.next_limit) == (theirs.gain_of_unit, theirs.next_limit)
        assert mine.gain_at_next == theirs.gain_at_next
    assert len(ours.options) == len(truth.options)
    for report in ours.options:
        group = problem.groups.index(report.groups[0])
        chosen = problem.options[group].index(report.option)
        other = solve(problem.with_forbid((group, chosen)), "exhaustive", explain=False)
        if report.next_option is None:
            assert other.status is Status.INFEASIBLE
        else:
            assert other.objective is not None
            assert report.cost == abs(other.objective - ours.objective)


def brute_frontier(
    problem: Problem, names: tuple[str, str], up: tuple[bool, bool]
) -> set[tuple[Decimal, Decimal]]:
    points = set()
    archs: list[int | None] = list(range(len(problem.architectures))) or [None]
    for arch in archs:
        for choice in product(*(range(len(options)) for options in problem.options)):
            if not violations(problem, choice, arch):
                totals = [
                    problem.metrics[name].decimal(
                        problem.total(problem.metrics[name], choice, arch)
                    )
                    for name in names
                ]
                points.add((totals[0], totals[1]))
    sign = [-1 if flag else 1 for flag in up]

    def dominated(p: tuple[Decimal, Decimal]) -> bool:
        return any(
            q != p and all(s * a <= s * b for s, a, b in zip(sign, q, p)) for q in points
        )

    return {point for point in points if not dominated(point)}


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("up", [(False, False), (True, False), (False, True)])
def test_the_frontier_is_exactly_the_undominated_points(
    generate: Callable[..., Problem], seed: int, up: tuple[bool, bool]
) -> None:
    problem = generate(seed, 30)
    if len(problem.metrics) < 2:
        return
    first, second = list(problem.metrics)[:2]
    names = [name for name, flag in zip((first, second), up) if flag]
    frontier = pareto(problem, first, second, maximize=names)
    assert frontier.complete
    found = [(point.first, point.second) for point in frontier.points]
    assert len(set(found)) == len(found)
    assert set(found) == brute_frontier(problem, (first, second), up)
    for point in frontier.points:
        assert point.certificate.status is point.solution.status is Status.OPTIMAL


def test_slices_in_parallel_and_resumption_give_the_same_frontier() -> None:
    problem = problem_from_data(DATA | {"limits": {}})
    whole: list[ParetoPoint] = []
    frontier = pareto(problem, "time", "loss", on_point=whole.append)
    assert [(int(p.first), int(p.second)) for p in frontier.points] == [
        (6, 18), (7, 15), (9, 12), (10, 10), (11, 7), (13, 4)
    ]  # fmt: skip
    assert tuple(whole) == frontier.points
    sliced = pareto(problem, "time", "loss", jobs=2)
    assert [p.first for p in sliced.points] == [p.first for p in frontier.points]
    again: list[ParetoPoint] = []
    resumed = pareto(problem, "time", "loss", known=whole[:2], on_point=again.append)
    assert [p.first for p in resumed.points] == [p.first for p in frontier.points]
    assert len(again) == len(whole) - 2


def test_a_step_thins_the_frontier() -> None:
    problem = problem_from_data(DATA | {"limits": {}})
    full = pareto(problem, "time", "loss")
    thin = pareto(problem, "time", "loss", step=5)
    assert 1 < len(thin.points) < len(full.points)
    losses = [point.second for point in thin.points]
    assert all(a - b >= 5 for a, b in pairwise(losses))


def test_a_frontier_cut_short_by_time_says_so() -> None:
    problem = problem_from_data(DATA)
    frontier = pareto(problem, "time", "loss", time_limit=1e-6)
    assert not frontier.complete
    with pytest.raises(InputError, match="the two metrics are the same"):
        pareto(problem, "time", "time")


def test_an_infeasible_problem_has_an_empty_frontier() -> None:
    frontier = pareto(
        problem_from_data(DATA).with_limits([Limit("loss", "max", 1)]), "time", "size"
    )
    assert (frontier.points, frontier.complete) == ((), True)
