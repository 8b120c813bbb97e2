# SPDX-License-Identifier: Apache-2.0
"""The memory behind the port, burst by burst: what ``sim/memory.py`` does cycle by cycle.

The rules are those of ``sim/dram.py``: a budget of bytes that grows each cycle, directions that
change at a batch's end or when there is nothing to do, a pause at each change, refresh, whole
granules paid for. Between two arrivals all of it follows from integers, so beats are moved in one
step up to the next moment at which something is decided. Held-back handshakes (``Dram.stall``) are
left out. Nothing here waits for the accelerator: the controller holds 4 KiB of each direction, and
no more than 8 bursts of 256 bytes are under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from codesign.targets.fpga.model.bursts import LONGEST
from codesign.targets.fpga.sim.dram import Dram

NEVER = 1 << 62
"""A cycle that does not come."""


class Memory:
    """Moves beats in time; cycles count from the run's start."""

    def __init__(
        self, dram: Dram, port: int, moved: Callable[[Any, int, int, int, bool], None],
        written: Callable[[int], None], since: int = 0, writing: bool = False,
    ) -> None:  # fmt: skip
        """``port``: bytes of a beat; ``since``: cycles that it has run before; ``writing``: what it
        did last was a write.
        ``moved(burst, beats, first, last, over)``: cycles in which beats of a read come to the
        port; ``written(cycle)``: of a write burst's response."""
        self.dram, self.port, self.since = dram, port, since
        self.moved, self.written = moved, written
        self.num = dram.bytes_per_cycle.numerator
        self.cost = port * dram.bytes_per_cycle.denominator
        self.now = -1
        """The last cycle that is done, unless ``midst``."""
        self.midst = False
        """Cycle ``now`` may have budget left."""
        self.budget = 0
        self.streak = 0
        self.hold = 0
        self.writing = writing
        self.reads: deque[list[Any]] = deque()
        """(cycle from which it may be read, beats left, burst, beats after which it is said)."""
        self.lengths: deque[int] = deque()
        """Beats left of each write burst."""
        self.held = 0
        self.ramps: deque[list[int]] = deque()
        """(cycle of the next beat from the port, beats): one a cycle."""

    def pay(self, address: int, beats: int) -> None:
        """For what is moved around a burst, up to whole granules: in the cycle in which its address
        is taken, after that cycle's beats."""
        granule, size = self.dram.granule, beats * self.port
        low = address // granule * granule
        high = -(-(address + size) // granule) * granule
        self.budget -= (high - low - size) * self.dram.bytes_per_cycle.denominator

    def read(
        self, cycle: int, address: int, beats: int, burst: Any, piece: int = LONGEST
    ) -> None:  # fmt: skip
        """A read's address is taken in ``cycle``; to be called when that cycle is done. ``piece``:
        ``moved`` is called after so many beats."""
        self.pay(address, beats)
        self.reads.append([cycle + self.dram.latency, beats, burst, piece])

    def write(self, first: int, beats: int) -> None:
        """A burst whose beats come from cycle ``first`` on, after those before it; somebody calls
        ``pay`` for it."""
        self.lengths.append(beats)
        self.ramps.append([first, beats])

    def advance(self, to: int) -> bool:
        """Cycles up to ``to``, or to what somebody was told of if that comes before: then True."""
        t, b = self.now, self.budget
        num, cost = self.num, self.cost
        cap = 4 * cost
        if self.midst:
            self.midst = False
        elif t >= to:
            return False
        else:
            t, b = t + 1, min(b + num, cap)
        reads, ramps, dram = self.reads, self.ramps, self.dram
        interval, refresh, batch = dram.refresh_interval, dram.refresh_cycles, dram.batch
        while True:
            while ramps and ramps[0][0] < t:
                ramp = ramps[0]
                came = min(ramp[1], t - ramp[0])
                self.held += came
                ramp[0] += came
                ramp[1] -= came
                if ramp[1]:
                    break
                ramps.popleft()
            then = NEVER
            phase = (t + self.since) % interval if interval else 0
            due = bool(reads) and reads[0][0] <= t
            if phase < refresh and interval:
                then = t - phase + refresh
            elif t < self.hold:
                then = self.hold
            elif not due and not self.held:
                if reads:
                    then = reads[0][0]
                if ramps:
                    then = min(then, ramps[0][0] + 1)
            elif b < cost:
                then = t + -(-(cost - b) // num)
            else:
                mine, other = (self.held > 0, due) if self.writing else (due, self.held > 0)
                if not other or (mine and self.streak < batch):
                    end = to + 1
                    if interval:
                        end = min(end, t - phase + interval)
                    beats, end = self._most(t, b, due, end)
                    gap = end - 1 - t
                    wait = max(0, -(-(beats * cost - b) // num))
                    if wait > gap:
                        beats = min(beats, (b + num * gap) // cost)
                        wait = max(0, -(-(beats * cost - b) // num))
                    else:
                        gap = wait
                    first, last = t, t + wait
                    t, b = t + gap, b + num * gap - beats * cost
                    self.streak += beats * self.port
                    if self._move(beats, first, last):
                        self.now, self.budget, self.midst = t, b, True
                        return True
                    continue
                self.writing = not self.writing
                self.streak = 0
                self.hold = t + dram.turnaround
                continue
            if then > to:
                self.now, self.budget = to, min(b + num * (to - t), cap)
                return False
            t, b = then, min(b + num * (then - t), cap)

    def _most(self, t: int, b: int, due: bool, end: int) -> tuple[int, int]:
        """Beats that can be moved from cycle ``t`` on before anything else is decided, and the
        cycle at which it is."""
        rest = -(-(self.dram.batch - self.streak) // self.port)
        if not self.writing:
            beats: int = (self.reads[0][1] - 1) % self.reads[0][3] + 1
            if self.held:
                return min(beats, rest), end
            return beats, min(end, self.ramps[0][0] + 1) if self.ramps else end
        beats = self.held
        if self.ramps and self.num <= self.cost and b < 2 * self.cost and self.ramps[0][0] <= t:
            beats += self.ramps[0][1]  # they come as fast as they are moved
        beats = min(beats, self.lengths[0])
        if due:
            return min(beats, rest), end
        return beats, min(end, self.reads[0][0]) if self.reads else end

    def _move(self, beats: int, first: int, last: int) -> bool:
        """Whether somebody was told, who may have to do something soon."""
        if self.writing:
            self.held -= beats
            self.lengths[0] -= beats
            if self.lengths[0]:
                return False
            self.lengths.popleft()
            self.written(last + self.dram.write_latency)
            return True
        head = self.reads[0]
        head[1] -= beats
        over = not head[1]
        if over:
            self.reads.popleft()
        self.moved(head[2], beats, first, last, over)
        return True
