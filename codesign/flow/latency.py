# SPDX-License-Identifier: Apache-2.0
"""Latency by lazy measurement (DESIGN, section 2).

Unmeasured entries count at a lower bound. Solve, measure what was chosen, put it in the table,
solve again: when the optimum is fully measured it is optimal under the measured table, although
only a part of the table was ever measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from codesign.errors import InfeasibleError
from codesign.flow.options import DesignOptions
from codesign.flow.tables import Tables, to_problem
from codesign.solvers import solve
from codesign.solvers.solution import Solution, Status

MeasureLayers = Callable[[Mapping[str, str], "frozenset[str]"], Mapping[tuple[str, str], float]]
"""(choices, layers) → milliseconds of (layer, format), and of whatever else runs the same code."""


def solve_lazily(
    tables: Tables,
    options: DesignOptions,
    loss_limit: Decimal | None,
    measure: MeasureLayers,
) -> tuple[Solution, Tables]:
    """The optimum under measured latencies, with the tables as they are known then.

    Raises InfeasibleError: bounds only rise by measuring, so infeasible stays infeasible.
    """
    while True:
        solution = solve(
            to_problem(tables, options, loss_limit), options.solver, options.time_limit
        )
        if solution.status is Status.INFEASIBLE:
            assert solution.explanation is not None
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
        missing = frozenset(
            layer
            for layer, name in solution.choices.items()
            if (layer, name) not in tables.measured
        )
        if not missing:
            return solution, tables
        tables = tables.with_measured(measure(solution.choices, missing))
