# SPDX-License-Identifier: Apache-2.0
"""A burst-level model of a board's memory, in cycles of the accelerator's clock.

Bursts are answered in order. A beat moves when the budget, filled with the bandwidth each cycle,
holds its bytes; a burst that does not fill whole access granules pays for them all the same. After
each change between reads and writes nothing moves for ``turnaround`` cycles; the direction changes
when it has nothing to do or after ``batch`` bytes while the other waits. Every
``refresh_interval`` cycles nothing moves for ``refresh_cycles``. Between the memory and the port
the controller holds up to 4 KiB of each direction (64 entries of 64 bytes, as Zynq UltraScale+'s
DDR controller, UG1085), so the port's two channels each move a beat a cycle at best.

Figures of a board: peak bandwidth, efficiency of long reads and latency come from its file in
``codesign/space/devices`` (source there). Refresh is JEDEC's: 7.8 µs between refreshes of 350 ns
for an 8 Gbit DDR3/DDR4 device (JESD79-3F table 61, JESD79-4 table 36), 3.9 µs and 180 ns all-bank
for 8 Gbit LPDDR4 (JESD209-4). The turn-around is the data bus's idle time between a read and a
write, about CL + burst + tWTR of a DDR4-2400 CL17 part, 30 ns. The efficiency holds for long
reads with refresh counted in. All of this is assumed until a board confirms it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from codesign.space.device import Device

_GRANULES = {"pynq-z2": 16, "arty-a7-100": 16, "zedboard": 32}
"""Bytes of the memory's shortest burst: bus width times 8 (DDR3, SDRAM), where it is not 64."""


@dataclass(frozen=True)
class Dram:
    """Timing of the memory."""

    latency: int = 20
    """Cycles from a read address to its first beat."""
    bytes_per_cycle: Fraction = Fraction(16)
    granule: int = 1
    """Bytes that the memory moves at least, aligned."""
    refresh_interval: int = 0
    """0: none."""
    refresh_cycles: int = 0
    turnaround: int = 0
    outstanding: int = 16
    """Bursts of each direction that wait in the controller."""
    write_latency: int = 10
    """Cycles from a burst's last beat to its response."""
    batch: int = 2048
    """Bytes."""
    stall: int = 0
    """Of 256: chance of holding a handshake back for a cycle; for tests."""
    seed: int = 1

    @staticmethod
    def of(device: Device) -> Dram:
        """The memory of a board at the accelerator's clock of that board's file."""
        if device.family == "ecp5":  # block RAM on the chip, hw/onchip.py
            return Dram(device.dram_latency_cycles, Fraction(16), granule=8, write_latency=2)
        ns = device.clock_hz / 1e9
        lpddr4 = device.name == "zu3eg"
        interval, refresh = (3900, 180) if lpddr4 else (7800, 350)
        interval_cycles, refresh_cycles = round(interval * ns), round(refresh * ns)
        share = Fraction(device.dram_efficiency_percent, 100)
        share /= 1 - Fraction(refresh_cycles, interval_cycles)
        rate = Fraction(device.dram_bytes_per_second, device.clock_hz) * share
        return Dram(
            latency=device.dram_latency_cycles,
            bytes_per_cycle=rate.limit_denominator(1000),
            granule=_GRANULES.get(device.board, 64),
            refresh_interval=interval_cycles,
            refresh_cycles=refresh_cycles,
            turnaround=max(1, round(30 * ns)),
            write_latency=max(1, device.dram_latency_cycles // 2),
        )

    def directive(self) -> str:
        """As the bench reads it."""
        rate = self.bytes_per_cycle
        return (
            f"dram {self.latency} {rate.numerator} {rate.denominator} {self.granule} "
            f"{self.refresh_interval} {self.refresh_cycles} {self.turnaround} "
            f"{self.outstanding} {self.write_latency} {self.batch} {self.stall} {self.seed}"
        )
