# SPDX-License-Identifier: Apache-2.0
"""DSP, LUT, FF and block RAM of an accelerator, modelled; integers, or NumPy arrays of them.

The functions take plain numbers or arrays alike, so that a whole space is priced at once. DSP and
block RAM follow the structure of the hardware exactly; LUTs and FFs are those of
``codesign.cost.logic``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.cost.logic import LogicModel, Sizes, logic_model
from codesign.cost.packing import products_per_multiplier
from codesign.space.accelerator import Accelerator, Engine, built_depthwise
from codesign.space.device import Device

REQUANT_DSP = 2
"""Hard multipliers of one requantiser: 32 x 16 bits is two DSP48 or MULT18X18D (synthesised)."""
RAMB18_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
"""(depth, width) of a RAMB18 in simple dual port mode; a DP16KD of the ECP5 has the same ones."""
SHALLOW = 64
"""Memories of at most this depth go to LUT RAM."""
PARAMETERS, TAPS, RESIDUALS = (108, 512), (62, 128), (16, 256)
"""(width, depth) of the memories that every engine has: parameters of two channels (of ``PAIRS``),
taps, and for each requantiser a table of the residual's values."""
PAIRS = 4
QUEUE_BITS = 128, 6
"""Width of the queue of results: bits a pixel, and flags with one pixel (one more with two). It has
64 words: LUT RAM, but block RAM on an ECP5."""


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
    Requantisers have hard multipliers if any engine has (``resources`` sees to that).
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
    return array + REQUANT_DSP * post


def engine_rams(s: Sizes, weight_words: Any, activation_words: Any, sums: Any) -> Any:
    """Block RAMs of an engine's buffers; words: of all banks together, sums: of one half.

    Weights: one memory, a word of pi·po (depthwise: po) weights. Activations: px memories (2 · px
    of half the width when the engine doubles) for each block of 8 channels of a word. Sums: two
    halves of px memories. The list of the hardware, ``hw.buffers.shapes``, is the same by test.
    """
    bits = np.minimum(s.channels, 8) * np.where(s.double, 4, s.activation_bits)
    rams = ramb18(s.pi * s.po * s.weight_bits, weight_words)
    rams = rams + s.memories * s.lanes * ramb18(bits, activation_words)
    if s.dense:
        rams = rams + 2 * s.px * ramb18(s.po * s.accumulator_bits, sums)
    return rams


def way_out_rams(family: str, post: Any) -> Any:
    """Block RAMs that each engine has whatever its buffers: parameters, taps, residual tables."""
    fixed = int(PAIRS * ramb18(*PARAMETERS) + ramb18(*TAPS))
    tables = post * int(ramb18(*RESIDUALS))
    if family != "ecp5":
        return fixed + tables
    pixels = np.maximum(1, np.asarray(post) // 8)
    return fixed + tables + _ceil(QUEUE_BITS[0] * pixels + QUEUE_BITS[1] + (pixels - 1), 36)


def resources(
    accelerator: Accelerator, device: Device, model: LogicModel | None = None
) -> Resources:
    """Modelled use of the device by the accelerator, memories and memory side included.

    Hardware always has a depthwise engine, so a small one is counted where none is named.
    """
    family = device.family
    model = model or logic_model(family)
    engines = accelerator.dense, built_depthwise(accelerator)
    hard = any(e.multiplier != "lut" for e in engines)
    dsp = rams = shallow = 0
    for e in engines:
        dsp += int(
            engine_dsp(
                e.kind, e.multiplier, e.pi, e.po, e.px, e.weight_bits, e.activation_bits,
                e.post if hard else 0,
            )
        )  # fmt: skip
        weights, activations = (b.depth * b.banks for b in (e.weight, e.activation))
        rams += int(
            engine_rams(Sizes.of(e, family), weights, activations, e.accumulator.depth)
        )
        rams += int(way_out_rams(family, e.post))
        shallow += _shallow(e)
    dense, other = (Sizes.of(e, family) for e in engines)
    lut, ff = (
        int(model.total(what, dense, other, accelerator.port_bits, int(hard)))
        for what in ("lut", "ff")
    )
    return Resources(dsp, lut + shallow, ff, rams)


def _shallow(e: Engine) -> int:
    """LUTs of buffers of at most 64 words."""
    s = Sizes.of(e, "xc7")
    bits = min(s.channels, 8) * (4 if e.double else e.activation_bits)
    memories = [
        (e.pi * e.po * e.weight_bits, e.weight.depth * e.weight.banks, 1),
        (bits, e.activation.depth * e.activation.banks, int(s.memories * s.lanes)),
    ]
    if e.kind == "dense":
        memories.append((e.po * e.accumulator_bits, e.accumulator.depth, 2 * e.px))
    return sum(count * int(lutram(width, depth)) for width, depth, count in memories)
