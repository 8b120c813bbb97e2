# SPDX-License-Identifier: Apache-2.0
"""Why a design is what it is, and why there is none: every figure is a solve of its own.

Limits are taken as the user gave them, resources too: relaxing one of those generates accelerators
anew. A re-solve shares tables and starts from known designs where the accelerators are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from codesign.errors import InfeasibleError, InputError
from codesign.flow.joint.problem import INTERVAL, LIMITS, JointProblem, PriceStore
from codesign.flow.joint.result import Certificate, JointResult
from codesign.flow.joint.search import Search
from codesign.flow.joint.worth import CapacityWorth, JointExplanation, LayerWorth, LimitWorth
from codesign.solvers.base import Deadline, Solver
from codesign.solvers.solution import Status
from codesign.space.generate import generate

_KEYS = {metric: key for key, metric in LIMITS.items()}
_PER_CENT = 100


@dataclass(frozen=True)
class Asked:
    """One limit of a problem."""

    metric: str
    side: Literal["max", "min"]
    value: int
    """In the tables' units."""
    resource: bool = False
    """Kept by the choice of accelerators."""

    @property
    def key(self) -> str:
        """As the user writes it."""
        return _KEYS.get(self.metric, self.metric)


def asked_limits(problem: JointProblem) -> tuple[Asked, ...]:
    """Every limit of a problem."""
    found = [Asked(metric, "max", value) for metric, value in problem.limits.items()]
    found += [Asked(metric, "min", value) for metric, value in problem.floors.items()]
    found += [Asked(name, "max", value, True) for name, value in problem.budget.items()]
    return tuple(found)


def relaxed(problem: JointProblem, limit: Asked, value: int | None) -> JointProblem:
    """The problem with another value of a limit, or without it (None)."""
    if limit.resource:
        budget = {k: v for k, v in problem.budget.items() if k != limit.metric}
        if value is not None:
            budget[limit.metric] = value
        return _generated(problem, budget, problem.drop_dominated)
    table = dict(problem.limits if limit.side == "max" else problem.floors)
    table.pop(limit.metric)
    if value is not None:
        table[limit.metric] = value
    return replace(problem, limits=table) if limit.side == "max" else replace(problem, floors=table)


def _generated(problem: JointProblem, budget: Mapping[str, int], drop: bool) -> JointProblem:
    space = generate(problem.device, problem.grid, budget, drop)
    return replace(
        problem, space=space, budget=dict(budget), store=PriceStore(), drop_dominated=drop,
        seconds_space=0.0,
    )  # fmt: skip


@dataclass(frozen=True)
class _Solver:
    solver: Solver
    deadline: Deadline

    def solve(self, problem: JointProblem) -> tuple[Status, int | None, JointResult]:
        if self.deadline.passed:
            proof = Certificate(Status.UNKNOWN, None, None, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0)
            return Status.UNKNOWN, None, JointResult(proof)
        search = Search(problem, self.deadline, self.solver)
        result = search.run()
        value = None if search.best is None else search.best.value
        return result.certificate.status, value, result

    def nearest(self, problem: JointProblem, limit: Asked) -> tuple[Status, int | None]:
        """The nearest value of a limit at which the rest of the problem has a design. A least value
        has none nearer than what is reached, which is found by asking for the greatest total."""
        if limit.resource:
            return self._least_resource(problem, limit)
        rest = relaxed(problem, limit, None)
        if limit.side == "min":
            return self._greatest(rest, limit)
        status, value, _ = self.solve(replace(rest, objective=limit.metric))
        return status, value

    def _least_resource(self, problem: JointProblem, limit: Asked) -> tuple[Status, int | None]:
        """The least amount of a resource that will do, by halving between what will not and what a
        design takes: each question generates accelerators anew, without the dominated ones."""
        status, _, result = self.solve(relaxed(problem, limit, None))
        if status is not Status.OPTIMAL:
            return status, None
        bad, good = limit.value, result.totals[limit.metric]
        while good - bad > 1:
            middle = (good + bad) // 2
            try:
                status, _, result = self.solve(relaxed(problem, limit, middle))
            except InfeasibleError:
                status = Status.INFEASIBLE
            if status is Status.OPTIMAL:
                good = result.totals[limit.metric]
            elif status is Status.INFEASIBLE:
                bad = middle
            else:
                return status, None
        return Status.OPTIMAL, good

    def _greatest(self, rest: JointProblem, limit: Asked) -> tuple[Status, int | None]:
        """The greatest value that a metric can be asked to have, by halving."""
        status, low, _ = self.solve(replace(rest, objective=limit.metric))
        if status is not Status.OPTIMAL or low is None:
            return status, None
        good, bad = low, limit.value
        while bad - good > 1:
            middle = (good + bad) // 2
            floors = {**rest.floors, limit.metric: middle}
            status, value, _ = self.solve(replace(rest, floors=floors, objective=limit.metric))
            if status is Status.OPTIMAL and value is not None:
                good = value
            elif status is Status.INFEASIBLE:
                bad = middle
            else:
                return status, None
        return Status.OPTIMAL, good


