# SPDX-License-Identifier: Apache-2.0
"""The memory's side of the AXI port in Python, cycle for cycle the model of ``bench.cpp``.

For Amaranth's own simulator and for tests of parts; the pins are reached through two functions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from codesign.targets.fpga.sim.dram import Dram

ROOM = 4096
"""Bytes that the controller holds for each direction."""


@dataclass
class _Burst:
    address: int
    beats: int
    ready: int = 0
    begun: bool = False


@dataclass
class AxiMemory:
    """Memory content and the state of its controller.

    Each cycle: ``drive`` sets the inputs of the port, then ``sample`` looks at the handshakes, then
    the clock ticks. Raises AssertionError when a burst breaks a rule of AXI.
    """

    data: bytearray
    timing: Dram
    bits: int
    put: Callable[[str, int], None]
    """Sets a pin (``"rvalid"``)."""
    get: Callable[[str], int]
    now: int = 0
    reads: deque[_Burst] = field(default_factory=deque)
    writes: deque[_Burst] = field(default_factory=deque)
    responses: deque[int] = field(default_factory=deque)
    slot: deque[tuple[int, bool]] = field(default_factory=deque)
    lengths: deque[int] = field(default_factory=deque)
    held: int = 0
    writing: bool = False
    budget: int = 0
    streak: int = 0
    hold: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    bad: bool = False

    def __post_init__(self) -> None:
        self.seed = self.timing.seed
        self.ready = dict.fromkeys(("ar", "aw", "w", "r", "b"), False)

    def _chance(self) -> bool:
        if not self.timing.stall:
            return False
        s = self.seed
        s ^= s << 13 & 0xFFFFFFFF
        s ^= s >> 17
        s ^= s << 5 & 0xFFFFFFFF
        self.seed = s
        return s & 255 < self.timing.stall

    @property
    def _cost(self) -> int:
        return self.bits // 8 * self.timing.bytes_per_cycle.denominator

    def _extra(self, address: int, beats: int) -> int:
        t, size = self.timing, beats * self.bits // 8
        low = address // t.granule * t.granule
        high = -(-(address + size) // t.granule) * t.granule
        return (high - low - size) * t.bytes_per_cycle.denominator

    def drive(self) -> None:
        """Inputs of this cycle."""
        t, step, ready = self.timing, self.bits // 8, self.ready
        self.budget = min(self.budget + t.bytes_per_cycle.numerator, 4 * self._cost)
        refreshing = bool(t.refresh_interval) and self.now % t.refresh_interval < t.refresh_cycles
        if not refreshing and self.now >= self.hold:
            self._move()
        ready["w"] = bool(self.writes) and self.held < ROOM * 8 // self.bits and not self._chance()
        ready["ar"] = len(self.reads) < t.outstanding and not self._chance()
        ready["aw"] = len(self.writes) < t.outstanding and not self._chance()
        ready["r"] = bool(self.slot) and (ready["r"] or not self._chance())
        due = bool(self.responses) and self.responses[0] <= self.now
        ready["b"] = due and (ready["b"] or not self._chance())
        for name in ("ar", "aw", "w"):
            self.put(f"{name}ready", int(ready[name]))
        self.put("rvalid", int(ready["r"]))
        if ready["r"]:
            address, last = self.slot[0]
            bad = address + step > len(self.data)
            word = int.from_bytes(self.data[address : address + step], "little")
            self.put("rdata", 0 if bad else word)
            self.put("rlast", int(last))
            self.put("rresp", 2 if bad else 0)
        self.put("bvalid", int(ready["b"]))
        self.put("bresp", 2 if self.bad else 0)

    def _move(self) -> None:
        """Beats between the controller's queues and the memory, as far as the budget goes."""
        t, step = self.timing, self.bits // 8
        while self.budget >= self._cost:
            due = bool(self.reads) and self.reads[0].ready <= self.now
            can_read, can_write = due and len(self.slot) < ROOM * 8 // self.bits, self.held > 0
            mine, other = (can_write, can_read) if self.writing else (can_read, can_write)
            if other and (not mine or self.streak >= t.batch):
                self.writing = not self.writing
                self.streak = 0
                self.hold = self.now + t.turnaround
                if t.turnaround:
                    return
                mine = other
            if not mine:
                return
            if self.writing:
                self.held -= 1
                self.lengths[0] -= 1
                if not self.lengths[0]:
                    self.lengths.popleft()
                    self.responses.append(self.now + t.write_latency)
            else:
                head = self.reads[0]
                self.slot.append((head.address, head.beats == 1))
                head.address += step
                head.beats -= 1
                if not head.beats:
                    self.reads.popleft()
            self.budget -= self._cost
            self.streak += step

    def sample(self) -> None:
        """Handshakes of this cycle; the next one begins."""
        t, step, ready, get = self.timing, self.bits // 8, self.ready, self.get
        if ready["ar"] and get("arvalid"):
            address, beats = get("araddr"), get("arlen") + 1
            self._rules(address, beats)
            self.reads.append(_Burst(address, beats, self.now + t.latency))
            self.budget -= self._extra(address, beats)
            self.read_bytes += beats * step
        if ready["r"] and get("rready"):
            self.slot.popleft()
            ready["r"] = False
        if ready["aw"] and get("awvalid"):
            address, beats = get("awaddr"), get("awlen") + 1
            self._rules(address, beats)
            self.writes.append(_Burst(address, beats))
            self.budget -= self._extra(address, beats)
        if ready["w"] and get("wvalid"):
            self._write(get("wdata"), get("wstrb"), bool(get("wlast")))
        if ready["b"] and get("bready"):
            self.responses.popleft()
            ready["b"] = False
        self.now += 1

    def _write(self, word: int, strobe: int, last: bool) -> None:
        step, head = self.bits // 8, self.writes[0]
        if head.address + step > len(self.data):
            self.bad = True
        else:
            for lane in range(step):
                if strobe >> lane & 1:
                    self.data[head.address + lane] = word >> 8 * lane & 255
                    self.write_bytes += 1
        if not head.begun:
            head.begun = True
            self.lengths.append(head.beats)
        head.address += step
        self.held += 1
        head.beats -= 1
        assert (head.beats == 0) == last, "WLAST at the wrong beat"
        if not head.beats:
            self.writes.popleft()

    def _rules(self, address: int, beats: int) -> None:
        step = self.bits // 8
        assert address % step == 0, f"burst at {address:#x} is not aligned"
        assert address // 4096 == (address + beats * step - 1) // 4096, "burst crosses 4 KiB"
