# SPDX-License-Identifier: Apache-2.0
"""Who reads: the fetcher of commands, the residuals of both ways out, the loader."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from codesign.targets.fpga.isa import COMMAND_BYTES
from codesign.targets.fpga.model.bursts import LONGEST, cut
from codesign.targets.fpga.model.memory import NEVER

AHEAD = 4
"""Commands that are fetched before they are needed."""
RESIDUAL = 128
"""Words of a residual that are asked for ahead, beside those in the unit's own queue."""
QUEUED = {8: 28, 16: 32}
"""Words of that queue that are filled, by bytes of the port: it asks for no more while 26 are
there, what is under way comes still."""
ROUNDING = 1e-6
"""More than what sums of fractions of a cycle are off."""
Kick = Callable[[int], None]


class Fetcher:
    """Commands, in order; ``came(first, last)``: of each, when its outer beats are taken."""

    held, piece = False, LONGEST

    def __init__(
        self, port: int, count: int, kick: Kick, came: Callable[[int, int], None]
    ) -> None:
        self.port, self.left, self.kick, self.came = port, count, kick, came
        self.address = 0
        self.room: deque[int] = deque()
        """Cycles from which there is room for another command."""
        self.asks = NEVER
        self.begun: int | None = None
        """Cycle in which the first beat of the burst at hand was taken."""

    def wish(self, cycle: int) -> None:
        """There is room for another command."""
        self.room.append(cycle)
        if self.asks == NEVER:
            self._ask(cycle)

    def _ask(self, least: int) -> None:
        self.asks = NEVER
        if self.room and self.left:
            self.left -= 1
            self.asks = max(least, self.room.popleft())
            self.kick(self.asks)

    def issue(self, cycle: int) -> tuple[int, int]:
        """See ``Client``."""
        address, self.address = self.address, self.address + COMMAND_BYTES
        self._ask(cycle + 2)
        return address, COMMAND_BYTES // self.port

    def take(self, beats: int, first: int, last: int, free: float) -> float:
        """See ``Client``: taken as they come."""
        if self.begun is None:
            self.begun = int(max(free, first)) + 1
        return max(free + beats, first + beats, last + 1)

    def over(self, cycle: int) -> None:
        """See ``Client``."""
        assert self.begun is not None
        self.came(self.begun, cycle)
        self.begun = None