def why_infeasible(problem: JointProblem, solver: Solver, deadline: Deadline) -> str:
    """One paragraph: limits that cannot all hold, none of which could be left out of the list, and
    for each the nearest value at which there is a design, the others kept. Every claim is a solve;
    where time ends the text says so."""
    work = _Solver(solver, deadline)
    rest, complete = problem, True
    for limit in asked_limits(problem):
        without = relaxed(rest, limit, None)
        status, _, _ = work.solve(without)
        complete &= status is not Status.UNKNOWN
        if status is Status.INFEASIBLE:
            rest = without
    tail = "" if complete else "; time ended before this was fully worked out"
    kept = asked_limits(rest)
    if not kept:
        formats = ", ".join(problem.tables.formats)
        return (
            f"infeasible whatever the limits: no accelerator of {problem.device.board} runs every "
            f"layer in the formats offered ({formats}); offer narrower ones or deeper buffers{tail}"
        )
    parts = []
    for limit in kept:
        text = _text(problem, limit)
        status, value = work.nearest(rest, limit)
        if status is Status.OPTIMAL and value is not None:
            word = "up to" if "≥" in text else "from"
            text += f" (feasible {word} {show(problem, limit.metric, value)}"
            text += ", the others kept)" if len(kept) > 1 else ")"
        elif status is Status.INFEASIBLE:
            text += " (relaxing it alone is not enough)"
        parts.append(text)
    head = "this limit cannot hold" if len(parts) == 1 else "these limits cannot all hold"
    return f"infeasible: {head}: {'; '.join(parts)}{tail}"


def _text(problem: JointProblem, limit: Asked) -> str:
    lower = limit.side == "min" or limit.metric == INTERVAL
    sign = "≥" if lower else "<="
    return f"{limit.key} {sign} {show(problem, limit.metric, limit.value)}"


def show(problem: JointProblem, metric: str, value: int) -> str:
    """A value of a metric in the unit of its limit, with as many digits as make it true."""
    return f"{problem.shown(metric, value):.6g}"


_UNITS = {"latency": "ms", INTERVAL: "ms an image", "energy": "µJ", "traffic": "KiB", "size": "KiB"}


def explain(
    problem: JointProblem, *, more: Mapping[str, int] | None = None,
    layers: Sequence[str] | None = None, time_limit: float | None = None,
    solver: Solver | None = None,
) -> JointExplanation:  # fmt: skip
    """Explain the optimum of a feasible problem.

    ``more`` gives, per metric, what "one more unit" of its limit is, in the tables' units; a
    hundredth of the limit where not given (one for resources). ``layers`` restricts the layers
    explained; limits and the part's capacities come first. ``time_limit`` (seconds) is for all of
    it; what it does not reach is marked so. Raises InputError when there is no
    optimum to explain, or for unknown layers and rewards.
    """
    from codesign.solvers.exact import Exact

    if problem.reward is not None:
        raise InputError(
            "a reward is not explained: ask for the least loss under its latency instead"
        )
    names = [layer.name for layer in problem.tables.workload.layers]
    unknown = sorted(set(layers or ()) - set(names))
    if unknown:
        raise InputError(f"explain: unknown layer {unknown[0]!r} (known: {', '.join(names[:8])} …)")
    work = _Solver(solver or Exact(), Deadline.after(time_limit))
    status, best, result = work.solve(problem)
    if status is not Status.OPTIMAL or best is None:
        raise InputError(f"nothing to explain: the problem's status is {status}")
    limits = tuple(
        _worth(problem, work, limit, best, result, more or {}) for limit in asked_limits(problem)
    )
    held = tuple(
        _capacity(problem, work, name, unit, best, result)
        for name, unit in _CAPACITIES.items()
        if problem.grid is not None and name not in problem.budget
    )
    return JointExplanation(
        problem.objective,
        _amount(problem, best),
        _UNITS.get(problem.objective, ""),
        limits,
        tuple(
            _layer(problem, work, names.index(choice.name), choice.format, best)
            for choice in result.layers
            if layers is None or choice.name in layers
        ),
        held,
    )


