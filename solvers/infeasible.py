# SPDX-License-Identifier: Apache-2.0
"""Why a problem has no answer: a minimal set of limits, and the nearest feasible value of each.

The set is found by deletion (drop a limit; when the rest is still infeasible, leave it out for
good), so it is minimal, not least. The nearest value of a limit is a solve of its own: the best
total of its metric under all other limits, ties and forbids.
"""

from __future__ import annotations

from codesign.solvers.base import Deadline, Solver
from codesign.solvers.certify import check_result
from codesign.solvers.problem import Limit, Problem
from codesign.solvers.solution import Conflict, Infeasible, Status


def explain_infeasible(problem: Problem, backend: Solver, deadline: Deadline) -> Infeasible:
    """The explanation for a problem that was proven infeasible; partial when time ends."""
    limits = list(problem.limits)
    complete = True
    for limit in problem.limits:
        rest = [other for other in limits if other is not limit]
        status = _feasibility(problem.with_limits(rest), backend, deadline)
        if status is Status.UNKNOWN:
            complete = False
            break
        if status is Status.INFEASIBLE:
            limits = rest
    conflicts: list[Conflict] = []
    for limit in limits:
        status, nearest = nearest_value(problem, limit, backend, deadline)
        complete &= status in (Status.OPTIMAL, Status.INFEASIBLE)
        value = None if nearest is None else problem.metrics[limit.metric].decimal(nearest)
        conflicts.append(Conflict(limit.metric, limit.side, limit.value, value))
    return Infeasible(tuple(conflicts), complete)


def nearest_value(
    problem: Problem, limit: Limit, backend: Solver, deadline: Deadline
) -> tuple[Status, int | None]:
    """The value of ``limit`` nearest to its own at which the problem is feasible, in units of
    its metric, all else kept. Only with OPTIMAL is it the nearest; None when there is none."""
    rest = [other for other in problem.limits if other is not limit]
    relaxed = problem.with_limits(rest).with_objective(limit.metric, limit.side == "min")
    if deadline.passed:
        return Status.UNKNOWN, None
    result = backend.solve(relaxed, deadline.remaining())
    check_result(relaxed, result)
    return result.status, result.objective if result.status is Status.OPTIMAL else None


def _feasibility(problem: Problem, backend: Solver, deadline: Deadline) -> Status:
    """INFEASIBLE, UNKNOWN, or else some choice exists."""
    if deadline.passed:
        return Status.UNKNOWN
    return backend.solve(problem, deadline.remaining()).status
