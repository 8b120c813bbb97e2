# SPDX-License-Identifier: Apache-2.0
"""The transforms of Winograd's F(2, 3) and F(4, 3) in one direction, in integers.

F(2, 3) interpolates at 0, 1, -1 and infinity, F(4, 3) at 2 and -2, too. The matrices say what the
functions compute; the tests hold them to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tvm import tirx

from codesign.targets.tvm_lower.kernel import Expr, const, type_of


@dataclass(frozen=True)
class Steps:
    """The transforms for ``results`` neighbouring results, in one direction."""

    results: int
    inputs: npt.NDArray[np.int64]
    """Bᵀ, [points, points]."""
    weights: npt.NDArray[np.int64]
    """G with its rows scaled to integers, [points, 3]."""
    input: Callable[[list[Expr]], list[Expr]]
    """Bᵀ applied to vectors of inputs."""
    output: Callable[[list[Expr]], list[Expr]]
    """Aᵀ applied to vectors of products (unsigned); result r comes out ``scales[r]`` times."""
    scales: tuple[int, ...]
    """Multiples in which the results come out: powers of two times ``odd``."""
    odd: int
    """The odd factor of all of them."""

    @property
    def points(self) -> int:
        """Inputs, and products, of a tile in this direction."""
        return self.results + 2

    @property
    def shift(self) -> int:
        """The greatest power of two in the scales."""
        return max(shift_of(scale) for scale in self.scales)

    def even(self, m: list[Expr]) -> list[Expr]:
        """As ``output``, every result in the same multiple, the greatest."""
        return [
            times(value, max(self.scales) // scale)
            for value, scale in zip(self.output(m), self.scales, strict=True)
        ]


def shift_of(scale: int) -> int:
    """How often two divides ``scale``."""
    return (scale & -scale).bit_length() - 1


def times(value: Expr, power: int) -> Expr:
    """A vector times a power of two."""
    if power == 1:
        return value
    kind, lanes = type_of(value).rsplit("x", 1)
    return value << tirx.Broadcast(const(shift_of(power), kind), int(lanes))


def _input2(d: list[Expr]) -> list[Expr]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output2(m: list[Expr]) -> list[Expr]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _input4(d: list[Expr]) -> list[Expr]:
    even, odd = d[4] - times(d[2], 4), d[3] - times(d[1], 4)
    outer, twice = d[4] - d[2], times(d[3] - d[1], 2)
    return [
        times(d[0] - d[2], 4) + outer, even + odd, even - odd, outer + twice, outer - twice,
        d[5] - d[3] - times(twice, 2),
    ]  # fmt: skip


def _output4(m: list[Expr]) -> list[Expr]:
    near, near_odd, far, far_odd = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [
        m[0] - times(near, 4) + far, far_odd - times(near_odd, 2), far - near,
        times(far_odd, 2) - near_odd + m[5],
    ]  # fmt: skip


STEPS = {
    2: Steps(
        2, np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
        np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]), _input2, _output2, (2, 2), 1,
    ),
    4: Steps(
        4,
        np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                  [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]),
        np.array([[6, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 6]]),
        _input4, _output4, (24, 12, 6, 6), 3,
    ),
}  # fmt: skip
"""By results a tile."""
