# SPDX-License-Identifier: Apache-2.0
"""Products in one hard multiplier, and what a multiplier of LUTs takes.

Sources: exhaustive checks of each packing over all operands in RTL (two 8-bit products with lane
offset 18 in a DSP48E2 and 16 in a DSP48E1; four 4-bit products at 0/11/22/33 in a DSP48E2 and at
0/8/16/24 in a DSP48E1; two 4-bit products at offset 8 in a MULT18X18D); Xilinx WP486 and WP521 for
the ideas. Sums are taken in the fabric, so that a packed product never overflows its lane.
"""

from __future__ import annotations

from codesign.space.device import MultiplierKind

_PAIRED = {"dsp48e2": 2, "dsp48e1": 2, "mult18": 1}

LUT_PRODUCT = {(2, 2): 4, (2, 4): 8, (4, 4): 26, (2, 8): 16, (4, 8): 54, (8, 8): 134}
"""LUTs of a signed a x b multiplier without DSP, (a ≤ b), yosys for 7-series, measured."""
LUT4_PRODUCT = {(2, 2): 4, (2, 4): 14, (4, 4): 41, (2, 8): 26, (4, 8): 80, (8, 8): 184}
"""The same in LUT4 of an ECP5 (no wide multiplexers; carry cells counted as two)."""


def products_per_multiplier(kind: MultiplierKind, weight_bits: int, activation_bits: int) -> int:
    """Products of a dense engine's hard multiplier in one cycle.

    DSP48E2 and E1: 4 where both operands have at most 4 bits, else 2. MULT18X18D: 2 where both
    have at most 4 bits, else 1 (two 8 x 4 products need the accumulation depth of the chain, which
    is not validated in the open flow). LUT multipliers take no hard one: 0.

    >>> products_per_multiplier("dsp48e2", 8, 8), products_per_multiplier("mult18", 4, 4)
    (2, 2)
    """
    if kind == "lut":
        return 0
    return _PAIRED[kind] * (2 if max(weight_bits, activation_bits) <= 4 else 1)


def lut_product(family: str, weight_bits: int, activation_bits: int) -> int:
    """LUTs of one weight x activation multiplier without DSP; widths rounded up to 2, 4, 8.

    >>> lut_product("xcup", 4, 4), lut_product("xc7", 3, 8)
    (26, 54)
    """
    widths = sorted(2 if b <= 2 else 4 if b <= 4 else 8 for b in (weight_bits, activation_bits))
    table = LUT4_PRODUCT if family == "ecp5" else LUT_PRODUCT
    return table[widths[0], widths[1]]
