# SPDX-License-Identifier: Apache-2.0
"""Data sets: CIFAR-10 from the project's data folder, and scikit-learn's bundled digits."""

from __future__ import annotations

from codesign.data.cifar import CLASSES as CIFAR10_CLASSES
from codesign.data.cifar import cifar10
from codesign.data.digits import DigitsSplit, digits
from codesign.data.root import cache_dir, data_root

__all__ = ["CIFAR10_CLASSES", "DigitsSplit", "cache_dir", "cifar10", "data_root", "digits"]
