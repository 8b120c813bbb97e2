# SPDX-License-Identifier: Apache-2.0
"""Google OR-Tools' CP-SAT: integer arithmetic throughout, so its proofs are exact."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any, ClassVar

from codesign.errors import SolverError
from codesign.solvers.base import Deadline, Feature
from codesign.solvers.limbs import SAFE, fits, split
from codesign.solvers.model import Constraint, Linear, Model
from codesign.solvers.model_solver import ModelAnswer, ModelSolver
from codesign.solvers.solution import Status

_SMALL = 5_000
"""Models with fewer variables are solved by one worker (more only add start-up time)."""


class CpSat(ModelSolver):
    """CP-SAT on the integer model; numbers beyond 64 bits are split exactly (limbs.py)."""

    name = "cp-sat"
    summary = "OR-Tools CP-SAT on the integer model"
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.INTEGER_PROOF, Feature.BIG_INTEGERS, Feature.TIME_LIMIT}
    )
    modules = ("ortools",)

    def solve_model(
        self, model: Model, deadline: Deadline, cutoff: int | None = None
    ) -> ModelAnswer:
        """Minimise; with a ``cutoff``, INFEASIBLE when nothing of that cost or less exists.

        The cutoff goes into the domain of the objective, where CP-SAT uses it as if it had found
        such an answer (three times faster than a row, docs/solvers.md).
        """
        from ortools.sat.python import cp_model

        if cutoff is not None and not fits(model.objective, model.variables, cutoff):
            row = Constraint("cutoff", model.objective, None, cutoff)
            model = replace(model, constraints=(*model.constraints, row))
            cutoff = None
        parts = split(model)
        native = cp_model.CpModel()
        variables = [
            native.new_int_var(v.lower, v.upper, v.name) for v in parts.model.variables
        ]

        def expression(linear: Linear) -> Any:
            return cp_model.LinearExpr.weighted_sum(
                [variables[column] for column in linear.columns], linear.coefficients
            )

        for row in parts.model.constraints:
            constant = row.expression.constant
            low = cp_model.INT_MIN if row.lower is None else row.lower - constant
            high = cp_model.INT_MAX if row.upper is None else row.upper - constant
            native.add_linear_constraint(expression(row.expression), low, high)

        values: tuple[int, ...] | None = None
        reached = 0
        for level, weight in zip(parts.levels, parts.weights):
            native.minimize(expression(level))
            if cutoff is not None:
                native.proto.objective.domain.extend([-SAFE, cutoff - level.constant])
            solver = cp_model.CpSolver()
            parameters = solver.parameters
            parameters.random_seed = 1
            # 9.15's presolve of at-most-ones inside linear rows certifies wrong optima
            # (google/or-tools #5293; also seen by tests/solvers); this turns that step off.
            parameters.presolve_inclusion_work_limit = 0
            parameters.num_workers = 1 if len(variables) < _SMALL else min(8, os.cpu_count() or 1)
            left = deadline.remaining()
            if left is not None:
                parameters.max_time_in_seconds = max(left, 1e-3)
            code = solver.solve(native)
            if code == cp_model.MODEL_INVALID:
                raise SolverError(f"cp-sat refuses the model: {native.validate()}")
            if code == cp_model.INFEASIBLE:
                return ModelAnswer(Status.INFEASIBLE)
            if code in (cp_model.OPTIMAL, cp_model.FEASIBLE):
                values = tuple(int(solver.value(v)) for v in variables)
            if code != cp_model.OPTIMAL:
                bound = None
                if code == cp_model.FEASIBLE or values is not None or level.columns:
                    bound = reached + (_floor(solver.best_objective_bound, level)) * weight
                status = Status.UNKNOWN if values is None else Status.FEASIBLE
                return ModelAnswer(status, _first(values, model), bound)
            assert values is not None
            best = level.value(values)
            reached += best * weight
            if weight != 1:
                limit = best - level.constant
                native.add_linear_constraint(expression(level), cp_model.INT_MIN, limit)
                native.clear_hints()
                for variable, value in zip(variables, values):
                    native.add_hint(variable, value)
        return ModelAnswer(Status.OPTIMAL, _first(values, model), reached)


def _floor(bound: float, level: Linear) -> int:
    """A safe integer from CP-SAT's floating-point bound on ``level`` (constant not included)."""
    least = sum(min(0, coefficient) for coefficient in level.coefficients)
    if not math.isfinite(bound):
        return least + level.constant
    safe = math.ceil(bound - abs(bound) * 2.0**-50 - 1e-6)
    return max(least, safe) + level.constant


def _first(values: tuple[int, ...] | None, model: Model) -> tuple[int, ...] | None:
    return None if values is None else values[: len(model.variables)]
