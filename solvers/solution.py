# SPDX-License-Identifier: Apache-2.0
"""The answer to a problem with its certificate (file format ``codesign-solution/1``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from codesign.solvers.decimals import Number, dump_json, plain
from codesign.solvers.files import expect_format, parse_json, read_text
from codesign.solvers.validate import Checker, key_path

FORMAT = "codesign-solution/1"
_KEYS = (
    "format",
    "name",
    "status",
    "objective",
    "bound",
    "gap",
    "architecture",
    "choices",
    "totals",
    "solver",
    "seconds",
    "architectures_solved",
    "architectures_pruned",
    "proof",
    "explanation",
)


class Status(StrEnum):
    """What is known about the answer."""

    OPTIMAL = "optimal"
    """Feasible, and no feasible choice is better."""
    FEASIBLE = "feasible"
    """Feasible; how far from the best is bounded by ``bound`` and ``gap``."""
    INFEASIBLE = "infeasible"
    """Proven: no choice meets all limits, ties and forbids."""
    UNKNOWN = "unknown"
    """Time ended before a feasible choice or a proof of there being none was found."""


class Proof(StrEnum):
    """On what arithmetic the solver's claim of optimality or infeasibility rests."""

    INTEGER = "integer"
    """Exact integers throughout."""
    FLOAT = "float"
    """A floating-point MILP solver: true up to its tolerance (the answer itself is exact)."""


@dataclass(frozen=True)
class Conflict:
    """One limit of a minimal set that cannot hold together."""

    metric: str
    side: Literal["min", "max"]
    limit: Number
    nearest: Decimal | None
    """The nearest value at which the problem is feasible, all other limits kept; None when no
    value of this limit alone is enough (or time ended: see ``Infeasible.complete``)."""

    def __str__(self) -> str:
        sign = "<=" if self.side == "max" else ">="
        text = f"{self.metric} {sign} {plain(self.limit)}"
        if self.nearest is None:
            return f"{text} (relaxing it alone is not enough)"
        return f"{text} (feasible from {plain(self.nearest)}, the others kept)"


@dataclass(frozen=True)
class Infeasible:
    """Why a problem has no answer."""

    limits: tuple[Conflict, ...]
    """A minimal set: without any one of them the rest can hold together. Empty when ties and
    forbids alone leave no choice."""
    complete: bool = True
    """False when time ended before the set was minimal and every value known."""

    @property
    def text(self) -> str:
        """One paragraph for people."""
        if not self.limits:
            return "infeasible: ties and forbids leave no choice, whatever the limits"
        head = "this limit cannot hold" if len(self.limits) == 1 else "these limits cannot all hold"
        tail = "" if self.complete else "; time ended before this was fully worked out"
        return f"infeasible: {head}: " + "; ".join(map(str, self.limits)) + tail

    def to_data(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "complete": self.complete,
            "limits": [
                {
                    "metric": item.metric,
                    "side": item.side,
                    "limit": item.limit,
                    "nearest": item.nearest,
                }
                for item in self.limits
            ],
        }


