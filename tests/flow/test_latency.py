# SPDX-License-Identifier: Apache-2.0
"""Lazy measurement: the optimum under the true table, and honest values where there is none."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import product

import pytest

from codesign.errors import InfeasibleError
from codesign.flow.latency import solve_lazily
from codesign.flow.options import DesignOptions
from codesign.flow.tables import Tables
from codesign.quant.formats import load_format

FORMATS = ("w8a8", "w4a8", "w2a8")
LAYERS = ("a", "b", "c", "d")


class Board:
    """A target whose latencies are known to the test; it counts what is measured."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.true = {(a, f): rng.randrange(200, 900) / 1000 for a in LAYERS for f in FORMATS}
        self.bytes = {(a, f): rng.randrange(100, 900) for a in LAYERS for f in FORMATS}
        self.loss = {(a, f): Decimal(rng.randrange(1, 900)) / 1000 for a in LAYERS for f in FORMATS}
        self.asked: list[tuple[str, str]] = []

    def tables(self) -> Tables:
        def rows(value: object) -> dict[str, dict[str, object]]:
            table = value if isinstance(value, dict) else dict.fromkeys(self.true, value)
            return {a: {f: table[a, f] for f in FORMATS} for a in LAYERS}

        return Tables(
            layers=LAYERS,
            formats={name: load_format(name) for name in FORMATS},
            loss=rows(self.loss),  # type: ignore[arg-type]
            size=rows(self.bytes),  # type: ignore[arg-type]
            bops=rows(1),  # type: ignore[arg-type]
            latency_ms=rows(Decimal("0.1")),  # type: ignore[arg-type]
        )

    def measure(
        self, choices: Mapping[str, str], layers: frozenset[str]
    ) -> Mapping[tuple[str, str], float]:
        found = {(layer, choices[layer]): self.true[layer, choices[layer]] for layer in layers}
        self.asked += found
        return found

    def all(self) -> list[tuple[dict[str, str], Decimal, int]]:
        """Every choice with its true latency and size."""
        return [
            (
                dict(zip(LAYERS, pick)),
                sum((Decimal(str(self.true[x])) for x in zip(LAYERS, pick)), Decimal(0)),
                sum(self.bytes[x] for x in zip(LAYERS, pick)),
            )
            for pick in product(FORMATS, repeat=len(LAYERS))
        ]


OPTIONS = DesignOptions("toy", formats=FORMATS, objective="loss")


