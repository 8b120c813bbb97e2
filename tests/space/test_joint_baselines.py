# SPDX-License-Identifier: Apache-2.0
"""Searches without a proof on joint problems: feasible, never better than the optimum."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from codesign.errors import InputError
from codesign.flow.joint import joint_problem
from codesign.flow.joint import solve as solve_joint
from codesign.flow.joint.baselines import baseline
from codesign.flow.joint.problem import JointProblem
from codesign.solvers.baselines import BASELINES
from codesign.solvers.solution import Status
from tests.space.conftest import draw_question

NAMES = sorted(BASELINES)


def problem_of(seed: int, **changes: Any) -> JointProblem:
    question = draw_question(seed)
    arguments = {**question.arguments, "stream": False, **changes}
    return joint_problem(question.workload, "pynq-z2", space=question.options, **arguments)


@pytest.mark.parametrize("name", NAMES)
def test_answers_keep_the_limits_and_never_beat_the_optimum(name: str) -> None:
    """``baseline`` prices its answer again by the reference, limits and all."""
    reached = feasible = 0
    for seed in range(2, 5 if name.startswith("nsga2") else 8):  # pymoo is slow on tiny spaces
        problem = problem_of(seed)
        exact = solve_joint(problem, explain=False).certificate
        found = baseline(problem, name, seed=seed, evaluations=40 if "pred" in name else 300)
        proof = found.result.certificate
        assert proof.bound is None
        if exact.status is Status.INFEASIBLE:
            assert proof.status is Status.UNKNOWN
            assert found.result.accelerator is None
            continue
        feasible += 1
        if proof.status is Status.UNKNOWN:
            continue
        assert exact.objective is not None
        assert proof.objective is not None
        assert proof.objective >= exact.objective
        assert found.trace[-1].objective == proof.objective
        for before, after in pairwise(found.trace):
            assert after.objective < before.objective
        assert 0 < found.tabled <= len(problem.space)
        reached += 1
    assert feasible >= 2
    assert 4 * reached >= 3 * feasible


def test_a_metric_that_is_not_additive() -> None:
    """Any function of the formats and the accelerator; limits still hold."""
    problem = problem_of(0, objective="latency", limits={}, ties=(), forbid=())
    names = [layer.name for layer in problem.tables.workload.layers]
    accelerators = set()

    def measure(choices: Mapping[str, str], accelerator: str | None) -> float:
        assert sorted(choices) == sorted(names)
        accelerators.add(accelerator)
        return float(len(set(choices.values()))) + ("x2w" not in str(accelerator))

    found = baseline(problem, "random", evaluations=400, measure=measure)
    assert found.measured == 1.0
    assert len(set(found.result.formats.values())) == 1
    assert len(accelerators) > 1
    with pytest.raises(InputError, match=r"^baseline 'greedy' takes additive metrics only"):
        baseline(problem, "greedy", evaluations=4, measure=measure)


def test_what_is_no_sum_over_layers_is_refused() -> None:
    problem = problem_of(0, objective="throughput", stream=True, limits={})
    with pytest.raises(InputError) as raised:
        baseline(problem, "greedy", evaluations=4)
    assert str(raised.value) == (
        "a baseline minimises a sum over layers; the interval of a stream and the reward are "
        "none: ask for latency, energy, traffic, loss, size or a resource"
    )
