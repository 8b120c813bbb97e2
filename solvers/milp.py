# SPDX-License-Identifier: Apache-2.0
"""The integer model through PuLP, for the floating-point MILP back ends.

Rows are scaled to a largest coefficient near 1 and tolerances set as tight as they go. What comes
back is rounded and checked in exact integers; the proof of optimality is the solver's, within its
tolerance (``Proof.FLOAT``).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from codesign.solvers.base import Deadline
from codesign.solvers.model import Linear, Model
from codesign.solvers.model_solver import ModelAnswer, ModelSolver
from codesign.solvers.solution import Proof, Status

RELATIVE = 1e-6
"""What a floating-point bound is trusted to, relative to the objective's largest terms."""


class MilpSolver(ModelSolver):
    """A MILP solver reached through PuLP."""

    proof: ClassVar[Proof] = Proof.FLOAT

    @abstractmethod
    def run(self, problem: Any, seconds: float | None) -> tuple[Status, float | None]:
        """Solve the PuLP problem; its status and the solver's dual bound where it gives one."""

    def solve_model(self, model: Model, deadline: Deadline) -> ModelAnswer:
        with warnings.catch_warnings():  # PuLP 3.3 announces the interface of 4.0
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._solve_model(model, deadline)

    def _solve_model(self, model: Model, deadline: Deadline) -> ModelAnswer:
        if highs_clashes():  # PuLP imports highspy, after which OR-Tools could not be loaded
            importlib.import_module("ortools.sat.python.cp_model")
        import pulp

        problem = pulp.LpProblem("codesign", pulp.LpMinimize)
        variables = [
            pulp.LpVariable(f"v{place}", v.lower, v.upper, cat=pulp.LpInteger)
            for place, v in enumerate(model.variables)
        ]
        least = sum(min(0, c) for c in model.objective.coefficients) + model.objective.constant
        unit = _unit(model.objective.coefficients)
        problem += _affine(pulp, variables, model.objective, unit)
        for place, row in enumerate(model.constraints):
            if not row.expression.columns:
                if not _holds(row.expression.constant, row.lower, row.upper):
                    return ModelAnswer(Status.INFEASIBLE)
                continue
            scale = _unit(row.expression.coefficients)
            terms = _affine(pulp, variables, row.expression, scale)
            low, high = row.lower, row.upper
            if low is not None and low == high:
                problem += terms == _quotient(low - row.expression.constant, scale), f"r{place}"
                continue
            if high is not None:
                problem += terms <= _quotient(high - row.expression.constant, scale), f"r{place}"
            if low is not None:
                problem += terms >= _quotient(low - row.expression.constant, scale), f"l{place}"
        problem.addVariables(variables)
        status, dual = self.run(problem, deadline.remaining())
        if status is Status.INFEASIBLE:
            return ModelAnswer(status)
        bound = least
        if dual is not None and math.isfinite(dual):
            spread = sum(abs(c) for c in model.objective.coefficients)
            slack = math.ceil(RELATIVE * spread) if spread > 1e6 else 0
            scaled = math.ceil(dual * unit - 1e-6 * max(1.0, abs(dual))) - slack
            bound = max(least, scaled + model.objective.constant)
        if status is Status.UNKNOWN:
            return ModelAnswer(status, None, bound)
        values = tuple(round(variable.varValue or 0) for variable in variables)
        return ModelAnswer(status, values, bound)


def _unit(coefficients: tuple[int, ...]) -> int:
    """A power of two near the largest coefficient, so that scaling loses nothing in binary."""
    peak = max(map(abs, coefficients), default=1)
    return int(2 ** max(0, peak.bit_length() - 10))


def _affine(pulp: Any, variables: list[Any], expression: Linear, unit: int) -> Any:
    return pulp.LpAffineExpression(
        [
            (variables[column], _quotient(coefficient, unit))
            for column, coefficient in zip(expression.columns, expression.coefficients)
        ]
    )


def _quotient(value: int, unit: int) -> float:
    """value / unit, correctly rounded."""
    return value / unit


def _holds(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def highs_clashes() -> bool:
    """Whether highspy (1.15 on) and OR-Tools both bring a shared libhighs of the same name.

    The loader takes the first for both, and the second import dies of undefined symbols.
    """
    places = {"highspy": ".", "ortools": ".libs"}
    for package, folder in places.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return False
        if not list((Path(spec.origin).parent / folder).glob("libhighs.so*")):
            return False
    return True
