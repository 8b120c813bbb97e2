# SPDX-License-Identifier: Apache-2.0
"""Exact choice under limits: problem and solution files, back ends, certificates.

``load_problem`` and ``solve`` are the way in; ``registry`` names the back ends. See also
``codesign.solvers.explain.explain`` and ``codesign.solvers.pareto.pareto``.
"""

from __future__ import annotations

from codesign.registry import Registry
from codesign.solvers.problem import Limit, Metric, Problem, Shape
from codesign.solvers.problem_file import load_problem, parse_problem, problem_to_json
from codesign.solvers.solution import (
    Conflict,
    Infeasible,
    Proof,
    Solution,
    Status,
    load_solution,
    parse_solution,
)
from codesign.solvers.solve import solve

registry = Registry(
    kind="solver",
    group="codesign.solvers",
    builtin={
        "exact": "codesign.solvers.exact:Exact",
        "cp-sat": "codesign.solvers.cpsat:CpSat",
        "highs": "codesign.solvers.highs:Highs",
        "cbc": "codesign.solvers.cbc:Cbc",
        "exhaustive": "codesign.solvers.exhaustive:Exhaustive",
    },
)
"""Every back end by name; ``solve`` also takes "auto"."""

__all__ = [
    "Conflict",
    "Infeasible",
    "Limit",
    "Metric",
    "Problem",
    "Proof",
    "Shape",
    "Solution",
    "Status",
    "load_problem",
    "load_solution",
    "parse_problem",
    "parse_solution",
    "problem_to_json",
    "registry",
    "solve",
]
