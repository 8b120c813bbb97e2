# SPDX-License-Identifier: Apache-2.0
"""The way out of drain and depthwise: results made, queued, packed into bursts.

A unit makes an entry of results only where the queue (64) has room for it, and with a residual only
once its words are there. From the queue results go into beats and bursts, of which 37 beats (31 in
a queue, 6 in registers) and 7 bursts wait for the port. So a unit stalls where the memory does not
take its results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from codesign.targets.fpga.model.bursts import Part, Shape
from codesign.targets.fpga.model.readers import Residual

ENTRIES = 64
"""Of the queue of results."""
BEATS = 37
"""Beats of results that wait for the port."""
BACK = 3
"""Cycles from a beat on the port to the unit of results that takes its place."""
NEXT = 2
"""Cycles between two commands' results."""
HEADS = 7
"""Bursts that wait for the port."""
BEHIND = 2
"""Beats, and as many units of results, that stand behind one that waits because its burst, or the
one before it, cannot be closed (``hw/writes.py``: a slice, the packer, a slice)."""
FREED = 2
"""Cycles from a burst that goes to the port to the one closed that waits for its place."""
ROOM = 3
"""Cycles from a place of the queue that becomes free to the entry that takes it."""
WORDS = 6
"""Cycles from a residual's last word to the entry that uses it."""
FEW = 4
"""Residual words that are used at once."""
POP = 14
"""Cycles from an entry to its residual's words being used."""


class Making:
    """Results of one command under way."""

    __slots__ = (
        "begun", "lead", "more", "pack", "parts", "placed", "residual", "shape", "shift", "start",
        "values",
    )  # fmt: skip

    def __init__(
        self, start: int, parts: Iterator[Part], begun: int, lead: int, shape: Shape,
        values: Mapping[str, int],
    ) -> None:  # fmt: skip
        """``begun``: cycle before its loop's first; ``lead``: cycles from a result in the loop to
        its unit of results."""
        self.start, self.parts, self.begun, self.lead, self.shape = start, parts, begun, lead, shape
        self.values = values
        self.residual, self.placed = bool(values.get("residual")), bool(values.get("to_chip"))
        scale = 2 if values.get("wide") else 1
        self.pack = 2 if 8 * shape.pixels * scale < shape.port else 1
        """Units of results that fill a beat."""
        self.shift = 0
        """Cycles by which it is late."""
        self.more: Part | None = next(parts, None)


class Closing(NamedTuple):
    """What closes a burst."""

    unit: int
    """The unit of results."""
    burst: int
    own: bool
    """It is the burst's last one; else the first one behind it, which takes a cycle more."""


class Owner(Protocol):
    """Who is told."""

    def made(self, source: int, making: Making, last: int) -> None:
        """All results are made, the last one in cycle ``last``."""

    def placed(self, source: int, first: int, last: int) -> None:
        """Results are placed on chip in each cycle from ``first`` to ``last``."""

    def left(self, source: int, last: int) -> None:
        """All have left the queue, the last one in cycle ``last``."""


