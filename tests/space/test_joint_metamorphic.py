# SPDX-License-Identifier: Apache-2.0
"""Changes to a joint problem whose effect on the optimum is known, and back ends that agree.

Questions are those of ``draw_question``: every objective, images in a stream, limits from above and
below, ties, forbids, infeasible ones. Accelerators are not thinned by dominance here, because a
relaxed limit on a resource would change which ones are dominated.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from codesign.flow.joint import JointProblem, JointResult, joint_problem
from codesign.flow.joint import solve as solve_joint
from codesign.solvers import registry
from codesign.solvers.solution import Status
from codesign.space.device import load_device
from codesign.space.generate import generate
from codesign.space.workload import Chain, Workload
from tests.space.conftest import Question, draw_question

BOARD = "pynq-z2"
SEEDS = range(24)
SOAK = range(24, 400)
soak = pytest.mark.soak


def every(seeds: range, more: range) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "seed", [*seeds, *(pytest.param(seed, marks=soak) for seed in more)]
    )


def build(question: Question, **changes: Any) -> JointProblem:
    arguments = {**question.arguments, **changes}
    workload = arguments.pop("workload", question.workload)
    space = generate(load_device(BOARD), question.options, drop_dominated=False)
    return joint_problem(workload, BOARD, space=space, **arguments)


def value(result: JointResult) -> Decimal | None:
    """The optimum, None where infeasible."""
    assert result.certificate.status in (Status.OPTIMAL, Status.INFEASIBLE)
    return result.certificate.objective


def answer(question: Question, **changes: Any) -> Decimal | None:
    return value(solve_joint(build(question, **changes), explain=False, tolerance=0))


def looser(key: str, given: Any) -> list[Any]:
    """The limit with each of its sides further away, or gone (None)."""
    sides = dict(given) if isinstance(given, Mapping) else {"min" if key == "fps" else "max": given}
    found: list[Any] = [None]
    for side, bound in sides.items():
        away = bound / 2 if side == "min" else 2 * bound
        found += [{**sides, side: away}, {k: v for k, v in sides.items() if k != side} or None]
    return found


@every(SEEDS, SOAK)
def test_relaxing_a_limit_never_worsens_the_optimum(seed: int) -> None:
    question = draw_question(seed)
    limits = question.arguments["limits"]
    before = answer(question)
    rng = random.Random(seed)
    for key in limits:
        away = rng.choice(looser(key, limits[key]))
        rest = {k: v for k, v in limits.items() if k != key} | ({} if away is None else {key: away})
        after = answer(question, limits=rest)
        if before is not None:
            assert after is not None
            assert after <= before
    for free in ("ties", "forbid"):
        if question.arguments.get(free):
            after = answer(question, **{free: ()})
            assert before is None or (after is not None and after <= before)


@every(SEEDS, SOAK)
def test_scaling_losses_scales_losses_only(seed: int) -> None:
    question = draw_question(seed)
    loss, limits = question.arguments["loss"], question.arguments["limits"]

    def scaled(given: Any) -> Any:
        if isinstance(given, Mapping):
            return {key: scaled(inner) for key, inner in given.items()}
        return 1_000_003 * given

    larger = {**limits, **({"loss": scaled(limits["loss"])} if "loss" in limits else {})}
    before = answer(question)
    after = answer(question, loss=scaled(loss), limits=larger)
    factor = 1_000_003 if question.arguments["objective"] == "loss" else 1
    assert after == (None if before is None else factor * before)


@every(SEEDS, SOAK)
def test_permuting_layers_and_formats_changes_nothing(seed: int) -> None:
    question, rng = draw_question(seed), random.Random(seed)
    work = question.workload
    order = rng.sample(range(len(work.layers)), len(work.layers))
    place = {old: new for new, old in enumerate(order)}

    def move(at: int | None) -> int | None:
        return None if at is None else place[at]

    chains = tuple(
        Chain(move(c.expand), place[c.depthwise], move(c.project), c.local_residual)
        for c in work.chains
    )
    turned = Workload(work.name, tuple(work.layers[i] for i in order), chains, work.vector_ops)
    formats = question.arguments["formats"].split(",")
    rng.shuffle(formats)
    assert answer(question, workload=turned, formats=",".join(formats)) == answer(question)


@pytest.mark.parametrize("solver", ["cp-sat", "highs", "cbc"])
@every(range(8), range(8, 60))
def test_back_ends_agree_on_joint_problems(seed: int, solver: str) -> None:
    """Each decides the knapsacks of every accelerator that a bound does not discard."""
    found = registry.load(solver)
    assert found.availability(), found.availability().why
    question = draw_question(seed)
    expected = answer(question)
    other = solve_joint(build(question), solver=found(), explain=False, tolerance=0)
    assert value(other) == expected
    if other.accelerator is None:
        return
    # the knapsack of one accelerator alone
    problem = build(question)
    one = replace(problem, space=problem.space.take([other.place]))
    assert value(solve_joint(one, solver=found(), explain=False, tolerance=0)) == expected
