# SPDX-License-Identifier: Apache-2.0
"""The tuner: which tile each kernel of a network gets, by measuring, within a budget."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.targets.layers import extract_layers, structure_key
from codesign.targets.tuning.database import Best, Trial, TuningDatabase
from codesign.targets.tuning.protocol import Reply, Request
from codesign.targets.tuning.runner import IsolatedRunner
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.tiles import Tile

if TYPE_CHECKING:
    from codesign.targets.tvm_lower.templates.workload import Workload

SEARCH_REPEATS = 5
FINAL_ROUNDS = 3
FINAL_REPEATS = 7
_PATIENCE = 12
"""Candidates without a better one after which a kernel comes last."""

Notice = Callable[[str, int, int], None]
"""Called with one line of progress, what of the budget is spent, and the whole of it."""


@dataclass(frozen=True)
class Budget:
    """When to stop: after so many trials, or so many seconds."""

    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``200`` trials, ``60s``, ``5m``; raises InputError."""
        match = re.fullmatch(r"(\d+)(s|m)?", text.strip())
        if match is None or int(match[1]) == 0:
            raise InputError(f"a tuning budget is trials (200) or time (60s, 5m), got {text!r}")
        count = int(match[1])
        if match[2] is None:
            return cls(trials=count)
        return cls(seconds=count * (60.0 if match[2] == "m" else 1.0))


    def share(self, trials: int, start: float) -> tuple[int, int]:
        """What is spent, and the whole: trials, or seconds since ``start``."""
        if self.trials is not None:
            return trials, self.trials
        whole = round(self.seconds or 0)
        return min(round(time.monotonic() - start), whole), whole


@dataclass(frozen=True)
class Outcome:
    """What a run of the tuner did."""

    trials: int
    failed: int
    seconds: float
    kernels: int
    improved: int
    """Kernels whose chosen tile was faster than the fixed rules' in the final timings."""


@dataclass
class _Task:
    key: str
    layer: str
    graph: Graph
    count: int
    """How many layers of the network have this structure."""
    left: list[Tile]
    tried: dict[Tile, Trial] = field(default_factory=dict)
    since: int = 0
    """Trials since the last better one."""
    digest: str = ""
    default: Tile | None = None

    @property
    def best(self) -> Trial | None:
        measured = [t for t in self.tried.values() if t.least_ms is not None]
        return min(measured, key=lambda t: t.least_ms or 0.0, default=None)

    @property
    def gain(self) -> float:
        """Milliseconds that the network would save, by the timings of the search."""
        default = self.tried.get(self.default) if self.default is not None else None
        if default is None or default.least_ms is None or self.best is None:
            return 0.0
        return (default.least_ms - (self.best.least_ms or 0.0)) * self.count

    @property
    def promise(self) -> float:
        """Time that the network spends here, less the longer nothing better was found."""
        if self.best is None or self.best.least_ms is None:
            return float("inf")
        return self.best.least_ms * self.count / (1 + self.since) * (self.since < _PATIENCE or 1e-3)


def tasks_of(graph: Graph, machine: Machine) -> list[_Task]:
    """The kernels of a network that have something to choose, one a structure."""
    from codesign.targets.tvm_lower.groups import make_groups
    from codesign.targets.tvm_lower.isa import instruction_set
    from codesign.targets.tvm_lower.templates.choose import dots_for
    from codesign.targets.tvm_lower.templates.space import candidates
    from codesign.targets.tvm_lower.templates.workload import find_workload

    isa = instruction_set(machine.isa)
    found: dict[str, _Task] = {}
    for name, layer in extract_layers(graph).items():
        key = structure_key(layer)
        if key in found:
            found[key].count += 1
            continue
        group = next(g for g in make_groups(layer) if layer.nodes[g.head] in layer.layers())
        workload: Workload | None = find_workload(layer, group)
        if workload is None:
            continue
        weights = layer.constants[layer.nodes[group.head].inputs[1]]
        if weights.ndim == 2:
            weights = weights[:, :, None, None]
        tiles = candidates(workload, isa, dots_for(workload, isa, weights), machine.threads)
        if len(tiles) > 1:
            found[key] = _Task(key, name, layer, 1, list(tiles), default=tiles[0])
    return list(found.values())


