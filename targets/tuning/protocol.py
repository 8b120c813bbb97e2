# SPDX-License-Identifier: Apache-2.0
"""What the tuner and its worker process say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codesign.ir.graph import Graph
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.tiles import Tile


@dataclass(frozen=True)
class Request:
    """Build a layer with a tile and time it."""

    graph: Graph
    machine: Machine
    tile: Tile | None
    """None for the fixed rules."""
    repeats: int
    against: Tile | None = None
    """A tile that was built before, timed in turns with this one; None for none."""


@dataclass(frozen=True)
class FunctionRequest:
    """Build a kernel that no template writes with the loops of a trace, and time it."""

    file: Path
    """A pickled ``tvm_lower.trace.Loose``; read once."""
    machine: Machine
    tile: Tile
    """A trace, or ``DefaultTile`` for the fixed rules."""
    repeats: int
    against: Tile | None = None


@dataclass(frozen=True)
class Ahead:
    """Build several candidates at once, which will be asked for one by one."""

    file: Path
    machine: Machine
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Probe:
    """Say whether the device is still there, where candidates run on one."""

    machine: Machine


Ask = Request | FunctionRequest | Ahead | Probe


@dataclass(frozen=True)
class Reply:
    """Times in milliseconds and a digest of the results."""

    samples_ms: tuple[float, ...]
    digest: str
    error: str = ""
    against_ms: tuple[float, ...] = ()
    """Of ``against``, in turns with ``samples_ms``."""
    gone: bool = False
    """Whether ``error`` is the device's, which is not there, and not the candidate's."""