@pytest.mark.parametrize("seed", range(8))
def test_the_answer_is_optimal_under_the_true_table(seed: int) -> None:
    board = Board(seed)
    everything = board.all()
    limit = sorted(latency for _, latency, _ in everything)[len(everything) // 5]
    options = replace(OPTIONS, max_latency_ms=float(limit))
    solution, tables = solve_lazily(board.tables(), options, None, board.measure)
    best = min(
        sum(board.loss[item] for item in choice.items())
        for choice, latency, _ in everything
        if latency <= limit
    )
    assert solution.objective == best
    assert solution.choices is not None
    assert set(solution.choices.items()) <= tables.measured
    assert len(board.asked) == len(set(board.asked)), "measured twice"


@pytest.mark.parametrize("seed", range(8))
def test_the_nearest_feasible_latency_is_a_measured_one(seed: int) -> None:
    """It must not be the sum of the lower bounds, which no design reaches."""
    board = Board(seed)
    least = min(latency for _, latency, _ in board.all())
    options = replace(OPTIONS, max_latency_ms=0.01)
    with pytest.raises(InfeasibleError) as caught:
        solve_lazily(board.tables(), options, None, board.measure)
    assert f"latency <= 0.01 (feasible from {least.normalize()}, the others kept)" in str(
        caught.value
    )


@pytest.mark.parametrize("seed", range(8))
def test_of_two_limits_both_nearest_values_are_true(seed: int) -> None:
    board = Board(seed)
    everything = board.all()
    size = min(size for _, _, size in everything)
    fast = min(latency for _, latency, s in everything if s <= size)
    options = replace(
        OPTIONS, max_size_kb=size / 1000, max_latency_ms=float(fast - Decimal("0.001"))
    )
    with pytest.raises(InfeasibleError) as caught:
        solve_lazily(board.tables(), options, None, board.measure)
    text = str(caught.value)
    assert f"(feasible from {fast.normalize()}, the others kept)" in text
    limit = Decimal(str(options.max_latency_ms))
    if any(latency <= limit for _, latency, _ in everything):
        small = min(s for _, latency, s in everything if latency <= limit)
        assert f"size <= {size} (feasible from {small}, the others kept)" in text


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("good", [True, False])
def test_estimates_say_what_comes_first_and_change_no_answer(seed: int, good: bool) -> None:
    board = Board(seed)
    rng = random.Random(seed + 100)
    options = replace(OPTIONS, objective="latency", loss_budget=0.5)

    def estimate(tables: Tables) -> Tables:
        guess = {
            a: {
                f: tables.latency_ms[a][f] if (a, f) in tables.measured
                else Decimal(str(board.true[a, f])) if good
                else Decimal(rng.randrange(100, 900)) / 1000
                for f in FORMATS
            }
            for a in LAYERS
        }  # fmt: skip
        return replace(tables, latency_ms=guess)

    plain, _ = solve_lazily(board.tables(), options, None, board.measure)
    board.asked.clear()
    solution, tables = solve_lazily(
        board.tables(), options, None, board.measure, estimate=estimate
    )
    assert solution.objective == plain.objective
    assert solution.choices is not None
    assert set(solution.choices.items()) <= tables.measured
    assert len(board.asked) == len(set(board.asked))
    if good:  # what is measured first is the answer; the rest is its proof
        assert set(board.asked[: len(LAYERS)]) == set(solution.choices.items())


def test_what_cannot_be_better_is_not_measured() -> None:
    """Narrow formats are faster and measured first; wider ones are not asked for at all."""
    board = Board(0)
    times = {"w8a8": 0.8, "w4a8": 0.5, "w2a8": 0.4}
    board.true = {(a, f): times[f] for a in LAYERS for f in FORMATS}
    costs = {"w8a8": 1.0, "w4a8": 0.6, "w2a8": 0.5}
    codes = {(a, f): f"{a} {f}" for a in LAYERS for f in FORMATS}
    options = replace(OPTIONS, objective="latency", loss_budget=1.0)
    solution, tables = solve_lazily(
        board.tables(), options, None, board.measure,
        lambda name, other: min(1.0, costs[other] / costs[name]),
        lambda tables: tables.with_estimates(codes, costs),
    )  # fmt: skip
    assert solution.choices == dict.fromkeys(LAYERS, "w2a8")
    assert set(board.asked) == {(a, "w2a8") for a in LAYERS}
    assert tables.latency_ms["a"]["w8a8"] == Decimal("0.400001")  # its bound, not its time


def test_estimates_come_from_the_nearest_measured_format() -> None:
    tables = Board(0).tables().with_measured({("a", "w8a8"): 1.0, ("a", "w2a8"): 0.6})
    costs = {"w8a8": 1.0, "w4a8": 0.6, "w2a8": 0.5}
    codes = {(a, f): f"{a} {f}" for a in LAYERS for f in FORMATS}
    found = tables.with_estimates(codes, costs)
    assert found.latency_ms["a"]["w8a8"] == 1
    assert float(found.latency_ms["a"]["w4a8"]) == pytest.approx(0.6 * (0.15 + 0.85 * 1.2))
    assert found.latency_ms["b"] == {"w8a8": Decimal("0.1"), "w4a8": Decimal("0.06"),
                                     "w2a8": Decimal("0.05")}  # fmt: skip
    # of one code in all formats: nothing is gained by another
    alike = tables.with_estimates(codes | {("b", f): "b" for f in FORMATS}, costs)
    assert set(alike.latency_ms["b"].values()) == {Decimal("0.1")}
    assert found.measured == tables.measured


@pytest.mark.parametrize("seed", range(8))
def test_the_loop_ends_where_bounds_leave_little_to_gain(seed: int) -> None:
    board, again = Board(seed), Board(seed)
    options = replace(OPTIONS, objective="latency", loss_budget=0.6)
    exact, _ = solve_lazily(again.tables(), options, None, again.measure)
    tolerance = Decimal("0.3")
    solution, tables = solve_lazily(
        board.tables(), options, None, board.measure, tolerance=tolerance
    )
    assert solution.choices is not None
    assert set(solution.choices.items()) <= tables.measured
    assert solution.objective is not None
    assert solution.bound is not None
    assert exact.objective is not None
    assert solution.objective == sum(
        Decimal(str(board.true[item])) for item in solution.choices.items()
    )
    assert solution.bound <= exact.objective <= solution.objective
    assert solution.objective - solution.bound <= tolerance * solution.objective
    assert (solution.status == "optimal") == (solution.bound == solution.objective)
    assert len(board.asked) <= len(again.asked)
