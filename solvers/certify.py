# SPDX-License-Identifier: Apache-2.0
"""Checks of an answer against the problem as stated, in exact integers.

``solve`` runs this after every solve, whatever the back end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codesign.errors import InputError, SolverError
from codesign.solvers.base import Result
from codesign.solvers.problem import ARCHITECTURE, Limit, Problem
from codesign.solvers.solution import Solution, Status
from codesign.solvers.validate import listed


def violations(
    problem: Problem, choice: Sequence[int], architecture: int | None
) -> list[str]:
    """Every limit, tie, forbid and mask that the choice breaks, in words."""
    broken: list[str] = []
    for limit in problem.limits:
        metric = problem.metrics[limit.metric]
        total = problem.total(metric, choice, architecture)
        if not meets(problem, limit, total):
            broken.append(f"limit {limit}: the total is {metric.decimal(total)}")
    for tie in problem.ties:
        picked = {problem.options[group][choice[group]] for group in tie}
        if len(picked) > 1:
            names = listed(problem.groups[group] for group in tie)
            broken.append(f"tie of {names}: picked {listed(sorted(picked))}")
    for place, clause in enumerate(problem.forbid):
        if all(
            option == (architecture if group == ARCHITECTURE else choice[group])
            for group, option in clause
        ):
            broken.append(f"forbid[{place}]")
    if problem.allowed is not None:
        row = problem.allowed
        if row.ndim == 2:
            assert architecture is not None
            row = row[architecture]
        for group, start in enumerate(problem.offsets[:-1]):
            if not row[int(start) + choice[group]]:
                option = problem.options[group][choice[group]]
                broken.append(f"option {option!r} of {problem.groups[group]!r} is not allowed")
    return broken


def meets(problem: Problem, limit: Limit, total: int) -> bool:
    """Whether a total, in units of the limit's metric, is within the limit."""
    bound = problem.bound(limit)
    return total <= bound if limit.side == "max" else total >= bound


def check_result(problem: Problem, result: Result) -> None:
    """Raise SolverError (a defect of the back end) when a result contradicts the problem."""
    if result.status in (Status.INFEASIBLE, Status.UNKNOWN):
        return
    where = f"defect in solver {result.solver!r}"
    if result.choice is None or result.objective is None or result.bound is None:
        raise SolverError(f"{where}: status {result.status} without a choice, objective or bound")
    if (result.architecture is None) != (not problem.architectures):
        raise SolverError(f"{where}: architecture {result.architecture}")
    broken = violations(problem, result.choice, result.architecture)
    if broken:
        raise SolverError(f"{where}: the answer breaks {'; '.join(broken)}")
    total = problem.total(problem.metric, result.choice, result.architecture)
    if total != result.objective:
        raise SolverError(
            f"{where}: it claims an objective of {result.objective} units, the choice has {total}"
        )
    ahead = result.bound > total if not problem.maximize else result.bound < total
    if ahead or (result.status is Status.OPTIMAL and result.bound != total):
        raise SolverError(f"{where}: bound {result.bound} contradicts objective {total}")


def check_solution(problem: Problem, solution: Solution) -> list[str]:
    """What is wrong with a solution file's answer to ``problem``; empty when nothing is.

    For answers from elsewhere: names, totals, objective and every limit, tie and forbid are
    checked exactly. Optimality is not (that takes a solve).
    """
    if solution.choices is None:
        return []
    try:
        choice, architecture = positions(problem, solution.choices, solution.architecture)
    except InputError as error:
        return [str(error)]
    broken = violations(problem, choice, architecture)
    for name, value in (solution.totals or {}).items():
        if name not in problem.metrics:
            broken.append(f"totals: unknown metric {name!r}")
            continue
        metric = problem.metrics[name]
        total = metric.decimal(problem.total(metric, choice, architecture))
        if total != value:
            broken.append(f"totals: {name} is {total}, not {value}")
    metric = problem.metric
    total = metric.decimal(problem.total(metric, choice, architecture))
    if solution.objective is not None and solution.objective != total:
        broken.append(f"objective: {total}, not {solution.objective}")
    return broken


def positions(
    problem: Problem, choices: Mapping[str, str], architecture: str | None
) -> tuple[tuple[int, ...], int | None]:
    """Names to positions. Raises InputError for a name that the problem does not have."""
    if set(choices) != set(problem.groups):
        differ = set(choices) ^ set(problem.groups)
        raise InputError(f"choices: groups differ from the problem's: {listed(sorted(differ))}")
    for group, options in zip(problem.groups, problem.options):
        if choices[group] not in options:
            raise InputError(f"choices: group {group!r} has no option {choices[group]!r}")
    if architecture is None and problem.architectures:
        raise InputError("architecture: none is named, but the problem has some")
    if architecture is not None and architecture not in problem.architectures:
        raise InputError(f"architecture: the problem has no {architecture!r}")
    return (
        tuple(o.index(choices[g]) for g, o in zip(problem.groups, problem.options)),
        None if architecture is None else problem.architectures.index(architecture),
    )
