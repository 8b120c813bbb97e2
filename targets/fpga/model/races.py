# SPDX-License-Identifier: Apache-2.0
"""Proof that a command list's waits are enough, by vector clocks.

Units work side by side; what is known to be finished when a command starts follows from the
command before it in its own unit and from the commands that it waits for. An access that meets an
earlier one of another unit which is not known to be finished is a race, whatever the timing. A
unit sees its own work in order, but not its own writes to memory, unless it waits for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codesign.errors import VerifyError
from codesign.targets.fpga.isa import Command, Unit

UNITS: tuple[Unit, ...] = (Unit.LOAD, Unit.DENSE, Unit.DEPTHWISE, Unit.DRAIN)
Counts = npt.NDArray[np.int64]


def full_count(wait: int, issued: int) -> int:
    """A wait modulo 2^16 as the count that it means: the last one not after ``issued``."""
    return issued - ((issued - wait) & 0xFFFF)


@dataclass
class Races:
    """Sees commands in list order and their accesses; raises VerifyError at the first race."""

    sizes: dict[str, int]
    """Words of everything that is accessed."""
    issued: dict[Unit, int] = field(default_factory=lambda: dict.fromkeys(UNITS, 0))
    _finished: dict[Unit, list[Counts]] = field(
        default_factory=lambda: {u: [np.zeros(4, np.int64)] for u in UNITS}
    )
    _writes: dict[str, Counts] = field(default_factory=dict)
    _reads: dict[str, Counts] = field(default_factory=dict)

    def start(self, index: int, command: Command) -> None:
        """The next command of the list."""
        self.index, self.command = index, command
        known = np.zeros(4, np.int64)
        self.own_wait = 0
        if command.unit is not Unit.END:
            known = self._finished[command.unit][-1].copy()
        for place, unit in enumerate(UNITS):
            wait = command.values[f"wait_{unit.name.lower()}"]
            count = full_count(wait, self.issued[unit])
            if count < 0 and wait:
                raise VerifyError(
                    f"command {index} ({command.unit.name}) waits for {wait} commands of "
                    f"{unit.name}, of which only {self.issued[unit]} stand before it"
                )
            count = max(count, 0)
            known = np.maximum(known, self._finished[unit][count])
            known[place] = max(known[place], count)
            if unit is command.unit:
                self.own_wait = count
        self.known = known
        if command.unit is Unit.END:
            for place, unit in enumerate(UNITS):
                if known[place] < self.issued[unit]:
                    raise VerifyError(f"END does not wait for all commands of {unit.name}")
            return
        self.place = UNITS.index(command.unit)
        self.issued[command.unit] += 1
        after = known.copy()
        after[self.place] = self.issued[command.unit]
        self._finished[command.unit].append(after)

    def access(self, what: str, words: Counts, write: bool) -> None:
        """The current command reads or writes these words."""
        if not len(words):
            return
        if what not in self._writes:
            size = self.sizes[what]
            self._writes[what] = np.zeros((4, size), np.int64)
            self._reads[what] = np.zeros((4, size), np.int64)
        writes, reads = self._writes[what], self._reads[what]
        for place, unit in enumerate(UNITS):
            if place == self.place:
                if what == "memory" and not write:
                    self._check(what, unit, writes[place], words, self.own_wait, "written")
                continue
            self._check(what, unit, writes[place], words, int(self.known[place]), "written")
            if write:
                self._check(what, unit, reads[place], words, int(self.known[place]), "read")
        table = writes if write else reads
        table[self.place, words] = self.issued[self.command.unit]

    def _check(
        self, what: str, unit: Unit, table: Counts, words: Counts, known: int, did: str
    ) -> None:
        last = table[words]
        worst = int(last.argmax())
        if last[worst] > known:
            raise VerifyError(
                f"race: command {self.index} ({self.command.unit.name}) touches word "
                f"{int(words[worst])} of {what}, {did} by command {int(last[worst])} of "
                f"{unit.name}, but only {known} are known to be finished"
            )