class Residual:
    """Words of a residual on their way to a unit."""

    held, piece = False, 1

    def __init__(
        self, port: int, kick: Kick, changed: Kick, later: Callable[[int, Kick], None]
    ) -> None:
        """``changed``: words have come."""
        self.port, self.kick, self.changed, self.later = port, kick, changed, later
        self.most = 16 * port // 8
        self.queued = QUEUED[port]
        self.bursts: deque[tuple[int, int, int, int, int]] = deque()
        """(from which cycle on, address, beats, words, words in its first beat before them)."""
        self.asks = NEVER
        self.asked = 0
        self.way: deque[list[int]] = deque()
        """Of each burst under way: words that have not come, and places for words in its beats up
        to here less those before its words."""
        self.arrived: list[tuple[int, float]] = [(0, 0.0)]
        """(words that have come, by which cycle)."""
        self.popped = self.there = self.wanted = 0
        self.uses: deque[int] = deque()
        self.coming: deque[int] = deque()
        self.stepped = -2

    def want(self, runs: list[tuple[int, int]], cycle: int) -> None:
        """Runs of a command, (address, words), from a cycle on."""
        for address, words in runs:
            for at, beats, size in cut(address, words, self.port):
                self.bursts.append((cycle, at, beats, size, max(0, address - at) // 8))
        self._ask(cycle)

    def pop(self, words: int, cycle: int) -> None:
        """The unit will have used so many words in all."""
        self.wanted = words
        self.uses.append(words)
        self.later(cycle, self._pop)

    def _pop(self, cycle: int) -> None:
        self.popped = self.uses.popleft()
        self._ask(cycle)

    def _ask(self, least: int) -> None:
        if self.asks < NEVER or not self.bursts:
            return
        moved = min(self.there, self.popped + self.queued)
        if self.asked - moved > RESIDUAL - self.most:
            return
        self.asks = max(least, self.stepped + 2, self.bursts[0][0]) + 1
        self.stepped = self.asks - 1
        self.asked += self.bursts[0][3]
        self.kick(self.asks)

    def issue(self, cycle: int) -> tuple[int, int]:
        """See ``Client``."""
        _, address, beats, words, before = self.bursts.popleft()
        self.way.append([words, -before])
        self.asks = NEVER
        self._ask(cycle)
        return address, beats

    def take(self, beats: int, first: int, last: int, free: float) -> float:
        """See ``Client``: taken as they come."""
        taken = max(free + beats, first + beats, last + 1)
        burst = self.way[0]
        burst[1] += beats * self.port // 8
        came = min(burst[0], burst[1])
        burst[0], burst[1] = burst[0] - came, 0
        words, cycle = self.arrived[-1][0] + came, int(-(-taken // 1))
        self.arrived.append((words, float(cycle)))
        self.coming.append(words)
        self.later(cycle + 3, self._came)
        self.changed(cycle)
        return taken

    def over(self, cycle: int) -> None:
        """See ``Client``."""
        self.way.popleft()

    def _came(self, cycle: int) -> None:
        self.there = self.coming.popleft()
        self._ask(cycle + 1)

    def when(self, words: int) -> float | None:
        """By when so many words have come; None: not yet known."""
        if words <= 0:
            return 0.0
        if words > self.arrived[-1][0]:
            return None
        place = len(self.arrived) - 1
        while self.arrived[place - 1][0] >= words:
            place -= 1
        there, cycle = self.arrived[place]
        return cycle - (there - words) * 8 // self.port  # a beat's words come together


class Load:
    """A load under way."""

    __slots__ = ("left", "pace", "ready", "setup", "start", "window")

    def __init__(self, start: int, setup: int, window: int) -> None:
        """``setup``: cycles of its preparation; ``window``: by whose results on chip it is held
        back: way out 0, 1, or -1."""
        self.start, self.setup, self.window = start, setup, window
        self.left = 0
        """Beats."""
        self.pace = 1.0
        """Cycles of a beat in the loader."""
        self.ready = -1
        """Cycle from which its first beat may be placed; negative: not known."""


class Loader:
    """The load unit: asks for the runs of one command while another one's beats are placed."""

    piece = LONGEST

    def __init__(
        self, port: int, kick: Kick, idle: Callable[[], None], finished: Kick,
        stalled: Callable[[int, float, float], float],
    ) -> None:  # fmt: skip
        """``idle()``: ``next_start`` may be known now; ``stalled(window, from, to)``: the end of
        what is placed meanwhile, with results on chip going first."""
        self.port, self.kick, self.idle, self.finished = port, kick, idle, finished
        self.stalled = stalled
        self.loads: deque[Load] = deque()
        self.runs: deque[tuple[int, list[tuple[int, int, int]], bool]] = deque()
        """(from which cycle on, bursts, the command's last)."""
        self.now: deque[tuple[int, int, int]] = deque()
        """Bursts of the run at hand that are not made yet."""
        self.made: deque[tuple[int, tuple[int, int, int]]] = deque()
        """(cycle from which it is asked for, burst): two at most wait for the port."""
        self.clear = 0
        """Cycle from which the splitter takes a run."""
        self.after = 0
        """Cycle from which a burst can be made."""
        self.asks = NEVER
        self.placed = self.before = -1.0
        """When the last beat was placed, and the one before it."""
        self.free: int | None = 0
        """Cycle from which the placing half takes a command; None: not known."""
        self.requested: int | None = 0
        """Cycle from which the requesting half takes a command; None: not known."""
        self.prepared: int | None = 0
        """Cycle from which the last command is with the placing half; None: not known."""

    @property
    def next_start(self) -> int | None:
        """From when on the next command may start, if that is known."""
        if self.requested is None or self.prepared is None:
            return None
        return max(self.requested, self.prepared)

    def begin(self, load: Load, lead: int, runs: list[tuple[int, int]], cycles: int) -> None:
        """A command starts; ``lead``: cycles to its first run, (address, words) each; ``cycles``
        in which its beats are placed."""
        self.requested = self.prepared = None
        for place, (address, words) in enumerate(runs):
            bursts = cut(address, words, self.port)
            load.left += sum(beats for _, beats, _ in bursts)
            self.runs.append((load.start + lead, bursts, place == len(runs) - 1))
        load.pace = max(1.0, cycles / load.left)
        self.loads.append(load)
        if self.free is not None:
            self._prepare(load, self.free)
        self._make(0)
        if self.asks == NEVER:
            self._ask(load.start)

    def _prepare(self, load: Load, free: int) -> None:
        taken = max(load.start + 1, free)
        load.ready = max(taken + load.setup, free + 2)
        self.free = None
        self.prepared = taken + 1
        self.idle()

    def _run(self) -> None:
        """The splitter takes the next run as soon as it has cut the last one."""
        if self.runs:
            since, bursts, last = self.runs.popleft()
            taken = max(since, self.clear)
            self.now.extend(bursts)
            self.after = max(self.after, taken + 1)
            if last:
                self.requested = taken + 1
                self.idle()

    def _make(self, cycle: int) -> None:
        """Bursts are made from ``cycle`` on, one a cycle, as far as they have room."""
        if not self.now:
            self._run()
        while self.now and len(self.made) < 2:
            made = max(self.after, cycle)
            self.made.append((made + 1, self.now.popleft()))
            self.after = self.clear = made + 1
            if not self.now:
                self._run()

    def _ask(self, cycle: int) -> None:
        """The oldest burst is asked for in ``cycle`` at the earliest."""
        self.asks = NEVER
        if self.made:
            self.asks = max(cycle, self.made[0][0])
            self.kick(self.asks)

    def issue(self, cycle: int) -> tuple[int, int]:
        """See ``Client``."""
        full = len(self.made) == 2
        _, (address, beats, _) = self.made.popleft()
        self._make(cycle + full)
        self._ask(cycle + 1)
        return address, beats

    @property
    def held(self) -> bool:
        """See ``Client``: by results on chip, which go first."""
        return self.loads[0].window >= 0

    def take(self, beats: int, first: int, last: int, free: float) -> float:
        """See ``Client``. The loader sees beats a cycle late; two wait before it."""
        load = self.loads[0]
        assert load.ready >= 0
        pace = load.pace
        taken = max(free + beats, first + beats, last + 1.0)
        begins = max(self.placed + 1, load.ready, first + 2.0, free + 2) + pace - 1
        ends = max(begins + pace * (beats - 1), max(last + 1, taken) + pace)
        if load.window >= 0:
            ends = self.stalled(load.window, max(self.placed, begins - pace), ends)
        second = (self.before, self.placed, ends - 2 * pace)[min(beats, 3) - 1]  # before the last
        self.before = self.placed if beats == 1 else ends - pace
        self.placed = ends
        load.left -= beats
        if not load.left:
            done = math.ceil(ends - ROUNDING)
            self.loads.popleft()
            self.free = done + 1
            self.finished(done + 2)
            if self.loads:
                self._prepare(self.loads[0], self.free)
        return max(taken, second + 1)

    def over(self, cycle: int) -> None:
        """See ``Client``."""
