# SPDX-License-Identifier: Apache-2.0
"""What the joint solver answers: a design with modelled figures, and the proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from codesign.cost.chain import ChainTile
from codesign.cost.resources import Resources
from codesign.cost.tiles import Tile
from codesign.solvers.solution import Status
from codesign.space.accelerator import Accelerator


@dataclass(frozen=True)
class Certificate:
    """What was proven, and what it took."""

    status: Status
    objective: Decimal | None
    bound: Decimal | None
    generated: int
    """Accelerators of the grid that fit the device."""
    undominated: int
    solved: int
    """Accelerators whose choice of formats was solved exactly."""
    pruned: int
    """Undominated accelerators that a bound discarded."""
    tabled: int
    """Accelerators whose tables were filled."""
    seconds_tables: float
    seconds_solve: float
    seconds: float
    warm: bool = False
    """Whether the search started from a design of an earlier solve."""

    def to_data(self) -> dict[str, Any]:
        """The certificate of a design file (DESIGN, section 4), with what tables took besides."""
        return {
            "status": str(self.status),
            "objective": self.objective,
            "bound": self.bound,
            "gap": self.gap,
            "architectures_solved": self.solved,
            "architectures_pruned": self.pruned,
            "architectures_generated": self.generated,
            "architectures_undominated": self.undominated,
            "architectures_tabled": self.tabled,
            "seconds": self.seconds,
            "seconds_tables": self.seconds_tables,
            "warm": self.warm,
        }

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Certificate:
        """Inverse of ``to_data``; raises KeyError and ValueError."""

        def number(name: str) -> Decimal | None:
            return None if data[name] is None else Decimal(data[name])

        tables = float(data["seconds_tables"])
        return Certificate(
            Status(data["status"]), number("objective"), number("bound"),
            int(data["architectures_generated"]), int(data["architectures_undominated"]),
            int(data["architectures_solved"]), int(data["architectures_pruned"]),
            int(data["architectures_tabled"]), tables, float(data["seconds"]) - tables,
            float(data["seconds"]), bool(data["warm"]),
        )  # fmt: skip

    @property
    def gap(self) -> Decimal | None:
        """(objective − bound) / objective."""
        if self.objective is None or self.bound is None:
            return None
        if self.objective == self.bound:
            return Decimal(0)
        return abs(self.objective - self.bound) / abs(self.objective) if self.objective else None


@dataclass(frozen=True)
class LayerChoice:
    """What was chosen for one layer."""

    name: str
    format: str
    engine: str
    """``"dense"``, ``"depthwise"`` or ``"chain"``."""
    tile: Tile | None
    cycles: int
    """0 for layers of a fused chain; see ``JointResult.chains``."""
    traffic: int


@dataclass(frozen=True)
class ChainChoice:
    """A chain that runs fused."""

    layers: tuple[str, ...]
    tile: ChainTile
    cycles: int
    traffic: int


@dataclass(frozen=True)
class JointResult:
    """The best design found and its proof; all figures are modelled."""

    certificate: Certificate
    accelerator: Accelerator | None = None
    layers: tuple[LayerChoice, ...] = ()
    chains: tuple[ChainChoice, ...] = ()
    resources: Resources | None = None
    cycles: int = 0
    clock_hz: int = 1
    traffic: int = 0
    energy_pj: Decimal = Decimal(0)
    size_bytes: int = 0
    loss: Decimal | None = None
    why: str = ""
    """Why there is no design."""
    interval: int = 0
    """Cycles from one image to the next: of a stream the greatest of ``busy``, else ``cycles``."""
    busy: Mapping[str, int] = field(default_factory=dict)
    """Cycles of one image in which each engine and the memory are taken."""
    stream: bool = False
    """Whether the engines work on different images at once."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Every metric in the tables' units."""
    place: int = -1
    """Of the accelerator in the problem's space."""
    columns: tuple[int, ...] = ()
    """The option of each unit in the problem's tables."""

    @property
    def latency_ms(self) -> float:
        """Of one image alone."""
        return self.cycles / self.clock_hz * 1e3

    @property
    def fps(self) -> float:
        """Images a second."""
        return self.clock_hz / self.interval if self.interval else 0.0

    def to_data(self) -> dict[str, Any]:
        """Plain data for a design file: everything that was chosen, and the modelled figures."""
        return {
            "certificate": self.certificate.to_data(),
            "accelerator": None if self.accelerator is None else self.accelerator.to_data(),
            "layers": [asdict(layer) for layer in self.layers],
            "chains": [asdict(chain) for chain in self.chains],
            "resources_modelled": None if self.resources is None else asdict(self.resources),
            "cycles_modelled": self.cycles,
            "clock_hz": self.clock_hz,
            "latency_ms_modelled": self.latency_ms,
            "stream": self.stream,
            "interval_modelled": self.interval,
            "busy_modelled": dict(self.busy),
            "fps_modelled": self.fps,
            "traffic_bytes_modelled": self.traffic,
            "energy_pj_modelled": self.energy_pj,
            "size_bytes": self.size_bytes,
            "loss": self.loss,
            "why": self.why,
        }

    @property
    def formats(self) -> dict[str, str]:
        """Layer to format."""
        return {layer.name: layer.format for layer in self.layers}
