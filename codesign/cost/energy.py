# SPDX-License-Identifier: Apache-2.0
"""Energy of one image, modelled, in femtojoules; integers.

E = Σ layers macs · E_mac(weight bits, activation bits) + E_dram · bytes + E_static · cycles.
Source of the figures: Horowitz, "Computing's energy problem", ISSCC 2014 (45 nm): 8-bit multiply
0.2 pJ and 32-bit add 0.1 pJ, multiply scaled with the product of the widths; DRAM 1.3 to 2.6 nJ for
64 bits, of which the lower end is taken: 160 pJ a byte. An FPGA spends more on each operation; the
figure ranks designs and is not a forecast of watts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EnergyModel:
    """Femtojoules of each event."""

    multiply_8x8: int = 200
    add: int = 100
    dram_byte: int = 160_000
    static_cycle: int = 0
    """Of the whole device in one cycle; 0: dynamic energy only."""

    def mac(self, weight_bits: int, activation_bits: int) -> int:
        """One multiply-accumulate: multiply_8x8 · bits · bits / 64, rounded up, and an add.

        >>> EnergyModel().mac(8, 8), EnergyModel().mac(4, 4)
        (300, 150)
        """
        return -(-self.multiply_8x8 * weight_bits * activation_bits // 64) + self.add

    def moved(self, traffic: Any, cycles: Any) -> Any:
        """What depends on tiling and accelerator: DRAM bytes and time; numbers or arrays."""
        return self.dram_byte * traffic + self.static_cycle * cycles


DEFAULT_ENERGY = EnergyModel()
