# SPDX-License-Identifier: Apache-2.0
"""What may be chosen about quantization besides the formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from codesign.errors import InputError
from codesign.ir.graph import Array
from codesign.quant.histogram import METHODS, Method

WeightClip = Literal["auto", "max", "mse"]


@dataclass(frozen=True)
class QuantOptions:
    """Options of ``quantize_graph``."""

    method: Method = "mse"
    """How activation ranges are taken from the calibration (formats of up to 8 bits)."""
    weight_clip: WeightClip = "auto"
    """Weight scale from the greatest magnitude, from the least squared error, or ``auto``: the
    latter for formats of up to 4 bits."""
    bias_correction: bool = True
    """Shift each layer's biases so that its mean output on the calibration data stays what it
    is in float (Nagel et al., "Data-free quantization", ICCV 2019, the empirical form)."""
    output_bits: int = 16
    """Bits of the network's results and of tensors only float operators read."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Scales that are given (value name to step), as an imported network brings them."""
    weight_scales: Mapping[str, Array] = field(default_factory=dict)
    """Scales of weights that are given (constant name to () or one per output channel); they
    count for 8-bit formats."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"unknown calibration method {self.method!r} (known: {', '.join(METHODS)})"
            )
        if self.weight_clip not in ("auto", "max", "mse"):
            raise InputError(
                f"unknown weight clipping {self.weight_clip!r} (known: auto, max, mse)"
            )
        if not 8 <= self.output_bits <= 16:
            raise InputError(f"output_bits must be 8 to 16, got {self.output_bits}")
