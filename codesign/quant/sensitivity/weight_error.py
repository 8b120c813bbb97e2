# SPDX-License-Identifier: Apache-2.0
"""Sensitivity without data: the relative error that a format makes."""

from __future__ import annotations

import numpy as np

from codesign.ir.graph import Array
from codesign.quant.weights import rounded_weights


def weight_error(weight: Array, bits: int) -> float:
    """‖Q(w) − w‖²."""
    difference = rounded_weights(weight, bits).astype(np.float64) - weight
    return float(np.square(difference).sum())


def relative_weight_error(weight: Array, bits: int) -> float:
    """‖Q(w) − w‖² / ‖w‖²; 0 for weights of zero."""
    power = float(np.square(weight.astype(np.float64)).sum())
    return weight_error(weight, bits) / power if power > 0 else 0.0


def relative_activation_error(bits: int) -> float:
    """Expected relative squared error of a uniform quantizer on unseen activations.

    Half-normal values with the range set to four standard deviations σ: the step is 4σ/2^b, the
    error step²/12, the power σ². A stand-in so that fewer bits are never free.
    """
    return (4.0 / (1 << bits)) ** 2 / 12