def tune(
    graph: Graph, machine: Machine, machine_key: str, database: TuningDatabase, budget: Budget,
    notice: Notice = lambda line, done, total: None, runner: IsolatedRunner | None = None,
) -> Outcome:  # fmt: skip
    """Try candidates until the budget is spent; choices go into the database as they are made.

    What earlier runs tried is not tried again. A candidate that crashes, hangs or computes
    something else than the fixed rules' code is kept as such and skipped.
    """
    start = time.monotonic()
    tasks = tasks_of(graph, machine)
    done = failed = 0
    with runner or IsolatedRunner() as worker:
        for one in tasks:
            one.tried = database.trials(one.key, machine_key)
            one.left = [t for t in one.left if t not in one.tried or t == one.default]

        def spent() -> bool:
            if budget.trials is not None:
                return done >= budget.trials
            reserve = 0.25 * (budget.seconds or 0.0)  # for the final timings
            return time.monotonic() - start >= (budget.seconds or 0.0) - reserve

        while not spent() and (task := _next(tasks)) is not None:
            tile = task.left.pop(0)
            reply = worker.measure(Request(task.graph, machine, tile, SEARCH_REPEATS))
            trial = _judge(task, tile, reply)
            done, failed = done + 1, failed + (trial.least_ms is None)
            better = task.best is None or (trial.least_ms or 1e9) < (task.best.least_ms or 0.0)
            task.since = 0 if better else task.since + 1
            task.tried[tile] = trial
            database.keep_trial(task.key, machine_key, trial)
            best = task.best.least_ms if task.best else None
            notice(f"trial {done}, {time.monotonic() - start:.0f} s: {task.layer} "
                   f"{trial.status if trial.least_ms is None else f'{trial.least_ms:.3f} ms'}, "
                   f"best {f'{best:.3f} ms' if best else 'none'}", *budget.share(done, start))
        improved = 0
        for choice in sorted(tasks, key=lambda task: -task.gain):
            late = budget.seconds is not None and time.monotonic() - start > budget.seconds
            if choice.gain > 0 and not late:
                improved += _settle(choice, machine, machine_key, database, worker)
    return Outcome(done, failed, time.monotonic() - start, len(tasks), improved)


def _next(tasks: list[_Task]) -> _Task | None:
    open_ = [task for task in tasks if task.left]
    return max(open_, key=lambda task: task.promise, default=None)


def _judge(task: _Task, tile: Tile, reply: Reply) -> Trial:
    if reply.error:
        return Trial(tile, reply.error)
    if not task.digest:
        task.digest = reply.digest  # of the fixed rules' tile, which comes first
    if reply.digest != task.digest:
        return Trial(tile, "wrong result")
    return Trial(tile, "measured", min(reply.samples_ms))


def _settle(
    task: _Task, machine: Machine, machine_key: str, database: TuningDatabase,
    worker: IsolatedRunner,
) -> bool:  # fmt: skip
    """Time the chosen tile anew, in turn with the fixed rules', and keep it if it is faster."""
    best = task.best
    if best is None or task.default is None or best.tile == task.default or not task.digest:
        return False
    times: dict[Tile, list[float]] = {task.default: [], best.tile: []}
    for _ in range(FINAL_ROUNDS):
        for tile, samples in times.items():
            reply = worker.measure(Request(task.graph, machine, tile, FINAL_REPEATS))
            if reply.error or reply.digest != task.digest:
                return False
            samples += reply.samples_ms
    default, chosen = (statistics.median(times[t]) for t in (task.default, best.tile))
    if chosen >= default:
        return False
    database.keep_best(task.key, machine_key, Best(best.tile, chosen, default, task.layer))
    return True
