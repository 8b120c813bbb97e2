# SPDX-License-Identifier: Apache-2.0
"""``solve``: a problem in, a checked solution with its certificate out."""

from __future__ import annotations

import math
import time

from codesign.errors import InputError
from codesign.solvers.base import Deadline, Result, Solver
from codesign.solvers.certify import check_result
from codesign.solvers.infeasible import explain_infeasible
from codesign.solvers.problem import Problem
from codesign.solvers.solution import Solution, Status

AUTO = "auto"


def solve(
    problem: Problem,
    solver: str | Solver = AUTO,
    time_limit: float | None = None,
    *,
    explain: bool = True,
) -> Solution:
    """The best choice under all limits, with status, bound and gap.

    ``solver`` is a name of ``codesign.solvers.registry``, "auto", or a Solver. ``time_limit`` is
    in seconds; when it ends early the status is FEASIBLE with a true bound, or UNKNOWN. Every
    answer is recomputed and checked exactly. An infeasible problem is explained (re-solving
    within what is left of the time) unless ``explain`` is False.

    Raises InputError for an unknown solver or a bad time limit, CapabilityError when the named
    solver cannot take the problem, ToolNotFoundError when it is not installed, SolverError for a
    wrong answer (a defect).
    """
    if time_limit is not None and not (
        isinstance(time_limit, int | float) and time_limit > 0 and math.isfinite(time_limit)
    ):
        raise InputError(f"time limit {time_limit!r}: expected a number of seconds above 0")
    deadline = Deadline.after(time_limit)
    start = time.perf_counter()
    backend = get_solver(solver, problem)
    result = solve_raw(problem, backend, time_limit)
    explanation = None
    if result.status is Status.INFEASIBLE and explain:
        explanation = explain_infeasible(problem, backend, deadline)
    metric = problem.metric
    choices, totals = None, None
    if result.choice is not None:
        choices = {
            group: options[option]
            for group, options, option in zip(problem.groups, problem.options, result.choice)
        }
        totals = {
            name: found.decimal(problem.total(found, result.choice, result.architecture))
            for name, found in problem.metrics.items()
        }
    return Solution(
        status=result.status,
        solver=result.solver or backend.name,
        seconds=time.perf_counter() - start,
        name=problem.name,
        objective=None if result.objective is None else metric.decimal(result.objective),
        bound=None if result.bound is None else metric.decimal(result.bound),
        architecture=None
        if result.architecture is None
        else problem.architectures[result.architecture],
        choices=choices,
        totals=totals,
        architectures_solved=result.architectures_solved,
        architectures_pruned=result.architectures_pruned,
        proof=result.proof,
        explanation=explanation,
    )


def solve_raw(problem: Problem, backend: Solver, time_limit: float | None = None) -> Result:
    """One solve in the problem's positions and units, checked; no explanation."""
    result = backend.solve(problem, time_limit)
    check_result(problem, result)
    return result


def get_solver(solver: str | Solver, problem: Problem) -> Solver:
    """The back end of that name, ready to run; "auto" picks one for the problem."""
    if isinstance(solver, Solver):
        return solver
    from codesign.solvers import registry  # the registry's module imports this one

    name = pick(problem) if solver == AUTO else solver
    if name not in registry:
        known = ", ".join([AUTO, *registry])
        try:
            registry.load(name)
        except InputError as error:
            raise InputError(str(error).rpartition(" (known:")[0] + f" (known: {known})") from None
    backend: Solver = registry.load(name)()
    backend.require()
    return backend


def pick(problem: Problem) -> str:
    """The back end that is expected to be fastest for ``problem`` (see docs/solvers.md)."""
    return "exact"
