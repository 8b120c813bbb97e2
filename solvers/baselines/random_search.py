# SPDX-License-Identifier: Apache-2.0
"""Random search: what every other search has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.solvers.baselines.base import Baseline, Recorder
from codesign.solvers.baselines.space import Space


@dataclass
class RandomSearch(Baseline):
    """Independent samples, half of them leaning to options that keep the limits."""

    name = "random"
    takes_measure = True
    summary = "random samples, half of them leaning to the limits"
    batch: int = 256

    def search(self, space: Space, record: Recorder, rng: np.random.Generator) -> None:
        while not record.stop:
            record.price(*space.sample(rng, min(self.batch, record.room)))
