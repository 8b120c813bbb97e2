# SPDX-License-Identifier: Apache-2.0
"""HiGHS through PuLP (in memory, by highspy)."""

from __future__ import annotations

from typing import Any, ClassVar

from codesign.solvers.base import Availability, Feature
from codesign.solvers.milp import MilpSolver, highs_clashes
from codesign.solvers.solution import Status


class Highs(MilpSolver):
    """HiGHS' branch and cut with zero gap and tolerances of 1e-9."""

    name = "highs"
    summary = "HiGHS (MILP) through PuLP; floating point"
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.TIME_LIMIT})
    modules = ("pulp", "highspy")

    @classmethod
    def availability(cls) -> Availability:
        found = super().availability()
        if found and highs_clashes():
            return Availability(
                False,
                "this highspy and OR-Tools bring different libhighs.so.1 and cannot share a "
                "process; pip install 'highspy>=1.11,<1.15'",
            )
        return found

    def run(self, problem: Any, seconds: float | None) -> tuple[Status, float | None]:
        import highspy
        import pulp

        solver = pulp.HiGHS(
            msg=False,
            gapRel=0.0,
            gapAbs=0.0,
            threads=1,
            timeLimit=seconds,
            mip_feasibility_tolerance=1e-9,
            primal_feasibility_tolerance=1e-9,
            dual_feasibility_tolerance=1e-9,
        )
        problem.solve(solver)
        native = problem.solverModel
        found = native.getModelStatus()
        kinds = highspy.HighsModelStatus
        if found in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
            return Status.INFEASIBLE, None
        info = native.getInfo()
        dual = float(info.mip_dual_bound)
        if found in (kinds.kOptimal, kinds.kModelEmpty):
            return Status.OPTIMAL, dual
        feasible = info.primal_solution_status == 2  # kSolutionStatusFeasible
        return (Status.FEASIBLE if feasible else Status.UNKNOWN), dual
