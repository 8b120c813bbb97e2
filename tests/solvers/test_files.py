# SPDX-License-Identifier: Apache-2.0
"""Problem and solution files: exact numbers, round trips, the three metric shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.solvers import (
    Problem,
    Shape,
    Status,
    load_problem,
    load_solution,
    parse_problem,
    parse_solution,
    problem_to_json,
    solve,
)
from codesign.solvers.certify import check_solution
from codesign.solvers.decimals import (
    add,
    dump_json,
    places,
    plain,
    scale_down,
    scale_up,
    to_decimal,
)


def test_the_shape_of_a_metric_is_told_from_its_keys() -> None:
    problem = parse_problem(
        """{"format": "codesign-problem/1", "choices": {"a": ["x", "y"]},
        "architectures": ["a", "b"],
        "metrics": {"of_choice": {"a": {"x": 1, "y": 2}},
                    "of_both": {"a": {"a": {"x": 1, "y": 2}}, "b": {"a": {"x": 1, "y": 2}}},
                    "of_arch": {"a": 1, "b": 2}},
        "minimize": "of_both"}"""
    )
    assert {name: metric.shape for name, metric in problem.metrics.items()} == {
        "of_choice": Shape.CHOICE,
        "of_both": Shape.JOINT,
        "of_arch": Shape.ARCHITECTURE,
    }


def test_numbers_are_taken_exactly() -> None:
    problem = parse_problem(
        """{"format": "codesign-problem/1", "choices": {"a": ["x", "y"]},
        "metrics": {"m": {"a": {"x": 0.1000, "y": 2.5e-3}}}, "minimize": "m"}"""
    )
    metric = problem.metrics["m"]
    assert (metric.digits, metric.values.tolist()) == (4, [1000, 25])


@pytest.mark.parametrize("seed", range(40))
def test_a_problem_survives_its_file(
    generate: Callable[..., Problem], seed: int, tmp_path: Path
) -> None:
    problem = generate(seed)
    text = problem_to_json(problem)
    path = tmp_path / "problem.json"
    path.write_text(text)
    again = load_problem(path)
    assert problem_to_json(again) == text
    assert (again.ties, again.forbid, again.objective) == (
        problem.ties,
        problem.forbid,
        problem.objective,
    )
    json.loads(text)  # plain JSON


@pytest.mark.parametrize("seed", range(40))
def test_a_solution_survives_its_file(
    generate: Callable[..., Problem], seed: int, tmp_path: Path
) -> None:
    problem = generate(seed)
    solution = solve(problem)
    path = tmp_path / "solution.json"
    path.write_text(solution.to_json())
    again = load_solution(path)
    assert again.to_data() == solution.to_data()
    assert check_solution(problem, again) == []
    keys = list(json.loads(solution.to_json()))
    wanted = "status objective bound gap architecture choices totals solver seconds"
    assert [key for key in keys if key in wanted.split()] == wanted.split()


def test_a_tampered_solution_is_found_out(generate: Callable[..., Problem]) -> None:
    problem = generate(2)
    solution = solve(problem)
    assert solution.status is Status.OPTIMAL
    data = solution.to_data()
    data["objective"] = Decimal(10**9)
    assert check_solution(problem, parse_solution(dump_json(data)))[0].startswith("objective: ")
    data["choices"] = dict.fromkeys(problem.groups, "nothing")
    assert "has no option 'nothing'" in check_solution(problem, parse_solution(dump_json(data)))[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", 's.json: no "format"; expected "format": "codesign-solution/1" at the top'),
        (
            '{"format": "codesign-solution/1", "status": "optimum", "solver": "x", "seconds": 1}',
            "s.json: status: unknown status 'optimum'; did you mean 'optimal'? "
            "(known: 'optimal', 'feasible', 'infeasible', 'unknown')",
        ),
        ('{"format": "codesign-solution/1", "solver": "x", "seconds": 1}', "s.json: no 'status'"),
    ],
)
def test_bad_solution_files_have_their_messages(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_solution(text, "s.json")
    assert str(caught.value) == message


DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)


@given(DECIMALS, st.integers(0, 40))
def test_scaling_is_exact(value: Decimal, more: int) -> None:
    digits = places(value)
    scaled = scale_down(value, digits + more)
    assert scaled == scale_up(value, digits + more)
    assert to_decimal(scaled, digits + more) == value
    assert Decimal(plain(value)) == value
    if digits:
        assert scale_up(value, digits - 1) == scale_down(value, digits - 1) + 1


@given(DECIMALS, DECIMALS)
def test_sums_are_exact(a: Decimal, b: Decimal) -> None:
    assert add(add(a, b), b.copy_negate()) == a


def test_json_output_has_no_exponents_and_refuses_nan() -> None:
    assert dump_json({"a": Decimal("1E+3"), "b": [Decimal("0.10"), None, True]}) == (
        '{\n  "a": 1000,\n  "b": [0.1, null, true]\n}'
    )
    with pytest.raises(TypeError, match="NaN has no JSON form"):
        dump_json([Decimal("NaN")])
