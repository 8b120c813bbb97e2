# SPDX-License-Identifier: Apache-2.0
"""What every accelerator is built with beyond what its description names."""

from __future__ import annotations

from codesign.space.accelerator import Accelerator, Buffer, Engine
from codesign.space.device import MultiplierKind

LATENCY: dict[MultiplierKind, int] = {"dsp48e2": 4, "dsp48e1": 4, "mult18": 3, "lut": 3}
"""Clock edges from a multiplier's operands to its products."""


def depthwise_engine(accelerator: Accelerator) -> Engine:
    """The accelerator's depthwise engine; a small one where the description has none.

    Pooling and element-wise operators run on it, so hardware always has one.
    """
    if accelerator.depthwise is not None:
        return accelerator.depthwise
    return Engine(
        "depthwise", 1, 8, 1, Buffer(256), Buffer(1024),
        multiplier=accelerator.dense.multiplier, post=4,
    )  # fmt: skip
