# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's 1,797 handwritten digits of 8x8 pixels (UCI, Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DigitsSplit:
    """Images (N, 1, 8, 8) float32 in 0..1 and labels (N,) int64, disjoint between parts."""

    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    calib_x: NDArray[np.float32]
    calib_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


def digits(seed: int = 0, calib: int = 128, test: int = 450) -> DigitsSplit:
    """A deterministic split: ``test`` and ``calib`` images held out, the rest for training.

    >>> [part.shape[0] for part in (digits().train_x, digits().calib_x, digits().test_x)]
    [1219, 128, 450]
    """
    from sklearn.datasets import load_digits  # takes a second: only where it is needed

    bunch = load_digits()
    x = (np.asarray(bunch.images, np.float32) / np.float32(16.0))[:, None]
    y = np.asarray(bunch.target, np.int64)
    if not 0 < calib + test < len(y):
        raise ValueError(f"calib + test = {calib + test} leaves nothing of {len(y)} images")
    order = np.random.default_rng(seed).permutation(len(y))
    held, middle, rest = order[:test], order[test : test + calib], order[test + calib :]
    return DigitsSplit(x[rest], y[rest], x[middle], y[middle], x[held], y[held])
