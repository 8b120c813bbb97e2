# SPDX-License-Identifier: Apache-2.0
"""Commands in list order, each waiting for exactly what it depends on.

Every command names what it reads and writes: words of a buffer, or pixels of blocks of a memory
region. The emitter remembers who touched what, and makes a command wait for the last writers of
what it reads and for the last readers and writers of what it writes. Buffers are rings: a tile
goes behind the one before, so that it waits only for those whose place it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from codesign.errors import InfeasibleError
from codesign.targets.fpga.isa import Command, Unit

UNITS: tuple[Unit, ...] = (Unit.LOAD, Unit.DENSE, Unit.DEPTHWISE, Unit.DRAIN)
_WAITS = {u: f"wait_{u.name.lower()}" for u in UNITS}
HORIZON = 1 << 14
"""Finished commands are counted modulo 2^16 and compared as signed 16-bit numbers, so nobody waits
for a count further back than this: waiting for a later one instead is always allowed."""


@dataclass(frozen=True)
class Access:
    """A rectangle of something: rows lo0..hi0 and columns lo1..hi1 (ends left out).

    Buffers have one row and their words as columns; memory regions have blocks as rows and pixels
    as columns.
    """

    what: str
    lo1: int
    hi1: int
    lo0: int = 0
    hi0: int = 1

    def meets(self, other: Access) -> bool:
        """Whether the two have something in common (of the same thing)."""
        return (
            self.lo1 < other.hi1
            and other.lo1 < self.hi1
            and self.lo0 < other.hi0
            and other.lo0 < self.hi0
        )

    def covers(self, other: Access) -> bool:
        """Whether it holds all of the other."""
        return (
            self.lo1 <= other.lo1
            and other.hi1 <= self.hi1
            and self.lo0 <= other.lo0
            and other.hi0 <= self.hi0
        )


@dataclass
class Ring:
    """Hands out words of a buffer, one piece behind the other, again from the front at the end."""

    name: str
    size: int
    step: int = 1
    """Pieces start at multiples of this."""
    at: int = 0
    live: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Pieces that nothing has been put over, by number."""
    taken: int = 0
    """Pieces handed out; the number of the last one."""

    def take(self, words: int, layer: str) -> int:
        """First word of a piece. Raises InfeasibleError when it is larger than the buffer."""
        words = -(-words // self.step) * self.step
        if words > self.size:
            raise InfeasibleError(
                f"layer {layer!r} needs {words} words of the {self.name} buffer, which has "
                f"{self.size}; give smaller tiles or a buffer at least {words - self.size} words "
                "deeper"
            )
        if self.at + words > self.size:
            self.at = 0
        start = self.at
        self.at += words
        self.live = {
            number: piece for number, piece in self.live.items()
            if piece[1] <= start or piece[0] >= self.at
        }  # fmt: skip
        self.taken += 1
        self.live[self.taken] = (start, self.at)
        return start


@dataclass
class _Touch:
    access: Access
    unit: Unit
    count: int
    """Commands of the unit that must be finished."""
    write: bool


@dataclass
class Emitter:
    """One command list in the making."""

    commands: list[Command] = field(default_factory=list)
    issued: dict[Unit, int] = field(default_factory=lambda: dict.fromkeys(UNITS, 0))
    _touched: dict[str, list[_Touch]] = field(default_factory=dict)

    def add(
        self, unit: Unit, values: Mapping[str, int], layer: str,
        reads: Iterable[Access] = (), writes: Iterable[Access] = (), own: Iterable[Access] = (),
    ) -> None:  # fmt: skip
        """Append a command. Accesses of ``own`` are read, and the unit's own earlier writes to
        them must have reached memory; of others a unit sees its own work in order."""
        needs = dict.fromkeys(UNITS, 0)
        mine = self.issued[unit] + 1 if unit in self.issued else 0
        reads, writes, own = tuple(reads), tuple(writes), tuple(own)
        for access in reads:
            for touch in self._touched.get(access.what, ()):
                if touch.write and touch.unit is not unit and access.meets(touch.access):
                    needs[touch.unit] = max(needs[touch.unit], touch.count)
        for access in own:
            for touch in self._touched.get(access.what, ()):
                if touch.write and access.meets(touch.access):
                    needs[touch.unit] = max(needs[touch.unit], touch.count)
        for access in writes:
            for touch in self._touched.get(access.what, ()):
                if touch.unit is not unit and access.meets(touch.access):
                    needs[touch.unit] = max(needs[touch.unit], touch.count)
        waits = {}
        for other, count in needs.items():
            waits[_WAITS[other]] = max(count, self.issued[other] - HORIZON, 0) & 0xFFFF
        self.commands.append(Command(unit, {**values, **waits}, layer))
        for access in writes:
            old = self._touched.setdefault(access.what, [])
            old[:] = [t for t in old if not access.covers(t.access)]
            old.append(_Touch(access, unit, mine, True))
        for access in (*reads, *own):
            old = self._touched.setdefault(access.what, [])
            old[:] = [
                t for t in old if t.write or t.unit is not unit or not access.covers(t.access)
            ]
            old.append(_Touch(access, unit, mine, False))
        if unit in self.issued:
            self.issued[unit] = mine

    def end(self) -> None:
        """The last command: everything before it is done."""
        waits = {_WAITS[u]: count & 0xFFFF for u, count in self.issued.items()}
        self.commands.append(Command(Unit.END, waits))
