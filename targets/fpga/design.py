# SPDX-License-Identifier: Apache-2.0
"""What a build needs beside the integer network: the accelerator and every layer's mapping."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codesign.cost.chain import ChainTile
from codesign.cost.tiles import Tile
from codesign.errors import InputError
from codesign.space.accelerator import Accelerator

FILE = "accelerator.json"
FORMAT = "codesign-accelerator/1"


@dataclass(frozen=True)
class Hardware:
    """An accelerator with the mapping that was chosen for a network."""

    accelerator: Accelerator
    board: str
    clock_hz: int
    tiles: tuple[tuple[str, Tile], ...] = ()
    """Layer and its tile; layers of chains are not named."""
    chains: tuple[tuple[tuple[str, ...], ChainTile], ...] = ()
    """Layers that run fused, and their tile."""
    cycles: tuple[tuple[str, int], ...] = ()
    """Modelled cycles of each layer (a chain's stand at its first layer)."""
    network_cycles: int = 0
    """Modelled, of the whole network."""
    resources: tuple[tuple[str, int], ...] = ()
    """Modelled."""
    arm: tuple[str, ...] = ()
    """Nodes of the integer network that the accelerator could do and the ARM cores do."""
    partition: tuple[tuple[str, float | str], ...] = ()
    """What the partition was chosen by (``codesign.flow.partition``): modelled milliseconds."""

    @property
    def network_ms(self) -> float:
        """Modelled latency of one image."""
        return self.network_cycles / self.clock_hz * 1e3

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "format": FORMAT,
            "board": self.board,
            "clock_hz": self.clock_hz,
            "accelerator": self.accelerator.to_data(),
            "tiles": {name: asdict(tile) for name, tile in self.tiles},
            "chains": [{"layers": list(names), "tile": asdict(t)} for names, t in self.chains],
            "cycles_modelled": dict(self.cycles),
            "network_cycles_modelled": self.network_cycles,
            "resources_modelled": dict(self.resources),
            "arm": list(self.arm),
            "partition_modelled": dict(self.partition),
        }

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Hardware:
        """Read ``to_data`` back; raises InputError."""
        try:
            return Hardware(
                Accelerator.from_data(data["accelerator"]),
                data["board"],
                data["clock_hz"],
                tuple((name, Tile(**tile)) for name, tile in data["tiles"].items()),
                tuple((tuple(c["layers"]), ChainTile(**c["tile"])) for c in data["chains"]),
                tuple(data["cycles_modelled"].items()),
                data["network_cycles_modelled"],
                tuple(data["resources_modelled"].items()),
                tuple(data["arm"]),
                tuple(data["partition_modelled"].items()),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"accelerator data: missing or unknown field {error}; make it anew with "
                "`codesign design`"
            ) from None

    @staticmethod
    def load(folder: Path) -> Hardware:
        """Read ``folder/accelerator.json``; raises InputError."""
        path = folder / FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; make it with `codesign design`") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {error}; make it anew with `codesign design`") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{path}: not a {FORMAT} file; make it anew with `codesign design`")
        return Hardware.from_data(data)


