# SPDX-License-Identifier: Apache-2.0
"""What every accelerator is built with beyond what its description names."""

from __future__ import annotations

from codesign.space.accelerator import built_depthwise as depthwise_engine
from codesign.space.device import MultiplierKind

__all__ = ["LATENCY", "depthwise_engine", "depthwise_latency"]

LATENCY: dict[MultiplierKind, int] = {"dsp48e2": 4, "dsp48e1": 4, "mult18": 3, "lut": 3}
"""Clock edges from a multiplier's operands to its products."""


def depthwise_latency(kind: MultiplierKind) -> int:
    """The same for the depthwise engine, whose sums and comparisons come right behind the product:
    an ECP5's multipliers stand in columns far from them, so that a register lies between."""
    return LATENCY[kind] + (kind == "mult18")