class Source:
    """One unit's way out."""

    def __init__(
        self, number: int, close: Callable[[int, int, int, int, bool], None], words: Residual,
        owner: Owner, written: int,
    ) -> None:  # fmt: skip
        """``close(number, cycle, address, beats, last)``: a burst may go from ``cycle`` on;
        ``written``: cycles from a unit of results that leaves to that."""
        self.number, self.close, self.words, self.owner = number, close, words, owner
        self.written = written
        self.queue: deque[Making] = deque()
        self.entries = self.beats = self.closed = self.used = 0
        self.left: deque[tuple[int, int]] = deque([(0, 0)])
        """(entries up to here, cycle in which the last of them left the queue)."""
        self.sent: deque[tuple[int, int]] = deque([(0, 0)])
        """(beats up to here, cycle in which the last of them left for the memory)."""
        self.gone: deque[int] = deque()
        """Cycles in which bursts went to the port, of the last ones."""
        self.went = 0
        self.way = 0
        self.waiting: deque[tuple[Making, Part, int, int]] = deque()
        """(command, results, cycle in which they are made, entries up to them)."""
        self.open: tuple[int, int] | None = None
        """A burst that only the next beat closes."""
        self.units = 0
        """Units of results that have left the queue."""
        self.closings: deque[Closing] = deque()
        """Of the last bursts."""

    def begin(self, making: Making) -> None:
        """A command starts."""
        self.queue.append(making)
        if len(self.queue) == 1:
            self.go()

    def burst_sent(self, beats: int, cycle: int, first: int) -> None:
        """The oldest burst goes in ``cycle``, its beats from ``first`` on."""
        self.went += 1
        self.gone.append(cycle)
        if len(self.gone) > 2 * HEADS:
            self.gone.popleft()
        if beats:
            self.sent.append((self.sent[-1][0] + beats, first + beats - 1))
        self.go()

    def _close(self, leaves: int, address: int, beats: int, last: bool) -> None:
        self.closed += 1
        self.close(self.number, leaves + self.written, address, beats, last)

    def _left(self, entries: int) -> int | None:
        """Cycle in which the entry with this number left the queue; None: not known."""
        if entries <= 0:
            return 0
        left = self.left
        while len(left) > 1 and left[1][0] < entries:
            left.popleft()
        if len(left) == 1:
            return left[0][1] if entries <= left[0][0] else None
        (_, since), (there, cycle) = left[0], left[1]
        return max(since, cycle - (there - entries))

    def go(self) -> None:
        """As far as what is known allows."""
        moved = True
        while moved:
            moved = False
            while self.waiting and self._leave(*self.waiting[0]):
                self.waiting.popleft()
                moved = True
            while self.queue:
                making = self.queue[0]
                part = making.more
                if part is None:
                    self.queue.popleft()
                elif not self._make(making, part):
                    break
                else:
                    making.more = next(making.parts, None)
                moved = True

    def _make(self, making: Making, part: Part) -> bool:
        """When the unit makes these results: False if that is not known yet."""
        nominal = making.begun + part.time
        least = nominal + making.shift
        entries = self.entries + part.entries
        late = 0
        need = entries
        makes = making.shape.makes
        if makes:  # a step starts when there is room for two
            late = part.time - part.start - 1
            need = self.entries + part.before + 2 * makes
        room = self._left(need - ENTRIES)
        if room is None:
            return False
        least = max(least, room + ROOM + late)
        if making.residual:
            came = self.words.when(self.used + part.words)
            if came is None:
                return False
            least = max(least, int(came) + WORDS + late)
            if not makes:
                least = max(least, self._behind(making, part) + WORDS)
            self._pop(part, least + POP)
        making.shift = least - nominal
        self.waiting.append((making, part, least, entries))
        if part.last:
            self.entries = entries
            if making.residual:
                self.used += part.words
            self.owner.made(self.number, making, least)
        return True

    def _behind(self, making: Making, part: Part) -> int:
        """When the last of these results could be made, as to the words of those before it."""
        shape, width, least = making.shape, making.values["width"], 0
        row = shape.entries(width)
        for words in range(self.words.wanted - self.used + 1, part.words):
            rows, place = divmod(words, width)
            entries = shape.entries(place)
            if min(shape.reach(entries), width) == place:  # all words of an entry
                came = self.words.when(self.used + words)
                assert came is not None
                behind = part.entries - rows * row - entries
                least = max(least, int(came) + behind * shape.halves)
        return least

    def _pop(self, part: Part, last: int) -> None:
        """Residual words of these results are used, up to cycle ``last``."""
        new = self.used + part.words - self.words.wanted
        for left in range((new - 1) // FEW * FEW, -1, -FEW):
            cycle = last - left * (part.time - part.first) // new
            self.words.pop(self.used + part.words - left, cycle)

    def _behind_closings(self, making: Making, units: int) -> int | None:
        """From when on so many units of results may have left, as to bursts that wait to be closed
        because ``HEADS`` are; None: not known."""
        least = 0
        while self.closings and self.closings[0].unit + BEHIND * (making.pack + 1) < units:
            unit, number, own = self.closings[0]
            place = number - HEADS - (self.went - len(self.gone))
            if number >= HEADS:
                if place >= len(self.gone):
                    return None
                if place >= 0:  # later units move one a cycle
                    moves = units - unit - BEHIND * making.pack - own
                    least = max(least, self.gone[place] + FREED + moves)
            self.closings.popleft()
        return least

    def _leave(self, making: Making, part: Part, made: int, entries: int) -> bool:
        """When they leave the queue and go into beats and bursts."""
        # the beat behind an open burst waits while that is closed
        closing = self.open is not None and (part.beats_made > 0 or part.last)
        passes = max(part.passes, part.beats_made + closing)
        first = made - (part.time - part.first)
        moves = passes + part.dropped
        leaves = max(made, max(self.way - making.lead, first) + moves) + making.lead
        if part.beats_made:
            beats = self.beats + part.beats_made - BEATS
            if beats > self.sent[-1][0]:
                return False
            while len(self.sent) > 1 and self.sent[1][0] < beats:
                self.sent.popleft()
            if len(self.sent) > 1:
                there, cycle = self.sent[1]
                leaves = max(leaves, cycle - (there - beats) + BACK)
        units = self.units + passes
        least = self._behind_closings(making, units)
        if least is None:
            return False
        leaves = max(leaves, least)
        if making.placed and passes:
            self.owner.placed(self.number, leaves - passes + 1, leaves)
        self.way, self.units = leaves, units
        self.beats += part.beats_made
        self.left.append((entries, leaves))
        if closing and self.open is not None:
            address, beats = self.open
            self.open = None
            self.closings.append(Closing(units - passes + 1 + part.pair, self.closed, False))
            self._close(leaves - passes + 1 + part.pair, address, beats, False)
        if part.foreign:
            self.open = part.address, part.beats
        elif part.beats or part.last:
            self.closings.append(Closing(units, self.closed, True))
            self._close(leaves + part.half, part.address, part.beats, part.last)
        if part.last:
            self.way += NEXT
            self.owner.left(self.number, leaves)
        return True
