# SPDX-License-Identifier: Apache-2.0
"""The stages of a kernel's anchor, as the schedule sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tvm import te, tirx

from codesign.targets.tvm_lower.kernel import Expr, Index, Reader, const


@dataclass(frozen=True)
class Direct:
    """A result stored in the order in which it is computed, so that stages can be fused."""

    shape: tuple[int, ...]
    """The result's axes in memory, split as the anchor computes them."""
    sums: Callable[[Index], Expr]
    """The anchor's sum at a position of ``shape``."""
    index: Callable[[Index], Index]
    """The logical index at a position of ``shape``."""
    groups_first: bool = False
    """Of a product: (n, h, group, w, block, lane) instead of (n, h, w, group, block, lane)."""


@dataclass(frozen=True)
class Anchor:
    """What a kernel is built around. Its main stage, if it has one, is called ``total``."""

    read: Reader
    """The node's result at a logical index."""
    kind: Literal["blocked", "window", "plain"]
    """Which schedule: product with channel blocks, sliding window, or one stage at a time."""
    work: int
    """Elementary steps (multiply-accumulates, comparisons), to decide on threads."""
    finish: Callable[[Expr, Index], Expr] | None = None
    """What turns a sum into the result: bias, residual, activation, division."""
    direct: Direct | None = None
    lanes: int = 1
    vnni: bool = False


@dataclass(frozen=True)
class Frame:
    """An image with borders."""

    n: int
    height: int
    width: int
    channels: int
    padding: tuple[int, int, int, int]
    """Top, left, bottom, right."""


def padded(
    frame: Frame, dtype: str, read: Callable[[Expr, Expr, Expr, Expr], Expr], fill: float = 0
) -> Callable[[Expr, Expr, Expr, Expr], Expr]:
    """A stage ``pad`` that holds the image [n, h, w, c] with its borders filled; its reader."""
    top, left, bottom, right = frame.padding

    def value(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        inside = []
        if top:
            inside.append(h >= top)
        if bottom:
            inside.append(h < frame.height + top)
        if left:
            inside.append(w >= left)
        if right:
            inside.append(w < frame.width + left)
        found = read(n, h - top, w - left, c)
        return tirx.if_then_else(tirx.all(*inside), found, const(fill, dtype)) if inside else found

    shape = (frame.n, frame.height + top + bottom, frame.width + left + right, frame.channels)
    stage = te.compute(shape, value, name="pad")
    return lambda n, h, w, c: stage(n, h, w, c)
