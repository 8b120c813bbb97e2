# SPDX-License-Identifier: Apache-2.0
"""Meeting a limit on measured accuracy with a solver that only knows an additive loss.

The loss is a model; accuracy is measured. Each round solves under a loss limit, measures the
chosen network, and moves the limit: down when the accuracy limit was missed, up towards the last
miss when it was met. So the answer is the best design that the solver can be led to whose
*measured* accuracy holds, and it is optimal under the loss limit that is stated with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from codesign.errors import InfeasibleError
from codesign.flow.artifact import Round
from codesign.solvers.solution import Solution

CLOSE = Decimal("0.02")
"""Stop when the loss limits that met and missed differ by less than this share."""


@dataclass(frozen=True)
class Found:
    """A solved and measured design."""

    solution: Solution
    loss_limit: Decimal | None
    loss: Decimal
    accuracy: float
    """Percent."""

    @property
    def choices(self) -> Mapping[str, str]:
        """Format of each layer."""
        assert self.solution.choices is not None
        return self.solution.choices


Solve = Callable[["Decimal | None"], Solution]
"""Best design under a loss limit; raises InfeasibleError."""
Measure = Callable[[Mapping[str, str]], float]
"""Accuracy in percent of the integer network."""


class AccuracyModel:
    """Accuracy against loss, linear between measured points; (0, float accuracy) is the first."""

    def __init__(self, float_accuracy: float) -> None:
        self._points: list[tuple[float, float]] = [(0.0, float_accuracy)]

    def add(self, loss: Decimal, accuracy: float) -> None:
        """Learn from a measured design."""
        self._points.append((float(loss), accuracy))
        self._points.sort()

    def predict(self, loss: Decimal) -> float | None:
        """Accuracy in percent, or None while only the float network is known."""
        if len(self._points) < 2:
            return None
        x = float(loss)
        below = [p for p in self._points if p[0] <= x]
        above = [p for p in self._points if p[0] > x]
        if not above:  # extrapolate along the last two points, never upwards
            (x0, y0), (x1, y1) = self._points[-2:]
            slope = min(0.0, (y1 - y0) / (x1 - x0)) if x1 > x0 else 0.0
            return max(0.0, y1 + slope * (x - x1))
        (x0, y0), (x1, y1) = below[-1], above[0]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def meet_accuracy(
    solve: Solve,
    measure: Measure,
    loss_of: Callable[[Mapping[str, str]], Decimal],
    model: AccuracyModel,
    least: float,
    rounds: int,
    note: Callable[[str], None],
) -> tuple[Found, tuple[Round, ...]]:
    """The best design whose measured accuracy is at least ``least`` percent, and the rounds.

    Raises InfeasibleError with the best accuracy that was measured when none reaches it.
    """
    history: list[Round] = []
    seen: dict[tuple[tuple[str, str], ...], float] = {}

    def attempt(limit: Decimal | None) -> Found:
        solution = solve(limit)
        assert solution.choices is not None
        loss = loss_of(solution.choices)
        key = tuple(sorted(solution.choices.items()))
        predicted = model.predict(loss)
        if key not in seen:
            seen[key] = measure(solution.choices)
            model.add(loss, seen[key])
            history.append(
                Round(
                    loss_limit=None if limit is None else float(limit),
                    loss=float(loss),
                    choices=dict(solution.choices),
                    predicted=predicted,
                    measured=seen[key],
                    met=seen[key] >= least,
                )
            )
            note(
                f"round {len(history)}: measured {seen[key]:.2f} %, wanted {least:.2f} % "
                f"({'met' if seen[key] >= least else 'missed: tightening the loss limit'})"
            )
        return Found(solution, limit, loss, seen[key])

    found = attempt(None)
    if found.accuracy >= least:
        return found, tuple(history)
    missed, met, best = found.loss, Decimal(0), None
    for _ in range(2 * rounds):  # a limit may lead to a design that is known already
        if len(history) >= rounds or missed - met <= CLOSE * missed:
            break
        limit = _next_limit(model, met, missed, least)
        try:
            found = attempt(limit)
        except InfeasibleError:
            met = limit  # below the least possible loss: nothing to find down there
            continue
        if found.accuracy >= least:
            met, best = limit, found
        else:
            missed = min(missed, found.loss)
    if best is None:
        top = max(history, key=lambda item: item.measured)
        raise InfeasibleError(
            f"infeasible: accuracy of at least {least:.2f} % was not reached in {len(history)} "
            f"measured designs; the best measured {top.measured:.2f} %. Nearest feasible: "
            f"--min-accuracy {top.measured:.2f}; or offer wider formats with --formats"
        )
    return best, tuple(history)


def _next_limit(model: AccuracyModel, met: Decimal, missed: Decimal, least: float) -> Decimal:
    """The loss at which the model expects ``least``, kept well inside (met, missed)."""
    span = missed - met
    low, high = met, missed
    for _ in range(40):
        middle = (low + high) / 2
        expected = model.predict(middle)
        if expected is not None and expected >= least:
            low = middle
        else:
            high = middle
    return min(max(low, met + span / 10), missed - span / 10)
