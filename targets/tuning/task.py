# SPDX-License-Identifier: Apache-2.0
"""What the tuner knows of one kernel: candidates that are left, and what became of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from codesign.ir.graph import Graph
from codesign.targets.layers import extract_layers, structure_key
from codesign.targets.tuning.contest import ratio
from codesign.targets.tuning.database import Trial
from codesign.targets.tuning.protocol import Ask, Reply, Request
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.tiles import Tile

RIVALS = 3
"""Tiles of a kernel that come into the network beside the fixed rules'."""
WORTH = 0.98
"""A tile must take at most this share of the fixed rules' time; timings differ by the rest."""


@dataclass
class Task:
    """A kernel with something to choose."""

    key: str
    layer: str
    layers: list[str]
    """Layers of the network that have this structure, or its kernels by name."""
    default: Tile
    """The fixed rules' tile."""
    tried: dict[Tile, Trial] = field(default_factory=dict)
    since: int = 0
    """Trials since the last better one."""
    patience: int = 12
    """Candidates without a better one after which a kernel comes last."""
    digest: str = ""
    trouble: str = ""
    """Why no further candidates come, if a search failed."""

    @property
    def best(self) -> Trial | None:
        """The fastest that was measured."""
        measured = [t for t in self.tried.values() if t.least_ms is not None]
        return min(measured, key=lambda t: t.least_ms or 0.0, default=None)

    @property
    def base(self) -> Trial | None:
        """What became of the fixed rules' tile."""
        return self.tried.get(self.default)

    def rivals(self) -> list[Tile]:
        """Tiles that the search found worth their while, best first."""
        if self.base is None or self.base.least_ms is None:
            return []
        limit = self.base.least_ms * WORTH
        found = [t for t in self.tried.values() if t.least_ms is not None and t.least_ms < limit]
        return [t.tile for t in sorted(found, key=lambda t: t.least_ms or 0.0)[:RIVALS]]

    @property
    def promise(self) -> float:
        """Time that the network spends here, less the longer nothing better was found; what could
        not be measured at all comes last."""
        if self.best is None or self.best.least_ms is None:
            return 0.0 if self.tried else float("inf")
        patience = 1.0 if self.since < self.patience else 1e-3
        return self.best.least_ms * len(self.layers) / (1 + self.since) * patience

    def resume(self, tried: dict[Tile, Trial]) -> None:
        """What earlier runs tried is not tried again, save the fixed rules' tile, the measure."""
        self.tried = tried

    @property
    def open(self) -> bool:
        """Whether there is a candidate left."""
        raise NotImplementedError

    def take(self) -> tuple[Tile | None, Sequence[Ask]]:
        """The next candidate, the fixed rules' tile first, and what the worker may be asked before
        it is measured; no candidate if a search found none, which may have taken a while."""
        raise NotImplementedError

    def request(self, machine: Machine, tile: Tile, repeats: int) -> Ask:
        """What to ask the worker, to measure ``tile`` in turns with the fixed rules'."""
        raise NotImplementedError

    def judge(self, tile: Tile, reply: Reply) -> Trial:
        """What became of a candidate. Its time is that of the fixed rules' tile times the ratio of
        both in turns: a machine that others share is not equally fast from one trial to the next.
        """
        if reply.error:
            return Trial(tile, reply.error)
        if not self.digest:
            self.digest = reply.digest  # of the fixed rules' tile, which comes first
        if reply.digest != self.digest:
            return Trial(tile, "wrong result")
        if reply.against_ms and self.base is not None and self.base.least_ms is not None:
            share = ratio(reply.samples_ms, reply.against_ms)
            return Trial(tile, "measured", self.base.least_ms * share)
        return Trial(tile, "measured", min(reply.samples_ms))

    def tell(self, trial: Trial) -> bool:
        """Note what became of a candidate; whether it is new."""
        better = self.best is None or (trial.least_ms or 1e9) < (self.best.least_ms or 0.0)
        self.since = 0 if better else self.since + 1
        new = trial.tile not in self.tried  # the fixed rules' tile may be of an earlier run
        if new:
            self.tried[trial.tile] = trial
        return new


@dataclass
class TemplateTask(Task):
    """A kernel of a template: its tiles are enumerated."""

    graph: Graph | None = None
    left: list[Tile] = field(default_factory=list)

    def resume(self, tried: dict[Tile, Trial]) -> None:
        """Leave out what earlier runs tried."""
        super().resume(tried)
        self.left = [t for t in self.left if t not in tried or t == self.default]

    @property
    def open(self) -> bool:
        """Whether there is a tile left."""
        return bool(self.left)

    def take(self) -> tuple[Tile | None, Sequence[Ask]]:
        """The next tile."""
        return self.left.pop(0), ()

    def request(self, machine: Machine, tile: Tile, repeats: int) -> Ask:
        """Measure the layer with ``tile``."""
        assert self.graph is not None
        against = None if tile == self.default else self.default
        return Request(self.graph, machine, tile, repeats, against)


def tasks_of(graph: Graph, machine: Machine) -> list[TemplateTask]:
    """The kernels of a network that have something to choose, one a structure."""
    from codesign.targets.tvm_lower.groups import make_groups
    from codesign.targets.tvm_lower.isa import instruction_set
    from codesign.targets.tvm_lower.templates.choose import dots_for
    from codesign.targets.tvm_lower.templates.space import candidates
    from codesign.targets.tvm_lower.templates.workload import find_workload

    isa = instruction_set(machine.isa)
    found: dict[str, TemplateTask] = {}
    for name, layer in extract_layers(graph).items():
        key = structure_key(layer)
        if key in found:
            found[key].layers.append(name)
            continue
        group = next(g for g in make_groups(layer) if layer.nodes[g.head] in layer.layers())
        workload = find_workload(layer, group)
        if workload is None:
            continue
        weights = layer.constants[layer.nodes[group.head].inputs[1]]
        if weights.ndim == 2:
            weights = weights[:, :, None, None]
        tiles = candidates(workload, isa, dots_for(workload, isa, weights), machine.threads)
        if len(tiles) > 1:
            found[key] = TemplateTask(key, name, [name], tiles[0], graph=layer, left=list(tiles))
    return list(found.values())
