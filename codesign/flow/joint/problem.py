# SPDX-License-Identifier: Apache-2.0
"""A network on a device with everything that may be chosen, as the search takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from codesign.cost.bounds import Bounds
from codesign.cost.memory import DEFAULT_TIMING, Timing
from codesign.cost.option_tables import BUSY, OptionTables, Priced
from codesign.solvers.lagrange import FloatArray
from codesign.space.device import Device
from codesign.space.generate import RESOURCES, Space, SpaceOptions

JOINT = ("latency", "energy", "traffic", *BUSY)
"""Metrics that depend on the accelerator, additive over layers."""
MOVED = ("energy", "traffic")
"""Those of them that follow the bytes moved."""
CHOICE: tuple[str, ...] = ("loss", "size")
"""Metrics of the formats alone."""
INTERVAL = "interval"
"""Cycles from one image to the next: the greatest of its parts (``JointProblem.parts``)."""
OBJECTIVES = (
    "latency", "throughput", "energy", "traffic", "loss", "size", *RESOURCES, "reward",
)  # fmt: skip
LIMITS = {
    "latency_ms": "latency",
    "fps": INTERVAL,
    "energy_uj": "energy",
    "traffic_kb": "traffic",
    "loss": "loss",
    "size_kb": "size",
}
"""Keys of limits to their metrics; resources (dsp, lut, ff, ramb18) may be limited besides."""


_KEPT_CELLS = 60_000_000
"""Entries of priced tables that a problem keeps for its next solve (two of 8 bytes each)."""
_KEPT_DESIGNS = 24
_KEPT_MULTIPLIERS = 4


@dataclass(eq=False)
class PriceStore:
    """What solves of one problem leave for the next: priced tables by pair of cores, designs that
    were best under other limits, and multipliers. Copies to other processes hold no tables."""

    bounds: tuple[Bounds, Priced] | None = None
    pairs: dict[int, Priced] = field(default_factory=dict)
    cells: int = 0
    designs: dict[tuple[int, tuple[int, ...]], None] = field(default_factory=dict)
    """(accelerator, column of each unit), the latest last."""
    multipliers: dict[object, list[FloatArray]] = field(default_factory=dict)
    """By objective and limited metrics."""

    def keep(self, pair: int, priced: Priced) -> None:
        """Keep a pair's tables; forgets all others when they have become too many."""
        if self.cells > _KEPT_CELLS:
            self.pairs.clear()
            self.cells = 0
        self.pairs[pair] = priced
        self.cells += priced.cycles.size * (1 + len(priced.busy) // 2)

    def learn(self, design: tuple[int, tuple[int, ...]]) -> None:
        """Keep a design as a start for the next solve."""
        self.designs.pop(design, None)
        self.designs[design] = None
        while len(self.designs) > _KEPT_DESIGNS:
            del self.designs[next(iter(self.designs))]

    def learn_multipliers(self, key: object, found: list[FloatArray]) -> None:
        """Keep the latest multipliers of an objective and its limits."""
        if found:
            self.multipliers[key] = [*self.multipliers.get(key, []), *found][-_KEPT_MULTIPLIERS:]

    def __getstate__(self) -> dict[str, Any]:
        return {
            "bounds": None, "pairs": {}, "cells": 0, "designs": dict(self.designs),
            "multipliers": dict(self.multipliers),
        }  # fmt: skip


@dataclass(frozen=True)
class Reward:
    """The MnasNet reward (accuracy − loss) · (latency / target)^w, to be maximised."""

    accuracy: float
    """Of the float network, in the unit of the loss table."""
    target_ms: float
    alpha: float = -0.07
    """w up to the target."""
    beta: float = -0.07
    """w beyond it."""
    tolerance: float = 0.0
    """Relative; the search ends when no design can be better by more."""


@dataclass(frozen=True)
class Row:
    """Σ sign · metric ≤ sign · bound: at most the bound (sign 1) or at least it (−1)."""

    metric: str
    """Additive: one of JOINT, CHOICE or RESOURCES."""
    sign: int
    bound: int

    @property
    def bounded(self) -> bool:
        """Whether lower bounds of the metric can show that the limit is broken."""
        return self.sign > 0 or self.metric in CHOICE


@dataclass(frozen=True, eq=False)
class JointProblem:
    """A network on a device with everything that may be chosen; ``joint_problem`` builds it.

    ``build.with_limits`` (or ``dataclasses.replace(problem, limits=…)`` in the tables' units) asks
    the same with other values of the same limits, as a walk along a frontier does, and shares the
    tables filled so far; the next solve starts from the designs and multipliers of the ones before.
    A metric that was neither objective nor limited before (nor named in ``also``) needs a new
    problem: which accelerators are dominated and what tilings are chosen by depends on it.
    """

    tables: OptionTables
    device: Device
    space: Space
    objective: str
    """A metric to minimise: latency, interval, energy, traffic, loss, size or a resource."""
    limits: Mapping[str, int]
    """Metric to its largest value in the tables' units."""
    digits: Mapping[str, int]
    """Decimal digits of each metric's unit, as users see it."""
    pipelined: bool = True
    timing: Timing = DEFAULT_TIMING
    cache: Path | None = None
    seconds_space: float = 0.0
    store: PriceStore = field(default_factory=PriceStore)
    floors: Mapping[str, int] = field(default_factory=dict)
    """Metric to its least value in the tables' units."""
    stream: bool = False
    """Images follow one another and the engines work on different ones at once."""
    banned: frozenset[tuple[int, str]] = frozenset()
    """(layer, format) that may not be chosen."""
    budget: Mapping[str, int] = field(default_factory=dict)
    """The user's limits on resources, which ``space`` keeps to."""
    grid: SpaceOptions | None = None
    """What ``space`` was generated from; None when the user gave it."""
    drop_dominated: bool = True
    reward: Reward | None = None

    def parts(self, metric: str) -> tuple[str, ...]:
        """The additive metrics whose greatest a metric is: itself for all but the interval."""
        if metric != INTERVAL:
            return (metric,)
        return BUSY if self.stream else ("latency",)

    @property
    def rows(self) -> tuple[Row, ...]:
        """All limits over additive metrics, one row for each metric and side."""
        upper: dict[str, int] = {}
        for metric, value in self.limits.items():
            for part in self.parts(metric):
                upper[part] = min(value, upper.get(part, value))
        tops = (Row(metric, 1, value) for metric, value in upper.items())
        return (*tops, *(Row(metric, -1, value) for metric, value in self.floors.items()))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The additive metrics in use, the objective's first."""
        used = [*self.parts(self.objective), *(row.metric for row in self.rows)]
        return tuple(dict.fromkeys(used))

    def without(self, layer: int, *formats: str) -> JointProblem:
        """The same problem where a layer may not take some formats."""
        banned = self.banned | {(layer, format) for format in formats}
        return replace(self, banned=banned)

    def units(self, key: str, value: Decimal) -> Fraction:
        """A limit's value by its key (latency_ms, fps, …) in the tables' units, exactly."""
        exact = Fraction(value)
        if key == "latency_ms":
            return exact * self.device.clock_hz / 1000
        if key == "fps":
            return Fraction(self.device.clock_hz) / exact
        if key == "energy_uj":
            return exact * 10**9
        if key in ("traffic_kb", "size_kb"):
            return exact * 1024
        return exact * Fraction(10 ** self.digits.get(key, 0))

    def shown(self, metric: str, value: int) -> float:
        """A metric's value in the unit of its limit."""
        if metric == "latency":
            return value * 1000 / self.device.clock_hz
        if metric == INTERVAL:
            return self.device.clock_hz / value if value else float("inf")
        if metric == "energy":
            return value / 10**9
        if metric in ("traffic", "size"):
            return value / 1024
        return float(Decimal(value).scaleb(-self.digits[metric]))
