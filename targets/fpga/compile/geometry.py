# SPDX-License-Identifier: Apache-2.0
"""How a tile lies in an activation buffer, and the taps that read it (``docs/accelerator.md``)."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.errors import InfeasibleError
from codesign.space.accelerator import Engine
from codesign.targets.fpga.isa import BLOCK, Tap

WORDS = 1 << 14
"""Words that an address reaches."""


def block_words(engine: Engine, blocks: int) -> int:
    """Words of one pixel group that ``blocks`` blocks of 8 channels take."""
    if engine.kind == "dense" and engine.pi < BLOCK:
        return blocks * (BLOCK // engine.pi)
    lanes = engine.pi if engine.kind == "dense" else engine.po
    return -(-blocks // (lanes // BLOCK))


@dataclass(frozen=True)
class Layout:
    """A tile of ``blocks`` blocks with rows of ``columns`` pixels, read with column stride
    ``stride`` by ``lanes`` pixels a step."""

    lanes: int
    stride: int
    columns: int
    group: int
    """Words of one pixel group."""

    @staticmethod
    def of(engine: Engine, rate: int, stride: int, columns: int, blocks: int) -> Layout:
        """The layout for an engine."""
        return Layout(engine.px * rate, stride, columns, block_words(engine, blocks))

    @property
    def residue_words(self) -> int:
        """Words of the pixels of one row with one residue of the column by the stride."""
        pixels = -(-self.columns // self.stride)
        return -(-pixels // self.lanes) * self.group

    @property
    def row_words(self) -> int:
        """Words of one row."""
        return self.residue_words * self.stride

    def fields(self, rows: int) -> dict[str, int]:
        """The ``place_`` fields for whoever writes ``rows`` rows."""
        return {
            "place_row_words": self.row_words if rows > 1 else 0,
            "place_residue_words": self.residue_words if self.stride > 1 else 0,
            "place_group": self.group,
            "place_stride": self.stride,
        }


def taps_of(
    layout: Layout, kernel: tuple[int, int], dilation: tuple[int, int], left: int, columns: int
) -> list[Tap]:
    """A tap for every kernel position, row by row; ``columns`` is the width of the input."""
    found = []
    s, lanes = layout.stride, layout.lanes
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            d = kx * dilation[1] - left
            q, residue = d // s, d % s
            offset = (
                ky * dilation[0] * layout.row_words
                + residue * layout.residue_words
                + q // lanes * layout.group
            )
            offset = (offset + WORDS // 2) % WORDS - WORDS // 2
            least = max(0, -(d // s))  # x · s + d ≥ 0, rounded up
            most = max(0, (columns - 1 - d) // s + 1)
            found.append(Tap(offset, ky * dilation[0], q % lanes, least, most))
    return found


@dataclass(frozen=True)
class Rows:
    """Input rows of a tile of output rows start..stop."""

    first: int
    """Input row of the first kernel row of the first output row; may be outside the image."""
    low: int
    high: int
    """Rows low..high of the image are there (none when equal)."""


def input_rows(
    start: int, stop: int, stride: int, kernel: int, dilation: int, top: int, rows: int
) -> Rows:
    """The input rows that output rows start..stop read."""
    first = start * stride - top
    last = (stop - 1) * stride - top + (kernel - 1) * dilation + 1
    low, high = min(max(first, 0), rows), max(min(last, rows), 0)
    return Rows(first, low, max(low, high))


LIMITS = {"rows": 1023, "width": 16383, "steps": 16383, "groups": 1023, "inputs": 255,
          "blocks": 511}  # fmt: skip


def check_limit(layer: str, name: str, value: int) -> None:
    """Raise InfeasibleError where a count does not fit its field."""
    if value > LIMITS[name]:
        raise InfeasibleError(
            f"layer {layer!r}: a tile has {value} {name}, a command holds {LIMITS[name]}; "
            "give smaller tiles"
        )
