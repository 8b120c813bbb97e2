# SPDX-License-Identifier: Apache-2.0
"""Baselines give checked answers that are never better than the exact optimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import pairwise, product

import pytest

from codesign.errors import InputError, SolverError, ToolNotFoundError
from codesign.solvers import Problem, Solution, Status, solve
from codesign.solvers.baselines import BASELINES, Baseline, run
from codesign.solvers.baselines.base import Recorder
from codesign.solvers.baselines.nsga2 import Nsga2
from codesign.solvers.baselines.space import Space
from codesign.solvers.certify import check_solution, positions, violations
from codesign.solvers.problem_file import problem_from_data

NAMES = sorted(BASELINES)


def budget(name: str) -> int:
    """Choices to price; each round of the predictor is a whole search."""
    return 64 if name == "nsga2-predicted" else 600


def no_worse(problem: Problem, optimum: Decimal, found: Decimal) -> bool:
    return found <= optimum if problem.maximize else found >= optimum


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_feasible_and_never_beat_the_optimum(
    generate: Callable[..., Problem], name: str
) -> None:
    best = found = feasible = 0
    for seed in range(6 if name.startswith("nsga2") else 30):  # pymoo is slow on tiny spaces
        problem = generate(seed)
        exact = solve(problem, explain=False)
        answer = run(problem, name, seed=seed, evaluations=min(300, budget(name)))
        solution = answer.solution
        if exact.status is Status.INFEASIBLE:
            assert solution.status is Status.UNKNOWN
            assert solution.choices is None
            continue
        assert exact.objective is not None
        feasible += 1
        if solution.status is Status.UNKNOWN:
            continue
        assert solution.status is Status.FEASIBLE
        assert solution.bound is None
        assert solution.gap is None
        assert solution.choices is not None
        assert solution.objective is not None
        assert check_solution(problem, solution) == []
        choice = positions(problem, solution.choices, solution.architecture)
        assert violations(problem, *choice) == []
        assert no_worse(problem, exact.objective, solution.objective)
        found += 1
        best += solution.objective == exact.objective
    # these problems are small: a search that works finds nearly every answer
    assert feasible >= 4
    assert 4 * found >= 3 * feasible
    assert 2 * best >= feasible


@pytest.mark.parametrize("name", NAMES)
def test_the_best_so_far_only_improves_and_ends_at_the_answer(
    hawq: dict[str, Problem], name: str
) -> None:
    problem = hawq["size-0.50"]
    answer = run(problem, name, seed=3, evaluations=budget(name))
    assert answer.trace
    for before, after in pairwise(answer.trace):
        assert after.objective < before.objective
        assert after.seconds >= before.seconds
        assert after.evaluations >= before.evaluations
    assert answer.trace[-1].objective == answer.solution.objective
    assert answer.seed == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_answer(hawq: dict[str, Problem], name: str) -> None:
    problem = hawq["bops-0.50"]
    runs = [run(problem, name, seed=5, evaluations=budget(name)) for _ in range(2)]
    assert runs[0].solution.choices == runs[1].solution.choices
    steps = [[(i.evaluations, i.objective) for i in r.trace] for r in runs]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_with_one_choice_has_that_answer(name: str) -> None:
    data = {
        "format": "codesign-problem/1",
        "choices": {"a": ["w8a8"], "b": ["w8a8"]},
        "metrics": {"loss": {"a": {"w8a8": 1}, "b": {"w8a8": 2}}},
        "minimize": "loss",
    }
    answer = run(problem_from_data(data), name, evaluations=40)
    assert answer.solution.choices == {"a": "w8a8", "b": "w8a8"}
    assert answer.solution.objective == 3


def test_time_alone_ends_a_search(hawq: dict[str, Problem]) -> None:
    answer = run(hawq["size-0.25"], "random", 0.05)
    assert answer.evaluations > 0
    assert answer.solution.status is Status.FEASIBLE


DATA = {
    "format": "codesign-problem/1",
    "choices": {f"l{i}": ["w8a8", "w4a8", "w4a4"] for i in range(6)},
    "metrics": {"size": {f"l{i}": {"w8a8": 8 + i, "w4a8": 4 + i, "w4a4": 3 + i} for i in range(6)}},
    "minimize": "size",
    "limits": {"size": 50},
}


def not_additive(choices: Mapping[str, str], architecture: str | None) -> float:
    """Neighbours of different formats hurt: no sum over layers says so."""
    names = list(choices.values())
    harm = {"w8a8": 0.0, "w4a8": 1.0, "w4a4": 4.0}
    return sum(harm[n] for n in names) + 3.0 * sum(a != b for a, b in pairwise(names))


def test_a_metric_that_is_not_additive_is_learnt_from_measurements() -> None:
    problem = problem_from_data(DATA)
    asked: list[tuple[str, ...]] = []

    def measure(choices: Mapping[str, str], architecture: str | None) -> float:
        asked.append(tuple(choices.values()))
        return not_additive(choices, architecture)

    answer = run(problem, "nsga2-predicted", evaluations=112, seed=1, measure=measure)
    assert len(set(asked)) == len(asked)
    values = []
    for names in product(*DATA["choices"].values()):  # type: ignore[attr-defined]
        choices = dict(zip(problem.groups, names))
        choice, _ = positions(problem, choices, None)
        if not violations(problem, choice, None):
            values.append(not_additive(choices, None))
    assert answer.measured == min(values)
    assert answer.measured == answer.trace[-1].measured
    assert answer.solution.choices is not None
    assert answer.measured == not_additive(answer.solution.choices, None)
    assert len(asked) < len(values)


@pytest.mark.parametrize("name", ["mnasnet", "nsga2", "random"])
def test_a_metric_that_is_not_additive_is_measured_for_each_choice(name: str) -> None:
    problem = problem_from_data(DATA)
    asked: list[tuple[str, ...]] = []

    def measure(choices: Mapping[str, str], architecture: str | None) -> float:
        asked.append(tuple(choices.values()))
        return not_additive(choices, architecture)

    answer = run(problem, name, evaluations=300, seed=1, measure=measure)
    assert len(set(asked)) == len(asked)
    assert answer.solution.choices is not None
    choice, _ = positions(problem, answer.solution.choices, None)
    assert not violations(problem, choice, None)
    assert answer.measured == not_additive(answer.solution.choices, None)
    assert answer.measured <= 8  # a dozen of 729 choices are as good


def test_bad_requests_are_told() -> None:
    problem = problem_from_data(DATA)
    with pytest.raises(InputError) as error:
        run(problem, "random")
    assert str(error.value) == "a baseline needs an end: give time_limit= or evaluations="
    with pytest.raises(InputError) as error:
        run(problem, "random", 0)
    assert str(error.value) == "time limit 0: expected a number of seconds above 0"
    with pytest.raises(InputError) as error:
        run(problem, "random", evaluations=0)
    assert str(error.value) == "evaluations 0: expected at least 1"
    with pytest.raises(InputError) as error:
        run(problem, "random", 1, seed=-1)
    assert str(error.value) == "seed -1: expected a whole number of at least 0"
    with pytest.raises(InputError) as error:
        run(problem, "randon", 1)
    assert str(error.value) == (
        "unknown baseline 'randon'; did you mean 'random'? (known: annealing, greedy, mnasnet, "
        "nsga2, nsga2-predicted, random)"
    )
    with pytest.raises(InputError) as error:
        run(problem, "greedy", 1, measure=not_additive)
    assert str(error.value) == (
        "baseline 'greedy' takes additive metrics only; measure= needs mnasnet or nsga2 or "
        "nsga2-predicted or random"
    )


def test_a_missing_library_is_named_with_the_way_to_get_it() -> None:
    class Lacking(Nsga2):
        modules = ("pymoo", "no_such_library")

    with pytest.raises(ToolNotFoundError) as error:
        run(problem_from_data(DATA), Lacking(), 1)
    assert str(error.value) == (
        "baseline 'nsga2' cannot run: not installed: no_such_library; "
        "pip install 'codesign[baselines]'"
    )


def test_a_baseline_that_breaks_a_limit_cannot_pass_its_answer_on() -> None:
    class Cheat(Baseline):
        name = "cheat"
        summary = "says that a choice is feasible that is not"

        def search(self, space: Space, record: Recorder, rng: object) -> None:
            assert not record.offer(0, space.starts)  # all w8a8: 63 > 50
            record.best = ((0,) * 6, None)

    with pytest.raises(SolverError) as error:
        run(problem_from_data(DATA), Cheat(), 1)
    assert str(error.value) == "defect in baseline 'cheat': limit size <= 50: the total is 63"


def test_no_baseline_is_a_solver() -> None:
    from codesign.solvers import registry

    assert not set(registry) & set(BASELINES)
    assert all(issubclass(BASELINES.load(name), Baseline) for name in BASELINES)
    assert all(BASELINES.load(name).name == name for name in BASELINES)


def test_an_answer_is_a_solution_file(hawq: dict[str, Problem]) -> None:
    from codesign.solvers import parse_solution

    solution: Solution = run(hawq["size-0.50"], "greedy", evaluations=600).solution
    again = parse_solution(solution.to_json())
    assert again.choices == solution.choices
    assert again.objective == solution.objective
    assert again.bound is None
