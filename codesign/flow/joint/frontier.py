# SPDX-License-Identifier: Apache-2.0
"""The exact frontier of two metrics of a joint problem: what ``codesign.flow.frontier`` asks.

Each question starts from the designs and multipliers of the ones before it in the same process, and
a process that is handed questions by joblib keeps its tables between them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from codesign.errors import InfeasibleError
from codesign.flow.joint.design import design_of
from codesign.flow.joint.problem import INTERVAL, JointProblem
from codesign.flow.joint.result import Certificate, JointResult
from codesign.flow.store import digest, write_text
from codesign.solvers.decimals import scale_down, to_decimal
from codesign.solvers.solution import Status

_HEAD = "codesign-joint-points/1"
_PROBLEMS: dict[str, JointProblem] = {}
"""Problems by key in this process: tables, designs and multipliers stay between questions."""


@dataclass(frozen=True)
class JointPoint:
    """One design of the frontier with its two proofs."""

    first: Decimal
    second: Decimal
    bound: Decimal | None
    """The bound on the second metric that it was found under; None for none."""
    design: JointResult
    certificate: Certificate
    """That the first metric is at its least under the bound."""
    tie_break: Certificate
    """That the second is at its least at that."""


@dataclass(frozen=True)
class JointQuestion:
    """A frontier to be found: the least ``first`` under every bound on ``second``."""

    problem: JointProblem
    first: str
    second: str
    time_limit: float | None = None
    """Seconds for each point."""
    name: str = ""
    """Tells problems apart in a process: a hash of all that the problem was made of."""

    @property
    def key(self) -> str:
        """The same for the same problem and metrics."""
        limits = sorted(self.problem.limits.items()), sorted(self.problem.floors.items())
        return digest(self.name, repr(limits), self.first, self.second)

    def _known(self) -> JointProblem:
        if self.key not in _PROBLEMS:
            _PROBLEMS.clear()  # one frontier at a time
            _PROBLEMS[self.key] = self.problem
        return _PROBLEMS[self.key]

    def _solve(self, objective: str, limits: Mapping[str, int]) -> JointResult:
        from codesign.flow.joint import solve

        asked = replace(self._known(), objective=objective, limits=dict(limits))
        return solve(asked, self.time_limit, explain=False, tolerance=0.0)

    def _limits(self, metric: str, value: int) -> dict[str, int]:
        limits = dict(self.problem.limits)
        limits[metric] = min(value, limits.get(metric, value))
        return limits

    def ask(self, bound: Decimal | None) -> JointPoint | Status:
        """The point under a bound on the second metric, or why there is none."""
        limits = dict(self.problem.limits)
        if bound is not None:
            limits = self._limits(self.second, self.units(bound))
        best = self._solve(self.first, limits)
        if best.certificate.status is not Status.OPTIMAL:
            infeasible = best.certificate.status is Status.INFEASIBLE
            return Status.INFEASIBLE if infeasible else Status.UNKNOWN
        value = _total(best, self.first)
        tied = dict(limits)
        tied[self.first] = min(value, tied.get(self.first, value))
        found = self._solve(self.second, tied)
        if found.certificate.status is not Status.OPTIMAL:
            return Status.UNKNOWN
        return JointPoint(
            to_decimal(value, self.problem.digits[self.first]),
            to_decimal(_total(found, self.second), self.problem.digits[self.second]),
            bound, found, best.certificate, found.certificate,
        )  # fmt: skip

    def least(self) -> Decimal | None:
        """The least second metric under the problem's limits; None where time ended."""
        found = self._solve(self.second, self.problem.limits)
        if found.certificate.status is not Status.OPTIMAL:
            return None
        return to_decimal(_total(found, self.second), self.problem.digits[self.second])

    def units(self, value: Decimal) -> int:
        """A total of the second metric as a whole number of its units."""
        return scale_down(value, self.problem.digits[self.second])

    def decimal(self, units: int) -> Decimal:
        """Inverse of ``units``."""
        return to_decimal(units, self.problem.digits[self.second])

    def no_points(self, status: Status) -> InfeasibleError:
        """Why there is no frontier."""
        from codesign.flow.joint import solve

        if status is Status.UNKNOWN:
            return InfeasibleError(
                f"no design was proven within --time-limit {self.time_limit} s; allow more time"
            )
        return InfeasibleError(
            solve(replace(self.problem, objective=self.first), self.time_limit).why
        )


def _total(result: JointResult, metric: str) -> int:
    return result.interval if metric == INTERVAL else result.totals[metric]


@dataclass
class JointPointFile:
    """Finished points of one question, a line each; a half-written last line is left out."""

    path: Path
    question: JointQuestion

    def load(self) -> list[JointPoint]:
        """Points of an earlier run of the same question, each priced again by the reference model;
        starts the file anew otherwise."""
        head = json.dumps([_HEAD, self.question.key])
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except (FileNotFoundError, UnicodeDecodeError):
            lines = [""]
        kept = []
        for line in lines[1:] if lines[0] == head else []:
            point = self._parse(line)
            if point is not None:
                kept.append(point)
                self.question.problem.store.learn((point.design.place, point.design.columns))
        write_text(self.path, "".join(f"{line}\n" for line in (head, *map(_line, kept))))
        return kept

    def add(self, point: JointPoint) -> None:
        """Keep a point, now."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_line(point) + "\n")

    def _parse(self, line: str) -> JointPoint | None:
        question = self.question
        try:
            bound, first, second, place, columns, *proofs = json.loads(line)
            certificate, tie_break = (Certificate.from_data(proof) for proof in proofs)
            asked = replace(question.problem, objective=question.second)
            value = question.units(Decimal(second))
            design = design_of(asked, value, place, tuple(columns), tie_break)
        except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, AssertionError):
            return None
        digits = question.problem.digits[question.first]
        if to_decimal(_total(design, question.first), digits) != Decimal(first):
            return None
        return JointPoint(
            Decimal(first), Decimal(second), None if bound is None else Decimal(bound), design,
            certificate, tie_break,
        )  # fmt: skip


def _line(point: JointPoint) -> str:
    proofs = [
        {k: str(v) if isinstance(v, Decimal) else v for k, v in c.to_data().items()}
        for c in (point.certificate, point.tie_break)
    ]
    bound = None if point.bound is None else str(point.bound)
    design = [point.design.place, list(point.design.columns)]
    return json.dumps([bound, str(point.first), str(point.second), *design, *proofs])
