# SPDX-License-Identifier: Apache-2.0
"""The port between the units and the memory: who may ask when, answers in order, responses.

Reads: one of the clients' waiting bursts a cycle, most urgent first, while fewer than 8 are under
way; a place is free when a burst's last beat has been taken. Writes: closed bursts of both sources
by turns, while fewer than 8 wait for their responses; beats one a cycle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from codesign.targets.fpga.model.memory import NEVER, Memory

OUTSTANDING = 8
"""Bursts of each direction under way."""
FREE = 2
"""Cycles from a burst's last beat to another burst in its place."""
FEW = 4
"""Beats that are taken at once where it is not known for long what holds them back."""
SENDS = 4
"""Write bursts whose addresses are out before their beats."""
Later = Callable[[int, Callable[[int], None]], None]
"""Calls at a cycle."""


class Alarm:
    """Calls ``what`` once, at the soonest of the cycles that it was set to."""

    def __init__(self, later: Later, what: Callable[[int], None]) -> None:
        self.later, self.what = later, what
        self.due = NEVER

    def at(self, cycle: int) -> None:
        """Call in this cycle, if not sooner."""
        if cycle < self.due:
            self.due = cycle
            self.later(cycle, self._ring)

    def _ring(self, cycle: int) -> None:
        if cycle == self.due:
            self.due = NEVER
            self.what(cycle)


class Client(Protocol):
    """Who reads."""

    asks: int
    """Cycle from which a burst is asked for; ``NEVER``: none."""

    piece: int
    """Beats after which it wants to know."""

    @property
    def held(self) -> bool:
        """Beats may wait for what is not known long before."""

    def issue(self, cycle: int) -> tuple[int, int]:
        """The burst that is asked for, (address, beats), is sent in this cycle."""

    def take(self, beats: int, first: int, last: int, free: float) -> float:
        """Beats come from ``first`` to ``last`` at the memory, the port is free from the cycle
        after ``free`` on; returns the cycle in which the last of them is taken."""

    def over(self, cycle: int) -> None:
        """A burst's last beat is taken."""


