# SPDX-License-Identifier: Apache-2.0
"""Cycles of a command list, from events: units, queues, waits, the port, the memory behind it.

Commands are events; what they move is a fluid. Each transfer has a rate that its unit can keep up;
reads together fill at most the port's beat, writes likewise, and all together at most what the
memory gives. Between two events the rates are constant, shared fairly. Fixed times of the units are
those of the hardware (``Fixed``; calibrated against simulation, docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from codesign.errors import VerifyError
from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.isa import BLOCK, COMMAND_BYTES, Command, Dest, Unit
from codesign.targets.fpga.machine import depthwise_engine
from codesign.targets.fpga.model.races import full_count
from codesign.targets.fpga.sim.dram import Dram

UNITS: tuple[Unit, ...] = (Unit.LOAD, Unit.DENSE, Unit.DEPTHWISE, Unit.DRAIN)
_WAITS = tuple(f"wait_{u.name.lower()}" for u in UNITS)
SPECK = 1e-5


@dataclass(frozen=True)
class Fixed:
    """Fixed times in cycles."""

    request: int = 8
    """From a load's start to its request at the memory."""
    dense: int = 14
    """Pipeline of a dense command."""
    depthwise: int = 24
    drain: int = 20
    written: int = 12
    """From a command's last result to the memory's response, beside the memory's own time."""
    dispatch: int = 3
    """From the last wait's end, or the command before, to a command's start."""
    fetch: int = 12
    """From the start of the run to the first command, beside the memory's latency."""
    queue: int = 8
    """Commands that wait in a unit's queue."""


@dataclass
class Flow:
    """Bytes on their way."""

    left: float
    rate: float
    """At most so many bytes a cycle."""
    write: bool
    now: float = 0.0


