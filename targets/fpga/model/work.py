# SPDX-License-Identifier: Apache-2.0
"""What each command takes alone, by the formulas of ``docs/accelerator.md``: cycles and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.isa import BLOCK, Command, Dest, Unit
from codesign.targets.fpga.machine import LATENCY, depthwise_engine, depthwise_latency
from codesign.targets.fpga.sim.dram import Dram

OUTSTANDING = 8
"""Bursts of each direction under way."""
LONGEST = 16
"""Beats of the longest burst."""
READ = 4
"""Cycles beside the memory's latency after which a load's burst is followed by the next one that
had to wait for it."""
OVERHEAD = 10
"""Cycles beside the memory's latency in which a read burst takes one of the port's places."""


@dataclass(frozen=True)
class Work:
    """One command of a unit."""

    busy: float
    """Cycles from its start until the unit takes the next one, when nothing stalls."""
    lead: float
    """Cycles from its start to its first result (a load: to its request)."""
    last: float
    """Cycles from its start to its last result, when nothing stalls."""
    reads: float = 0.0
    """Bytes that the memory moves for it, whole granules."""
    read_rate: float = 0.0
    """At most so many bytes a cycle."""
    writes: float = 0.0
    write_rate: float = 0.0
    burst: float = 0.0
    """Bytes of a read's usual burst."""
    write_burst: float = 0.0
    """Bytes that the memory moves for a burst of results, on average."""
    factors: tuple[int, int, int] | None = None
    """Of the residual: a change of them costs a new table."""
    placing: float = 0.0
    """Share of its cycles in which it writes into the other engine's activation buffer; the loader
    waits then."""
    behind: Unit | None = None
    """Of a load of activations: the unit whose results into the same buffer go first."""


