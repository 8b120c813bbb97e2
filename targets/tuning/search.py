# SPDX-License-Identifier: Apache-2.0
"""Loops for kernels that no template writes, by TVM's MetaSchedule.

The space comes from TVM's rules for CPUs, the search is its evolution of traces under a model that
is trained on what was measured. Only the search runs here: candidates are built and timed
by the tuner's worker process, and go into the tuner's database.

MetaSchedule's own builder and runner are not used (they start a pool of processes that parse GPU
intrinsics for over a minute each), nor is TVM's VNNI intrinsic, which LLVM refuses; ours takes its
place (``tvm_lower.vnni``).
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.targets.tuning.database import Trial
from codesign.targets.tuning.protocol import Ahead, Ask, FunctionRequest
from codesign.targets.tuning.seeds import seeds
from codesign.targets.tuning.task import Task
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.tiles import DefaultTile, Tile, TraceTile

BATCH = 16
"""Candidates that the search finds at once."""
_CHUNK = 2
"""Candidates for each thread that are compiled at once: others may promise more by then."""
_POPULATION = 32
_GENERATIONS = 2
_WARM_UP = 32
"""Measured candidates from which on the model says what is worth measuring."""
_ELITE = 48
"""Traces of earlier runs, the fastest, that a search begins with."""
_DRY = 2
"""Batches without a new candidate after which a space counts as exhausted."""
_PATIENCE = 3 * BATCH
_NO_INTRINSICS = "tvm.s_tir.tensor_intrin"


class Model:
    """What candidates will take, learnt from those of all kernels."""

    def __init__(self, threads: int) -> None:
        with _quiet():
            from tvm.s_tir.meta_schedule.cost_model import XGBModel

            self.model = XGBModel(num_warmup_samples=_WARM_UP, num_tuning_cores=threads)


class Search:
    """MetaSchedule's search for one kernel."""

    def __init__(
        self, function: Any, vnni: bool, machine: Machine, model: Model, known: Iterable[Trial],
        seed: int = 1,
    ) -> None:  # fmt: skip
        import tvm
        from tvm.s_tir import meta_schedule as ms

        from codesign.targets.tvm_lower.compile import tvm_target

        self.module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        self.model = model.model
        self.target = tvm_target(machine)
        self.database = ms.database.MemoryDatabase()
        self.workload = self.database.commit_workload(self.module)
        for trial in known:
            self._remember(trial)
        strategy = ms.search_strategy.EvolutionarySearch(
            population_size=_POPULATION, init_measured_ratio=0.3, init_min_unmeasured=BATCH,
            genetic_num_iters=_GENERATIONS,
        )
        with _without_intrinsics():
            self.context = ms.TuneContext(
                self.module, target=self.target, space_generator=_space(vnni),
                search_strategy=strategy, num_threads=max(1, machine.threads), rand_state=seed,
                logger=_logger(),
            )
        spaces = self.context.generate_design_space()
        self.context.pre_tuning(1 << 20, BATCH, spaces, self.database, self.model)
        self._seeds = seeds(spaces, machine)
        self._evolved = False
        """Whether the last batch is of the search's own."""

    def propose(self) -> list[tuple[Any, TraceTile]]:
        """The next candidates and their tiles, seeds first; none if the space has nothing new."""
        from codesign.targets.tvm_lower.trace import trace_tile

        found = list(islice(filter(None, map(self._finished, self._seeds)), BATCH))
        self._evolved = not found
        if self._evolved:
            with _quiet():
                found = list(self.context.generate_measure_candidates() or ())
        return [(candidate, trace_tile(candidate.sch)) for candidate in found]

    def _finished(self, trace: Any) -> Any | None:
        """A candidate from a trace without postprocessing; None if that refuses it."""
        from tvm.s_tir import Schedule
        from tvm.s_tir.meta_schedule.arg_info import ArgInfo
        from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

        schedule = Schedule(self.module)
        try:
            trace.apply_to_schedule(schedule, remove_postproc=True)
            schedule.enter_postproc()
            after = self.context.space_generator.postprocs
            if not all(step.apply(schedule) for step in after):
                return None
        except Exception:  # the search does without
            return None
        return MeasureCandidate(schedule, ArgInfo.from_prim_func(self.module["main"]))

    def learn(self, candidates: Sequence[Any], seconds: Sequence[float | None]) -> None:
        """Times of a batch of ``propose``; None for one that failed."""
        from tvm.s_tir.meta_schedule.database import TuningRecord
        from tvm.s_tir.meta_schedule.runner import RunnerResult

        results = [
            RunnerResult(None, "failed") if s is None else RunnerResult([s], None) for s in seconds
        ]
        for candidate, time in zip(candidates, seconds, strict=True):
            if time is not None:
                self.database.commit_tuning_record(TuningRecord(
                    candidate.sch.trace, self.workload, [time], self.target, candidate.args_info,
                ))  # fmt: skip
        if self._evolved:
            self.context.notify_runner_results(list(candidates), results)
        with _quiet():
            self.model.update(self.context, list(candidates), results)

    def _remember(self, trial: Trial) -> None:
        """A trace that an earlier run measured."""
        import json

        from tvm.s_tir import Schedule
        from tvm.s_tir.meta_schedule.arg_info import ArgInfo
        from tvm.s_tir.meta_schedule.database import TuningRecord
        from tvm.s_tir.schedule import Trace

        assert isinstance(trial.tile, TraceTile)
        assert trial.least_ms is not None
        schedule = Schedule(self.module)
        try:
            Trace.apply_json_to_schedule(json.loads(trial.tile.trace), schedule)
        except Exception:  # of something else; the search does without
            return
        self.database.commit_tuning_record(TuningRecord(
            schedule.trace, self.workload, [trial.least_ms / 1e3], self.target,
            ArgInfo.from_prim_func(self.module["main"]),
        ))  # fmt: skip


