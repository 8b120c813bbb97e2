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

    def cycles(self, load: int, store: int, wait: int = 0) -> int:
        """max(ceil((load + wait) / port), ceil(store / port), ceil((load + store) · n / d)).

        The AXI port reads and writes at once, the DRAM behind it does one of them at a time.
        ``wait``: bytes that could have come while the loader wrote others (``placing``).
        """
        n, d = self.rate
        return max(
            -(-(load + wait) // self.port_bytes),
            -(-store // self.port_bytes),
            -(-(load + store) * n // d),
        )


def memory_cycles(
    load: Any, store: Any, port_shift: Any, rate: tuple[int, int], wait: Any = 0
) -> Any:
    """``Memory.cycles`` over arrays; the port has 2^port_shift bytes."""
    n, d = rate
    port = -(-np.maximum(load + wait, store) >> port_shift)
    return np.maximum(port, -(-(load + store) * n // d))


def placing(port_bytes: Any, stride: int, lanes: Any, pi: Any) -> Any:
    """Times the port's time that the loader takes to place activations, less one.

    Two pixels of a 16-byte beat take a cycle each where both go to one memory: under a column
    stride, or with one memory alone. A block of 8 channels takes two words of an engine of pi = 4.
    """
    slow = 1 + ((port_bytes >= 16) & ((stride > 1) | (lanes == 1)))
    return slow * (1 + (pi < 8)) - 1
