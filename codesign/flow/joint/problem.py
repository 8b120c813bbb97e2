# SPDX-License-Identifier: Apache-2.0
"""A network on a device with everything that may be chosen, as the search takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codesign.cost.bounds import Bounds
from codesign.cost.memory import DEFAULT_TIMING, Timing
from codesign.cost.option_tables import OptionTables, Priced
from codesign.space.device import Device
from codesign.space.generate import RESOURCES, Space

JOINT = ("latency", "energy", "traffic")
"""Metrics that depend on the accelerator."""
MOVED = ("energy", "traffic")
"""Those of them that follow the bytes moved."""
CHOICE: tuple[str, ...] = ("loss", "size")
"""Metrics of the formats alone."""
OBJECTIVES = ("latency", "throughput", "energy", "traffic", "loss", "size", *RESOURCES)


_KEPT_CELLS = 60_000_000
"""Entries of priced tables that a problem keeps for its next solve (two of 8 bytes each)."""


@dataclass(eq=False)
class PriceStore:
    """Priced tables by pair of cores, kept from solve to solve of one problem."""

    bounds: tuple[Bounds, Priced] | None = None
    pairs: dict[int, Priced] = field(default_factory=dict)
    cells: int = 0

    def keep(self, pair: int, priced: Priced) -> None:
        """Keep a pair's tables; forgets all others when they have become too many."""
        if self.cells > _KEPT_CELLS:
            self.pairs.clear()
            self.cells = 0
        self.pairs[pair] = priced
        self.cells += priced.cycles.size


@dataclass(frozen=True, eq=False)
class JointProblem:
    """A network on a device with everything that may be chosen; ``joint_problem`` builds it.

    ``dataclasses.replace(problem, limits=…)`` asks the same with other values of the same limits
    (as a walk along a frontier does) and shares the tables filled so far. A metric that was
    neither objective nor limited before needs a new problem: which accelerators are dominated and
    what tilings are chosen by depends on it.
    """

    tables: OptionTables
    device: Device
    space: Space
    objective: str
    """A metric to minimise: latency, energy, traffic, loss or size."""
    limits: Mapping[str, int]
    """Metric to its largest value in the tables' units."""
    digits: Mapping[str, int]
    """Decimal digits of each metric's unit, as users see it."""
    pipelined: bool = True
    timing: Timing = DEFAULT_TIMING
    cache: Path | None = None
    seconds_space: float = 0.0
    store: PriceStore = field(default_factory=PriceStore)
