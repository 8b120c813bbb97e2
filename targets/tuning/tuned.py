# SPDX-License-Identifier: Apache-2.0
"""What targets share whose builds take tiles from the tuning database."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from codesign.ir.graph import Graph

if TYPE_CHECKING:
    from codesign.targets.tuning.database import TuningDatabase
    from codesign.targets.tvm_lower.machine import Machine
    from codesign.targets.tvm_lower.tiles import Tile, Tiles

_ONE_CODE = ("avx512-vnni", "neon-dot")
"""Instruction sets whose kernels are the same for formats that are stored alike."""


class Tuned:
    """To be mixed into a target, a frozen dataclass that has the two fields below."""

    tuned: bool
    """Whether builds take tiles from the tuning database; else the fixed rules' tiles."""
    tuning: Path | None
    """The tuning database; None for the user's cache folder."""

    def machine(self) -> Machine:
        """What is compiled for."""
        raise NotImplementedError

    def machine_key(self) -> str:
        """What tuned tiles belong to besides the kernel."""
        raise NotImplementedError

    def tuning_database(self) -> TuningDatabase:
        """Where tiles are kept."""
        from codesign.targets.tuning.database import TuningDatabase, default_tuning

        return TuningDatabase(self.tuning) if self.tuning else default_tuning()

    def tiles(self) -> Tiles:
        """The tiles that were tuned for this target, by key."""
        from codesign.targets.tvm_lower.tiles import no_tiles

        found = self._found()
        return (lambda key: found.get(key)) if found else no_tiles

    def _found(self) -> dict[str, Tile]:
        if not self.tuned:
            return {}
        kept = self.tuning_database().all_best(self.machine_key())
        return {key: best.tile for key, best in kept.items()}

    def tuned_code(self, graph: Graph, as_stored: bool = False) -> str:
        """A hash of the tiles and traces that the kernels of ``graph`` take from the database, so
        that what was measured before they were tuned is not taken for what is built now; empty for
        none. With traces in the database it lowers ``graph``."""
        from codesign.targets.layers import extract_group, structure_key
        from codesign.targets.tvm_lower.groups import make_groups
        from codesign.targets.tvm_lower.tiles import TraceTile, tile_text

        found = self._found()
        if not found:
            return ""
        keys = {structure_key(extract_group(graph, group)) for group in make_groups(graph)}
        if any(isinstance(tile, TraceTile) for tile in found.values()):
            from codesign.targets.tvm_lower.compile import loose

            kernels = loose(graph, self.machine(), found.get, as_stored)
            keys |= {kernel.key for kernel in kernels}
        used = [f"{key} {tile_text(found[key])}" for key in sorted(keys) if key in found]
        return hashlib.sha256("\0".join(used).encode()).hexdigest()[:16] if used else ""

    def layer_key(self, layer: Graph) -> str:
        """Structure, formats as far as they change the code, and what was tuned of it."""
        from codesign.targets.layers import structure_key
        from codesign.targets.measured import stored_key

        alike = self.machine().isa in _ONE_CODE
        key = stored_key(layer) if alike else structure_key(layer)
        return f"{key} {code}" if (code := self.tuned_code(layer, as_stored=True)) else key
