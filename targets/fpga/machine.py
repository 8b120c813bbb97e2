# SPDX-License-Identifier: Apache-2.0
"""What every accelerator is built with beyond what its description names."""

from __future__ import annotations

from codesign.space.accelerator import built_depthwise as depthwise_engine
from codesign.space.device import MultiplierKind

__all__ = ["LATENCY", "depthwise_engine"]

LATENCY: dict[MultiplierKind, int] = {"dsp48e2": 4, "dsp48e1": 4, "mult18": 3, "lut": 3}
"""Clock edges from a multiplier's operands to its products."""
