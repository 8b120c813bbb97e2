# SPDX-License-Identifier: Apache-2.0
"""Small problems whose answers were worked out by hand, on every back end."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from codesign.solvers import Solution, Status, registry, solve
from codesign.solvers.problem_file import parse_problem, problem_from_data

SOLVERS = ("auto", *registry)

DESIGN = """
{"format": "codesign-problem/1", "name": "design",
 "choices":       {"conv1": ["w4a4", "w8a8"], "conv2": ["w4a4", "w8a8"]},
 "architectures": ["pe64", "pe128"],
 "metrics": {
   "loss":    {"conv1": {"w4a4": 0.12, "w8a8": 0.003}, "conv2": {"w4a4": 0.30, "w8a8": 0.05}},
   "latency": {"pe64":  {"conv1": {"w4a4": 10, "w8a8": 20}, "conv2": {"w4a4": 5.5, "w8a8": 9}},
               "pe128": {"conv1": {"w4a4": 5, "w8a8": 10},  "conv2": {"w4a4": 3, "w8a8": 4.5}}},
   "dsp":     {"pe64": 64, "pe128": 128}},
 "minimize": "latency",
 "limits":  {"loss": 0.5, "dsp": 100}%s}
"""


def run(solver: str, data: str | dict[str, Any]) -> Solution:
    problem = parse_problem(data) if isinstance(data, str) else problem_from_data(data)
    if solver != "auto":
        found = registry.load(solver).availability()
        if not found:
            pytest.skip(f"{solver}: {found.why}")
    return solve(problem, solver)


@pytest.mark.parametrize("solver", SOLVERS)
class TestHandComputedAnchors:
    def test_the_small_accelerator_is_the_only_one_within_the_dsp_limit(self, solver: str) -> None:
        # loss 0.12 + 0.30 = 0.42 ≤ 0.5, so both layers take 4 bits: 10 + 5.5
        solution = run(solver, DESIGN % "")
        assert solution.status is Status.OPTIMAL
        assert solution.objective == solution.bound == Decimal("15.5")
        assert solution.gap == 0.0
        assert solution.architecture == "pe64"
        assert solution.choices == {"conv1": "w4a4", "conv2": "w4a4"}
        assert solution.totals == {
            "loss": Decimal("0.42"),
            "latency": Decimal("15.5"),
            "dsp": Decimal(64),
        }
        assert solution.architectures_solved + solution.architectures_pruned == 2

    def test_a_tie_costs_what_the_second_layer_must_give_up(self, solver: str) -> None:
        # loss ≤ 0.2: untied best is conv1 4 bits, conv2 8 bits (0.17; 10 + 9); tied both take 8
        tight = DESIGN.replace('"loss": 0.5', '"loss": 0.2')
        assert run(solver, tight % "").objective == Decimal(19)
        tied = run(solver, tight % ', "ties": [["conv1", "conv2"]]')
        assert tied.objective == Decimal(29)
        assert tied.choices == {"conv1": "w8a8", "conv2": "w8a8"}

    def test_a_forbidden_pair_is_avoided_at_least_cost(self, solver: str) -> None:
        # not both 4 bits: cheapest change is conv2 (+3.5)
        clause = ', "forbid": [[["conv1", "w4a4"], ["conv2", "w4a4"]]]'
        assert run(solver, DESIGN % clause).objective == Decimal(19)

    def test_a_forbidden_architecture_leaves_the_other(self, solver: str) -> None:
        wide = DESIGN.replace('"dsp": 100', '"dsp": 200')
        assert run(solver, wide % "").objective == Decimal(8)
        solution = run(solver, wide % ', "forbid": [[["architecture", "pe128"]]]')
        assert (solution.architecture, solution.objective) == ("pe64", Decimal("15.5"))

    def test_maximise_with_a_lower_limit(self, solver: str) -> None:
        # a+b ≥ 5 and weight ≤ 6: {a2,b3}: 7 weight 6; {a4,b1}: weight 5, value 9; {a4,b3}: 8
        data = {
            "format": "codesign-problem/1",
            "choices": {"a": ["2", "4"], "b": ["1", "3"]},
            "metrics": {
                "value": {"a": {"2": 3, "4": 8}, "b": {"1": 1, "3": 4}},
                "weight": {"a": {"2": 2, "4": 4}, "b": {"1": 1, "3": 4}},
            },
            "maximize": "value",
            "limits": {"weight": {"min": 5, "max": 6}},
        }
        solution = run(solver, data)
        assert solution.choices == {"a": "4", "b": "1"}
        assert solution.objective == solution.bound == Decimal(9)

    def test_no_choice_under_contradicting_forbids(self, solver: str) -> None:
        clauses = [[["a", "x"]], [["a", "y"]]]
        data = {
            "format": "codesign-problem/1",
            "choices": {"a": ["x", "y"]},
            "metrics": {"cost": {"a": {"x": 1, "y": 2}}},
            "minimize": "cost",
            "forbid": clauses,
        }
        solution = run(solver, data)
        assert solution.status is Status.INFEASIBLE
        assert solution.explanation is not None
        assert solution.explanation.text == (
            "infeasible: ties and forbids leave no choice, whatever the limits"
        )
        assert (solution.objective, solution.choices, solution.gap) == (None, None, None)

    def test_decimals_that_doubles_cannot_hold_decide_the_optimum(self, solver: str) -> None:
        # 0.1 + 0.2 ≤ 0.3 holds in decimals, not in doubles
        data = parse_problem(
            """{"format": "codesign-problem/1",
                "choices": {"a": ["x", "y"], "b": ["x", "y"]},
                "metrics": {"loss": {"a": {"x": 0.1, "y": 0}, "b": {"x": 0.2, "y": 0}},
                            "cost": {"a": {"x": 1, "y": 5}, "b": {"x": 1, "y": 5}}},
                "minimize": "cost", "limits": {"loss": 0.3}}"""
        )
        found = None if solver == "auto" else registry.load(solver).availability()
        if found is not None and not found:
            pytest.skip(f"{solver}: {found.why}")
        assert solve(data, solver).objective == 2


def test_numbers_beyond_64_bits_stay_exact() -> None:
    data = """{"format": "codesign-problem/1", "choices": {"a": ["x", "y"], "b": ["x", "y"]},
      "metrics": {"m": {"a": {"x": 100000000000000000000000000000001.5, "y": 7e31},
                        "b": {"x": 0.000000000000000000000000000001, "y": 1}}},
      "minimize": "m", "limits": {"m": {"min": 80000000000000000000000000000000}}}"""
    for solver in ("exact", "cp-sat", "exhaustive"):
        solution = solve(parse_problem(data), solver)
        assert solution.objective == Decimal(
            "100000000000000000000000000000001.500000000000000000000000000001"
        )
        assert '"objective": 100000000000000000000000000000001.5000000000' in solution.to_json()
