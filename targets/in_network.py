# SPDX-License-Identifier: Apache-2.0
"""Latency of each layer inside its running network.

A layer measured alone is not what it is in its network: caches are warm, operators without
weights and the cost of calls are missing, and on small networks the sum is off by half. Here
the virtual machine tells when each kernel starts and ends. A kernel's time, and what stands
between it and the kernel before, belongs to the layer it computes; operators without weights
belong to the layer that they read. All of it is scaled to the network's own latency, measured
without being watched. So the layers' shares add up to the network, and the solver can go on adding.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from codesign.ir.graph import Graph
from codesign.targets.base import Timing
from codesign.targets.layers import random_inputs, structure_key
from codesign.targets.measured import Measurable, MeasuredDatabase, Tunable, default_database
from codesign.targets.owners import layer_of_kernels

if TYPE_CHECKING:
    from codesign.targets.host import HostRunner

Events = list[tuple[str, bool, int]]
"""Of one call: name of a kernel, whether it starts or ends, nanoseconds."""
ROUNDS = 6
"""How often timing and watching take turns, so that both see the same hours of a busy machine."""
CALLS = 8
"""Calls that are watched, and samples that are timed, in a round."""
WARMUP = 3


def measure_in_network(
    target: Measurable, graph: Graph, database: Path | None = None, beside: Graph | None = None
) -> dict[str, Timing]:
    """Each layer's share of the latency of ``graph``, in milliseconds; they add up to it.

    A network of the same structure and formats that was measured before is not built again.
    ``beside`` was measured before: it runs in turns with ``graph``, and what is found is scaled by
    what it took then over what it takes now, so that figures of both days can be compared.
    """
    kept = MeasuredDatabase(database) if database else default_database()
    machine = target.machine_key()
    keys = _keys(target, graph)
    known = _known(kept, machine, keys)
    if known is not None:
        return known
    then = _known(kept, machine, _keys(target, beside)) if beside is not None else None
    profilers = [Profiler(cast("HostRunner", target.runner(graph)), graph)]
    if beside is not None and then is not None:
        profilers.append(_reference(target, machine, beside))
    for _ in range(ROUNDS):
        for profiler in profilers:
            profiler.round()
    if then is None:
        found = profilers[0].result()
    else:
        was = sum(timing.median_ms for timing in then.values())
        found = profilers[0].result(profilers[1], was)
    for name, key in keys.items():
        kept.put(key, machine, name, found[name])
    return found


_references: dict[tuple[str, str], HostRunner] = {}
"""The network that others are measured beside, by structure and machine: the last one alone."""


def _reference(target: Measurable, machine: str, graph: Graph) -> Profiler:
    key = _structure(target, graph), machine
    if key not in _references:
        _references.clear()
        _references[key] = cast("HostRunner", target.runner(graph))
    return Profiler(_references[key], graph)


def _structure(target: Measurable, graph: Graph) -> str:
    """Of a network, with what was tuned of it."""
    key = structure_key(graph)
    code = target.tuned_code(graph) if isinstance(target, Tunable) else ""
    return f"{key} {code}" if code else key


def _keys(target: Measurable, graph: Graph) -> dict[str, str]:
    """Key in the database of each layer."""
    structure = _structure(target, graph)
    return {node.name: _key(structure, index) for index, node in enumerate(graph.layers())}


def _known(
    kept: MeasuredDatabase, machine: str, keys: Mapping[str, str]
) -> dict[str, Timing] | None:
    """What the database has of a network's layers, if it has all."""
    found = {name: kept.get(key, machine) for name, key in keys.items()}
    complete = {name: timing for name, timing in found.items() if timing is not None}
    return complete if len(complete) == len(found) else None


