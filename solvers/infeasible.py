# SPDX-License-Identifier: Apache-2.0
"""Why a problem has no answer: a minimal set of limits, and the nearest feasible value of each.

The set is found by deletion (drop a limit; when the rest is still infeasible, leave it out for
good), so it is minimal, not least. Dropping is tested by asking for the best total of the dropped
limit's metric under the rest: with all other limits kept, that total is the nearest feasible
value.
"""

from __future__ import annotations

from collections.abc import Sequence

from codesign.solvers.base import Deadline, Result, Solver
from codesign.solvers.certify import check_result
from codesign.solvers.problem import Limit, Problem
from codesign.solvers.solution import Conflict, Infeasible, Status


def explain_infeasible(problem: Problem, backend: Solver, deadline: Deadline) -> Infeasible:
    """The explanation for a problem that was proven infeasible; partial when time ends."""
    limits = list(problem.limits)
    nearest: dict[Limit, Result] = {}
    complete = True
    for limit in problem.limits:
        rest = [other for other in limits if other is not limit]
        result = best_total(problem, limit, rest, backend, deadline)
        if result is None or result.status is Status.UNKNOWN:
            complete = False
            break
        if result.status is Status.INFEASIBLE:
            limits = rest
        elif len(rest) == len(problem.limits) - 1:
            nearest[limit] = result
    conflicts: list[Conflict] = []
    for limit in limits:
        found: Result | None = nearest.get(limit)
        if found is None:
            rest = [other for other in problem.limits if other is not limit]
            found = best_total(problem, limit, rest, backend, deadline)
        value = None
        complete &= found is not None and found.status in (Status.OPTIMAL, Status.INFEASIBLE)
        if found is not None and found.status is Status.OPTIMAL and found.objective is not None:
            value = problem.metrics[limit.metric].decimal(found.objective)
        conflicts.append(Conflict(limit.metric, limit.side, limit.value, value))
    return Infeasible(tuple(conflicts), complete)


def best_total(
    problem: Problem, limit: Limit, rest: Sequence[Limit], backend: Solver, deadline: Deadline
) -> Result | None:
    """The total of the limit's metric nearest to it under the limits ``rest``, ties and forbids;
    None when time ended before it was tried."""
    if deadline.passed:
        return None
    relaxed = problem.with_limits(rest).with_objective(limit.metric, limit.side == "min")
    left = deadline.remaining()
    result = backend.solve(relaxed, None if left is None else max(left, 1e-3))
    check_result(relaxed, result)
    return result
