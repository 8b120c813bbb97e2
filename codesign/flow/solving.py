# SPDX-License-Identifier: Apache-2.0
"""``codesign solve``: a problem file in, a solution file out."""

from __future__ import annotations

from pathlib import Path

from codesign.errors import InputError
from codesign.flow.store import write_text
from codesign.solvers import Solution, load_problem, solve
from codesign.solvers.explain import Explanation, explain


def solve_file(
    problem: Path, solver: str = "auto", time_limit: float | None = None, output: Path | None = None
) -> Solution:
    """Solve ``problem`` and write the solution to ``output`` if given.

    Raises InputError for a bad problem. An infeasible problem is an answer, not an error: its
    solution is written too.
    """
    if output is not None and not output.resolve().parent.is_dir():
        raise InputError(f"-o {output}: the folder {output.resolve().parent} does not exist")
    solution = solve(load_problem(problem), solver, time_limit)
    if output is not None:
        write_text(output, solution.to_json())
    return solution


def explain_file(problem: Path, solver: str, seconds: float) -> Explanation:
    """Which limits of a problem's optimum bind and what other options cost, as far as time goes.

    Raises InputError where ``seconds`` is no time or not enough to prove the optimum again.
    """
    return explain(load_problem(problem), solver, seconds)