@dataclass
class FunctionTask(Task):
    """A kernel that no template writes: candidates come from a search, batch by batch."""

    loose: Any = None
    """A ``tvm_lower.trace.Loose``."""
    machine: Machine | None = None
    file: Path = Path()
    """Where the worker finds it."""
    model: Model | None = None
    queue: list[tuple[Any, TraceTile]] = field(default_factory=list)
    dry: int = 0
    _search: Search | None = None
    _begun: bool = False
    _out: list[tuple[Any, TraceTile]] = field(default_factory=list)
    """The batch that is being measured."""
    _compiled: int = 0
    """How many of ``queue`` the worker has compiled."""

    @property
    def open(self) -> bool:
        """Whether the search may find more."""
        return self.dry < _DRY

    @property
    def promise(self) -> float:
        """Candidates that are compiled already come first."""
        return float("inf") if self._compiled else super().promise

    def take(self) -> tuple[Tile | None, Sequence[Ask]]:
        """The next of the batch; the worker is asked to build some of them at once."""
        if not self._begun:
            self._begun = True
            return self.default, ()
        if self.queue:
            return self._from_queue()
        try:
            self._learn()
            fresh = [(c, t) for c, t in self._found() if t not in self.tried]
        except Exception as error:  # of TVM; the other kernels go on
            self.dry, self.trouble = _DRY, f"search ended: {str(error).strip()[-200:]}"
            return None, ()
        self.dry = 0 if fresh else self.dry + 1
        if not fresh:
            return None, ()
        self._out, self.queue = fresh, list(fresh)
        return self._from_queue()

    def _from_queue(self) -> tuple[Tile, Sequence[Ask]]:
        assert self.machine is not None
        asks: list[Ask] = []
        if not self._compiled:
            self._compiled = min(len(self.queue), _CHUNK * max(1, self.machine.threads))
            tiles = tuple(tile for _, tile in self.queue[: self._compiled])
            asks.append(Ahead(self.file, self.machine, tiles))
        self._compiled -= 1
        return self.queue.pop(0)[1], asks

    def request(self, machine: Machine, tile: Tile, repeats: int) -> Ask:
        """Measure the kernel with ``tile``."""
        against = None if tile == self.default else self.default
        return FunctionRequest(self.file, machine, tile, repeats, against)

    def _found(self) -> list[tuple[Any, TraceTile]]:
        if self._search is None:
            self._search = self._begin()
        found = self._search.propose()
        known = [(c, t) for c, t in found if t in self.tried]
        if known:  # by an earlier run
            self._search.learn(*self._times(known))
        return found

    def _begin(self) -> Search:
        assert self.machine is not None
        assert self.model is not None
        traces = [
            t for t in self.tried.values()
            if isinstance(t.tile, TraceTile) and t.least_ms is not None
        ]  # fmt: skip
        best = sorted(traces, key=lambda t: t.least_ms or 0.0)[:_ELITE]
        return Search(self.loose.function, self.loose.vnni, self.machine, self.model, best,
                      seed=1 + len(self.tried))  # fmt: skip

    def _learn(self) -> None:
        """Tell the search what became of the batch."""
        if self._out and self._search is not None:
            self._search.learn(*self._times(self._out))
        self._out = []

    def _times(
        self, batch: Sequence[tuple[Any, TraceTile]]
    ) -> tuple[list[Any], list[float | None]]:
        times = [self.tried[t].least_ms if t in self.tried else None for _, t in batch]
        return [c for c, _ in batch], [None if t is None else t / 1e3 for t in times]


