# SPDX-License-Identifier: Apache-2.0
"""Tilings: which ones are tried, and what a tiling of a layer needs on chip.

A tile has all columns of some output rows, and some channels. Loop orders of the tiles:

- ``spatial``: rows outside, output channels inside. The input rows stay, weights come again for
  each row tile.
- ``channel``: output channels outside, rows inside. The weights stay, inputs come again for each
  channel tile.
- ``weights``: as spatial, all weights of the layer stay on chip.
- ``inputs``: as channel, all inputs of the layer stay on chip.

Input channels may be tiled too (innermost, sums wait in the accumulator buffer); then what would
have stayed comes again. Numbers of tiles are tried, not sizes: a tile is as small as its number
allows, which only leaves out tilings with a smaller last tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from codesign.space.accelerator import Engine
from codesign.space.workload import LayerShape

Order = Literal["spatial", "channel", "weights", "inputs"]
ORDERS: tuple[Order, ...] = ("spatial", "channel", "weights", "inputs")

ROW_SPLITS = (1, 2, 3, 4, 7, 8, 14, 16, 28, 56, 112)
CHANNEL_SPLITS = (1, 2, 4, 8, 16, 32, 64, 128)
INPUT_SPLITS = (1, 4, 16, 64)


@dataclass(frozen=True)
class Tile:
    """One tiling of a layer on an engine."""

    rows: int
    """Output rows of a tile."""
    channels: int
    """Output channels of a tile, in groups of the engine's ``po``."""
    inputs: int = 1
    """Input channels of a tile, in groups of ``pi`` (not for depthwise)."""
    order: Order = "channel"
    rate: int = 1
    """Multiple of ``px`` pixels a cycle (2: doubled w4a4)."""


def ceil(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def stored(channels: Any) -> Any:
    """Channels as memory holds them: whole blocks of 8 (numbers or arrays)."""
    return -(-channels // 8) * 8


def row_tiles(rows: int) -> list[int]:
    """Rows of a tile that are tried for a layer of ``rows`` output rows; always 1 and all."""
    return sorted({ceil(rows, n) for n in ROW_SPLITS} | {1}, reverse=True)


def channel_tiles(groups: int) -> list[int]:
    """Channel groups of a tile that are tried; always all and, for up to 128, one."""
    return sorted({ceil(groups, n) for n in CHANNEL_SPLITS}, reverse=True)


def input_tiles(groups: int) -> list[int]:
    """Input groups of a tile that are tried."""
    return sorted({ceil(groups, n) for n in INPUT_SPLITS}, reverse=True)


def pixel_groups(shape: LayerShape, rows: int, width: int, lanes: int) -> int:
    """Steps over ``rows`` rows of ``width`` pixels at ``lanes`` a step: rows · ceil(width/lanes),
    or ceil(rows · width / lanes) where rows follow each other without a gap (1 x 1, stride 1)."""
    return ceil(rows * width, lanes) if shape.flat else rows * ceil(width, lanes)


@dataclass(frozen=True)
class Need:
    """Words that a tiling needs in one bank of each buffer."""

    weight: int
    activation: int
    accumulator: int

    def fits(self, engine: Engine) -> bool:
        """Whether the engine's buffers hold it."""
        return (
            self.weight <= engine.weight.depth
            and self.activation <= engine.activation.depth
            and (engine.kind == "depthwise" or self.accumulator <= engine.accumulator.depth)
        )


def dense_need(shape: LayerShape, engine: Engine, tile: Tile) -> Need:
    """Weights: taps · channel groups · input groups (all of them when they stay). Activations:
    the input rows of a tile for its input groups (all of the layer when they stay). Sums: output
    pixels of a tile for its channel groups. ``shape`` is that of one group of channels."""
    inputs, outputs = ceil(shape.inputs, engine.pi), ceil(shape.outputs, engine.po)
    lanes = engine.px * tile.rate
    weight = shape.taps * tile.channels * tile.inputs
    rows, groups = shape.rows_in(tile.rows), tile.inputs
    if tile.order == "weights":
        weight = shape.taps * outputs * inputs
    elif tile.order == "inputs":
        rows, groups = shape.in_size[0], inputs
    activation = pixel_groups(shape, rows, shape.in_size[1], lanes) * groups
    sums = pixel_groups(shape, tile.rows, shape.out_size[1], lanes) * tile.rate * tile.channels
    return Need(weight, activation, sums)


def depthwise_need(shape: LayerShape, engine: Engine, tile: Tile) -> Need:
    """Weights: taps · channel groups. Activations: the input rows of a tile for its channels."""
    rows = shape.rows_in(tile.rows)
    activation = rows * ceil(shape.in_size[1], engine.px) * tile.channels
    return Need(shape.taps * tile.channels, activation, 0)


def dense_tiles(
    shape: LayerShape, engine: Engine, weight_bits: int, activation_bits: int
) -> Iterator[Tile]:
    """Every tiling tried for one group of a dense layer, legal or not."""
    inputs, outputs = ceil(shape.inputs, engine.pi), ceil(shape.outputs, engine.po)
    for rate in engine.rates(weight_bits, activation_bits):
        for order in ORDERS:
            for rows in row_tiles(shape.out_size[0]):
                for channels in channel_tiles(outputs):
                    splits = [inputs] if order == "weights" else input_tiles(inputs)
                    for groups in splits:
                        yield Tile(rows, channels, groups, order, rate)


def depthwise_tiles(shape: LayerShape, engine: Engine) -> Iterator[Tile]:
    """Every tiling tried for a depthwise layer, legal or not."""
    for rows in row_tiles(shape.out_size[0]):
        for channels in channel_tiles(ceil(shape.outputs, engine.po)):
            yield Tile(rows, channels)