class ReadPort:
    """Bursts of all clients."""

    def __init__(self, clients: list[Client], later: Later) -> None:
        self.clients, self.later = clients, later
        self.memory: Memory
        self.used = 0
        self.last = -1.0
        """Cycle in which the last beat was taken."""
        self.there: deque[tuple[Client, int, int, int, bool]] = deque()
        """Beats that the memory gave and that are not taken: see ``moved``."""
        self.look = Alarm(later, self._look)
        self.sent = -1

    def kick(self, cycle: int) -> None:
        """Something is asked for from ``cycle`` on."""
        if self.used < OUTSTANDING:
            self.look.at(max(cycle, self.sent + 1))

    def _look(self, cycle: int) -> None:
        if self.used >= OUTSTANDING:
            return
        soonest = NEVER
        for client in self.clients:
            if client.asks <= cycle:
                self.used += 1
                self.sent = cycle
                self._read(cycle + 1, *client.issue(cycle), client)
                soonest = min(other.asks for other in self.clients)
                break
            soonest = min(soonest, client.asks)
        if soonest < NEVER:
            self.kick(max(soonest, cycle + 1))

    def _read(self, cycle: int, address: int, beats: int, client: Client) -> None:
        self.later(cycle, lambda now: self.memory.read(now, address, beats, client, client.piece))

    def moved(self, client: Client, beats: int, first: int, last: int, over: bool) -> None:
        """The memory has given beats of the oldest burst."""
        self.there.append((client, beats, first, last, over))
        if len(self.there) == 1:
            self._take(last)

    def _take(self, cycle: int) -> None:
        """Beats are taken, as far as it is known when."""
        while self.there:
            client, beats, first, last, over = self.there[0]
            some = beats
            if client.held:
                if self.last > cycle + 1:
                    self.later(int(self.last), self._take)
                    return
                some = min(beats, FEW)
            if some < beats:
                apart = (last - first) / (beats - 1)
                ends, following = (int(first + k * apart) for k in (some - 1, some))
                self.there[0] = (client, beats - some, following, last, over)
                self.last = client.take(some, first, ends, self.last)
                continue
            self.last = client.take(beats, first, last, self.last)
            self.there.popleft()
            if over:
                done = int(-(-self.last // 1))
                client.over(done)
                self.later(done + FREE, self._free)

    def _free(self, cycle: int) -> None:
        self.used -= 1
        self.kick(cycle)


class WritePort:
    """Bursts of both sources; ``finished(source, cycle)`` when a command's are all written."""

    def __init__(self, later: Later, finished: Callable[[int, int], None],
                 sent: Callable[[int, int, int, int], None]) -> None:  # fmt: skip
        """``sent(source, beats, cycle, first)``: a burst goes, its beats from ``first`` on."""
        self.later, self.finished, self.sent = later, finished, sent
        self.memory: Memory
        self.queues: tuple[deque[tuple[int, int, int, bool]], ...] = (deque(), deque())
        """Of each source: (cycle from which it may go, address, beats, the command's last)."""
        self.turn = 0
        self.beats_end = -1
        """Cycle of the last beat on the port."""
        self.sending: deque[int] = deque()
        """Cycles from which a place for a burst's address is free again."""
        self.waits: deque[tuple[int, int, bool, bool]] = deque()
        """(cycle from which it may end, source, last, without beats)."""
        self.responses: deque[int] = deque()
        self.popped = -1
        self.respond = Alarm(later, self._respond)
        """When it is looked again whether a burst is over."""
        self.look = Alarm(later, self._look)
        self.next = -1

    def close(self, source: int, cycle: int, address: int, beats: int, last: bool) -> None:
        """A burst is complete from ``cycle`` on; without beats it only tells a command's end."""
        self.queues[source].append((cycle, address, beats, last))
        self.kick(cycle)

    def kick(self, cycle: int) -> None:
        """A burst may go from ``cycle`` on."""
        if len(self.waits) < OUTSTANDING:
            self.look.at(max(cycle, self.next))

    def _look(self, cycle: int) -> None:
        if len(self.waits) >= OUTSTANDING:
            return
        while self.sending and self.sending[0] <= cycle:
            self.sending.popleft()
        if len(self.sending) >= SENDS:
            self.kick(self.sending[0])
            return
        there = [bool(q) and q[0][0] <= cycle for q in self.queues]
        if not any(there):
            times = [q[0][0] for q in self.queues if q]
            if times:
                self.kick(min(times))
            return
        source = int(not there[0]) if self.turn else int(there[1])
        _, address, beats, last = self.queues[source].popleft()
        self.turn = source
        self.next = cycle + 1
        self.waits.append((cycle + 2, source, last, not beats))
        begins = cycle
        if beats:
            begins = max(cycle + 3, self.beats_end + 1)
            self.beats_end = begins + beats - 1
            self.sending.append(self.beats_end)
            self.memory.write(begins, beats)
            self.later(cycle + 1, lambda _: self.memory.pay(address, beats))
        else:
            self.respond.at(cycle + 2)
        self.kick(cycle + 1)
        self.sent(source, beats, cycle, begins)

    def written(self, cycle: int) -> None:
        """The memory responds in ``cycle``."""
        self.responses.append(cycle)
        self.respond.at(cycle)

    def _respond(self, cycle: int) -> None:
        while self.waits:
            since, source, last, alone = self.waits[0]
            when = max(since, self.popped + 1)
            if not alone:
                if not self.responses:
                    return
                when = max(when, self.responses[0])
            if when > cycle:
                self.respond.at(when)
                return
            self.waits.popleft()
            if not alone:
                self.responses.popleft()
            self.popped = cycle
            if last:
                self.finished(source, cycle + 1)
            self.kick(cycle + 1)
