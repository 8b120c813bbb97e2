# SPDX-License-Identifier: Apache-2.0
"""DSP, LUT, FF and block RAM of an accelerator, modelled; integers, or NumPy arrays of them.

The functions take plain numbers or arrays alike, so that a whole space is priced at once.
The coefficients in ``LutModel`` are what synthesis calibrates (FPGA target); block RAM follows the
shapes of the primitive exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.cost.packing import lut_product, products_per_multiplier
from codesign.space.accelerator import Accelerator, Engine
from codesign.space.device import Device

REQUANT_DSP = 2
"""Hard multipliers of one requantiser: 32 x 16 bits is two DSP48 or MULT18X18D (synthesised)."""
RAMB18_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
"""(depth, width) of a RAMB18 in simple dual port mode; a DP16KD of the ECP5 has the same ones."""
SHALLOW = 64
"""Memories of at most this depth go to LUT RAM."""


@dataclass(frozen=True)
class LutModel:
    """Coefficients of the LUT and FF estimates."""

    control: int = 3000
    """Command decoder, DMA and AXI master."""
    port_bit: int = 8
    """Per bit of the data port: width conversion and FIFOs."""
    requantiser: int = 170
    packing: int = 6
    """Per product that shares a DSP: the correction of the packed lanes."""
    sum_extra: int = 4
    """Bits by which the mean adder of the tree is wider than the product."""


DEFAULT_LUT = LutModel()


@dataclass(frozen=True)
class Resources:
    """What an accelerator takes of a device."""

    dsp: int
    lut: int
    ff: int
    ramb18: int

    def fits(self, device: Device) -> bool:
        """Whether the device holds it."""
        return not self.excess(device)

    def excess(self, device: Device) -> dict[str, int]:
        """Resource to how many too many."""
        over = {
            name: getattr(self, name) - getattr(device, name)
            for name in ("dsp", "lut", "ff", "ramb18")
        }
        return {name: count for name, count in over.items() if count > 0}


def _ceil(a: Any, b: Any) -> Any:
    return -(-a // b)


def ramb18(width: Any, depth: Any) -> Any:
    """RAMB18 of a simple dual port memory: the cheapest shape, min over (d, w) of
    ceil(depth/d) · ceil(width/w); 0 for depth ≤ 64 (LUT RAM). Source: shapes of UG573/UG473, the
    rule of FINN; agrees with yosys on 36x512, 64x1024, 512x512 and 64x4096.

    >>> [int(ramb18(w, d)) for w, d in ((36, 512), (64, 1024), (512, 512), (64, 4096), (8, 64))]
    [1, 4, 15, 16, 0]
    """
    width, depth = np.asarray(width), np.asarray(depth)
    best = _ceil(depth, 16384) * width
    for rows, columns in RAMB18_SHAPES[1:]:
        best = np.minimum(best, _ceil(depth, rows) * _ceil(width, columns))
    return np.where(depth <= SHALLOW, 0, best)


def lutram(width: Any, depth: Any) -> Any:
    """LUTs of a memory of at most 64 words: one LUT6 a bit and 64 words (RAM64M8: 8 LUT, 7 bits
    a port); 0 for deeper ones."""
    width, depth = np.asarray(width), np.asarray(depth)
    return np.where(depth <= SHALLOW, np.where(depth > 0, _ceil(width * 8, 7), 0), 0)


def engine_dsp(
    kind: str, multiplier: Any, pi: Any, po: Any, px: Any, weight_bits: int,
    activation_bits: int, post: Any,
) -> Any:  # fmt: skip
    """Hard multipliers: pi·po·px / products a multiplier + 2 a requantiser.

    A dense engine pairs output channels that share an activation and, with four products, pixels
    too: an odd pixel then has multipliers of its own. A depthwise engine pairs pixels that share a
    weight. Counts are those of ``codesign.targets.fpga.hw.multiply`` (its tests hold them equal).
    """
    if kind == "dense":
        per = products_per_multiplier(multiplier, weight_bits, activation_bits)
        shared = 2 if per == 4 else 1  # pixels that share one
        array = pi * _ceil(po, per // shared) * _ceil(px, shared) if per else 0
    elif multiplier == "lut":
        array = 0
    else:
        per = 1 if multiplier == "mult18" else 2
        array = po * _ceil(px, per)
    hard = REQUANT_DSP * post
    return array + hard


def engine_lut(
    kind: str, multiplier: Any, family: str, pi: Any, po: Any, px: Any, weight_bits: int,
    activation_bits: int, post: Any, double: Any, model: LutModel = DEFAULT_LUT,
) -> Any:  # fmt: skip
    """LUTs of an engine without its memories.

    products · (LUTs of a product, or the packing correction) + (pi − 1) · po · px adders of
    (weight + activation + 4) bits + po · px accumulators of 32 bits + requantisers; adders and
    accumulators are there twice when the engine doubles. Source: structure as FINN-R's model,
    coefficients from syntheses of 4 x 4 to 16 x 16 arrays.
    """
    lanes = pi * po * px
    if multiplier == "lut":
        each = lut_product(family, weight_bits, activation_bits)
    else:
        each = model.packing
    copies = np.where(double, 2, 1)
    adders = (pi - 1) * po * px * (weight_bits + activation_bits + model.sum_extra)
    sums = 32 * po * px
    return lanes * each + copies * (adders + sums) + model.requantiser * post


def engine_memory(engine: Engine) -> tuple[tuple[int, int, int], ...]:
    """(width in bits, depth, count) of every memory of the engine, banks counted.

    Weights: pi·po·weight_bits wide; activations: px memories of pi·activation_bits (depthwise:
    po·activation_bits), where a doubling engine packs two 4-bit activations in a byte;
    accumulators: px memories of po·accumulator_bits.
    """
    channels = engine.pi if engine.kind == "dense" else engine.po
    weights = engine.pi * engine.po * engine.weight_bits
    found = [
        (weights, engine.weight.depth, engine.weight.banks),
        (
            channels * engine.activation_bits,
            engine.activation.depth,
            engine.activation.banks * engine.px,
        ),
    ]
    if engine.kind == "dense":
        found.append(
            (
                engine.po * engine.accumulator_bits,
                engine.accumulator.depth,
                engine.accumulator.banks * engine.px,
            )
        )
    return tuple(found)


def resources(accelerator: Accelerator, device: Device, model: LutModel = DEFAULT_LUT) -> Resources:
    """Modelled use of the device by the accelerator, memories included.

    FF: two for each LUT of an adder tree would be pessimistic; one for each LUT of the engines and
    two output registers of each memory bit read in a cycle.
    """
    dsp = lut = ff = rams = 0
    for e in accelerator.engines:
        dsp += int(
            engine_dsp(
                e.kind, e.multiplier, e.pi, e.po, e.px, e.weight_bits, e.activation_bits, e.post
            )
        )
        logic = int(
            engine_lut(
                e.kind, e.multiplier, device.family, e.pi, e.po, e.px, e.weight_bits,
                e.activation_bits, e.post, e.double, model,
            )
        )  # fmt: skip
        lut += logic
        ff += logic
        for width, depth, count in engine_memory(e):
            rams += count * int(ramb18(width, depth))
            lut += count * int(lutram(width, depth))
            ff += width * count
    lut += model.control + model.port_bit * accelerator.port_bits
    ff += model.control + model.port_bit * accelerator.port_bits
    return Resources(dsp, lut, ff, rams)
