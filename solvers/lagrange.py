# SPDX-License-Identifier: Apache-2.0
"""Lagrangian lower bounds of the multiple-choice knapsack, safe under floating point.

For multipliers u ≥ 0, every feasible choice costs at least

    L(u) = Σ_g min_{j in g} (cost[j] + Σ_k u[k] w[k][j]) - Σ_k u[k] W[k]

(relaxing Σ w[k] ≤ W[k]); its maximum over u is the linear-programming bound. u is any float, L is
evaluated in doubles, and a bound on the rounding error is taken off, so what is returned is a
true lower bound although the data are integers of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from codesign.solvers.problem import IntArray
from codesign.solvers.reduce import Index

FloatArray = npt.NDArray[np.float64]

_EPS = 2.0**-52
_SWEEPS = 4
_STEPS = 40


def rounding(size: float, terms: int) -> float:
    """A bound on the error of summing ``terms`` values of total magnitude ``size``, each known
    to a relative error of a few units in the last place."""
    return size * _EPS * (terms + 16)


@dataclass(frozen=True, eq=False)
class Relaxation:
    """One knapsack in doubles."""

    starts: Index
    sizes: Index
    cost: FloatArray
    weights: FloatArray
    """(rows, columns)."""
    bounds: FloatArray

    @staticmethod
    def of(
        offsets: Index, cost: IntArray, weights: Sequence[IntArray], bounds: Sequence[int]
    ) -> Relaxation:
        """Raises OverflowError when a number is beyond doubles."""
        table = np.empty((len(weights), len(cost)))
        for row, values in enumerate(weights):
            table[row] = values.astype(np.float64)
        relaxation = Relaxation(
            offsets[:-1],
            np.diff(offsets),
            cost.astype(np.float64),
            table,
            np.array([float(bound) for bound in bounds]),
        )
        peak = np.abs(relaxation.cost).max() + np.abs(table).sum() + np.abs(relaxation.bounds).sum()
        if not np.isfinite(peak) or peak > 1e150:
            raise OverflowError("numbers beyond the range of doubles")
        return relaxation

    def reduced(self, u: FloatArray) -> FloatArray:
        """cost + Σ u[k] w[k], per column."""
        if not len(u):
            return self.cost
        combined: FloatArray = self.cost + u @ self.weights
        return combined

    def value(self, u: FloatArray) -> tuple[float, FloatArray]:
        """L(u) without the safety margin, and a supergradient (Σ w - W at the minimum)."""
        reduced = self.reduced(u)
        least = np.minimum.reduceat(reduced, self.starts)
        places = np.flatnonzero(reduced == np.repeat(least, self.sizes))
        first = places[np.searchsorted(places, self.starts)]
        slope = self.weights[:, first].sum(axis=1) - self.bounds
        return float(least.sum() - u @ self.bounds), slope

    def margin(self, u: FloatArray) -> float:
        """A bound on the rounding error of L(u) and of any sum of reduced costs."""
        size = np.abs(self.cost) + u @ np.abs(self.weights)
        total = float(np.maximum.reduceat(size, self.starts).sum() + u @ np.abs(self.bounds))
        return rounding(total, len(self.starts) + 2 * len(u))

    def margin_at_zero(self) -> float:
        """The rounding error of the bound without multipliers."""
        return self.margin(np.zeros(len(self.bounds)))

    def best(self, start: FloatArray | None = None, stop: float = np.inf) -> FloatArray:
        """Multipliers that (nearly) maximise L, from ``start``; stops once L exceeds ``stop``.

        For one row this is the exact maximum of a concave piecewise linear function; for more,
        line searches along each row and the supergradient in turn.
        """
        rows = len(self.bounds)
        u = np.zeros(rows) if start is None else start.copy()
        if rows == 0:
            return u
        height, slope = self.value(u)
        for _ in range(1 if rows == 1 else _SWEEPS):
            before = height
            for row in range(rows):
                direction = np.zeros(rows)
                direction[row] = 1.0
                u, height, slope = self._climb(u, height, slope, direction, stop)
            if rows > 1 and height <= stop:
                scale = np.abs(self.weights).max(axis=1)
                free = (u > 0) | (slope > 0)
                direction = np.where(free, slope / np.maximum(scale, 1.0) ** 2, 0.0)
                u, height, slope = self._climb(u, height, slope, direction, stop)
            if height > stop or height - before <= 1e-7 * max(1.0, abs(height)):
                break
        return u

    def _climb(
        self, u: FloatArray, height: float, slope: FloatArray, direction: FloatArray, stop: float
    ) -> tuple[FloatArray, float, FloatArray]:
        """The best point on the ray (or line, within u ≥ 0) through u."""
        rise = float(slope @ direction)
        if rise < 0:
            direction, rise = -direction, -rise
        if rise <= 0:
            return u, height, slope
        falling = direction < 0
        most = float(np.min(u[falling] / -direction[falling])) if falling.any() else np.inf
        if most <= 0:
            return u, height, slope
        best = (u, height, slope)
        left = (0.0, height, rise)
        weight = float(np.abs(self.weights).max(axis=1) @ np.abs(direction))
        step = min(most, float(np.ptp(self.cost) + 1.0) / max(weight, 1e-300))
        right: tuple[float, float, float] | None = None
        for _ in range(_STEPS):
            if right is None:
                t = step
                step = min(most, step * 8)
            else:
                t = (right[1] - left[1] + left[2] * left[0] - right[2] * right[0]) / (
                    left[2] - right[2]
                )
                if not left[0] < t < right[0]:
                    break
            point = np.maximum(u + t * direction, 0.0)
            value, gradient = self.value(point)
            if value > best[1]:
                best = (point, value, gradient)
            rise = float(gradient @ direction)
            if value > stop or rise == 0:
                break
            if right is not None:
                promised = left[1] + left[2] * (t - left[0])
                if promised - value <= 1e-12 * max(1.0, abs(value)):
                    break
            if rise > 0:
                left = (t, value, rise)
                if t >= most:
                    break
            else:
                right = (t, value, rise)
        return best


def bounds_of_all(
    offsets: Index,
    cost: FloatArray,
    weights: Sequence[FloatArray],
    limits: FloatArray,
    u: FloatArray,
    rows: Index,
    chunk: int = 1024,
) -> FloatArray:
    """Safe L(u) for many architectures at once: those at ``rows`` of the (architectures,
    columns) tables; a table with one dimension is shared by all. An infinite cost marks a column
    that may not be picked."""
    result = np.empty(len(rows))
    groups = len(offsets) - 1
    shared = np.zeros(len(cost) if cost.ndim == 1 else cost.shape[1])
    if cost.ndim == 1:
        shared = shared + cost
    for value, table in zip(u, weights):
        if table.ndim == 1 and value:
            shared = shared + value * table
    varying = [(1.0, cost)] if cost.ndim == 2 else []
    varying += [(float(v), table) for v, table in zip(u, weights) if table.ndim == 2 and v]
    lift = float(u @ limits) if len(u) else 0.0
    pull = float(np.abs(u) @ np.abs(limits)) if len(u) else 0.0
    # magnitudes for the margin: L ≤ Σ max |reduced|, and terms may cancel by at most this much
    size = np.abs(cost) if cost.ndim == 1 else np.zeros(len(shared))
    for value, table in zip(u, weights):
        if table.ndim == 1:
            size = size + value * np.abs(table)
    for at in range(0, len(rows), chunk):
        part = rows[at : at + chunk]
        reduced = np.repeat(shared[:, None], len(part), axis=1)
        peak = np.repeat(size[:, None], len(part), axis=1)
        for value, table in varying:
            piece = value * table[part].T
            reduced += piece
            np.abs(piece, out=piece)
            piece[piece == np.inf] = 0.0
            peak += piece
        total = np.zeros(len(part))
        height = np.zeros(len(part))
        for start, end in pairwise(offsets):
            total += reduced[start:end].min(axis=0)
            height += peak[start:end].max(axis=0)
        margin = rounding(1.0, groups + 2 * len(u)) * (height + pull)
        result[at : at + chunk] = total - lift - margin
    return result