class Workloads:
    """Commands' work on one accelerator with one memory."""

    def __init__(self, accelerator: Accelerator, dram: Dram) -> None:
        self.dense, self.depthwise = accelerator.dense, depthwise_engine(accelerator)
        self.port = 16 if accelerator.port_bits >= 128 else 8
        self.dram = dram

    def of(self, command: Command) -> Work:
        """The work of a command."""
        v = command.values
        if command.unit is Unit.LOAD:
            return self._load(v)
        if command.unit is Unit.DENSE:
            return self._dense(v)
        if command.unit is Unit.DRAIN:
            return self._drain(v)
        return self._depthwise(v)

    def runs(self, count: int, size: int, address: int, step: int) -> float:
        """Bytes that the memory moves for ``count`` runs of ``size`` bytes: whole granules."""
        g = max(self.dram.granule, self.port)
        total = 0
        for n in range(min(count, 8)):
            low = (address + n * step) // g * g
            total += -(-(address + n * step + size) // g) * g - low
        return total * count / max(1, min(count, 8))

    def placing(self, v: Mapping[str, int]) -> int:
        """Cycles in which the loader writes a load into its buffer."""
        dest, words = Dest(v["dest"]), self.port // 8
        engine = self.dense if dest < Dest.DEPTHWISE_WEIGHT else self.depthwise
        if dest in (Dest.DENSE_WEIGHT, Dest.DEPTHWISE_WEIGHT):
            size = -(-engine.pi * engine.po * v["bits"] // 8)
            return int(v["count"] * max(1.0, size / self.port))
        if dest not in (Dest.DENSE_ACT, Dest.DEPTHWISE_ACT):
            return v["count"]
        again = max(1, v.get("repeat_x", 0)) * max(1, v.get("repeat_y", 0))
        lanes = engine.px * (2 if v.get("place_nibbles") else 1)
        rows, width = v["rows"], v["width"]
        cycles = rows * width * again
        if words == 2 and lanes > 1 and v.get("place_stride", 1) <= 1 and again == 1:
            cycles = -(-rows * width // 2) + (rows // 2 if width % 2 else 0)
        twice = 2 if engine.kind == "dense" and engine.pi < BLOCK else 1
        return cycles * v["blocks"] * twice + max(0, v.get("repeat_y", 0) - 1)

    def load_bytes(self, v: Mapping[str, int]) -> float:
        """Bytes that the memory moves for a load."""
        dest = Dest(v["dest"])
        if dest in (Dest.DENSE_ACT, Dest.DEPTHWISE_ACT):
            run = v["rows"] * v["width"] * BLOCK
            return self.runs(v["blocks"], run, v["address"], v["block_step"])
        if dest in (Dest.DENSE_WEIGHT, Dest.DEPTHWISE_WEIGHT):
            engine = self.dense if dest is Dest.DENSE_WEIGHT else self.depthwise
            size = v["count"] * -(-engine.pi * engine.po * v["bits"] // 8)
            return self.runs(1, size, v["address"], 0)
        return self.runs(1, v["count"] * 8, v["address"], 0)

    def _load(self, v: Mapping[str, int]) -> Work:
        size, cycles = self.load_bytes(v), float(max(1, self.placing(v)))
        act = Dest(v["dest"]) in (Dest.DENSE_ACT, Dest.DEPTHWISE_ACT)
        weights = Dest(v["dest"]) in (Dest.DENSE_WEIGHT, Dest.DEPTHWISE_WEIGHT)
        lead = v["rows"].bit_length() if act else int(weights)
        behind: Unit | None = None
        if act:
            behind = Unit.DEPTHWISE if Dest(v["dest"]) is Dest.DENSE_ACT else Unit.DRAIN
        rate, burst = min(size / cycles, float(self.port)), float(LONGEST * self.port)
        if act:  # short runs: as many as may be under way in the memory's latency
            run = v["rows"] * v["width"] * BLOCK
            bursts = v["blocks"] * -(-run // (LONGEST * self.port))
            burst = size / bursts
            if bursts > OUTSTANDING:
                late = bursts / OUTSTANDING * (self.dram.latency + READ)
                rate = min(rate, size / late)
        return Work(0, lead, cycles, size, rate, burst=burst, behind=behind)

    def _dense(self, v: Mapping[str, int]) -> Work:
        e = self.dense
        steps = v["groups"] * v["rows"] * v["steps"]
        taps = v["taps"] * v["inputs"]
        double = 1 if v.get("double") else 0
        beats = (steps - 1) * max(taps, 1 + double) + taps
        levels = (e.pi - 1).bit_length()
        end = beats + 13 + LATENCY[e.multiplier] + levels + double
        return Work(beats + 5, 0, end)

    def _drain(self, v: Mapping[str, int]) -> Work:
        e = self.dense
        pixels = max(1, e.post // BLOCK)
        whole, rest = divmod(v["width"], e.px)
        row = whole * -(-e.px // pixels) + -(-rest // pixels)
        row *= 2 if e.post < BLOCK else 1
        beats = v["blocks"] * v["rows"] * row
        if v.get("to_chip"):
            beats = max(beats, v["blocks"] * v["rows"] * v["width"])
        return self._out(v, beats, max(beats + 1, 16), 20, 0)

    def _depthwise(self, v: Mapping[str, int]) -> Work:
        e = self.depthwise
        pixels = max(1, e.post // BLOCK)
        least = e.po // BLOCK * -(-e.px // pixels) * (2 if e.post < BLOCK else 1)
        steps, taps = v["groups"] * v["rows"] * v["steps"], v["taps"]
        least = max(least, 2) if v.get("residual") else least
        beats = (steps - 1) * max(taps, least) + taps
        latency = depthwise_latency(e.multiplier)
        if v.get("to_chip"):
            slow = 2 if self.dense.pi < BLOCK else 1
            beats = max(beats, v["blocks"] * v["rows"] * v["width"] * slow)
        busy = max(beats + 2 + max(least - 2, 0), taps + 25 + latency)
        together = e.px if e.po > BLOCK else 0
        return self._out(v, beats, busy, 29 + latency + least, together)

    def _out(
        self, v: Mapping[str, int], beats: int, busy: float, lead: float, together: int
    ) -> Work:
        """Of a command that requantises and stores. ``together``: pixels of a block that come one
        after the other, where it is not the whole block."""
        if v.get("to_chip"):
            share = min(1.0, v["blocks"] * v["rows"] * v["width"] / max(beats, 1))
            return Work(busy, lead, beats + lead, placing=share)
        scale = 2 if v.get("wide") else 1
        size = v["rows"] * v["width"] * BLOCK
        by_blocks = not together or (v["rows"] == 1 and v["width"] <= together)
        run, longest = size * scale, LONGEST * self.port
        if size == v["block_step"] and by_blocks:  # one block's run goes on in the next one's
            out = self.runs(1, run * v["blocks"], v["address"], 0)
            bursts = -(-run * v["blocks"] // longest)
        else:
            out = self.results(v, v["address"], v["block_step"], scale, together)
            bursts = -(-run // longest) * v["blocks"]
            if together and together < v["width"]:
                bursts = -(-v["width"] // together) * v["rows"] * v["blocks"]
        wide = min(out / bursts, float(longest))
        if not v.get("residual"):
            return Work(busy, lead, beats + lead, 0, 0, out, out / beats, write_burst=wide)
        came = self.results(v, v["res_address"], v["block_step"], 1, together)
        burst = min(size, together * BLOCK) if together else min(size, 16 * self.port)
        factors = v["res_m"], v["res_e"], v.get("res_signed", 0)
        rate = min(self.port, OUTSTANDING * burst / (self.dram.latency + OVERHEAD))
        return Work(
            busy, lead, beats + lead, came, rate, out, out / beats, burst, wide, factors
        )

    def results(
        self, v: Mapping[str, int], address: int, step: int, scale: int, together: int
    ) -> float:
        """Bytes that the memory moves for a command's results, or for its residual."""
        size = v["rows"] * v["width"] * BLOCK * scale
        if not together or together >= v["width"]:
            return self.runs(v["blocks"], size, address, step * scale)
        whole, rest = divmod(v["width"], together)
        wide = together * BLOCK * scale
        row = self.runs(whole, wide, address, wide) + self.runs(
            min(rest, 1), rest * BLOCK * scale, address + whole * wide, 0
        )
        return row * v["rows"] * v["blocks"]