def _amount(problem: JointProblem, value: int) -> float:
    """An objective's value, or a difference of two, in its unit."""
    metric = "latency" if problem.objective == INTERVAL else problem.objective
    return problem.shown(metric, value)


def _worth(
    problem: JointProblem, work: _Solver, limit: Asked, best: int, result: JointResult,
    more: Mapping[str, int],
) -> LimitWorth:  # fmt: skip
    total = result.interval if limit.metric == INTERVAL else result.totals[limit.metric]
    usual = 1 if limit.resource else max(1, limit.value // _PER_CENT)
    step = more.get(limit.metric, usual)
    moved = limit.value + (step if limit.side == "max" else -step)

    def gain(asked: JointProblem) -> int | None:
        status, value, _ = work.solve(asked)
        return best - value if status is Status.OPTIMAL and value is not None else None

    without = gain(relaxed(problem, limit, None))
    of_more: int | None = 0 if without == 0 else None
    following = at_next = None
    if without:
        of_more = gain(relaxed(problem, limit, max(0, moved)))
        better = dict(relaxed(problem, limit, None).limits)
        better[problem.objective] = min(best - 1, better.get(problem.objective, best - 1))
        try:
            _, following = work.nearest(replace(problem, limits=_with(problem, limit, better)),
                                             limit)  # fmt: skip
        except InfeasibleError:
            following = None
        if following is not None:
            at_next = gain(relaxed(problem, limit, following))
    shown = problem.shown(limit.metric, limit.value)
    return LimitWorth(
        limit=_text(problem, limit),
        total=problem.shown(limit.metric, total),
        binds=None if without is None else without > 0,
        gain_without=None if without is None else _amount(problem, without),
        more=abs(problem.shown(limit.metric, max(0, moved)) - shown),
        gain_of_more=None if of_more is None else _amount(problem, of_more),
        next_limit=None if following is None else problem.shown(limit.metric, following),
        gain_at_next=None if at_next is None else _amount(problem, at_next),
    )


_CAPACITIES = {"dsp": 1, "lut": 100, "ramb18": 1}
"""Resources of a part whose worth is asked for, with what one more unit is."""


def _capacity(
    problem: JointProblem, work: _Solver, name: str, unit: int, best: int, result: JointResult
) -> CapacityWorth:  # fmt: skip
    device = problem.device
    percent = 100 if problem.grid is None else problem.grid.fill_percent.get(name, 100)
    held = getattr(device, name)
    capacity = held * percent // 100
    better = dict(problem.limits)
    better[problem.objective] = min(best - 1, better.get(problem.objective, best - 1))

    def gain(more: int) -> float | None:
        """Of a part with so much more: is anything better than the optimum?"""
        larger = replace(device, **{name: held - (-more * 100 // percent)})
        asked = replace(problem, device=larger, limits=better)
        status, value, _ = work.solve(_generated(asked, problem.budget, problem.drop_dominated))
        if status is Status.INFEASIBLE:
            return 0.0
        return _amount(problem, best - value) if value is not None else None

    tenth = max(unit, capacity // 10)
    of_tenth = gain(tenth)
    return CapacityWorth(
        name, capacity, result.totals[name], unit, gain(unit) if of_tenth else of_tenth, tenth,
        of_tenth,
    )  # fmt: skip


def _with(problem: JointProblem, limit: Asked, better: Mapping[str, int]) -> dict[str, int]:
    """Limits of a problem with the limit itself still there, for ``nearest`` to leave out."""
    table = dict(better)
    if not limit.resource and limit.side == "max":
        table[limit.metric] = limit.value
    return table


def _layer(
    problem: JointProblem, work: _Solver, place: int, format: str, best: int
) -> LayerWorth:  # fmt: skip
    status, value, result = work.solve(problem.without(place, format))
    name = problem.tables.workload.layers[place].name
    if status is Status.INFEASIBLE:
        return LayerWorth(name, format, None, None)
    if status is not Status.OPTIMAL or value is None:
        return LayerWorth(name, format, None, None, complete=False)
    following = result.formats.get(name, "left out")
    return LayerWorth(name, format, following, _amount(problem, value - best))
