# SPDX-License-Identifier: Apache-2.0
"""What limits are worth and why there is no design: every claim against separate solves."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from codesign.errors import InputError
from codesign.flow.joint import JointProblem, explain_design, joint_problem
from codesign.flow.joint import solve as solve_joint
from codesign.flow.joint.problem import PriceStore
from codesign.solvers.solution import Status
from tests.space.conftest import draw_question


def build(seed: int, **changes: Any) -> JointProblem:
    question = draw_question(seed)
    free: dict[str, Any] = {"limits": {}, "ties": (), "forbid": (), "objective": "latency"}
    free["stream"] = False
    arguments = {**question.arguments, **free, **changes}
    return joint_problem(question.workload, "pynq-z2", space=question.options, **arguments)


def best(problem: JointProblem) -> Decimal | None:
    """The optimum of a cold solve."""
    fresh = replace(problem, store=PriceStore())
    return solve_joint(fresh, explain=False, tolerance=0).certificate.objective


@pytest.mark.parametrize("seed", [0, 2, 3, 5, 8])
@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_worth_of_limits_and_formats(seed: int, objective: str) -> None:
    stream = objective == "throughput"
    problem = build(seed, loss_budget=Decimal("0.4"), objective=objective, stream=stream)
    optimum = best(problem)
    if optimum is None:
        with pytest.raises(
            InputError, match=r"^nothing to explain: the problem's status is infeas"
        ):
            explain_design(problem)
        return
    found = explain_design(problem, more={"loss": 25})
    clock = Decimal(problem.device.clock_hz)
    assert found.value == pytest.approx(float(optimum * 1000 / clock))

    def gain(asked: JointProblem) -> float:
        value = best(asked)
        assert value is not None
        return float((optimum - value) * 1000 / clock)

    (limit,) = found.limits
    cap = problem.limits["loss"]
    assert limit.gain_without == pytest.approx(gain(replace(problem, limits={})))
    assert limit.gain_without is not None
    assert limit.binds == (limit.gain_without > 0)
    if limit.binds:
        assert limit.more == 0.25
        assert limit.gain_of_more == pytest.approx(
            gain(replace(problem, limits={"loss": cap + 25}))
        )
        assert limit.next_limit is not None
        at = round(limit.next_limit * 100)
        assert limit.gain_at_next == pytest.approx(gain(replace(problem, limits={"loss": at})))
        assert limit.gain_at_next is not None
        assert limit.gain_at_next > 0
        assert gain(replace(problem, limits={"loss": at - 1})) == 0
        assert "; binds; " not in limit.text
        assert ": binds; 0.25 more is worth " in limit.text
    names = [layer.name for layer in problem.tables.workload.layers]
    assert [item.layer for item in found.layers] == names
    for place, item in enumerate(found.layers):
        value = best(problem.without(place, item.format))
        if value is None:
            assert item.cost is None
            assert item.text == f"{item.layer}: {item.format}; no other format is feasible"
        else:
            assert item.cost == pytest.approx(float((value - optimum) * 1000 / clock))
            assert item.next_format not in (None, item.format)


def test_worth_of_a_resource() -> None:
    wide = build(0)
    used = solve_joint(wide).totals["dsp"]
    problem = build(0, limits={"dsp": used - 1})
    found = explain_design(problem, layers=())
    (limit,) = found.limits
    assert limit.limit == f"dsp <= {used - 1}"
    assert limit.binds
    assert limit.next_limit is not None
    assert limit.gain_at_next is not None
    assert limit.gain_at_next > 0
    at = int(limit.next_limit)
    tight, loose = (build(0, limits={"dsp": n}) for n in (at - 1, at))
    first, second, third = best(tight), best(loose), best(problem)
    assert first is not None
    assert second is not None
    assert second < first == third
    assert found.layers == ()


def test_explain_refuses_what_it_cannot_say() -> None:
    with pytest.raises(InputError, match=r"^explain: unknown layer 'nowhere'"):
        explain_design(build(0), layers=["nowhere"])
    found = explain_design(build(0, loss_budget=Decimal("0.4")), time_limit=600)
    assert found.to_data()["limits"][0]["text"] == found.limits[0].text
    assert found.text.startswith("latency ")


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_infeasible_names_resources_and_least_values(seed: int) -> None:
    """Each nearest value is feasible with the others kept, and one unit less is not."""
    wide = solve_joint(build(seed))
    # a hair more, so that the division's rounding takes no cycle away
    latency = Decimal(wide.cycles) * 1000 / wide.clock_hz + Decimal("1e-12")
    limits = {"dsp": 120, "latency_ms": latency}
    problem = build(seed, limits=limits)
    result = solve_joint(problem)
    if result.certificate.status is Status.OPTIMAL:
        assert result.totals["dsp"] <= 120
        return
    assert result.why.startswith("infeasible: these limits cannot all hold: latency_ms <= ")
    assert "; dsp <= 120 (feasible from " in result.why
    nearest = int(result.why.rsplit("feasible from ", 1)[1].split(",")[0])
    for amount, status in ((nearest, Status.OPTIMAL), (nearest - 1, Status.INFEASIBLE)):
        asked = build(seed, limits={**limits, "dsp": amount})
        assert solve_joint(asked, explain=False).certificate.status is status
    most = solve_joint(build(seed, objective="size")).size_bytes
    asked = build(seed, limits={"size_kb": {"min": 10**6}, "loss": 10**6})
    why = solve_joint(asked).why
    assert why.startswith("infeasible: this limit cannot hold: size_kb ≥ 1e+06 (feasible up to ")
    assert float(why.rsplit(" ", 1)[1][:-1]) * 1024 >= most * (1 - 1e-5)  # six digits are shown


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_worth_of_a_larger_part(seed: int) -> None:
    """Against cold solves on a device that holds a tenth more, or one unit more."""
    problem = build(seed, loss_budget=Decimal("0.4"))
    optimum = best(problem)
    assert optimum is not None
    found = explain_design(problem, layers=())
    assert [item.resource for item in found.capacities] == ["dsp", "lut", "ramb18"]
    question = draw_question(seed)
    free: dict[str, Any] = {"limits": {}, "ties": (), "forbid": (), "objective": "latency"}
    free |= {"stream": False, "loss_budget": Decimal("0.4")}
    for item in found.capacities:
        held = getattr(problem.device, item.resource)
        percent = 70 if item.resource == "lut" else 100
        assert item.used <= item.capacity == held * percent // 100
        assert item.gain_of_more is not None
        for more, gain in ((item.more, item.gain_of_more), (item.unit, item.gain_of_unit)):
            larger = replace(problem.device, **{item.resource: held - (-more * 100 // percent)})
            other = joint_problem(
                question.workload, larger, space=question.options, **{**question.arguments, **free}
            )
            value = best(other)
            assert value is not None
            wanted = float((optimum - value) * 1000 / problem.device.clock_hz)
            assert gain == pytest.approx(wanted) or (gain is None and item.gain_of_more == 0)
        assert ("does not bind" in item.text) == (item.gain_of_more == 0)


def test_an_explanation_ends_with_its_time() -> None:
    problem = build(3, loss_budget=Decimal("0.4"))
    solve_joint(problem)
    with pytest.raises(InputError, match=r"^nothing to explain: the problem's status is unknown"):
        explain_design(problem, time_limit=1e-9)
