# SPDX-License-Identifier: Apache-2.0
"""The tuner: which tile each kernel of a network gets, by measuring, within a budget."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.targets.layers import extract_layers, structure_key
from codesign.targets.tuning.contest import Contest, ratio
from codesign.targets.tuning.database import Best, Trial, TuningDatabase
from codesign.targets.tuning.protocol import Reply, Request
from codesign.targets.tuning.runner import IsolatedRunner
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.tiles import Tile

if TYPE_CHECKING:
    from codesign.targets.tvm_lower.templates.workload import Workload

SEARCH_REPEATS = 15
"""Samples of a candidate, in turns with as many of the fixed rules' tile."""
ROUNDS = 12
"""Rounds of the last timings, in the network."""
RIVALS = 3
"""Tiles of a kernel that come into the network beside the fixed rules'."""
WORTH = 0.98
"""A tile must take at most this share of the fixed rules' time; timings differ by the rest."""
_RESERVE = 0.3
"""Share of a budget of time that is left for the last timings."""
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
    """Kernels whose chosen tile was faster than the fixed rules' in the last timings."""


@dataclass
class _Task:
    key: str
    layer: str
    graph: Graph
    layers: list[str]
    """Layers of the network that have this structure."""
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
    def base(self) -> Trial | None:
        """What became of the fixed rules' tile."""
        return self.tried.get(self.default) if self.default is not None else None

    def rivals(self) -> list[Tile]:
        """Tiles that the search found worth their while, best first."""
        if self.base is None or self.base.least_ms is None:
            return []
        limit = self.base.least_ms * WORTH
        found = [t for t in self.tried.values() if t.least_ms is not None and t.least_ms < limit]
        return [t.tile for t in sorted(found, key=lambda t: t.least_ms or 0.0)[:RIVALS]]

    @property
    def promise(self) -> float:
        """Time that the network spends here, less the longer nothing better was found."""
        if self.best is None or self.best.least_ms is None:
            return float("inf")
        patience = 1.0 if self.since < _PATIENCE else 1e-3
        return self.best.least_ms * len(self.layers) / (1 + self.since) * patience


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
            found[key].layers.append(name)
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
            found[key] = _Task(key, name, layer, [name], list(tiles), default=tiles[0])
    return list(found.values())


def tune(
    graph: Graph, machine: Machine, machine_key: str, database: TuningDatabase, budget: Budget,
    notice: Notice = lambda line, done, total: None, runner: IsolatedRunner | None = None,
    contest: Contest | None = None,
) -> Outcome:  # fmt: skip
    """Try candidates until the budget is spent, each kernel alone; then the best ones compete
    inside the network, and what is faster there goes into the database.

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
            return time.monotonic() - start >= (budget.seconds or 0.0) * (1 - _RESERVE)

        while not spent() and (task := _next(tasks)) is not None:
            tile = task.left.pop(0)
            against = None if tile == task.default else task.default
            reply = worker.measure(Request(task.graph, machine, tile, SEARCH_REPEATS, against))
            trial = _judge(task, tile, reply)
            done, failed = done + 1, failed + (trial.least_ms is None)
            better = task.best is None or (trial.least_ms or 1e9) < (task.best.least_ms or 0.0)
            task.since = 0 if better else task.since + 1
            if tile not in task.tried:  # the fixed rules' tile is measured again by a later run
                task.tried[tile] = trial
                database.keep_trial(task.key, machine_key, trial)
            best = task.best.least_ms if task.best else None
            notice(f"trial {done}, {time.monotonic() - start:.0f} s: {task.layer} "
                   f"{trial.status if trial.least_ms is None else f'{trial.least_ms:.3f} ms'}, "
                   f"best {f'{best:.3f} ms' if best else 'none'}", *budget.share(done, start))
    until = None if budget.seconds is None else start + budget.seconds
    chosen = settle(tasks, contest or Contest(graph, machine), until)
    for key, choice in chosen.items():
        database.keep_best(key, machine_key, choice)
    notice(f"{time.monotonic() - start:.0f} s: {len(chosen)} of {len(tasks)} kernels are faster "
           "than by the fixed rules", *budget.share(done, start))
    return Outcome(done, failed, time.monotonic() - start, len(tasks), len(chosen))


def _next(tasks: list[_Task]) -> _Task | None:
    open_ = [task for task in tasks if task.left]
    return max(open_, key=lambda task: task.promise, default=None)


def _judge(task: _Task, tile: Tile, reply: Reply) -> Trial:
    """What became of a candidate. Its time is that of the fixed rules' tile times the ratio of
    both in turns: a machine that others share is not equally fast from one trial to the next."""
    if reply.error:
        return Trial(tile, reply.error)
    if not task.digest:
        task.digest = reply.digest  # of the fixed rules' tile, which comes first
    if reply.digest != task.digest:
        return Trial(tile, "wrong result")
    if reply.against_ms and task.base is not None and task.base.least_ms is not None:
        share = ratio(reply.samples_ms, reply.against_ms)
        return Trial(tile, "measured", task.base.least_ms * share)
    return Trial(tile, "measured", min(reply.samples_ms))


def settle(tasks: Sequence[_Task], contest: Contest, until: float | None) -> dict[str, Best]:
    """The tiles, by kernel key, that are faster inside the network, with figures that were taken
    after the choice.

    The first network has the fixed rules' tiles, each further one the next best of every kernel. A
    last one has the fastest of each, and only what it confirms is kept. ``until``: the time after
    which no further network of rivals is built.
    """
    rivals = {task.key: able for task in tasks if (able := task.rivals())}
    if not rivals:
        return {}
    groups = {task.key: task.layers for task in tasks if task.key in rivals}
    names = {task.key: task.layer for task in tasks}
    contest.add({})
    offered: dict[int, dict[str, Tile]] = {}
    for place in range(max(map(len, rivals.values()))):
        # this one, the last one, and about as long again for the timings
        late = until is not None and time.monotonic() + 3 * contest.build_seconds > until
        if place and late:
            break
        tiles = {key: found[place] for key, found in rivals.items() if place < len(found)}
        number = contest.add(tiles)
        if number is not None:
            offered[number] = tiles
    times = contest.watch([0, *offered], groups, ROUNDS)
    chosen: dict[str, Tile] = {}
    for key in groups:
        shares = {
            tiles[key]: ratio(times[number][key], times[0][key])
            for number, tiles in offered.items() if key in tiles
        }  # fmt: skip
        best = min(shares, key=lambda tile: shares[tile], default=None)
        if best is not None and shares[best] < WORTH:
            chosen[key] = best
    last = next((n for n, tiles in offered.items() if tiles == chosen), None)
    if last is None and chosen:
        last = contest.add(chosen)
    if last is None:
        return {}
    fresh = contest.watch([0, last], groups, ROUNDS)
    kept = {}
    for key, tile in chosen.items():
        share = ratio(fresh[last][key], fresh[0][key])
        if share < WORTH:
            default = statistics.median(fresh[0][key])
            kept[key] = Best(tile, default * share, default, names[key])
    return kept
