# SPDX-License-Identifier: Apache-2.0
"""The same sessions on Amaranth's own simulator: no Verilator, no compiler, far slower.

For small designs where nothing else is at hand; the memory is the same model, so cycles agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.hw.registers import Register
from codesign.targets.fpga.isa import Unit
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.memory import AxiMemory
from codesign.targets.fpga.sim.result import UNITS, Difference, Region
from codesign.targets.fpga.sim.session import CLIENTS, Progress, Raw, Session

LANES = 300
"""Above so many lanes Amaranth's simulator is too slow to be of use."""


class SlowSession(Session):
    """Amaranth's simulator, one run at a time; each run starts the design anew."""

    def __init__(
        self, accelerator: Accelerator, memory_bytes: int, dram: Dram, burst: int = 16,
        queue: int = 8,
    ) -> None:  # fmt: skip
        super().__init__(accelerator, memory_bytes)
        self._data = bytearray((memory_bytes // 4096 + 2) * 4096)  # the fetcher reads ahead
        self._dram = dram
        self._burst, self._queue = burst, queue

    def load(self, address: int, content: bytes) -> None:
        self._data[address : address + len(content)] = content

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._data[address : address + size])

    def close(self) -> None:
        pass

    def _run(
        self, address: int, base: int, regions: Sequence[Region], limit: int, watchdog: int,
        progress: Callable[[Progress], None] | None,
    ) -> Raw:  # fmt: skip
        from amaranth.sim import Simulator

        from codesign.targets.fpga.hw.top import Top

        top = Top(self.accelerator, burst=self._burst, queue=self._queue, primitive=False)
        simulator = Simulator(top)
        simulator.add_clock(1e-8)
        run = _Run(top, self._data, self._dram, regions, limit, progress)
        settings = {
            Register.COMMANDS: address, Register.BASE_LOW: base & 0xFFFFFFFF,
            Register.BASE_HIGH: base >> 32, Register.WATCHDOG: watchdog, Register.INTERRUPT: 1,
            Register.CONTROL: 1,
        }  # fmt: skip

        async def bench(ctx: Any) -> None:
            await run.whole(ctx, settings)

        simulator.add_testbench(bench)
        start = time.perf_counter()
        simulator.run()
        run.raw["seconds"] = time.perf_counter() - start
        return Raw(**run.raw)


class _Run:
    """The test bench: memory, registers, events; as ``bench.cpp``."""

    def __init__(
        self, top: Any, data: bytearray, dram: Dram, regions: Sequence[Region], limit: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:  # fmt: skip
        self.top, self.limit, self.progress = top, limit, progress
        self.regions = sorted(regions, key=lambda r: r.count)
        self.ctx: Any = None
        self.memory = AxiMemory(data, dram, top.port.bits, self._put, self._get)
        self.starts: list[list[int]] = [[] for _ in UNITS]
        self.ends: list[list[int]] = [[] for _ in UNITS]
        self.stalls = [[0] * 6 for _ in UNITS]
        self.clients = [0] * len(CLIENTS)
        self.beats = [0, 0]
        self.differences: list[Difference] = []
        self.zero = 0
        self.raw: dict[str, Any] = {}

    def _put(self, name: str, value: int) -> None:
        self.ctx.set(self.top.axi[name], value)

    def _get(self, name: str) -> int:
        return int(self.ctx.get(self.top.axi[name]))

    async def cycle(self) -> None:
        """One clock cycle."""
        ctx, memory = self.ctx, self.memory
        memory.drive()
        if memory.ready["ar"] and self._get("arvalid"):
            size = (self._get("arlen") + 1) * self.top.port.bits // 8
            self.clients[ctx.get(self.top.trace["client"])] += size
        self.beats[0] += memory.ready["r"] and self._get("rready")
        self.beats[1] += memory.ready["w"] and self._get("wvalid")
        now = memory.now
        memory.sample()
        self._events(now)
        await ctx.tick()

    def _events(self, now: int) -> None:
        started, finished, waiting = (
            int(self.ctx.get(self.top.trace[name])) for name in ("started", "finished", "waiting")
        )
        for k, unit in enumerate(UNITS):
            if len(self.starts[k]) > len(self.ends[k]):
                self.stalls[k][5] += 1
            elif waiting >> (20 + k) & 1:
                unmet = waiting >> 4 * k & 15
                if unmet:
                    self.stalls[k][(unmet & -unmet).bit_length() - 1] += 1
            else:
                self.stalls[k][4] += 1
            if started >> k & 1:
                self.starts[k].append(now - self.zero)
            if finished >> k & 1:
                self.ends[k].append(now - self.zero)
                self._compare(unit, len(self.ends[k]), now)

    def _compare(self, unit: Unit, count: int, now: int) -> None:
        for region in self.regions:
            if region.unit != unit or region.count != count:
                continue
            got = self.memory.data[region.address : region.address + len(region.expected)]
            wrong = [
                k for k, (a, b) in enumerate(zip(region.expected, got))
                if a != b and region.compared(k)
            ]  # fmt: skip
            if wrong:
                at = wrong[0]
                self.differences.append(
                    Difference(
                        region, at, region.expected[at], got[at], now - self.zero, len(wrong)
                    )
                )

    async def write(self, address: int, value: int) -> None:
        """A register."""
        pins, ctx = self.top.lite, self.ctx
        for name, level in (("awaddr", address), ("awvalid", 1), ("wdata", value), ("wstrb", 15),
                            ("wvalid", 1), ("bready", 1)):  # fmt: skip
            ctx.set(pins[name], level)
        while True:
            ready = ctx.get(pins["awready"])
            await self.cycle()
            if ready:
                break
        ctx.set(pins["awvalid"], 0)
        ctx.set(pins["wvalid"], 0)
        await self.cycle()

    async def read(self, address: int) -> int:
        """A register."""
        pins, ctx = self.top.lite, self.ctx
        ctx.set(pins["araddr"], address)
        ctx.set(pins["arvalid"], 1)
        ctx.set(pins["rready"], 1)
        await self.cycle()
        ctx.set(pins["arvalid"], 0)
        while not ctx.get(pins["rvalid"]):
            await self.cycle()
        value = int(ctx.get(pins["rdata"]))
        await self.cycle()
        return value

    async def whole(self, ctx: Any, settings: dict[Register, int]) -> None:
        """Settings, start, wait, registers."""
        self.ctx = ctx
        for place, value in settings.items():
            await self.write(place, value)
        self.zero = self.memory.now
        while not ctx.get(self.top.irq) and self.memory.now - self.zero < self.limit:
            if self.differences:
                break
            await self.cycle()
            if self.progress is not None and (self.memory.now - self.zero) % 1000 == 0:
                finished = {u: len(self.ends[k]) for k, u in enumerate(UNITS)}
                self.progress(Progress(self.memory.now - self.zero, finished))
        over = bool(ctx.get(self.top.irq))
        status, waiting = await self.read(Register.STATUS), await self.read(Register.WAITING)
        cycles = await self.read(Register.CYCLES_LOW)
        cycles |= await self.read(Register.CYCLES_HIGH) << 32
        self.raw = {
            "over": over, "status": status, "waiting": waiting, "cycles": cycles, "seconds": 0.0,
            "read_bytes": tuple(self.clients), "write_bytes": self.memory.write_bytes,
            "read_beats": self.beats[0], "write_beats": self.beats[1],
            "stalls": tuple(map(tuple, self.stalls)), "starts": tuple(map(tuple, self.starts)),
            "ends": tuple(map(tuple, self.ends)), "differences": tuple(self.differences),
            "since": self.zero,
        }  # fmt: skip


def open_slow_session(
    accelerator: Accelerator, memory_bytes: int, dram: Dram, burst: int = 16, queue: int = 8
) -> Session:
    """A session on Amaranth's simulator. Raises InputError for designs it is too slow for."""
    from codesign.errors import InputError

    if accelerator.dense.lanes > LANES:
        raise InputError(
            f"accelerator {accelerator.name} has {accelerator.dense.lanes} dense lanes; Amaranth's "
            f"simulator takes up to {LANES}; install Verilator (apt-get install verilator) for "
            "larger ones"
        )
    return SlowSession(accelerator, memory_bytes, dram, burst, queue)
