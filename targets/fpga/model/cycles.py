# SPDX-License-Identifier: Apache-2.0
"""Cycles of a command list, from events: commands, results, bursts and what the memory does.

Parts that stall are followed burst by burst: the memory (``memory``), the port (``port``), who
reads (``readers``), the way out of results (``results``). What never stalls inside has the times
of docs/accelerator.md (``work``). No content is computed. Where a part decides something each
cycle, the next decision's cycle is computed instead, so a run takes some 10 µs a burst.

Approximate: loads that wait for results on chip go on four beats at a time, a residual's words
leave its queue four at a time, a row's results are looked at by eight. ``benchmarks/fpga.py
--simulate`` prints the error of each layer; docs/evidence.md has the errors and says what the times
were set on.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from codesign.errors import VerifyError
from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.isa import BLOCK, Command, Dest, Unit
from codesign.targets.fpga.machine import depthwise_latency
from codesign.targets.fpga.model.bursts import Shape, parts, residual_runs
from codesign.targets.fpga.model.dispatch import UNITS, Dispatcher, Fixed
from codesign.targets.fpga.model.memory import Memory
from codesign.targets.fpga.model.port import ReadPort, WritePort
from codesign.targets.fpga.model.readers import AHEAD, Fetcher, Load, Loader, Residual
from codesign.targets.fpga.model.results import Making, Source
from codesign.targets.fpga.model.work import Workloads
from codesign.targets.fpga.sim.dram import Dram

__all__ = ["SINCE", "UNITS", "CycleModel", "Cycles", "Fixed", "Span"]

SINCE = 17
"""Cycles that the simulator's memory has run when its first run starts (refresh counts from
there); a board's is not known."""
STORES = (Unit.DRAIN, Unit.DEPTHWISE)
"""Units whose results leave, by the number of their way out."""
PIPELINE = 17
"""Cycles from a result in the loop of drain or depthwise to its place in the queue of results."""


@dataclass(frozen=True)
class Span:
    """When a command ran."""

    unit: Unit
    layer: str
    start: float
    end: float


@dataclass(frozen=True)
class Cycles:
    """Modelled cycles of a command list."""

    total: int
    spans: tuple[Span, ...]
    """Each unit's in the order of its commands."""

    def layers(self) -> dict[str, tuple[float, float]]:
        """Layer to its first start and last end."""
        found: dict[str, tuple[float, float]] = {}
        for span in self.spans:
            start, end = found.get(span.layer, (span.start, span.end))
            found[span.layer] = (min(start, span.start), max(end, span.end))
        return found


class CycleModel:
    """Runs command lists in time."""

    def __init__(self, accelerator: Accelerator, dram: Dram, fixed: Fixed | None = None) -> None:
        self.accelerator = accelerator
        self.works = Workloads(accelerator, dram)
        self.port = self.works.port
        self.dram = dram
        self.fixed = fixed or Fixed()

    @property
    def rate(self) -> float:
        """Bytes a cycle that the memory gives in one direction, at most a port's two beats."""
        part = 1.0
        if self.dram.refresh_interval:
            part -= self.dram.refresh_cycles / self.dram.refresh_interval
        return min(float(self.dram.bytes_per_cycle) * part, 2.0 * self.port)

    def run(
        self, commands: Sequence[Command], since: int = SINCE, again: bool = False
    ) -> Cycles:  # fmt: skip
        """The list from start to done; ``since``: cycles that the memory has run before; ``again``:
        another list's run was among them, and ended with a write.

        Raises VerifyError if nothing can go on.
        """
        return _Run(self, commands, since, again).total()


