# SPDX-License-Identifier: Apache-2.0
"""What the memory gives to transfers that are under way at once: the cycle model's shares."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.targets.fpga.isa import Unit
from codesign.targets.fpga.model.work import OUTSTANDING
from codesign.targets.fpga.sim.dram import Dram

RESPONSE = 16
"""Cycles from a write's response to the next burst's data at the memory."""


@dataclass
class Flow:
    """Bytes on their way."""

    left: float
    rate: float
    """At most so many bytes a cycle."""
    write: bool
    begins: float
    first: bool = False
    """Served before others."""
    behind: Unit | None = None
    """A load's: the unit whose results into the same buffer go first."""
    burst: float = 0.0
    """Bytes of a burst of results."""
    now: float = 0.0


class Supply:
    """A board's memory behind a port of ``port`` bytes."""

    def __init__(self, dram: Dram, port: int) -> None:
        self.dram, self.port = dram, port
        part = 1.0
        if dram.refresh_interval:
            part = 1 - dram.refresh_cycles / dram.refresh_interval
        self.rate = min(float(dram.bytes_per_cycle) * part, 2.0 * port)
        """Bytes a cycle in one direction."""

    def again(self, burst: float) -> float:
        """Cycles from a write burst's turn at the memory to that of the one which had to wait for
        its response."""
        return self.dram.write_latency + RESPONSE + burst / self.rate

    def alternating(self, burst: float) -> tuple[float, float]:
        """Bytes a cycle while more is asked for than the memory gives, reads and writes by turns;
        and the writes' part of them.

        It reads a batch, then writes what has come meanwhile: as many bursts (of ``burst`` bytes)
        as may be under way. It goes on writing, at most for a batch, where the first one's response
        brings the next before these are written.
        """
        reads = float(max(self.dram.batch, 1))
        came, again = OUTSTANDING * burst, self.again(burst)
        writes = reads if came > self.rate * again else min(reads, came)
        lost = 2 * self.dram.turnaround * self.rate / (reads + writes)
        return self.rate / (1 + lost), writes / (reads + writes)


def share(flows: list[Flow], most: float) -> None:
    """Cut rates to a sum of ``most``, the greatest first."""
    if sum(flow.now for flow in flows) <= most:
        return
    left, open_ = most, sorted(flows, key=lambda flow: flow.now)
    for place, flow in enumerate(open_):
        fair = left / (len(open_) - place)
        flow.now = min(flow.now, fair)
        left -= flow.now
