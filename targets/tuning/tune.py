# SPDX-License-Identifier: Apache-2.0
"""The tuner: which tile each kernel of a network gets, by measuring, within a budget."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.targets.tuning.contest import Contest
from codesign.targets.tuning.database import TuningDatabase
from codesign.targets.tuning.runner import IsolatedRunner
from codesign.targets.tuning.settle import can_settle, reserve, settle
from codesign.targets.tuning.task import Task, tasks_of
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.tiles import Tile

SEARCH_REPEATS = 15
"""Samples of a candidate, in turns with as many of the fixed rules' tile."""
_AHEAD_SECONDS = 10.0
"""What compiling a batch of candidates may take; none is begun with less time left."""

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


def tune(
    graph: Graph, machine: Machine, machine_key: str, database: TuningDatabase, budget: Budget,
    notice: Notice = lambda line, done, total: None, runner: IsolatedRunner | None = None,
    contest: Contest | None = None,
) -> Outcome:  # fmt: skip
    """Try candidates until the budget is spent, each kernel alone; then the best ones compete
    inside the network, and what is faster there goes into the database.

    Kernels of the templates try their tiles; those that no template writes (float layers, pooling,
    softmax) try traces that TVM's MetaSchedule finds. What earlier runs tried is not tried again.
    A candidate that crashes, hangs or computes something else than the fixed rules' code is kept as
    such and skipped. A budget of time holds for all of it, but for the candidate in hand.
    """
    start = time.monotonic()
    until = None if budget.seconds is None else start + budget.seconds
    contest = contest or Contest(graph, machine)
    with (
        tempfile.TemporaryDirectory(prefix="codesign-tune-") as folder,
        runner or IsolatedRunner() as worker,
    ):
        tasks = _tasks(graph, machine, machine_key, database, Path(folder))
        if until is not None and tasks:
            contest.add({})  # now, to know what the last timings will take
            contest.release()
        last = None if until is None else until - reserve(contest, until)
        run = _Run(tasks, worker, machine, machine_key, database, last)
        run.search(budget, start, notice)
    chosen = settle(tasks, contest, until)
    for key, choice in chosen.items():
        database.keep_best(key, machine_key, choice)
    said = f"{len(chosen)} of {len(tasks)} kernels are faster than by the fixed rules"
    if until is not None and tasks and not can_settle(contest, until) and not chosen:
        said = "no time was left to compare networks; what was tried is kept, tune again"
    notice(f"{time.monotonic() - start:.0f} s: {said}", *budget.share(run.done, start))
    return Outcome(run.done, run.failed, time.monotonic() - start, len(tasks), len(chosen))


def _tasks(
    graph: Graph, machine: Machine, machine_key: str, database: TuningDatabase, folder: Path
) -> list[Task]:
    """Everything to tune, with what earlier runs found out."""
    from codesign.targets.tuning.search import function_tasks

    known = database.all_best(machine_key)

    def tiles(key: str) -> Tile | None:
        return known[key].tile if key in known else None

    tasks: list[Task] = [*tasks_of(graph, machine)]
    tasks += function_tasks(graph, machine, folder, tiles)
    for one in tasks:
        one.resume(database.trials(one.key, machine_key))
    return tasks


@dataclass
class _Run:
    """The search over all kernels."""

    tasks: Sequence[Task]
    worker: IsolatedRunner
    machine: Machine
    machine_key: str
    database: TuningDatabase
    last: float | None
    """The time after which no candidate is begun; None where trials are counted."""
    done: int = 0
    failed: int = 0

    def search(self, budget: Budget, start: float, notice: Notice) -> None:
        """Measure candidates until the budget is spent or nothing is left."""
        while not self._spent(budget) and (task := _next(self.tasks)) is not None:
            said = self._step(task, start)
            notice(said, *budget.share(self.done, start))

    def _spent(self, budget: Budget) -> bool:
        if budget.trials is not None:
            return self.done >= budget.trials
        return self.last is not None and time.monotonic() >= self.last

    def _step(self, task: Task, start: float) -> str:
        tile, before = task.take()
        if tile is None:
            return f"{task.layer}: {task.trouble or 'no new candidate'}"
        if self.last is None or self.last - time.monotonic() > _AHEAD_SECONDS:
            for ask in before:
                self.worker.measure(ask)
        reply = self.worker.measure(task.request(self.machine, tile, SEARCH_REPEATS))
        trial = task.judge(tile, reply)
        self.done, self.failed = self.done + 1, self.failed + (trial.least_ms is None)
        if task.tell(trial):
            self.database.keep_trial(task.key, self.machine_key, trial)
        best = task.best.least_ms if task.best else None
        found = trial.status if trial.least_ms is None else f"{trial.least_ms:.3f} ms"
        return (f"trial {self.done}, {time.monotonic() - start:.0f} s: {task.layer} {found}, "
                f"best {f'{best:.3f} ms' if best else 'none'}")


def _next(tasks: Sequence[Task]) -> Task | None:
    return max((task for task in tasks if task.open), key=lambda task: task.promise, default=None)