class _Run:
    """One run of a list."""

    def __init__(
        self, model: CycleModel, commands: Sequence[Command], since: int, again: bool
    ) -> None:  # fmt: skip
        self.commands, self.fixed, self.works = commands, model.fixed, model.works
        port = model.port
        self.heap: list[tuple[int, int, Callable[[int], None]]] = []
        self.number = 0
        self.now = 0
        self.fetcher = Fetcher(port, len(commands), self._kick, self._came)
        self.dispatcher = Dispatcher(
            commands, model.fixed, port, self.fetcher.wish, self._start_later
        )
        self.loader = Loader(port, self._kick, self._idle, self._loaded, self._stalled)
        self.residuals = [Residual(port, self._kick, self._changed(k), self.later) for k in (0, 1)]
        self.reads = ReadPort([self.fetcher, *self.residuals, self.loader], self.later)
        self.writes = WritePort(self.later, self._stored, self._sent)
        memory = Memory(
            model.dram, port, self.reads.moved, self.writes.written, since, writing=again
        )
        self.memory = self.reads.memory = self.writes.memory = memory
        self.sources = [
            Source(k, self.writes.close, self.residuals[k], self, model.fixed.written)
            for k in (0, 1)
        ]
        self.shapes = [Shape.of(e, port) for e in (self.works.dense, self.works.depthwise)]
        self.flying: dict[Unit, deque[tuple[int, int]]] = {u: deque() for u in UNITS}
        """(command, start) of what is not over."""
        self.factors: list[tuple[int, int, int] | None] = [None, None]
        self.last = [0, 0]
        """Of each way out: cycle in which the last result was made."""
        self.looped: list[deque[int]] = [deque(), deque()]
        """Cycles from which the next command could start, as to its own unit's loop."""
        self.drained: list[deque[int]] = [deque([0]), deque([0])]
        """The same as to the command before's results."""
        self.windows: list[deque[tuple[int, int]]] = [deque(), deque()]
        """(from, to): cycles in which results on chip are placed, and nothing that is loaded."""
        self.spans: list[Span] = []
        self.over: int | None = None

    def later(self, cycle: int, what: Callable[[int], None]) -> None:
        """Calls ``what`` at a cycle."""
        self.number += 1
        heapq.heappush(self.heap, (cycle, self.number, what))

    def total(self) -> Cycles:
        """Runs to the end."""
        for k in range(AHEAD):
            self.fetcher.wish(self.fixed.fetch + 2 * k)
        heap, memory = self.heap, self.memory
        if self.dispatcher.empty:
            self.over = self.fixed.fetch
        while self.over is None:
            if memory.advance(heap[0][0] if heap else memory.now + (1 << 20)):
                self.now = memory.now
            elif heap:
                self.now, _, what = heapq.heappop(heap)
                what(self.now)
            else:
                raise VerifyError(self._stuck())
        return Cycles(self.over + self.fixed.end, tuple(self.spans))

    def _stuck(self) -> str:
        waits = ", ".join(
            f"{unit.name} has {len(self.flying[unit])} under way and {len(queue)} waiting"
            for unit, queue in self.dispatcher.queues.items()
        )
        return f"nothing can go on in cycle {self.now} after {len(self.spans)} commands: {waits}"

    def _kick(self, cycle: int) -> None:
        self.reads.kick(max(cycle, self.now))

    def _came(self, first: int, last: int) -> None:
        self.dispatcher.came(first, last)

    def _start_later(self, unit: Unit, cycle: int) -> None:
        self.later(cycle, lambda now: self._start(unit, now))

    def _start(self, unit: Unit, cycle: int) -> None:
        index = self.dispatcher.take(unit, cycle)
        if index is None:
            return
        self.flying[unit].append((index, cycle))
        command = self.commands[index]
        if unit is Unit.DENSE:
            work = self.works.of(command)
            self._end_later(unit, cycle + int(work.last))
            self.dispatcher.release(unit, cycle + int(work.busy), cycle)
        elif unit is Unit.LOAD:
            self._load(command.values, cycle)
        else:
            self._store(STORES.index(unit), command.values, cycle)

    def _end_later(self, unit: Unit, cycle: int) -> None:
        self.later(cycle, lambda now: self._finish(unit, now))

    def _finish(self, unit: Unit, cycle: int) -> None:
        index, start = self.flying[unit].popleft()
        self.spans.append(Span(unit, self.commands[index].layer, start, cycle))
        self.dispatcher.finish(unit, cycle)
        if self.dispatcher.empty and not any(self.flying.values()):
            self.over = cycle

    # loads

    def _load(self, v: Mapping[str, int], cycle: int) -> None:
        """The times to the first run are those of ``hw/requests.py``."""
        works, dest = self.works, Dest(v["dest"])
        setup, window = 2, -1
        if dest in (Dest.DENSE_ACT, Dest.DEPTHWISE_ACT):
            lead = 1 + max(1, v["rows"].bit_length())
            words = v["rows"] * v["width"]
            runs = [(v["address"] + b * v["block_step"], words) for b in range(v["blocks"])]
            setup += max(0, v.get("repeat_y", 0) - 1)
            window = int(dest is Dest.DENSE_ACT)
        elif dest in (Dest.DENSE_WEIGHT, Dest.DEPTHWISE_WEIGHT):
            engine = works.dense if dest is Dest.DENSE_WEIGHT else works.depthwise
            lead = 2
            runs = [(v["address"], -(-v["count"] * engine.pi * engine.po * v["bits"] // 64))]
        else:
            lead, runs = 1, [(v["address"], v["count"])]
        self.loader.begin(Load(cycle, setup, window), lead, runs, works.placing(v) - setup + 2)

    def _idle(self) -> None:
        known = self.loader.next_start
        if known is not None:
            self.dispatcher.release(Unit.LOAD, known, self.now)

    def _loaded(self, cycle: int) -> None:
        self._end_later(Unit.LOAD, cycle)

    def _stalled(self, source: int, begins: float, ends: float) -> float:
        """The end of what the loader places from ``begins`` on, results on chip going first."""
        windows = self.windows[source]
        while windows and windows[0][1] < begins:
            windows.popleft()
        for first, last in windows:
            if first >= ends:
                break
            ends += last - max(first, begins)
        return ends

    # results

    def _store(self, source: int, v: Mapping[str, int], cycle: int) -> None:
        shape, residual = self.shapes[source], bool(v.get("residual"))
        least, lead, begun = 0, 21, cycle
        if source:
            least = shape.least(residual)
            lead = 30 + depthwise_latency(self.works.depthwise.multiplier)
        if residual:
            begun = max(cycle + 1, self.last[source] + PIPELINE) + self.fixed.held - 1
            factors = v["res_m"], v["res_e"], v.get("res_signed", 0)
            if factors != self.factors[source]:
                self.factors[source] = factors
                begun += self.fixed.table
            self.residuals[source].want(residual_runs(v, shape), cycle + 3 + v["rows"].bit_length())
        halved = bool(source) and self.works.dense.pi < BLOCK
        made = parts(v, shape, least, halved)
        self.sources[source].begin(Making(cycle, made, begun, lead, shape, v))

    def made(self, source: int, making: Making, last: int) -> None:
        """All results of a command are made, the last one in cycle ``last``."""
        self.last[source] = last
        if source:  # docs/accelerator.md, "Cycles"
            entries = self.shapes[1].least(False)
            slow = depthwise_latency(self.works.depthwise.multiplier)
            free = max(
                last - entries + max(entries, 2), making.start + making.values["taps"] + 25 + slow
            )
        else:
            free = max(last + 1, making.start + 16)
        self.looped[source].append(free)
        self._next(source)

    def placed(self, source: int, first: int, last: int) -> None:
        """Results are placed on chip in each cycle from ``first`` to ``last``."""
        self.windows[source].append((first + 1, last + 2))

    def left(self, source: int, last: int) -> None:
        """All results of a command have left their queue, the last one in cycle ``last``."""
        self.drained[source].append(last + 2)
        self._next(source)

    def _next(self, source: int) -> None:
        """A unit takes its next command when its last one's results are made and those of the one
        before that have left their queue."""
        made, drained = self.looped[source], self.drained[source]
        if made and drained:
            cycle = max(made.popleft(), drained.popleft())
            self.dispatcher.release(STORES[source], cycle, self.now)

    def _changed(self, source: int) -> Callable[[int], None]:
        return lambda cycle: self.sources[source].go()

    def _sent(self, source: int, beats: int, cycle: int, first: int) -> None:
        self.sources[source].burst_sent(beats, cycle, first)

    def _stored(self, source: int, cycle: int) -> None:
        self._end_later(STORES[source], cycle)
