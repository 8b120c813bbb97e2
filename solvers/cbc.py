# SPDX-License-Identifier: Apache-2.0
"""COIN-OR CBC through PuLP (a separate process that reads an MPS file)."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from codesign.errors import SolverError
from codesign.solvers.base import Availability, Feature
from codesign.solvers.milp import MilpSolver
from codesign.solvers.solution import Status

_BOUND = re.compile(r"^Lower bound:\s+([-+]?\d[\d.e+-]*)", re.MULTILINE)


class Cbc(MilpSolver):
    """CBC with zero gap; numbers pass through a file with 13 significant digits."""

    name = "cbc"
    summary = "COIN-OR CBC (MILP) through PuLP; floating point"
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.TIME_LIMIT})
    modules = ("pulp",)

    @classmethod
    def availability(cls) -> Availability:
        found = super().availability()
        if found and _executable() is None:
            return Availability(False, "no CBC program comes with this PuLP; pip install 'pulp<4'")
        return found

    def run(self, problem: Any, seconds: float | None) -> tuple[Status, float | None]:
        import pulp

        failure: Exception | None = None
        for options in _ATTEMPTS:
            with tempfile.TemporaryDirectory(prefix="codesign-cbc-") as folder:
                log = Path(folder) / "cbc.log"
                solver = pulp.COIN_CMD(
                    path=str(_executable()),
                    msg=False,
                    gapRel=0.0,
                    gapAbs=0.0,
                    threads=1,
                    timeLimit=None if seconds is None else max(seconds, 0.01),
                    logPath=str(log),
                    options=list(options),
                )
                solver.tmpDir = folder
                try:
                    problem.solve(solver)
                except pulp.PulpSolverError as error:
                    failure = error
                    continue
                text = log.read_text(errors="replace") if log.exists() else ""
                return _status(pulp, problem, text)
        raise SolverError(f"cbc failed: {failure}") from failure


_ATTEMPTS = (
    ("preprocess off", "integerTolerance 1e-9"),
    ("integerTolerance 1e-9",),
)
"""CBC's preprocessing was seen to cut off the optimum, and CBC without it to crash on infeasible
programs (tests/solvers/test_oracle.py has both), so it is only used after a crash."""


def _status(pulp: Any, problem: Any, log: str) -> tuple[Status, float | None]:
    found = _BOUND.search(log)
    dual = float(found.group(1)) if found else None
    if problem.sol_status == pulp.LpSolutionOptimal:
        return Status.OPTIMAL, dual
    if problem.sol_status == pulp.LpSolutionIntegerFeasible:
        return Status.FEASIBLE, dual
    if problem.status == pulp.LpStatusInfeasible and "infeasible" in log.lower():
        return Status.INFEASIBLE, None
    return Status.UNKNOWN, dual


def _executable() -> Path | None:
    """The CBC program inside the installed PuLP, found without importing it."""
    spec = importlib.util.find_spec("pulp")
    if spec is None or spec.origin is None:
        return None
    found = sorted((Path(spec.origin).parent / "solverdir" / "cbc").glob("linux/**/cbc"))
    machine = "i64" if os.uname().machine == "x86_64" else "arm64"
    return next((path for path in found if machine in path.parts), None)
