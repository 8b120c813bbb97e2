# SPDX-License-Identifier: Apache-2.0
"""Back ends that solve the integer model: lower, solve, lift, and distrust of floating point."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from codesign.solvers.base import Deadline, Result, Solver
from codesign.solvers.formulate import Lowering, lower
from codesign.solvers.model import Model
from codesign.solvers.problem import Problem
from codesign.solvers.solution import Proof, Status
from codesign.solvers.subproblem import trivial_bound

_RETRIES = 50


@dataclass(frozen=True)
class ModelAnswer:
    """Values of the model's variables and a lower bound on its objective."""

    status: Status
    values: tuple[int, ...] | None = None
    bound: int | None = None


class ModelSolver(Solver):
    """Solves a problem through one integer model of it."""

    proof: ClassVar[Proof] = Proof.INTEGER

    @abstractmethod
    def solve_model(self, model: Model, deadline: Deadline) -> ModelAnswer:
        """Minimise; OPTIMAL needs no bound, FEASIBLE should bring one."""

    def solve(self, problem: Problem, time_limit: float | None = None) -> Result:
        self.require()
        start = time.perf_counter()
        deadline = Deadline.after(time_limit)
        lowering = lower(problem)
        answer = self._checked(lowering, deadline)
        reduced = lowering.reduced
        sign = -1 if problem.maximize else 1
        choice, architecture, objective, bound = None, None, None, answer.bound
        if answer.values is not None:
            assert lowering.model is not None
            choice, architecture = lowering.lift(answer.values)
            objective = lowering.model.objective.value(answer.values)
            if answer.status is Status.OPTIMAL:
                bound = objective
        if answer.status in (Status.FEASIBLE, Status.UNKNOWN):
            least = trivial_bound(reduced)
            bound = least if bound is None else max(bound, least)
            bound = bound if objective is None else min(bound, objective)
        done = answer.status in (Status.OPTIMAL, Status.INFEASIBLE)
        return Result(
            status=answer.status,
            seconds=time.perf_counter() - start,
            choice=choice,
            architecture=architecture,
            objective=None if objective is None else sign * objective,
            bound=None if bound is None or answer.status is Status.INFEASIBLE else sign * bound,
            architectures_solved=len(reduced.archs) if done else 0,
            architectures_pruned=reduced.pruned,
            proof=self.proof if lowering.model is not None else Proof.INTEGER,
            solver=self.name,
        )

    def _checked(self, lowering: Lowering, deadline: Deadline) -> ModelAnswer:
        """The answer, where a choice that breaks a row by less than a floating-point tolerance is
        excluded and the model solved again."""
        model = lowering.model
        if model is None:
            return ModelAnswer(Status.INFEASIBLE)
        reduced = lowering.reduced
        picks = len(reduced.offsets) - 1 + (1 if len(reduced.archs) > 1 else 0)
        best: ModelAnswer | None = None
        for _ in range(_RETRIES):
            answer = self.solve_model(model, deadline)
            if answer.values is None or not model.violations(answer.values):
                return answer
            best = answer
            picked = lowering.picked(answer.values)
            if len(picked) != picks:
                break
            model = model.without(picked)
        return ModelAnswer(Status.UNKNOWN, None, best.bound if best else None)
