# SPDX-License-Identifier: Apache-2.0
"""What a zoo network is: how it is built and what its input looks like."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


class InputKind(enum.Enum):
    """What one element of the input tensor stands for."""

    NORMALISED = "normalised"
    """Zero mean, unit variance per colour, as ImageNet networks take it."""
    PIXELS = "pixels"
    """Raw pixels 0..255 as float, no scaling (MLPerf Tiny)."""
    UNIT = "unit"
    """Intensities 0..1."""


@dataclass(frozen=True)
class Entry:
    """One network of the table: everything but its weights."""

    build: Callable[[], nn.Module]
    """Makes the module; its parameters may be left uninitialised."""
    input_shape: tuple[int, ...]
    """NCHW, batch 1."""
    input_kind: InputKind
    source: str
    """Paper or repository that defines the architecture."""


@dataclass(frozen=True)
class ZooModel:
    """A network ready to run, in eval mode."""

    name: str
    module: nn.Module
    example_inputs: tuple[Tensor, ...]
    """One float32 tensor of ``input_shape``, an image-like sample of ``input_kind``."""
    input_shape: tuple[int, ...]
    input_kind: InputKind
    source: str
    seed: int
    weights: Path | None
    """The file the weights came from; None: seeded random weights."""


def example_images(
    shape: tuple[int, ...], kind: InputKind, seed: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Image-like noise: coarse, middle and fine structure, so that samples differ from each other.

    White noise would not do: after a global pooling all its samples look the same. The structure
    has a size in pixels, so that a small image looks like a crop of a large one.
    ``shape`` is NCHW; the values follow ``kind`` and depend on ``seed`` and ``shape`` alone.
    """
    generator = torch.Generator().manual_seed(seed)
    count, channels, height, width = shape
    image = torch.zeros(shape, dtype=torch.float64)
    for pixels, cells, amplitude in ((48, 2, 0.8), (12, 4, 0.5), (1, 1, 0.35)):
        rows, columns = (max(cells, n // pixels) for n in (height, width))
        grid = torch.randn(
            (count, channels, rows, columns), generator=generator, dtype=torch.float64
        )
        image += amplitude * nn.functional.interpolate(
            grid, size=(height, width), mode="bilinear", align_corners=False
        )
    if kind is InputKind.PIXELS:
        image = (118.0 + 60.0 * image).round().clamp(0.0, 255.0)
    elif kind is InputKind.UNIT:
        image = (0.4 + 0.3 * image).clamp(0.0, 1.0)
    return image.to(dtype)
