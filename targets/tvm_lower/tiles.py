# SPDX-License-Identifier: Apache-2.0
"""Tile parameters of the templates: frozen, enumerable, and written as text for a database.

Every template has one class here. ``tile_text`` and ``parse_tile`` are inverses; text is what
the tuning database and manifests hold. Needs no TVM.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from codesign.errors import InputError


@dataclass(frozen=True)
class Tile:
    """What a template's schedule may choose; fields are small integers and flags."""

    template: ClassVar[str]
    """Name of the template."""


@dataclass(frozen=True)
class DirectTile(Tile):
    """Convolution, linear layer and matrix product as dot products over input channels."""

    template: ClassVar[str] = "direct"
    columns: int
    """Output columns (pixels of a row) of a register tile."""
    vectors: int
    """Accumulator vectors (of the dot's lanes) of a register tile."""
    dot: int = 0
    """Which of the instruction set's exact dot products, in its order."""
    channels_outer: bool = True
    """Whether blocks of output channels, not rows, are the outer loop that threads share."""
    parallel: bool = True
    """Whether threads share the work at all."""


@dataclass(frozen=True)
class WinogradTile(Tile):
    """Stride-1 3x3 convolution by Winograd's algorithm in exact integers."""

    template: ClassVar[str] = "winograd"
    tiles: int
    """Output tiles of a register tile."""
    vectors: int
    rows: int = 1
    """Rows of output tiles transformed together; they share the weights that are read."""
    channels_outer: bool = False
    """Whether the whole image is transformed first, and threads share the output channels."""
    parallel: bool = True
    high: int = 2
    """Rows of an output tile: 2 or 4."""
    wide: int = 2
    """Columns of an output tile: 2 or 4."""


@dataclass(frozen=True)
class DepthwiseTile(Tile):
    """Depthwise convolution, channels in the lanes."""

    template: ClassVar[str] = "depthwise"
    columns: int
    """Output columns whose sums are kept in registers."""
    vectors: int
    """Vectors of channels of a block."""
    rows: int = 4
    """Output rows of a chunk."""
    parallel: bool = True


@dataclass(frozen=True)
class DefaultTile(Tile):
    """The fixed rules of ``schedule``; nothing to choose."""

    template: ClassVar[str] = "default"


@dataclass(frozen=True)
class TraceTile(Tile):
    """Loops as TVM's MetaSchedule arranged them, of a kernel that no template writes."""

    template: ClassVar[str] = "metaschedule"
    trace: str
    """TVM's trace as JSON; it holds for one function and one version of TVM."""


TILES: dict[str, type[Tile]] = {
    kind.template: kind
    for kind in (DirectTile, WinogradTile, DepthwiseTile, DefaultTile, TraceTile)
}
"""Class of each template's tile."""


Tiles = Callable[[str], "Tile | None"]
"""The tile of a kernel by the key of its structure; None for the fixed rules."""


def no_tiles(key: str) -> Tile | None:
    """The fixed rules for every kernel."""
    return None


def tile_text(tile: Tile) -> str:
    """``tile`` as one line of JSON."""
    return json.dumps({"template": tile.template, **asdict(tile)}, sort_keys=True)


def parse_tile(text: str) -> Tile:
    """The tile that ``tile_text`` wrote; raises InputError on anything else."""
    try:
        values: dict[str, Any] = json.loads(text)
        kind = TILES[values.pop("template")]
        known = {field.name for field in fields(kind)}
        if unknown := set(values) - known:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        text_fields = {field.name for field in fields(kind) if field.type == "str"}
        if any(isinstance(v, str) != (k in text_fields) or not isinstance(v, int | str)
               for k, v in values.items()):  # fmt: skip
            raise ValueError("values must be integers or flags, a trace text")
        return kind(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"no tile of a template: {text!r} ({error}); templates are {', '.join(TILES)}"
        ) from error
