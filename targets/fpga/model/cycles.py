# SPDX-License-Identifier: Apache-2.0
"""Cycles of a command list, from events: units, queues, waits, the port, the memory behind it.

Commands are events; what they move is a fluid. Each transfer has a rate that its unit can keep up
(``work``); reads together fill at most the port's beat, writes likewise, and all together at most
what the memory gives, which alternates between reads and writes where both are asked for. A load
into a buffer stands back behind the other engine's results there, and a residual behind that load,
for answers come in order. Between two events the rates are constant, shared fairly. A unit takes
its next command before the last one's results are all in memory, as the hardware does. Fixed times
(``Fixed``) were set by hand; ``benchmarks/fpga.py --simulate`` prints the error of each layer,
docs/evidence.md has the errors and says which runs the times were set on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from codesign.errors import VerifyError
from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.isa import COMMAND_BYTES, Command, Unit, bits
from codesign.targets.fpga.model.races import full_count
from codesign.targets.fpga.model.supply import Flow, Supply, share
from codesign.targets.fpga.model.work import OUTSTANDING, OVERHEAD, Work, Workloads
from codesign.targets.fpga.sim.dram import Dram

UNITS: tuple[Unit, ...] = (Unit.LOAD, Unit.DENSE, Unit.DEPTHWISE, Unit.DRAIN)
_WAITS = tuple(f"wait_{u.name.lower()}" for u in UNITS)
SPECK = 1e-5
FOREVER = float("inf")
RESIDUAL = 1024
"""Bytes of a residual that are asked for ahead."""
LEAST_SHARE = 1 / 64
"""Of the loader's cycles that are left to it where results always go first: between steps."""
ROOM = {unit: 64 // -(-bits(unit) // 64) + 1 for unit in UNITS}
"""Commands that wait in a unit's queue (64 words of 8 bytes) and before it."""
AHEAD = 4
"""Commands that are fetched before their queue has room."""


@dataclass(frozen=True)
class Fixed:
    """Fixed times in cycles that the formulas of docs/accelerator.md do not give."""

    request: float = 7.0
    """From a load's start to its request at the memory, and from the memory to the loader."""
    setup: float = 2.0
    """Of the loader, before a command's first beat."""
    loaded: float = 3.0
    """From a load's last beat to its end."""
    written: float = 11.0
    """From a command's last result to the memory's response, beside the memory's own time."""
    residual: float = 24.0
    """From a command's start to its residual's first word, beside the memory's latency."""
    table: float = 263.0
    """New factors of the residual: the pipeline is empty, then the table is made."""
    dispatch: float = 2.0
    """From the last wait's end to a command's start."""
    fetch: float = 10.0
    """From the start of the run to the first command, beside the memory's latency."""
    turn: float = 0.15
    """Share of a read batch's rest that last results wait, beside their share of the memory."""
    slack: float = 1024.0
    """Bytes of results that wait between a unit and the memory before the unit stalls."""


@dataclass
class Job:
    """A command under way."""

    command: Command
    start: float
    free: float
    """When its unit takes the next one, if nothing stalls."""
    ends: float
    """When its last result is there, if nothing stalls."""
    tail: float = 0.0
    """Cycles from the last byte, and the last result, to the command's end."""
    flows: list[Flow] = field(default_factory=list)
    placing: float = 0.0
    """Share of its cycles in which it writes into the other engine's buffer."""
    over: float | None = None
    """When the tail is over, once it has begun."""

    @property
    def left(self) -> float:
        """Bytes that are still to be moved."""
        return sum(flow.left for flow in self.flows)


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
        self.supply = Supply(dram, self.port)
        mine = min(RESIDUAL // (16 * self.port), OUTSTANDING)
        self.abreast = mine / (OUTSTANDING - mine) if mine < OUTSTANDING else FOREVER
        """Residual bytes for each byte of a load: their bursts are answered in order."""

    def run(self, commands: Sequence[Command]) -> Cycles:
        """The list from start to done."""
        return _Run(self, commands).total()


class _Run:
    """One run of a list."""

    def __init__(self, model: CycleModel, commands: Sequence[Command]) -> None:
        self.model, self.commands, self.fixed = model, commands, model.fixed
        self.works = [None if c.unit is Unit.END else model.works.of(c) for c in commands]
        self.finished = dict.fromkeys(UNITS, 0)
        self.waiting: dict[Unit, list[int]] = {u: [] for u in UNITS}
        self.active: dict[Unit, list[Job]] = {u: [] for u in UNITS}
        self.issued = dict.fromkeys(UNITS, 0)
        self.needs: dict[int, list[tuple[Unit, int]]] = {}
        self.factors: dict[Unit, tuple[int, int, int] | None] = dict.fromkeys(UNITS)
        self.spans: list[Span] = []
        self.now = float(self.fixed.fetch + model.dram.latency)
        self.fetched = self.issued_all = 0
        self.fetching = Flow(COMMAND_BYTES, float(model.port), False, self.now, True)
        self.ready = dict.fromkeys(UNITS, self.now)
        """When a unit's next command may start at the earliest: its waits' end and a bit."""
        self._woken: set[int] = set()
        self.streak = 0.0
        """Bytes that the memory has read since it last turned to writes."""
        self.bound = False
        """Whether more is asked of the memory than it gives, so that requests wait."""

    def total(self) -> Cycles:
        """Run to the end."""
        end_at: float | None = None
        while end_at is None:
            moved = self._fetch()
            for each in UNITS:
                moved |= self._start(each)
            if self._ended():
                end_at = self.now + self.fixed.dispatch
                break
            moment = self._step()
            if moment == FOREVER:
                if moved:
                    continue
                raise VerifyError(f"nothing can go on after {len(self.spans)} commands")
            self._advance(moment)
        return Cycles(round(end_at), tuple(self.spans))

    def _ended(self) -> bool:
        place = self.issued_all
        return (
            (place >= len(self.commands) or self.commands[place].unit is Unit.END)
            and not any(self.waiting.values())
            and not any(self.active.values())
        )

    def _fetch(self) -> bool:
        """Commands that have come go into their queues; a full queue stalls the fetcher."""
        if self.fetching.left <= SPECK and self.fetched < len(self.commands):
            self.fetched += 1
            self.fetching.left = FOREVER  # asked for when there is room
        while self.issued_all < self.fetched:
            command = self.commands[self.issued_all]
            if command.unit is Unit.END or len(self.waiting[command.unit]) >= ROOM[command.unit]:
                break
            unit: Unit = command.unit
            self.needs[self.issued_all] = [
                (u, max(0, full_count(command.values.get(w, 0), self.issued[u])))
                for u, w in zip(UNITS, _WAITS)
            ]
            self.waiting[unit].append(self.issued_all)
            self.issued[unit] += 1
            self.issued_all += 1
        if self.fetching.left == FOREVER and self.fetched - self.issued_all < AHEAD:
            self.fetching.left = float(COMMAND_BYTES)
            wait = max(self.model.dram.latency, self._queued()) + OVERHEAD
            self.fetching.rate = min(self.model.port, AHEAD * COMMAND_BYTES / wait)
        return False

    def _start(self, unit: Unit) -> bool:
        """Begin what can begin. Loads: two at a time (the second asks while the first's data
        arrive); others when the last one's work is over and its results do not pile up."""
        waiting, active = self.waiting[unit], self.active[unit]
        if not waiting or not self._may(unit) or self.ready[unit] > self.now + SPECK:
            return False
        index = waiting[0]
        if any(self.finished[u] < count for u, count in self.needs[index]):
            return False
        waiting.pop(0)
        work = self.works[index]
        assert work is not None
        active.append(self._job(self.commands[index], work))
        return True

    def _may(self, unit: Unit) -> bool:
        active = self.active[unit]
        if unit is Unit.LOAD:
            return len(active) < 2
        if not active:
            return True
        last = active[-1]
        if last.free > self.now + SPECK:
            return False
        if any(f.left > SPECK for f in last.flows if not f.write):
            return False
        return sum(job.left for job in active) <= self.fixed.slack + SPECK

    def _job(self, command: Command, work: Work) -> Job:
        f, now, dram = self.fixed, self.now, self.model.dram
        unit: Unit = command.unit
        if unit is Unit.LOAD:
            begins = now + f.request + work.lead + dram.latency
            before = self.active[unit]
            flow = Flow(work.reads, work.read_rate, False, begins, behind=work.behind)
            if before:
                flow.begins = FOREVER  # until the one before is over
            return Job(command, now, now, begins, f.loaded, [flow])
        job = Job(command, now, now + work.busy, now + work.last, placing=work.placing)
        first = now + work.lead
        if work.factors is not None:
            begins = late = now + f.residual + max(dram.latency, self._queued())
            if work.factors != self.factors[unit]:
                late = max(late, first + f.table)
                self.factors[unit] = work.factors
            delay = max(0.0, late - first)
            first, job.free, job.ends = first + delay, job.free + delay, job.ends + delay
            job.flows.append(Flow(work.reads, work.read_rate, False, begins, True))
        if work.writes:
            job.flows.append(
                Flow(work.writes, work.write_rate, True, first, burst=work.write_burst)
            )
            job.tail = f.written + dram.write_latency
        return job

    def _queued(self) -> float:
        """Cycles until the loader has taken the bursts that it has asked for: answers come in
        order, so whoever asks now waits for them."""
        most, cycles = 8.0 * 16 * self.model.port, 0.0
        for job in self.active[Unit.LOAD]:
            for flow in job.flows:
                size = min(flow.left, most)
                cycles += size / min(self._most(flow), self.model.supply.rate)
                most -= size
        return cycles

    def _moving(self) -> list[Flow]:
        """What moves now; results of a unit one command after the other."""
        found = []
        if SPECK < self.fetching.left < FOREVER:
            found.append(self.fetching)
        for jobs in self.active.values():
            ahead = False
            for job in jobs:
                for flow in job.flows:
                    if flow.left <= SPECK or (flow.write and ahead):
                        continue
                    ahead |= flow.write
                    if flow.begins <= self.now + SPECK:
                        found.append(flow)
        return found

    def _most(self, flow: Flow) -> float:
        """Bytes a cycle that a flow can take now."""
        if flow.behind is None:
            return flow.rate
        busy = sum(job.placing for job in self.active[flow.behind] if job.ends > self.now + SPECK)
        return flow.rate * max(LEAST_SHARE, 1 - busy)

    def _rates(self, flows: list[Flow]) -> None:
        """Fair shares under the unit's, the port's and the memory's limits."""
        # answers come in order and the loader holds them back while it writes: reads share the
        # port's time, residuals and commands first
        port = float(self.model.port)
        sides = [[x for x in flows if x.write is part] for part in (False, True)]
        keen = [flow for flow in sides[0] if flow.first]
        others = [flow for flow in sides[0] if not flow.first]
        for flow in flows:
            flow.now = self._most(flow)
        for flow in keen:
            if others and flow is not self.fetching:
                flow.now = min(flow.now, self.model.abreast * min(f.now for f in others))
        share(keen, port)
        left = max(0.0, 1 - sum(flow.now for flow in keen) / port)
        for flow in others:
            flow.now *= left
        burst = sum(flow.burst * flow.now for flow in sides[1])
        if sides[1]:
            burst /= sum(flow.now for flow in sides[1])
            share(sides[1], min(port, OUTSTANDING * burst / self.model.supply.again(burst)))
        # the memory turns between reads and writes, so many bytes of one and then of the other
        reads, writes = (sum(flow.now for flow in side) for side in sides)
        most, part = self.model.supply.rate, 0.5
        if reads and writes:
            most, part = self.model.supply.alternating(burst)
        self.bound = reads + writes > most
        if not self.bound:
            return
        writes = min(writes, max(most * part, most - reads))
        share(sides[1], writes)
        share(keen, most - writes)
        share(others, max(0.0, most - writes - sum(flow.now for flow in keen)))

    def _step(self) -> float:
        """The next moment at which something changes."""
        now, flows = self.now, self._moving()
        self._rates(flows)
        moment = min((now + f.left / f.now for f in flows if f.now > 0), default=FOREVER)
        for unit, jobs in self.active.items():
            for place, job in enumerate(jobs):
                times = [job.free, job.ends, *(flow.begins for flow in job.flows)]
                moment = min(moment, *(t if t > now + SPECK else FOREVER for t in times))
                if place == 0 and job.left <= SPECK and job.ends <= now + SPECK:
                    if job.over is None:
                        job.over = now + job.tail + self._turn(job)
                    moment = min(moment, max(now, job.over))
            if unit is not Unit.LOAD and jobs and self.waiting[unit]:
                moment = min(moment, self._emptied(jobs))
            if self.waiting[unit] and self.ready[unit] > now + SPECK:
                moment = min(moment, self.ready[unit])
        return moment

    def _emptied(self, jobs: Sequence[Job]) -> float:
        """When few enough results wait, at the present rates."""
        over = sum(job.left for job in jobs) - self.fixed.slack
        rate = sum(flow.now for job in jobs for flow in job.flows if flow.begins <= self.now)
        if over <= SPECK or rate <= 0:
            return FOREVER
        return self.now + over / rate

    def _turn(self, job: Job) -> float:
        """Cycles until the memory turns to a command's last results: where requests wait, it reads
        on until it has read a batch, or has nothing to read."""
        if not self.bound or not any(flow.write for flow in job.flows):
            return 0.0
        reads = [flow for flow in self._moving() if not flow.write]
        rate = sum(flow.now for flow in reads)
        if rate <= 0:
            return 0.0
        dram = self.model.dram
        left = min(dram.batch - self.streak, sum(flow.left for flow in reads))
        return (left / rate + dram.turnaround) * self.fixed.turn

    def _advance(self, then: float) -> None:
        moved = [0.0, 0.0]
        for flow in self._moving():
            size = min(flow.left, flow.now * (then - self.now))
            flow.left -= size
            moved[flow.write] += size
        batch = self.model.dram.batch
        self.streak += moved[0]
        if moved[1]:
            self.streak = self.streak % batch if moved[0] else 0.0
        self.streak = min(self.streak, float(batch))
        self.now = then
        ended = False
        for unit, jobs in self.active.items():
            while jobs and self._over(jobs[0]):
                job = jobs.pop(0)
                self.finished[unit] += 1
                ended = True
                self.spans.append(Span(unit, job.command.layer, job.start, then))
                if unit is Unit.LOAD and jobs:
                    flow = jobs[0].flows[0]
                    flow.begins = max(jobs[0].ends, then - self.fixed.loaded + self.fixed.setup)
        if ended:
            self._wake()

    def _wake(self) -> None:
        """Commands whose last wait has just ended start a little later."""
        for unit in UNITS:
            if self.waiting[unit] and (unit is not Unit.LOAD or len(self.active[unit]) < 2):
                index = self.waiting[unit][0]
                needs = self.needs[index]
                if all(self.finished[u] >= count for u, count in needs):
                    late = self.now + self.fixed.dispatch
                    if self.ready[unit] < self.now and index not in self._woken:
                        self.ready[unit] = late
                        self._woken.add(index)

    def _over(self, job: Job) -> bool:
        if job.left > SPECK or job.ends > self.now + SPECK:
            return False
        if job.over is None:
            job.over = self.now + job.tail + self._turn(job)
        return job.over <= self.now + SPECK