@dataclass
class Job:
    """A command under way."""

    index: int
    command: Command
    start: float
    compute: float = 0.0
    """Until when the unit itself is busy."""
    flows: list[Flow] = field(default_factory=list)
    begins: float = 0.0
    """When its bytes begin to move."""
    tail: float = 0.0
    """Cycles from the last byte (and the end of the work) to the command's end."""
    over: float | None = None
    """When the tail is over, once it has begun."""


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

    def __init__(
        self, accelerator: Accelerator, dram: Dram, fixed: Fixed | None = None
    ) -> None:
        self.accelerator = accelerator
        self.dense, self.depthwise = accelerator.dense, depthwise_engine(accelerator)
        self.port = 16 if accelerator.port_bits >= 128 else 8
        self.dram = dram
        self.fixed = fixed or Fixed()
        share = 1.0
        if dram.refresh_interval:
            share = 1 - dram.refresh_cycles / dram.refresh_interval
        self.rate = min(float(dram.bytes_per_cycle) * share, 2.0 * self.port)

    # What a command takes

    def runs(self, count: int, size: int, address: int, step: int) -> float:
        """Bytes that the memory moves for ``count`` runs of ``size`` bytes: whole granules."""
        g = self.dram.granule
        if g <= 1 or count == 0:
            return float(count * size)
        total = 0
        for n in range(min(count, 8)):
            low = (address + n * step) // g * g
            total += -(-(address + n * step + size) // g) * g - low
        return total * count / min(count, 8)

    def load_bytes(self, v: dict[str, int]) -> tuple[float, float]:
        """(bytes, most bytes a cycle) of a load."""
        dest = Dest(v["dest"])
        if dest in (Dest.DENSE_ACT, Dest.DEPTHWISE_ACT):
            run = v["rows"] * v["width"] * BLOCK
            size = self.runs(v["blocks"], run, v["address"], v["block_step"])
            return size, float(self.port)
        if dest in (Dest.DENSE_WEIGHT, Dest.DEPTHWISE_WEIGHT):
            engine = self.dense if dest is Dest.DENSE_WEIGHT else self.depthwise
            size = v["count"] * -(-engine.pi * engine.po * v["bits"] // 8)
            return self.runs(1, size, v["address"], 0), float(self.port)
        return self.runs(1, v["count"] * 8, v["address"], 0), 8.0

    def work(self, command: Command) -> float:
        """Cycles that a unit works on a command, memory aside."""
        v = command.values
        if command.unit is Unit.DENSE:
            step = max(v["taps"] * v["inputs"], 2 if v.get("double") else 1)
            return float(v["groups"] * v["rows"] * v["steps"] * step)
        if command.unit is Unit.DEPTHWISE:
            e = self.depthwise
            step = max(v["taps"], -(-e.po * e.px // e.post))
            return float(v["groups"] * v["rows"] * v["steps"] * step)
        px = self.dense.px * (2 if v.get("double") else 1)
        step = max(1, -(-px * BLOCK // self.dense.post))
        return float(v["blocks"] * v["rows"] * v["steps"] * step)

    def stores(self, command: Command) -> tuple[float, float]:
        """Bytes of results, and of residuals read."""
        v = command.values
        if v.get("to_chip"):
            return 0.0, 0.0
        run = v["rows"] * v["width"] * BLOCK * (2 if v.get("wide") else 1)
        scale = 2 if v.get("wide") else 1
        out = self.runs(v["blocks"], run, v["address"], v["block_step"] * scale)
        if not v.get("residual"):
            return out, 0.0
        size = v["rows"] * v["width"] * BLOCK
        return out, self.runs(v["blocks"], size, v["res_address"], v["block_step"])

    # Time

    def run(self, commands: Sequence[Command]) -> Cycles:
        """The list from start to done."""
        f = self.fixed
        finished: dict[Unit, list[float]] = {u: [0.0] for u in UNITS}
        waiting: dict[Unit, list[tuple[int, Command, float]]] = {u: [] for u in UNITS}
        active: dict[Unit, list[Job]] = {u: [] for u in UNITS}
        issued = dict.fromkeys(UNITS, 0)
        needs: dict[int, list[tuple[Unit, int]]] = {}
        spans: list[Span] = []
        now = float(f.fetch + self.dram.latency)
        fetched, fetch_at = 0, now
        per = COMMAND_BYTES / self.port
        end_at: float | None = None
        seen = (-1, -1)
        free = dict.fromkeys(UNITS, now)
        while end_at is None or any(active.values()) or any(waiting.values()):
            # fetch in order; a full queue stalls it
            while fetched < len(commands) and fetch_at <= now + SPECK:
                command = commands[fetched]
                if command.unit is Unit.END:
                    if any(waiting.values()) or any(active.values()):
                        break
                    end_at = now + f.dispatch
                    fetched += 1
                    break
                unit: Unit = command.unit
                if len(waiting[unit]) >= f.queue:
                    break
                needs[fetched] = [
                    (u, max(0, full_count(command.values[w], issued[u])))
                    for u, w in zip(UNITS, _WAITS)
                ]
                waiting[unit].append((fetched, command, max(now, fetch_at)))
                issued[unit] += 1
                fetched += 1
                fetch_at = max(fetch_at, now - 4 * per) + per
            for each in UNITS:
                self._start(each, now, waiting, active, finished, needs, free)
            moment = self._step(now, active)
            if fetched < len(commands) and fetch_at > now + SPECK:
                moment = min(moment, fetch_at)
            for each in UNITS:
                if waiting[each] and free[each] > now + SPECK:
                    moment = min(moment, free[each])
            if moment == float("inf"):
                if end_at is None and (fetched, len(spans)) != seen:
                    seen = (fetched, len(spans))
                    continue
                if end_at is None:
                    raise VerifyError(f"nothing can go on after {len(spans)} commands")
                break
            self._advance(now, moment, active)
            now = moment
            for each in UNITS:
                while active[each] and self._over(active[each][0], now):
                    job = active[each].pop(0)
                    finished[each].append(now)
                    spans.append(Span(each, job.command.layer, job.start, now))
        return Cycles(round(end_at or now), tuple(spans))

    def _start(
        self, unit: Unit, now: float, waiting: dict[Unit, list[tuple[int, Command, float]]],
        active: dict[Unit, list[Job]], finished: dict[Unit, list[float]],
        needs: dict[int, list[tuple[Unit, int]]], free: dict[Unit, float],
    ) -> None:  # fmt: skip
        """Begin what can begin: loads two at a time (the second asks while the first's data
        arrive), others one after the other."""
        most = 2 if unit is Unit.LOAD else 1
        while waiting[unit] and len(active[unit]) < most and free[unit] <= now + SPECK:
            index, command, _ = waiting[unit][0]
            if any(len(finished[u]) - 1 < count for u, count in needs[index]):
                return
            waiting[unit].pop(0)
            active[unit].append(self._job(index, command, now))
            free[unit] = now + self.fixed.dispatch

    def _job(self, index: int, command: Command, now: float) -> Job:
        f, v = self.fixed, dict(command.values)
        job = Job(index, command, now)
        if command.unit is Unit.LOAD:
            size, rate = self.load_bytes(v)
            job.flows.append(Flow(size, rate, False))
            job.begins = now + f.request + self.dram.latency
            job.compute = job.begins
            job.tail = 3.0
            return job
        work = self.work(command)
        if command.unit is Unit.DENSE:
            job.compute = now + work + f.dense
            return job
        start = f.drain if command.unit is Unit.DRAIN else f.depthwise
        out, residual = self.stores(command)
        job.begins = now + start
        if residual:
            job.begins += self.dram.latency
            job.flows.append(Flow(residual, residual / max(work, 1.0), False))
        if out:
            job.flows.append(Flow(out, out / max(work, 1.0), True))
            job.tail = float(f.written + self.dram.write_latency)
        job.compute = job.begins + work
        return job

    def _moving(self, active: dict[Unit, list[Job]], now: float) -> list[Flow]:
        found = []
        for unit, jobs in active.items():
            for place, job in enumerate(jobs):
                if unit is Unit.LOAD and place:  # data come in order
                    break
                if job.begins <= now + SPECK:
                    found += [flow for flow in job.flows if flow.left > SPECK]
        return found

    def _rates(self, flows: list[Flow]) -> None:
        """Fair shares under the unit's, the port's and the memory's limits."""
        for flow in flows:
            flow.now = flow.rate
        for part in (False, True):
            _share([x for x in flows if x.write is part], float(self.port))
        _share(flows, self.rate)

    def _step(self, now: float, active: dict[Unit, list[Job]]) -> float:
        """The next moment at which something changes."""
        flows = self._moving(active, now)
        self._rates(flows)
        moment = min(
            (now + flow.left / flow.now for flow in flows if flow.now > 0), default=float("inf")
        )
        for unit, jobs in active.items():
            for place, job in enumerate(jobs):
                for at in (job.begins, job.compute):
                    if at > now + SPECK:
                        moment = min(moment, at)
                done = not any(flow.left > SPECK for flow in job.flows)
                first = unit is not Unit.LOAD or place == 0
                if done and first and job.compute <= now + SPECK:
                    moment = min(moment, now + self._rest(job, now))
        return moment

    def _rest(self, job: Job, now: float) -> float:
        """Cycles of the tail that are left; starts it."""
        if job.over is None:
            job.over = now + job.tail
        return max(0.0, job.over - now)

    def _over(self, job: Job, now: float) -> bool:
        if any(flow.left > SPECK for flow in job.flows) or job.compute > now + SPECK:
            return False
        return self._rest(job, now) <= SPECK

    def _advance(self, now: float, then: float, active: dict[Unit, list[Job]]) -> None:
        for flow in self._moving(active, now):
            flow.left = max(0.0, flow.left - flow.now * (then - now))


def _share(flows: list[Flow], most: float) -> None:
    """Cut rates to a sum of ``most``, the greatest first."""
    if sum(flow.now for flow in flows) <= most:
        return
    left, open_ = most, sorted(flows, key=lambda flow: flow.now)
    for place, flow in enumerate(open_):
        fair = left / (len(open_) - place)
        flow.now = min(flow.now, fair)
        left -= flow.now


