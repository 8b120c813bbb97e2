# SPDX-License-Identifier: Apache-2.0
"""Why an optimum is what it is: which limits bind, what more of each is worth, and what the next
best option of each group would cost. Every figure is a re-solve, none is a guess from duals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from codesign.errors import InputError
from codesign.solvers.base import Deadline, Result, Solver
from codesign.solvers.decimals import Number, add, plain
from codesign.solvers.problem import Limit, Problem
from codesign.solvers.solution import Status
from codesign.solvers.solve import AUTO, get_solver, solve_raw
from codesign.solvers.validate import Checker


@dataclass(frozen=True)
class LimitReport:
    """One limit at the optimum. Gains are improvements of the objective (0 or more), None where
    time ended before the re-solve."""

    metric: str
    side: Literal["min", "max"]
    limit: Number
    total: Decimal
    slack: Decimal
    """Distance of the total from the limit, 0 or more."""
    binds: bool | None
    """Whether the optimum improves without this limit."""
    gain_without: Decimal | None
    unit: Number
    """What "one more unit" means here."""
    gain_of_unit: Decimal | None
    next_limit: Decimal | None
    """The least relaxed limit at which the optimum improves at all; None when it never does."""
    gain_at_next: Decimal | None

    @property
    def text(self) -> str:
        sign = "<=" if self.side == "max" else ">="
        head = f"{self.metric} {sign} {plain(self.limit)} (total {plain(self.total)})"
        if self.binds is None or self.gain_of_unit is None:
            return f"{head}: not worked out, time ended"
        if not self.binds:
            return f"{head}: does not bind"
        text = f"{head}: binds; {plain(self.unit)} more is worth {plain(self.gain_of_unit)}"
        if self.next_limit is not None and self.gain_at_next is not None:
            text += f"; the next step is {plain(self.next_limit)}, worth {plain(self.gain_at_next)}"
        return text


@dataclass(frozen=True)
class OptionReport:
    """One group (or tie) at the optimum and its next best option."""

    groups: tuple[str, ...]
    option: str
    next_option: str | None
    """None when no other option is feasible (or time ended: ``complete`` is False)."""
    cost: Decimal | None
    """How much worse the objective is with the next best option, all else free to change."""
    complete: bool = True

    @property
    def text(self) -> str:
        head = f"{', '.join(self.groups)}: {self.option}"
        if not self.complete:
            return f"{head}; next best not worked out, time ended"
        if self.next_option is None or self.cost is None:
            return f"{head}; no other option is feasible"
        return f"{head}; next best {self.next_option}, {plain(self.cost)} worse"


@dataclass(frozen=True)
class Explanation:
    """The whole explanation of an optimum."""

    objective: Decimal
    limits: tuple[LimitReport, ...]
    options: tuple[OptionReport, ...]

    @property
    def text(self) -> str:
        """Lines for people."""
        lines = [limit.text for limit in self.limits]
        return "\n".join(lines + [option.text for option in self.options])

    def to_data(self) -> dict[str, Any]:
        """For JSON (``codesign.solvers.decimals.dump_json``)."""
        return {
            "objective": self.objective,
            "limits": [dict(vars(item)) | {"text": item.text} for item in self.limits],
            "options": [
                dict(vars(item)) | {"groups": list(item.groups), "text": item.text}
                for item in self.options
            ],
        }


def explain(
    problem: Problem,
    solver: str | Solver = AUTO,
    time_limit: float | None = None,
    *,
    units: Mapping[str, Number] | None = None,
    groups: Sequence[str] | None = None,
) -> Explanation:
    """Explain the optimum of a feasible problem.

    ``units`` gives, per metric, what one more unit of its limit is (1 where not given);
    ``groups`` restricts the options explained. ``time_limit`` (seconds) is for everything.
    Raises InputError when the problem has no optimum to explain (infeasible, or time ended).
    """
    deadline = Deadline.after(time_limit)
    backend = get_solver(solver, problem)
    check = Checker()
    wanted = set(problem.groups)
    if groups is not None:
        wanted = {check.known(name, "groups", "group", problem.groups) for name in groups}
    for metric, unit in (units or {}).items():
        check.known(metric, "units", "metric", problem.metrics)
        if check.number(unit, f"units.{metric}") <= 0:
            check.fail(f"units.{metric}", "expected a number above 0")
    best = solve_raw(problem, backend, time_limit)
    if best.status is not Status.OPTIMAL:
        raise InputError(f"nothing to explain: the problem's status is {best.status}")
    work = _Explainer(problem, backend, deadline, best)
    return Explanation(
        objective=work.decimal(work.objective),
        limits=tuple(
            work.limit(limit, (units or {}).get(limit.metric, 1)) for limit in problem.limits
        ),
        options=tuple(
            work.option(tie) for tie in _tied(problem) if wanted & set(_names(problem, tie))
        ),
    )


@dataclass(frozen=True)
class _Explainer:
    problem: Problem
    backend: Solver
    deadline: Deadline
    best: Result

    @property
    def objective(self) -> int:
        assert self.best.objective is not None
        return self.best.objective

    def decimal(self, scaled: int) -> Decimal:
        return self.problem.metric.decimal(scaled)

    def solve(self, problem: Problem) -> Result | None:
        """A finished re-solve, or None."""
        if self.deadline.passed:
            return None
        left = self.deadline.remaining()
        result = solve_raw(problem, self.backend, None if left is None else max(left, 1e-3))
        return result if result.status in (Status.OPTIMAL, Status.INFEASIBLE) else None

    def gain(self, result: Result | None) -> int | None:
        """Improvement over the optimum in units of the objective."""
        if result is None or result.objective is None:
            return None
        return abs(result.objective - self.objective)

    def limit(self, limit: Limit, unit: Number) -> LimitReport:
        problem = self.problem
        metric = problem.metrics[limit.metric]
        assert self.best.choice is not None
        total = metric.decimal(problem.total(metric, self.best.choice, self.best.architecture))
        distance = add(limit.value, total.copy_negate())
        rest = [other for other in problem.limits if other is not limit]
        without = self.gain(self.solve(problem.with_limits(rest)))
        of_unit: int | None = None if without is None else 0
        next_limit, at_next = None, None
        if without:
            more = unit if limit.side == "max" else -unit
            of_unit = self.gain(self._relaxed(limit, rest, add(limit.value, more)))
            found = self._next(limit, rest)
            if found is not None:
                next_limit = metric.decimal(found)
                at_next = self.gain(self._relaxed(limit, rest, next_limit))
        return LimitReport(
            metric=limit.metric,
            side=limit.side,
            limit=limit.value,
            total=total,
            slack=distance.copy_abs(),
            binds=None if without is None else without > 0,
            gain_without=None if without is None else self.decimal(without),
            unit=unit,
            gain_of_unit=None if of_unit is None else self.decimal(of_unit),
            next_limit=next_limit,
            gain_at_next=None if at_next is None else self.decimal(at_next),
        )

    def _relaxed(self, limit: Limit, rest: list[Limit], value: Number) -> Result | None:
        moved = Limit(limit.metric, limit.side, value)
        return self.solve(self.problem.with_limits([*rest, moved]))

    def _next(self, limit: Limit, rest: list[Limit]) -> int | None:
        """The limit's value nearest to it at which the objective is better by the least unit."""
        problem = self.problem
        step = 1 if problem.maximize else -1
        better = Limit(
            problem.objective,
            "min" if problem.maximize else "max",
            self.decimal(self.objective + step),
        )
        asked = problem.with_limits([*rest, better])
        result = self.solve(asked.with_objective(limit.metric, limit.side == "min"))
        return None if result is None else result.objective

    def option(self, tie: tuple[int, ...]) -> OptionReport:
        problem = self.problem
        assert self.best.choice is not None
        group = tie[0]
        chosen = self.best.choice[group]
        result = self.solve(problem.with_forbid((group, chosen)))
        gain = self.gain(result)
        return OptionReport(
            groups=_names(problem, tie),
            option=problem.options[group][chosen],
            next_option=None
            if result is None or result.choice is None
            else problem.options[group][result.choice[group]],
            cost=None if gain is None else self.decimal(gain),
            complete=result is not None,
        )


def _names(problem: Problem, tie: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(problem.groups[group] for group in tie)


def _tied(problem: Problem) -> list[tuple[int, ...]]:
    """Groups that pick together, in order; a free group alone."""
    members = {group: [group] for group in range(len(problem.groups))}
    for tie in problem.ties:
        joined = sorted({group for start in tie for group in members[start]})
        for group in joined:
            members[group] = joined
    return list(dict.fromkeys(tuple(found) for found in members.values()))
