# SPDX-License-Identifier: Apache-2.0
"""Where values stand in the accelerator's memory: [channels / 8][rows][columns][8]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from codesign.ir.graph import Array
from codesign.ir.types import DType, TensorType
from codesign.targets.fpga.isa import BLOCK

ALIGN = 64
"""Bytes at whose multiples tensors, weights, taps and command lists start."""


@dataclass(frozen=True)
class Region:
    """A piece of memory: one tensor, or several that stand behind one another (a concat)."""

    name: str
    address: int
    size: int


@dataclass(frozen=True)
class Place:
    """One value in memory. ``channels``, ``rows`` and ``columns`` are the logical sizes."""

    region: Region
    channels: int
    rows: int
    columns: int
    dtype: DType
    block: int = 0
    """First block of 8 channels inside the region."""

    @property
    def wide(self) -> bool:
        """Whether an element takes two bytes."""
        return self.dtype.bits > 8

    @property
    def pixels(self) -> int:
        """Pixels of one channel."""
        return self.rows * self.columns

    @property
    def blocks(self) -> int:
        """Blocks of 8 channels."""
        return -(-self.channels // BLOCK)

    @property
    def block_step(self) -> int:
        """Bytes of one block: the distance to the next one (of wide values, half of it)."""
        return self.pixels * BLOCK

    @property
    def address(self) -> int:
        """First byte."""
        return self.region.address + self.block * self.block_step * (2 if self.wide else 1)

    @property
    def size(self) -> int:
        """Bytes that the value takes."""
        return self.blocks * self.block_step * (2 if self.wide else 1)

    def at(self, block: int, pixel: int) -> int:
        """Address of one block of one pixel."""
        size = 2 if self.wide else 1
        return self.address + (block * self.block_step + pixel * BLOCK) * size

    def part(self, block: int, channels: int) -> Place:
        """The value of ``channels`` channels from a block on."""
        return replace(self, block=self.block + block, channels=channels)

    def holds(self, kind: TensorType) -> bool:
        """Whether a value of this type can be read here as an image of batch 1."""
        sizes = image_sizes(kind)
        return sizes is not None and (self.channels, self.pixels) == (
            sizes[0],
            sizes[1] * sizes[2],
        )

    def as_image(self, rows: int, columns: int) -> Place:
        """The same bytes with other rows and columns (as many pixels)."""
        assert rows * columns == self.pixels
        return replace(self, rows=rows, columns=columns)

    def pack(self, value: Array) -> bytes:
        """The bytes of a value given in row-major order, any shape."""
        image = np.asarray(value).reshape(self.channels, self.pixels)
        full = np.zeros((self.blocks * BLOCK, self.pixels), np.int16 if self.wide else np.uint8)
        full[: self.channels] = image.astype(np.int64).astype(full.dtype)
        blocks = full.reshape(self.blocks, BLOCK, self.pixels).transpose(0, 2, 1)
        return np.ascontiguousarray(blocks).astype(blocks.dtype.newbyteorder("<")).tobytes()

    def unpack(self, memory: Array, shape: tuple[int, ...]) -> Array:
        """The value out of memory (uint8), in ``shape``."""
        raw = memory[self.address : self.address + self.size]
        signed = self.dtype.kind == "signed"
        if self.wide:
            kind = "<i2" if signed else "<u2"
        else:
            kind = "i1" if signed else "u1"
        blocks = np.frombuffer(raw.tobytes(), kind).reshape(self.blocks, self.pixels, BLOCK)
        image = blocks.transpose(0, 2, 1).reshape(self.blocks * BLOCK, self.pixels)
        return image[: self.channels].reshape(shape).astype(self.dtype.numpy)


def image_sizes(kind: TensorType) -> tuple[int, int, int] | None:
    """(channels, rows, columns) of a value that can stand in memory, or None.

    Images of batch 1, and vectors [1, K] as K channels of one pixel.
    """
    shape = kind.shape
    if not kind.dtype.is_integer or kind.dtype.bits > 16 or not shape or shape[0] != 1:
        return None
    if len(shape) == 4:
        return shape[1], shape[2], shape[3]
    if len(shape) == 2:
        return shape[1], 1, 1
    return None


@dataclass
class Memory:
    """Hands out memory from the front; nothing is given back, so no write has to wait for old
    readers of its place."""

    used: int = 0
    regions: list[Region] = field(default_factory=list)

    def take(self, name: str, size: int) -> Region:
        """A region of ``size`` bytes."""
        region = Region(name, self.used, size)
        self.used += max(ALIGN, math.ceil(size / ALIGN) * ALIGN)
        self.regions.append(region)
        return region
