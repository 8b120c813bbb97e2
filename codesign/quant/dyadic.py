# SPDX-License-Identifier: Apache-2.0
"""Dyadic rescaling: a factor M as m / 2^e with a 16-bit m (DESIGN, section 3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]

MAX_SHIFT = 62


def dyadic(factor: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """m and e (int32, the shape of ``factor``) with factor ≈ m / 2^e to 2^-17 relative.

    2^15 ≤ m < 2^16 and 1 ≤ e ≤ 62, or m = 0 and e = 1 for factors below 2^-47 that no
    32-bit accumulator can lift to one half. Raises ValueError for a factor that is not
    finite, negative, or 2^15 or more (no shift would be left to round by).

    >>> [int(v) for v in dyadic(1.0)]
    [32768, 15]
    """
    values = np.asarray(factor, dtype=np.float64)
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise ValueError("rescaling factor must be finite and not negative")
    fraction, exponent = np.frexp(values)
    m = np.floor(fraction * 65536 + 0.5).astype(np.int64)
    exponent = exponent.astype(np.int64)
    full = m == 65536
    m = np.where(full, 32768, m)
    e = 16 - np.where(full, exponent + 1, exponent)
    none = (m == 0) | (e > MAX_SHIFT)
    m, e = np.where(none, 0, m), np.where(none, 1, e)
    if np.any(e < 1):
        raise ValueError(f"rescaling factor {float(values.max()):g} is 32768 or more")
    return m.astype(np.int32), e.astype(np.int32)


def requantize(
    acc: npt.NDArray[np.int64], m: npt.ArrayLike, e: npt.ArrayLike, lo: int, hi: int
) -> npt.NDArray[np.int64]:
    """clip((acc·m + 2^(e−1)) >> e, lo, hi) in 64 bits; m and e broadcast against acc."""
    shift = np.asarray(e, dtype=np.int64)
    product = np.asarray(acc, dtype=np.int64) * np.asarray(m, dtype=np.int64)
    rounded = (product + (np.int64(1) << (shift - 1))) >> shift
    return np.asarray(np.clip(rounded, lo, hi), dtype=np.int64)


def round_half_up(values: npt.ArrayLike) -> FloatArray:
    """floor(x + 1/2) in float64: the one rounding of the whole project."""
    return np.floor(np.asarray(values, dtype=np.float64) + 0.5)
