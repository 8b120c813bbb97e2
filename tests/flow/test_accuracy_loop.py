# SPDX-License-Identifier: Apache-2.0
"""The feedback loop finds the cheapest measured design that holds, or says what would."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from codesign.errors import InfeasibleError
from codesign.flow.accuracy_loop import AccuracyModel, meet_accuracy
from codesign.solvers import Solution, Status

STEPS = 20
"""Toy designs 0..STEPS: design k has loss k and size STEPS − k."""


class Toy:
    """A solver that minimises size under a loss limit, and a network whose accuracy falls."""

    def __init__(self, slope: float) -> None:
        self.slope = slope
        self.measured: list[int] = []

    def solve(self, limit: Decimal | None) -> Solution:
        k = STEPS if limit is None else min(STEPS, int(limit))
        return Solution(Status.OPTIMAL, "toy", 0.0, choices={"layer": str(k)})

    def measure(self, choices: Mapping[str, str]) -> float:
        k = int(choices["layer"])
        self.measured.append(k)
        return float(90.0 - self.slope * k**1.5)


def best(toy: Toy, least: float, rounds: int = 12) -> int:
    found, history = meet_accuracy(
        toy.solve, toy.measure, lambda c: Decimal(c["layer"]), AccuracyModel(90.0), least, rounds,
        lambda text: None,
    )  # fmt: skip
    assert found.accuracy >= least
    assert len(history) == len(toy.measured) == len(set(toy.measured))
    return int(found.choices["layer"])


@pytest.mark.parametrize("allowed", [1, 3, 7, 12, 19, 20])
def test_finds_the_smallest_design_that_holds(allowed: int) -> None:
    toy = Toy(0.3)
    least = 90.0 - 0.3 * allowed**1.5 - 1e-9
    found = best(toy, least)
    assert found <= allowed
    assert allowed - found <= 1, f"{found} is further from {allowed} than one step"


def test_an_unreachable_accuracy_names_the_nearest() -> None:
    toy = Toy(0.3)
    with pytest.raises(InfeasibleError, match=r"Nearest feasible: --min-accuracy \d+\.\d\d; or"):
        best(toy, 95.0)


def test_the_model_interpolates_and_never_rises() -> None:
    model = AccuracyModel(90.0)
    assert model.predict(Decimal(1)) is None
    model.add(Decimal(4), 80.0)
    assert model.predict(Decimal(2)) == 85.0
    assert model.predict(Decimal(6)) == 75.0
    model.add(Decimal(8), 84.0)
    assert model.predict(Decimal(10)) == 84.0
