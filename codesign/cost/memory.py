# SPDX-License-Identifier: Apache-2.0
"""The path between on-chip buffers and DRAM, and the fixed times of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.space.device import Device


@dataclass(frozen=True)
class Timing:
    """Fixed times in cycles; calibrated against simulation by the FPGA target."""

    layer: int = 100
    """Reading a layer's command, setting up its addresses, the last write's response."""
    tile: int = 20
    """Starting a tile: pipeline of buffer read, multipliers, adder tree and accumulators."""


DEFAULT_TIMING = Timing()


@dataclass(frozen=True)
class Memory:
    """One data port and the DRAM behind it."""

    port_bytes: int
    """Bytes a cycle in each direction."""
    rate: tuple[int, int]
    """(n, d): a byte takes n/d cycles of DRAM time, reads and writes together."""
    latency: int
    """Cycles from a request to the first beat; paid once a tile."""

    @staticmethod
    def of(device: Device, port_bits: int) -> Memory:
        """The memory of a device behind a port of this width."""
        return Memory(port_bits // 8, device.dram_rate, device.dram_latency_cycles)

    def cycles(self, load: int, store: int) -> int:
        """max(ceil(load / port), ceil(store / port), ceil((load + store) · n / d)).

        The AXI port reads and writes at once, the DRAM behind it does one of them at a time.
        """
        n, d = self.rate
        return max(
            -(-load // self.port_bytes), -(-store // self.port_bytes), -(-(load + store) * n // d)
        )


def memory_cycles(load: Any, store: Any, port_shift: Any, rate: tuple[int, int]) -> Any:
    """``Memory.cycles`` over arrays; the port has 2^port_shift bytes."""
    n, d = rate
    port = -(-np.maximum(load, store) >> port_shift)
    return np.maximum(port, -(-(load + store) * n // d))
