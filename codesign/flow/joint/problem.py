# SPDX-License-Identifier: Apache-2.0
"""A network on a device with everything that may be chosen, as the search takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codesign.cost.memory import DEFAULT_TIMING, Timing
from codesign.cost.option_tables import OptionTables
from codesign.space.device import Device
from codesign.space.generate import RESOURCES, Space

JOINT = ("latency", "energy", "traffic")
"""Metrics that depend on the accelerator."""
MOVED = ("energy", "traffic")
"""Those of them that follow the bytes moved."""
CHOICE: tuple[str, ...] = ("loss", "size")
"""Metrics of the formats alone."""
OBJECTIVES = ("latency", "throughput", "energy", "traffic", "loss", "size", *RESOURCES)


@dataclass(frozen=True, eq=False)
class JointProblem:
    """A network on a device with everything that may be chosen; ``joint_problem`` builds it."""

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
