# SPDX-License-Identifier: Apache-2.0
"""What each command takes alone, by the formulas of ``docs/accelerator.md``: cycles and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.isa import BLOCK, Command, Dest, Unit
from codesign.targets.fpga.machine import LATENCY, depthwise_engine, depthwise_latency
from codesign.targets.fpga.sim.dram import Dram


@dataclass(frozen=True)
class Work:
    """One command of a unit."""

    busy: float
    """Cycles from its start until the unit takes the next one, when nothing stalls."""
    last: float
    """Cycles from its start to its last result (a load: in which it writes into its buffer), when
    nothing stalls."""
    reads: float = 0.0
    """Bytes that the memory moves for it, whole granules."""
    writes: float = 0.0


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
        return Work(0, float(max(1, self.placing(v))), self.load_bytes(v))

    def _dense(self, v: Mapping[str, int]) -> Work:
        e = self.dense
        steps = v["groups"] * v["rows"] * v["steps"]
        taps = v["taps"] * v["inputs"]
        double = 1 if v.get("double") else 0
        beats = (steps - 1) * max(taps, 1 + double) + taps
        levels = (e.pi - 1).bit_length()
        end = beats + 13 + LATENCY[e.multiplier] + levels + double
        return Work(beats + 5, end)

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
            return Work(busy, beats + lead)
        scale = 2 if v.get("wide") else 1
        size = v["rows"] * v["width"] * BLOCK
        by_blocks = not together or (v["rows"] == 1 and v["width"] <= together)
        if size == v["block_step"] and by_blocks:  # one block's run goes on in the next one's
            out = self.runs(1, size * scale * v["blocks"], v["address"], 0)
        else:
            out = self.results(v, v["address"], v["block_step"], scale, together)
        came = 0.0
        if v.get("residual"):
            came = self.results(v, v["res_address"], v["block_step"], 1, together)
        return Work(busy, beats + lead, came, out)

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
