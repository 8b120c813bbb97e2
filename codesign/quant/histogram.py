# SPDX-License-Identifier: Apache-2.0
"""Streaming histogram of a tensor and the choice of a scale from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.quant.dyadic import FloatArray

Method = Literal["minmax", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)

BINS = 4096
"""On each side of zero; the range doubles when a value lies outside, so that at least half of
the bins are in use."""
PERCENTILE = 99.99
_CANDIDATES = np.linspace(0.05, 1.0, 96)
"""Clipping ranges that are tried, as shares of the greatest magnitude."""


class Histogram:
    """Counts over [−reach, reach); the reach doubles exactly (bins merge in pairs)."""

    def __init__(self) -> None:
        self.reach = 0.0
        self.counts = np.zeros(2 * BINS, np.int64)
        self.least = np.inf
        self.most = -np.inf

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count all elements of ``values`` (finite)."""
        least, most = float(values.min()), float(values.max())
        if not (np.isfinite(least) and np.isfinite(most)):
            self.least, self.most = -np.inf, np.inf
            return
        self.least, self.most = min(self.least, least), max(self.most, most)
        size = max(-least, most)
        if size > 0 and self.reach == 0:
            self._widen_from_zero(size)
        while size >= self.reach > 0:
            self._double()
        if self.reach == 0:
            self.counts[BINS] += values.size
            return
        factor = np.float32(BINS / self.reach)
        index = np.floor(values.ravel() * factor).astype(np.int32) + np.int32(BINS)
        np.clip(index, 0, 2 * BINS - 1, out=index)
        self.counts += np.bincount(index, minlength=2 * BINS)

    def _widen_from_zero(self, size: float) -> None:
        # A power of two keeps bin edges exact under doubling. Zeros seen before are in bin BINS.
        self.reach = float(2.0 ** np.ceil(np.log2(size)))

    def _double(self) -> None:
        self.reach *= 2
        merged = self.counts.reshape(BINS, 2).sum(axis=1)
        self.counts = np.zeros(2 * BINS, np.int64)
        self.counts[BINS // 2 : BINS // 2 + BINS] = merged

    def freeze(self) -> ValueStats:
        """What was seen, as a value."""
        counts = self.counts.copy()
        counts.setflags(write=False)
        return ValueStats(self.least, self.most, self.reach, counts)


@dataclass(frozen=True, eq=False)
class ValueStats:
    """Least and greatest value of a tensor, and its histogram over [−reach, reach)."""

    least: float
    most: float
    reach: float
    counts: npt.NDArray[np.int64]

    def scale(self, bits: int, signed: bool, method: Method = "mse") -> float:
        """Step of a ``bits``-bit quantizer with zero point 0, exact in float32, above 0."""
        if method not in METHODS:
            raise InputError(f"unknown calibration method {method!r} (known: {', '.join(METHODS)})")
        lo, hi = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        full = max(self.most / hi, self.least / lo if signed else 0.0)
        if not full > 0:
            return 1.0
        if method == "percentile":
            full = min(full, self._magnitude(PERCENTILE) / hi)
        elif method == "mse":
            full = self._search(full, lo, hi, self._square_errors)
        elif method == "entropy":
            full = self._search(full, lo, hi, self._divergences)
        return float(np.maximum(np.float32(full), np.finfo(np.float32).tiny))

    @property
    def _centres(self) -> FloatArray:
        places = np.arange(-BINS, BINS, dtype=np.float64) + 0.5
        return np.asarray(places * (self.reach / BINS), dtype=np.float64)

    def _magnitude(self, percent: float) -> float:
        """Least bin edge with ``percent`` of the magnitudes at or below it."""
        sides = self.counts[BINS:] + self.counts[:BINS][::-1]
        index = int(np.searchsorted(np.cumsum(sides), sides.sum() * percent / 100))
        return min((index + 1) * self.reach / BINS, max(self.most, -self.least))

    def _search(self, full: float, lo: int, hi: int, measure: object) -> float:
        assert callable(measure)
        used = np.flatnonzero(self.counts)
        centres, counts = self._centres[used], self.counts[used].astype(np.float64)
        scales = full * _CANDIDATES
        errors = [measure(centres, counts, scale, lo, hi) for scale in scales]
        return float(scales[len(scales) - 1 - int(np.argmin(errors[::-1]))])

    @staticmethod
    def _square_errors(
        centres: FloatArray, counts: FloatArray, scale: float, lo: int, hi: int
    ) -> float:
        q = np.clip(np.floor(centres / scale + 0.5), lo, hi)
        return float(np.dot(counts, (centres - q * scale) ** 2))

    @staticmethod
    def _divergences(
        centres: FloatArray, counts: FloatArray, scale: float, lo: int, hi: int
    ) -> float:
        """Kullback-Leibler divergence of the clipped histogram from its quantized form
        (Migacz, "8-bit inference with TensorRT", 2017)."""
        level = np.floor(centres / scale + 0.5)
        inside = (level >= lo) & (level <= hi)
        if not inside.any():
            return np.inf
        level = (level[inside] - lo).astype(np.int64)
        kept = counts[inside]
        total = np.bincount(level, kept)
        spread = (total / np.maximum(np.bincount(level), 1))[level]
        clipped = kept.copy()
        clipped[0] += counts[: int(np.argmax(inside))].sum()
        last = len(counts) - int(np.argmax(inside[::-1]))
        clipped[-1] += counts[last:].sum()
        p, q = clipped / clipped.sum(), spread / spread.sum()
        return float(np.sum(p * np.log(p / q)))