class Profiler:
    """Collects a network's latency and its layers' shares, in rounds.

    What counts of a round are its least figures: on a shared machine the rest is others' doing.
    """

    def __init__(self, runner: HostRunner, graph: Graph) -> None:
        self.runner = runner
        self.inputs = random_inputs(graph)
        self.owners = layer_of_kernels(graph)
        self.samples: list[float] = []
        """Milliseconds of the network when nobody watches."""
        self.totals: list[float] = []
        """The least of them of each round."""
        self.shares: list[dict[str, float]] = []
        """Parts of the network's time of each round, by layer; they add up to 1."""

    def round(self) -> None:
        """Time the network, then watch it."""
        timing = self.runner.time(self.inputs, repeats=CALLS, warmup=WARMUP)
        events = self.runner.watch(self.inputs, CALLS + 1)[1:]  # the first is cold
        calls = [shares(call, self.owners) for call in events]
        least = {
            layer: min(call.get(layer, 0.0) for call in calls)
            for layer in dict.fromkeys(self.owners.values())
        }
        whole = sum(least.values())
        self.samples += timing.samples_ms
        self.totals.append(timing.min_ms)
        self.shares.append({layer: value / whole for layer, value in least.items()})

    def latency(self, beside: Profiler | None = None, then: float = 0.0) -> float:
        """Milliseconds of the network: the median of ``samples``; with ``beside``, whose network
        took ``then`` and whose rounds took turns with these, at the speed of the machine then."""
        if beside is None:
            return statistics.median(self.samples)
        return then * statistics.median(a / b for a, b in zip(self.totals, beside.totals))

    def result(self, beside: Profiler | None = None, then: float = 0.0) -> dict[str, Timing]:
        """Each layer's share in milliseconds; they add up to ``latency``."""
        against = self.totals if beside is None else beside.totals
        middle = {
            layer: statistics.median(
                part[layer] * mine / other
                for part, mine, other in zip(self.shares, self.totals, against)
            )
            for layer in dict.fromkeys(self.owners.values())
        }
        scale = self.latency(beside, then) / sum(middle.values())
        return {layer: Timing((value * scale,)) for layer, value in middle.items()}


def shares(events: Events, owners: Mapping[str, str]) -> dict[str, float]:
    """Nanoseconds of each layer in one call, from (kernel, is start, time) in order.

    What runs under another name (allocation, a helper of the next kernel) belongs to the next
    kernel that has an owner; what comes last to the last.
    """
    found: dict[str, float] = {}
    waiting, last, started = 0.0, next(iter(owners.values())), 0
    for name, is_start, when in events:
        if is_start:
            started = when
            continue
        waiting += when - started
        if name in owners:
            last = owners[name]
            found[last] = found.get(last, 0.0) + waiting
            waiting = 0.0
    found[last] = found.get(last, 0.0) + waiting
    return found


def watched(
    vm: Any, tensors: Sequence[Any], calls: int, kernels: Mapping[str, Sequence[str]]
) -> list[Events]:
    """Events of each of ``calls`` calls of ``main``: (name, is start, nanoseconds).

    A function that stands for several ``kernels`` goes by their names, one after another.
    """
    found: list[Events] = []

    def note(function: Any, name: Any, before: bool, result: Any, *arguments: Any) -> None:
        found[-1].append((str(name), before, time.perf_counter_ns()))

    vm.set_instrument(note)
    for _ in range(calls):
        found.append([])
        vm["main"](*tensors)
    return [named(events, kernels) for events in found]


def named(events: Events, kernels: Mapping[str, Sequence[str]]) -> Events:
    """Events of a call where functions that stand for several ``kernels`` go by their names, one
    after another."""
    seen: Counter[tuple[str, bool]] = Counter()
    renamed = []
    for name, before, when in events:
        alike = kernels.get(name)
        if alike is not None:
            seen[name, before] += 1
            name = alike[seen[name, before] - 1]
        renamed.append((name, before, when))
    return renamed


def _key(structure: str, index: int) -> str:
    return hashlib.sha256(f"in-network\0{structure}\0{index}".encode()).hexdigest()[:32]
