# SPDX-License-Identifier: Apache-2.0
"""The joint problem: accelerator, formats, tilings and fused chains, chosen together and exactly.

``joint_problem`` states it and ``solve`` answers with a certificate: the optimum, or a bound.

    problem = joint_problem(graph, "ultra96", formats="w8a8,w4a4", loss=loss, loss_budget=0.5)
    result = solve(problem)
"""

from __future__ import annotations

from dataclasses import replace

from codesign.flow.joint.build import joint_problem, with_limits
from codesign.flow.joint.explain import explain as explain_design
from codesign.flow.joint.explain import why_infeasible
from codesign.flow.joint.problem import LIMITS, OBJECTIVES, JointProblem, Reward
from codesign.flow.joint.result import Certificate, ChainChoice, JointResult, LayerChoice
from codesign.flow.joint.reward import RewardResult, best_reward, solve_reward
from codesign.flow.joint.search import Search
from codesign.flow.joint.worth import JointExplanation
from codesign.solvers.base import Deadline, Solver
from codesign.solvers.solution import Status

__all__ = [
    "LIMITS",
    "OBJECTIVES",
    "Certificate",
    "ChainChoice",
    "JointExplanation",
    "JointProblem",
    "JointResult",
    "LayerChoice",
    "Reward",
    "RewardResult",
    "best_reward",
    "explain_design",
    "joint_problem",
    "solve",
    "with_limits",
]


STREAM_TOLERANCE = 1e-3
"""Relative gap at which the search for the least interval of a stream ends."""


def solve(
    problem: JointProblem, time_limit: float | None = None, solver: Solver | None = None,
    explain: bool = True, tolerance: float | None = None,
) -> JointResult:  # fmt: skip
    """The best design with its certificate, within about ``time_limit`` seconds.

    ``solver`` decides the knapsacks of a batch; the project's own when None. Infeasible is an
    answer: with ``explain``, ``why`` names a minimal set of limits and what would suffice.
    ``tolerance`` (relative): the search ends when no design can be better by more; the status is
    then ``feasible`` with the true gap. 0 where not given, but 0.001 for the interval of a stream,
    whose last cycles cost more time than all others.
    """
    from codesign.solvers.exact import Exact

    deadline, solver = Deadline.after(time_limit), solver or Exact()
    if problem.reward is not None:

        def one(asked: JointProblem) -> JointResult:
            return solve(asked, deadline.remaining(), solver, explain)

        return solve_reward(problem, one, deadline)
    if tolerance is None:
        tolerance = STREAM_TOLERANCE if len(problem.parts(problem.objective)) > 1 else 0.0
    result = Search(problem, deadline, solver, tolerance).run()
    if result.certificate.status is Status.INFEASIBLE and explain:
        result = replace(result, why=why_infeasible(problem, solver, deadline))
    return result