def function_tasks(graph: Graph, machine: Machine, folder: Path, tiles: Any) -> list[FunctionTask]:
    """The kernels of a network that no template writes, one a structure; files for the worker go
    into ``folder``. Raises InputError if they cannot be written."""
    from codesign.targets.tvm_lower.compile import loose

    found: dict[str, FunctionTask] = {}
    for one in loose(graph, machine, tiles):
        if one.key in found:
            found[one.key].layers.append(one.name)
            continue
        file = folder / f"{one.key}.pickle"
        try:
            file.write_bytes(pickle.dumps(one))
        except OSError as error:
            raise InputError(f"cannot write kernels for the tuner's worker to {folder}: "
                             f"{error.strerror}; free it or set TMPDIR") from error
        found[one.key] = FunctionTask(
            one.key, one.name, [one.name], DefaultTile(), patience=_PATIENCE, loose=one,
            machine=machine, file=file,
        )  # fmt: skip
    if found:
        model = Model(machine.threads)
        for task in found.values():
            task.model = model
    return list(found.values())


def _space(vnni: bool) -> Any:
    """TVM's rules for CPUs, without intrinsics, or with ours where the sums have its form."""
    from tvm.s_tir import meta_schedule as ms

    rules = list(ms.schedule_rule.ScheduleRule.create("llvm"))
    after = list(ms.postproc.Postproc.create("llvm"))
    if vnni:
        from codesign.targets.tvm_lower import vnni as intrinsic

        place = next(
            i for i, rule in enumerate(rules)
            if isinstance(rule, ms.schedule_rule.MultiLevelTiling)
        )  # fmt: skip
        rules.insert(place, ms.schedule_rule.MultiLevelTilingWithIntrin(
            intrinsic.NAME, "SSRSRS", max_innermost_factor=64,
            reuse_write=ms.schedule_rule.ReuseType("may", [1, 2], "global"),
        ))  # fmt: skip
        after.append(ms.postproc.RewriteTensorize(vectorize_init_loop=True))
    return ms.space_generator.PostOrderApply(
        sch_rules=rules, postprocs=after, mutator_probs=ms.mutator.Mutator.create("llvm")
    )


@contextlib.contextmanager
def _without_intrinsics() -> Iterator[None]:
    """TVM imports all its intrinsics with a search, which takes over a minute; none is used."""
    if _NO_INTRINSICS in sys.modules:
        yield
        return
    sys.modules[_NO_INTRINSICS] = types.ModuleType(_NO_INTRINSICS)
    try:
        yield
    finally:
        del sys.modules[_NO_INTRINSICS]


def _logger() -> logging.Logger:
    logger = logging.getLogger("codesign.metaschedule")
    logger.setLevel(logging.ERROR)
    return logger


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TVM's model tells its root-mean-square errors; progress is told by the tuner."""
    names = ("tvm.s_tir.meta_schedule",)
    loggers = [logging.getLogger(n) for n in (*names, *(
        n for n in logging.root.manager.loggerDict if n.startswith(names[0])))]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
