# SPDX-License-Identifier: Apache-2.0
"""Latency by lazy measurement (DESIGN, section 2).

Unmeasured entries count at a lower bound. Solve, measure what was chosen, put it in the table,
solve again: when the optimum is fully measured it is optimal under the measured table, although
only a part of the table was ever measured. Estimates come first: what they call best is measured
until it is best by measurements alone, so that the bounds find little left to ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal

from codesign.errors import InfeasibleError
from codesign.flow.options import DesignOptions
from codesign.flow.tables import Tables, to_problem
from codesign.solvers import solve
from codesign.solvers.problem import Problem
from codesign.solvers.solution import Infeasible, Solution, Status

MeasureLayers = Callable[[Mapping[str, str], "frozenset[str]"], Mapping[tuple[str, str], float]]
"""(choices, layers) → milliseconds of (layer, format), and of whatever else runs the same code."""

Ratio = Callable[[str, str], float]
"""(format, other) → the least latency of a layer in ``other``, as a share of that in ``format``."""

Estimate = Callable[[Tables], Tables]
"""The same tables with estimates in place of what is not measured."""


def solve_lazily(
    tables: Tables,
    options: DesignOptions,
    loss_limit: Decimal | None,
    measure: MeasureLayers,
    ratio: Ratio | None = None,
    estimate: Estimate | None = None,
    tolerance: Decimal = Decimal(0),
) -> tuple[Solution, Tables]:
    """The optimum under measured latencies, with the tables as they are known then.

    Raises InfeasibleError: bounds only rise by measuring, so infeasible stays infeasible; the
    nearest feasible values that it names are measured ones. ``ratio`` tightens the bounds of a
    layer's other formats once one is measured, so that less has to be. ``estimate`` says what is
    worth measuring; the answer does not rest on it. Where latency is minimised, the loop ends with
    the best measured design once the bounds leave no more than ``tolerance`` of it to be gained
    (``Solution.bound`` and ``gap`` say how much): to tell less apart, timings are not good enough.
    """
    while estimate is not None and options.wants_latency:
        problem = to_problem(estimate(tables), options, loss_limit)
        choices = solve(problem, options.solver, options.time_limit, explain=False).choices
        if choices is None or not (missing := _missing(tables, choices)):
            break
        tables = tables.with_measured(measure(choices, missing), ratio)
    while True:
        problem = to_problem(tables, options, loss_limit)
        solution = solve(problem, options.solver, options.time_limit)
        if solution.status is Status.INFEASIBLE:
            assert solution.explanation is not None
            nearest = _unmeasured_nearest(problem, solution.explanation, tables, options)
            if nearest is not None:
                tables = tables.with_measured(measure(*nearest), ratio)
                continue
            raise InfeasibleError(
                f"{solution.explanation.text} (latency in ms, size in bytes; formats offered: "
                f"{', '.join(tables.formats)})"
            )
        if solution.choices is None:
            raise InfeasibleError(
                f"no design was found within --time-limit {options.time_limit:g} s; allow more time"
            )
        if not options.wants_latency:
            return solution, tables
        missing = _missing(tables, solution.choices)
        if not missing:
            return solution, tables
        if tolerance and options.goal == "latency":
            best = _best_measured(tables, options, loss_limit)
            near = None if best is None else _within(best, solution, tolerance)
            if near is not None:
                return near, tables
        tables = tables.with_measured(measure(solution.choices, missing), ratio)


def _best_measured(
    tables: Tables, options: DesignOptions, loss_limit: Decimal | None
) -> Solution | None:
    """The fastest design of measured entries alone; None if limits leave none."""
    latency = tables.latency_ms
    never = sum((max(row.values()) for row in latency.values()), Decimal(1))
    known = {
        layer: {f: v if (layer, f) in tables.measured else never for f, v in row.items()}
        for layer, row in latency.items()
    }
    problem = to_problem(replace(tables, latency_ms=known), options, loss_limit)
    found = solve(problem, options.solver, options.time_limit, explain=False)
    if found.choices is None or _missing(tables, found.choices):
        return None
    return found


def _within(best: Solution, bounded: Solution, tolerance: Decimal) -> Solution | None:
    """``best`` with the bound of ``bounded`` if that is near enough."""
    least = bounded.objective if bounded.bound is None else bounded.bound
    assert best.objective is not None
    assert least is not None
    if best.objective - least > tolerance * best.objective:
        return None
    bound = min(least, best.objective)
    status = Status.OPTIMAL if bound == best.objective else Status.FEASIBLE
    return replace(best, bound=bound, status=status)


def _missing(tables: Tables, choices: Mapping[str, str]) -> frozenset[str]:
    return frozenset(layer for layer, f in choices.items() if (layer, f) not in tables.measured)


def _unmeasured_nearest(
    problem: Problem, why: Infeasible, tables: Tables, options: DesignOptions
) -> tuple[Mapping[str, str], frozenset[str]] | None:
    """A choice behind a "nearest feasible value", and its layers that count at a bound.

    None where no such value depends on a bound.
    """
    if not any(limit.metric == "latency" for limit in why.limits):
        return None
    for conflict in why.limits:
        rest = [limit for limit in problem.limits if limit.metric != conflict.metric]
        relaxed = problem.with_limits(rest).with_objective(conflict.metric)
        found = solve(relaxed, options.solver, options.time_limit, explain=False)
        if found.choices is not None and (missing := _missing(tables, found.choices)):
            return found.choices, missing
    return None
