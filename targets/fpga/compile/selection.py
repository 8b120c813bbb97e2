# SPDX-License-Identifier: Apache-2.0
"""What a selection of jobs consists of, and the simplest job: pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from codesign.ir.graph import Graph, Node
from codesign.targets.fpga.compile.jobs import Finish, Job

MOST_TAPS = 64
"""Kernel positions of one command: half of a tap memory, so that the next ones can be loaded."""
MOST_STRIDE = 7
IDENTITY = (32768, 15)
"""m and e of the factor 1."""
S16 = (-32768, 32767)


@dataclass
class Selection:
    """What was found; jobs by the value they make."""

    graph: Graph
    jobs: dict[str, tuple[Job, ...]] = field(default_factory=dict)
    """Value to the jobs that make it, in order (copies of a concat's parts included)."""
    inside: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Value to (the value whose memory it stands in, first block there)."""
    free: set[str] = field(default_factory=set)
    """Values that need no work: views and concats by addressing."""
    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Channels, rows, columns of the values that stand in memory."""
    why: dict[str, str] = field(default_factory=dict)
    """Node to the reason why it stays on the ARM cores."""

    def image(self, value: str) -> tuple[int, int, int] | None:
        """Channels, rows and columns as the value stands in memory."""
        return self.sizes.get(value)


def element_wise(
    found: Selection, source: str, result: str, finish: Finish,
    padding: tuple[int, int] = (0, 0), stride: tuple[int, int] = (1, 1),
) -> Job:  # fmt: skip
    """Pixel by pixel from one value to another."""
    channels, rows, columns = found.sizes[source]
    return Job(
        result, "depthwise", source, result, np.ones((channels, 1, 1), np.int8), 2, stride,
        (1, 1), padding, (rows, columns), found.sizes[result][1:], finish,
        activation_bits=found.graph.type(source).dtype.bits,
    )  # fmt: skip


def unchanged(node: Node, channels: int, lo: int | None = None, hi: int | None = None) -> Finish:
    """Values as they are, clipped."""
    m, e = (np.full(channels, v, np.int64) for v in IDENTITY)
    kind = node.type.dtype
    least, most = (kind.min if lo is None else lo), (kind.max if hi is None else hi)
    return Finish(m, e, np.zeros(channels, np.int64), least, most)


def why_unreadable(found: Selection, value: str) -> str | None:
    kind = found.graph.type(value)
    if value in found.graph.constants:
        return "works on a constant"
    if found.image(value) is None or kind.dtype.bits > 8:
        return f"reads {kind}, which is no image of batch 1 with up to 8 bits"
    return None
