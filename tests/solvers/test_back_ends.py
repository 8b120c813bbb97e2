# SPDX-License-Identifier: Apache-2.0
"""What back ends declare, how they are found, and that a wrong one is caught."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from codesign.errors import InputError, SolverError, ToolNotFoundError
from codesign.solvers import Metric, Problem, Proof, Status, registry, solve
from codesign.solvers.base import CapabilityError, Feature, Result, Solver
from codesign.solvers.exact import Exact
from codesign.solvers.exhaustive import Exhaustive
from codesign.solvers.formulate import lower
from codesign.solvers.problem_file import problem_from_data

DATA: dict[str, Any] = {
    "format": "codesign-problem/1",
    "choices": {"a": ["4", "8"], "b": ["4", "8"]},
    "metrics": {
        "loss": {"a": {"4": 9, "8": 1}, "b": {"4": 5, "8": 2}},
        "time": {"a": {"4": 2, "8": 6}, "b": {"4": 1, "8": 3}},
    },
    "minimize": "time",
    "limits": {"loss": 10},
    "ties": [["a", "b"]],
}


def test_the_registry_loads_every_back_end() -> None:
    assert list(registry) == ["cbc", "cp-sat", "exact", "exhaustive", "highs"]
    for name in registry:
        found = registry.load(name)
        assert issubclass(found, Solver)
        assert found.name == name
        assert found.summary
        availability = found.availability()
        assert bool(availability) is found.is_available()
        assert availability.ok or availability.why


def test_proofs_match_the_declared_features() -> None:
    problem = problem_from_data(DATA)
    for name in registry:
        if registry.load(name).is_available():
            exact = Feature.INTEGER_PROOF in registry.load(name).features
            assert solve(problem, name).proof is (Proof.INTEGER if exact else Proof.FLOAT)


def test_asking_for_availability_imports_nothing() -> None:
    code = (
        "import sys\n"
        "from codesign.solvers import registry\n"
        "print([bool(registry.load(n).availability()) for n in registry])\n"
        "assert not {'ortools', 'pulp', 'highspy'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_missing_library_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolNotFoundError) as caught:
        solve(problem_from_data(DATA), "cp-sat")
    assert str(caught.value) == (
        "solver 'cp-sat' cannot run: not installed: ortools; pip install ortools"
    )
    assert caught.value.exit_code == 4
    assert solve(problem_from_data(DATA)).objective == 9  # exact needs none of them


def test_a_solver_can_be_passed_as_an_object() -> None:
    assert solve(problem_from_data(DATA), Exhaustive()).objective == 9


class Broken(Solver):
    """Changes the right answer by a function."""

    name = "broken"
    summary = "for tests"

    def __init__(self, change: Callable[[Result], Result]) -> None:
        self.change = change

    def solve(self, problem: Problem, time_limit: float | None = None) -> Result:
        return self.change(replace(Exact().solve(problem, time_limit), solver=self.name))


WRONG: list[tuple[Callable[[Result], Result], str]] = [
    (
        lambda r: replace(r, choice=(0, 0), objective=3, bound=3),
        "defect in solver 'broken': the answer breaks limit loss <= 10: the total is 14",
    ),
    (
        lambda r: replace(r, choice=(1, 0), objective=7, bound=7),
        "defect in solver 'broken': the answer breaks tie of 'a', 'b': picked '4', '8'",
    ),
    (
        lambda r: replace(r, objective=8, bound=8),
        "defect in solver 'broken': it claims an objective of 8 units, the choice has 9",
    ),
    (lambda r: replace(r, bound=8), "defect in solver 'broken': bound 8 contradicts objective 9"),
    (
        lambda r: replace(r, bound=10, status=Status.FEASIBLE),
        "defect in solver 'broken': bound 10 contradicts objective 9",
    ),
    (
        lambda r: replace(r, choice=None),
        "defect in solver 'broken': status optimal without a choice, objective or bound",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[m[28:60] for _, m in WRONG])
def test_a_wrong_answer_never_gets_through(
    change: Callable[[Result], Result], message: str
) -> None:
    with pytest.raises(SolverError) as caught:
        solve(problem_from_data(DATA), Broken(change))
    assert str(caught.value) == message
    assert caught.value.exit_code == 1


def large(groups: int, archs: int) -> Problem:
    return Problem.build(
        choices={f"g{g}": ["a", "b"] for g in range(groups)},
        architectures=[f"h{a}" for a in range(archs)],
        metrics=[
            Metric.joint("t", [[a + 1, a + 2] * groups for a in range(archs)]),
            Metric.choice("loss", [0, 1] * groups),
        ],
        minimize="t",
        limits={"loss": {"min": 3}},
    )


def test_what_a_back_end_cannot_take_is_bad_input_with_a_way_out() -> None:
    with pytest.raises(CapabilityError) as caught:
        solve(large(40, 2), "exhaustive")
    assert str(caught.value) == (
        "exhaustive search would test 1099511627776 combinations, more than 4000000; "
        "use the solver 'exact'"
    )
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 2
    problem = large(60, 5000)
    with pytest.raises(CapabilityError, match="would need 605120 variables, more than 500000"):
        solve(problem, "cp-sat")
    solution = solve(problem)
    assert solution.objective == 63
    assert solution.architecture == "h0"
    assert solution.architectures_solved + solution.architectures_pruned == 5000


def test_the_integer_model_is_readable() -> None:
    untied = DATA | {"ties": [], "forbid": [[["a", "8"], ["b", "8"]]]}
    model = lower(problem_from_data(untied)).model
    assert model is not None
    assert model.to_text() == (
        "minimize 2 x[a.4] + 6 x[a.8] + x[b.4] + 3 x[b.8]\n"
        "subject to\n"
        "  pick[0]: x[a.4] + x[a.8] = 1\n"
        "  pick[1]: x[b.4] + x[b.8] = 1\n"
        "  limit[loss.max]: 9 x[a.4] + x[a.8] + 5 x[b.4] + 2 x[b.8] <= 10\n"
        "  forbid[0]: x[a.8] + x[b.8] <= 1\n"
        "integers\n"
        "  0 <= x[a.4] <= 1\n"
        "  0 <= x[a.8] <= 1\n"
        "  0 <= x[b.4] <= 1\n"
        "  0 <= x[b.8] <= 1\n"
    )
