# SPDX-License-Identifier: Apache-2.0
"""Changes to a problem whose effect on the optimum is known."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.solvers import Limit, Problem, Solution, Status, solve
from codesign.solvers.problem_file import problem_from_data

SEEDS = range(60)


def answer(problem: Problem) -> Solution:
    return solve(problem, "exact", explain=False)


def objective(data: dict[str, Any]) -> tuple[Status, Decimal | None]:
    solution = answer(problem_from_data(data))
    return solution.status, solution.objective


def scaled(value: Any, factor: int) -> Any:
    if isinstance(value, dict):
        return {key: scaled(inner, factor) for key, inner in value.items()}
    return value * factor


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxing_a_limit_never_worsens_the_optimum(
    generate: Callable[..., Problem], seed: int
) -> None:
    problem = generate(seed, 1000)
    before = answer(problem)
    for limit in problem.limits:
        rest = [other for other in problem.limits if other is not limit]
        away = 7 if limit.side == "max" else -7
        for limits in (rest, [*rest, Limit(limit.metric, limit.side, limit.value + away)]):
            after = answer(problem.with_limits(limits))
            if before.status is Status.OPTIMAL:
                assert after.status is Status.OPTIMAL
                assert after.objective is not None
                assert before.objective is not None
                worse = after.objective - before.objective
                assert worse >= 0 if problem.maximize else worse <= 0


@pytest.mark.parametrize("seed", SEEDS)
def test_scaling_all_numbers_scales_the_optimum(
    generate_data: Callable[..., dict[str, Any]], seed: int
) -> None:
    data = generate_data(seed, 1000)
    status, value = objective(data)
    larger = copy.deepcopy(data)
    for part in ("metrics", "limits"):
        larger[part] = scaled(larger[part], 1_000_003)
    assert objective(larger) == (status, None if value is None else value * 1_000_003)


@pytest.mark.parametrize("seed", SEEDS)
def test_permuting_groups_options_and_architectures_changes_nothing(
    generate_data: Callable[..., dict[str, Any]], seed: int
) -> None:
    data = generate_data(seed)
    rng = random.Random(seed)
    moved = dict(data)
    groups = list(data["choices"])
    rng.shuffle(groups)
    moved["choices"] = {g: rng.sample(data["choices"][g], len(data["choices"][g])) for g in groups}
    if "architectures" in data:
        moved["architectures"] = rng.sample(data["architectures"], len(data["architectures"]))
    moved["forbid"] = rng.sample(data["forbid"], len(data["forbid"]))
    assert objective(moved) == objective(data)


@pytest.mark.parametrize("seed", SEEDS)
def test_negating_the_objective_swaps_minimise_and_maximise(
    generate_data: Callable[..., dict[str, Any]], seed: int
) -> None:
    data = generate_data(seed)
    side = "minimize" if "minimize" in data else "maximize"
    name = data[side]
    other = {key: value for key, value in data.items() if key not in (side, "limits")}
    other["metrics"] = data["metrics"] | {"negated": scaled(data["metrics"][name], -1)}
    plain = {key: value for key, value in data.items() if key != "limits"}
    other["maximize" if side == "minimize" else "minimize"] = "negated"
    status, value = objective(plain)
    assert objective(other) == (status, None if value is None else -value)


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(
        st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=4),
        min_size=1,
        max_size=5,
    ),
    limit=st.integers(0, 200),
)
def test_any_small_knapsack_agrees_with_the_oracle(
    costs: list[list[tuple[int, int]]], limit: int
) -> None:
    names = [[f"o{j}" for j in range(len(group))] for group in costs]
    table = {
        kind: {
            f"g{i}": {names[i][j]: pair[place] for j, pair in enumerate(group)}
            for i, group in enumerate(costs)
        }
        for place, kind in enumerate(("cost", "weight"))
    }
    problem = problem_from_data(
        {
            "format": "codesign-problem/1",
            "choices": {f"g{i}": options for i, options in enumerate(names)},
            "metrics": table,
            "minimize": "cost",
            "limits": {"weight": limit},
        }
    )
    ours, truth = (solve(problem, name, explain=False) for name in ("exact", "exhaustive"))
    assert (ours.status, ours.objective) == (truth.status, truth.objective)