@dataclass(frozen=True)
class Solution:
    """A checked answer: totals are recomputed from the choice, exactly, in the user's units."""

    status: Status
    solver: str
    seconds: float
    name: str = ""
    objective: Decimal | None = None
    bound: Decimal | None = None
    """No choice has an objective better than this."""
    architecture: str | None = None
    choices: Mapping[str, str] | None = None
    """Group to option; None without an answer."""
    totals: Mapping[str, Decimal] | None = None
    architectures_solved: int = 0
    """Solved to the end; 1 for a solved problem without architectures."""
    architectures_pruned: int = 0
    """Discarded by a bound or by a limit on the architecture alone."""
    proof: Proof = Proof.INTEGER
    explanation: Infeasible | None = None
    """Given when infeasible."""

    @property
    def gap(self) -> float | None:
        """|objective - bound| / |objective|; 0.0 when optimal, None without both."""
        if self.objective is None or self.bound is None:
            return None
        if self.objective == self.bound:
            return 0.0
        return float(abs(self.objective - self.bound) / max(abs(self.objective), Decimal("1e-12")))

    def to_data(self) -> dict[str, Any]:
        """The file's content; numbers are exact decimals, ``seconds`` and ``gap`` floats."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "status": str(self.status),
            "objective": self.objective,
            "bound": self.bound,
            "gap": self.gap,
            "architecture": self.architecture,
            "choices": None if self.choices is None else dict(self.choices),
            "totals": None if self.totals is None else dict(self.totals),
            "solver": self.solver,
            "seconds": round(self.seconds, 6),
            "architectures_solved": self.architectures_solved,
            "architectures_pruned": self.architectures_pruned,
            "proof": str(self.proof),
        }
        if self.explanation is not None:
            data["explanation"] = self.explanation.to_data()
        return data

    def to_json(self) -> str:
        """The file's text."""
        return dump_json(self.to_data()) + "\n"


def load_solution(path: str | Path) -> Solution:
    """The solution in a file. Raises InputError for anything wrong with it."""
    return parse_solution(read_text(path, "solution"), str(path))


def parse_solution(text: str, source: str = "") -> Solution:
    """The solution in a JSON text. ``Solution.to_json`` of it gives the same content."""
    check = Checker(source)
    table = expect_format(check, parse_json(text, source), FORMAT)
    check.keys(table, _KEYS, "")
    for key in ("status", "solver", "seconds"):
        if key not in table:
            check.fail("", f"no {key!r}")
    status = Status(check.known(table["status"], "status", "status", [str(s) for s in Status]))
    proof = check.known(table.get("proof", "integer"), "proof", "proof", [str(p) for p in Proof])
    seconds = float(check.number(table["seconds"], "seconds"))

    def decimal(value: object, path: str) -> Decimal | None:
        return None if value is None else Decimal(check.number(value, path))

    def count(key: str) -> int:
        value = table.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            check.fail(key, "expected a whole number of at least 0")
        return value

    choices = table.get("choices")
    if choices is not None:
        for group, option in check.table(choices, "choices", "group to option").items():
            check.name(option, key_path("choices", group), "an option")
    totals = table.get("totals")
    if totals is not None:
        check.table(totals, "totals", "metric to number")
        totals = {
            name: Decimal(check.number(value, key_path("totals", name)))
            for name, value in totals.items()
        }
    architecture = table.get("architecture")
    if architecture is not None:
        check.name(architecture, "architecture", "an architecture")
    return Solution(
        status=status,
        solver=check.name(table["solver"], "solver", "a solver"),
        seconds=seconds,
        name=str(table.get("name", "")),
        objective=decimal(table.get("objective"), "objective"),
        bound=decimal(table.get("bound"), "bound"),
        architecture=architecture,
        choices=choices,
        totals=totals,
        architectures_solved=count("architectures_solved"),
        architectures_pruned=count("architectures_pruned"),
        proof=Proof(proof),
        explanation=_explanation(check, table.get("explanation")),
    )


def _explanation(check: Checker, data: object) -> Infeasible | None:
    if data is None:
        return None
    table = check.table(data, "explanation", "limits")
    limits: list[Conflict] = []
    for place, item in enumerate(check.sequence(table.get("limits"), "explanation.limits", "…")):
        where = f"explanation.limits[{place}]"
        entry = check.table(item, where, "metric, side, limit, nearest")
        side = check.known(entry.get("side"), f"{where}.side", "side", ("min", "max"))
        nearest = entry.get("nearest")
        limits.append(
            Conflict(
                metric=check.name(entry.get("metric"), f"{where}.metric", "a metric"),
                side="max" if side == "max" else "min",
                limit=check.number(entry.get("limit"), f"{where}.limit"),
                nearest=None
                if nearest is None
                else Decimal(check.number(nearest, f"{where}.nearest")),
            )
        )
    return Infeasible(tuple(limits), complete=table.get("complete") is not False)
