# SPDX-License-Identifier: Apache-2.0
"""Why a joint problem has no design: a minimal set of limits, and what would suffice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from codesign.flow.joint.problem import LIMITS, JointProblem
from codesign.flow.joint.search import Search
from codesign.solvers.base import Deadline, Solver
from codesign.solvers.solution import Status

_KEYS = {metric: key for key, metric in LIMITS.items()}


def why_infeasible(problem: JointProblem, solver: Solver, deadline: Deadline) -> str:
    """One paragraph: limits that cannot all hold, none of which could be left out of the list, and
    for each the nearest value at which there is a design, the others kept. Every claim is a solve;
    where time ends the text says so."""

    def least(metric: str, limits: Mapping[str, int]) -> tuple[Status, int | None]:
        asked = replace(problem, objective=metric, limits=dict(limits))
        search = Search(asked, deadline, solver)
        proof = search.run().certificate
        return proof.status, None if search.best is None else search.best.value

    kept = dict(problem.limits)
    complete = True
    for name in list(kept):
        others = {other: value for other, value in kept.items() if other != name}
        status, _ = least(problem.objective, others)
        complete &= status is not Status.UNKNOWN
        if status is Status.INFEASIBLE:
            kept = others
    tail = "" if complete else "; time ended before this was fully worked out"
    if not kept:
        formats = ", ".join(problem.tables.formats)
        return (
            f"infeasible whatever the limits: no accelerator of {problem.device.board} runs every "
            f"layer in the formats offered ({formats}); offer narrower ones or deeper buffers{tail}"
        )
    parts = []
    for name in kept:
        others = {other: value for other, value in kept.items() if other != name}
        text = f"{_KEYS[name]} <= {show(problem, name, kept[name])}"
        status, value = least(name, others)
        if status is Status.OPTIMAL and value is not None:
            text += f" (feasible from {show(problem, name, value)}"
            text += ", the others kept)" if others else ")"
        elif status is Status.INFEASIBLE:
            text += " (relaxing it alone is not enough)"
        parts.append(text)
    head = "this limit cannot hold" if len(parts) == 1 else "these limits cannot all hold"
    return f"infeasible: {head}: {'; '.join(parts)}{tail}"


def show(problem: JointProblem, metric: str, value: int) -> str:
    """A value of a metric in the unit of its limit, with as many digits as make it true."""
    if metric == "latency":
        return f"{value * 1000 / problem.device.clock_hz:.6g}"
    if metric == "energy":
        return f"{value / 10**9:.6g}"
    if metric in ("traffic", "size"):
        return f"{value / 1024:.6g}"
    return f"{value / 10 ** problem.digits[metric]:.6g}"
