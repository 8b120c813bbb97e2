# SPDX-License-Identifier: Apache-2.0
"""Commands on their way to the units: fetched, queued, started when their waits hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codesign.targets.fpga.isa import COMMAND_BYTES, Command, Unit, bits
from codesign.targets.fpga.model.memory import NEVER
from codesign.targets.fpga.model.races import full_count

UNITS: tuple[Unit, ...] = (Unit.LOAD, Unit.DENSE, Unit.DEPTHWISE, Unit.DRAIN)
_WAITS = tuple(f"wait_{u.name.lower()}" for u in UNITS)
WORDS = {unit: -(-bits(unit) // 64) for unit in UNITS}
"""Words of 8 bytes of a unit's commands; a word moves a cycle."""
LENGTH = COMMAND_BYTES // 8
QUEUE = 62
"""Words of a queue's 64 that may be full when one more is counted in."""
UNSEEN = 2
"""Words before the next command's first one that a queue does not count yet."""


@dataclass(frozen=True)
class Fixed:
    """Fixed times in cycles that the formulas of docs/accelerator.md do not give: registers on the
    way, counted in ``hw`` or read off one simulated run."""

    fetch: int = 3
    """From the start of the run to the first command's address at the port."""
    arrive: int = 3
    """From a command's words at the queues to its being there, beside a cycle for each word."""
    refill: int = 3
    """The same of the next command of a queue, after a unit has taken one."""
    dispatch: int = 2
    """From the end that a command waited for to its start."""
    written: int = 4
    """From a command's results, as they leave their queue, to their burst at the port."""
    held: int = 4
    """From an empty pipeline to the first result with a residual."""
    table: int = 258
    """More where the residual's factors are new: 256 values and what is behind them."""
    end: int = 2
    """From the last command's end to the run's."""


class Dispatcher:
    """Shares out commands; asks for the next ones."""

    def __init__(
        self, commands: Sequence[Command], fixed: Fixed, port: int,
        wish: Callable[[int], None], start: Callable[[Unit, int], None],
    ) -> None:  # fmt: skip
        """``wish(cycle)``: from then on there is room for another command; ``start(unit, cycle)``:
        the unit's next command may start then."""
        self.commands, self.fixed = commands, fixed
        self.wish, self.start = wish, start
        self.before_last = LENGTH - port // 8
        """A command's words before those of its last beat."""
        self.fetched: deque[tuple[int, int]] = deque()
        """Cycles in which the outer beats came of commands that no queue has yet."""
        self.given = 0
        """Commands that are in queues or were."""
        self.handed = 0
        """Cycle of the last of those's first word."""
        self.blocked = False
        """The next one waited for room."""
        self.queues: dict[Unit, deque[tuple[int, int]]] = {u: deque() for u in UNITS}
        """(command, cycle from which it is there)."""
        self.needs: dict[int, list[tuple[Unit, int]]] = {}
        self.issued = dict.fromkeys(UNITS, 0)
        self.ends: dict[Unit, list[int]] = {u: [] for u in UNITS}
        self.free: dict[Unit, int | None] = dict.fromkeys(UNITS, 0)
        """Cycle from which the unit takes a command, if that is known."""
        self.before = dict.fromkeys(UNITS, -LENGTH * 2)
        """When each unit's last command started."""
        self.wakes = dict.fromkeys(UNITS, NEVER)

    @property
    def empty(self) -> bool:
        """All commands up to the list's end have been taken."""
        rest = self.commands[self.given :][:1]
        there = not rest or rest[0].unit is Unit.END
        return there and not any(self.queues.values())

    def came(self, first: int, last: int) -> None:
        """A command came, its outer beats in these cycles."""
        self.fetched.append((first, last))
        self.hand(last)

    def hand(self, cycle: int) -> None:
        """Words of commands that have come go into queues, where there is room."""
        while self.fetched and self.given < len(self.commands):
            index = self.given
            command = self.commands[index]
            unit = command.unit
            if unit is Unit.END:
                return
            queue, length = self.queues[unit], WORDS[unit]
            begun, came = self.fetched[0]
            first = max(self.handed + LENGTH, begun + 3, came + 3 - self.before_last)
            seen = (len(queue) - 1) * length
            if index and self.commands[index - 1].unit is unit and not self.blocked:
                seen -= max(0, length - (first - self.handed - UNSEEN))
            if seen > QUEUE - length:
                self.blocked = True
                return
            if self.blocked:
                level = len(queue) * length
                first = max(first, cycle + 3 + max(0, level - QUEUE + length))
                self.blocked = False
            self.fetched.popleft()
            self.handed = first
            self.given += 1
            self.wish(first + LENGTH)
            self.needs[index] = [
                (u, count)
                for u, w in zip(UNITS, _WAITS)
                if (count := max(0, full_count(command.values.get(w, 0), self.issued[u])))
            ]
            self.issued[unit] += 1
            queue.append((index, first + length + self.fixed.arrive))
            self.wake(unit, cycle)

    def wake(self, unit: Unit, now: int) -> None:
        """Says when the unit's next command starts, if all is known of that."""
        queue, free = self.queues[unit], self.free[unit]
        if not queue or free is None:
            return
        index, there = queue[0]
        cycle = max(there, free, now, self.before[unit] + WORDS[unit] + self.fixed.refill)
        for other, count in self.needs[index]:
            ends = self.ends[other]
            if len(ends) < count:
                return
            cycle = max(cycle, ends[count - 1] + self.fixed.dispatch)
        if cycle < self.wakes[unit]:
            self.wakes[unit] = cycle
            self.start(unit, cycle)

    def take(self, unit: Unit, cycle: int) -> int | None:
        """The command that the unit starts in this cycle; None: it does not."""
        if self.wakes[unit] != cycle:
            return None
        self.wakes[unit] = NEVER
        free = self.free[unit]
        if free is None or free > cycle:
            self.wake(unit, cycle)
            return None
        index, _ = self.queues[unit].popleft()
        self.before[unit] = cycle
        self.free[unit] = None
        self.hand(cycle)
        return index

    def release(self, unit: Unit, cycle: int, now: int) -> None:
        """The unit takes its next command from ``cycle`` on."""
        self.free[unit] = cycle
        self.wake(unit, now)

    def finish(self, unit: Unit, cycle: int) -> None:
        """A command of a unit is over."""
        self.ends[unit].append(cycle)
        for each in UNITS:
            self.wake(each, cycle)
