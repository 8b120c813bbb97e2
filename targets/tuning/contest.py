# SPDX-License-Identifier: Apache-2.0
"""Tiles against each other inside the running network.

A kernel that is called over and over finds its weights in the cache, which inside a network other
layers have filled; and a machine that others share is faster in one minute than in the next. So the
last word have networks that differ in their tiles alone, watched in turns: what counts is the ratio
of a layer's times within a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from codesign.ir.graph import Graph
from codesign.targets.layers import random_inputs
from codesign.targets.owners import layer_of_kernels
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.tiles import Tile

if TYPE_CHECKING:
    from codesign.targets.base import Array
    from codesign.targets.in_network import Events

FEWEST = 4
"""Rounds that say something."""
CALLS = 6
"""Calls of a network that are watched in a round."""


class Watched(Protocol):
    """A network that can be run and watched."""

    def run(self, *arrays: Array) -> tuple[Array, ...]:
        """Its results."""

    def watch(self, arrays: Sequence[Array], calls: int) -> list[Events]:
        """Starts and ends of every kernel in each of ``calls`` calls."""


@dataclass
class Contest:
    """Networks of one graph; the first one added is what the others are held against.

    Groups that are watched consist of layers, with all that belongs to them, or of kernels by name.
    """

    graph: Graph
    machine: Machine
    runners: list[Watched] = field(default_factory=list)
    build_seconds: float = 0.0
    """Of the last network."""
    round_seconds: float = 0.0
    """Of one network, the last time; 0 before."""

    @property
    def started(self) -> bool:
        """Whether the network that others are held against is there."""
        return bool(self.runners)

    def now(self) -> float:
        """The clock that budgets of time are measured by, in seconds."""
        return time.monotonic()

    def add(self, tiles: Mapping[str, Tile]) -> int | None:
        """Compile the network with ``tiles`` by kernel key, the fixed rules elsewhere; its number,
        or None if it does not compute what the first one does (floats: within rounding)."""
        from codesign.targets.tvm_lower.compile import compile_graph
        from codesign.targets.tvm_lower.trace import same_results

        start = time.monotonic()
        calls: dict[str, list[str]] = {}
        executable = compile_graph(self.graph, self.machine, tiles.get, calls=calls)
        runner = self._runner(executable, calls)
        self.build_seconds = time.monotonic() - start
        arrays = random_inputs(self.graph)
        if self.runners and not same_results(
            runner.run(*arrays), self.runners[0].run(*arrays)
        ):
            return None
        self.runners.append(runner)
        return len(self.runners) - 1

    def _runner(self, executable: Any, calls: dict[str, list[str]]) -> Watched:
        """What runs ``executable``, here."""
        from codesign.targets.host import HostRunner
        from codesign.targets.tvm_lower.compile import in_memory

        inputs, outputs = (
            tuple((name, self.graph.type(name)) for name in names)
            for names in (self.graph.inputs, self.graph.outputs)
        )
        return HostRunner(
            in_memory(executable), inputs, outputs, self.machine.threads, calls=calls
        )

    def release(self) -> None:
        """Let others use what the networks run on; they can go on later."""

    def watch(
        self, numbers: Sequence[int], groups: Mapping[str, Sequence[str]], rounds: int,
        until: float | None = None,
    ) -> dict[int, dict[str, list[float]]]:  # fmt: skip
        """Milliseconds of each group of layers in each network, one figure a round: the least of
        its calls. After the time ``until`` no further round begins (``FEWEST`` are made)."""
        from codesign.targets.in_network import shares

        inputs, owners = random_inputs(self.graph), layer_of_kernels(self.graph)
        alone = {kernel: kernel for kernel in owners}
        found: dict[int, dict[str, list[float]]] = {n: {g: [] for g in groups} for n in numbers}
        start = time.monotonic()
        for turn in range(rounds):
            if turn >= FEWEST and until is not None and self.now() > until:
                break
            for n in numbers if turn % 2 == 0 else reversed(numbers):
                events = self.runners[n].watch(inputs, CALLS + 1)[1:]  # the first is cold
                calls = [shares(call, alone) | shares(call, owners) for call in events]
                for group, layers in groups.items():
                    least = min(sum(call.get(layer, 0.0) for layer in layers) for call in calls)
                    found[n][group].append(least / 1e6)
            self.round_seconds = (time.monotonic() - start) / (turn + 1) / len(numbers)
        return found


def ratio(samples: Sequence[float], against: Sequence[float]) -> float:
    """Median of the ratios of samples that were taken in turns."""
    return statistics.median(a / b for a, b in zip(samples, against, strict=True))
