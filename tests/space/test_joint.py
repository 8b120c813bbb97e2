# SPDX-License-Identifier: Apache-2.0
"""The joint solver against exhaustive search, and what it says of bad input."""

from __future__ import annotations

from typing import Any

import pytest
from tests.space.conftest import draw_question, oracle

from codesign.errors import InfeasibleError
from codesign.flow.joint import joint_problem
from codesign.solvers.decimals import to_decimal
from codesign.solvers.solution import Status

BOARDS = ("ultra96", "pynq-z2", "ulx3s-85f")


def check(seed: int) -> None:
    question, board = draw_question(seed), BOARDS[seed % 3]
    try:
        problem = joint_problem(
            question.workload, board, space=question.options, **question.arguments
        )
    except InfeasibleError:  # ties and forbids leave nothing: so must the oracle find
        assert oracle(question, board, "cycles") is None
        return
    result = problem.solve()
    proof = result.certificate
    expected = oracle(question, board, problem.tables.by)
    if expected is None:
        assert proof.status is Status.INFEASIBLE
        assert result.accelerator is None
        return
    assert proof.status is Status.OPTIMAL
    assert proof.objective == proof.bound == to_decimal(expected, problem.digits[problem.objective])
    assert proof.solved + proof.pruned == proof.undominated <= proof.generated
    assert result.accelerator is not None
    assert result.resources is not None
    assert not result.resources.excess(problem.device)


@pytest.mark.parametrize("block", range(20))
def test_exhaustive_search_agrees(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        check(seed)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(200))
def test_exhaustive_search_agrees_soak(block: int) -> None:
    for seed in range(10_000 + 10 * block, 10_000 + 10 * block + 10):
        check(seed)
