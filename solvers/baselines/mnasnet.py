# SPDX-License-Identifier: Apache-2.0
"""MnasNet's reward, quality × (total / limit)^w (Tan et al., 2019), climbed by regularised
evolution (Real et al., 2019) in place of its reinforcement learner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.solvers.baselines.base import Baseline, Recorder
from codesign.solvers.baselines.space import Floats, Ints, Space


@dataclass
class MnasNet(Baseline):
    """Aging population, tournaments, one or two changes a child. The paper's w of -0.07 is soft;
    it grows while too few children keep the limits."""

    name = "mnasnet"
    takes_measure = True
    summary = "MnasNet's reward quality x (total/limit)^w by aging evolution"
    population: int = 128
    tournament: int = 16
    batch: int = 32
    w: float = -0.07

    def search(self, space: Space, record: Recorder, rng: np.random.Generator) -> None:
        low, high = (0.0, 0.0) if record.measure is not None else space.span()

        def reward(archs: Ints, columns: Ints, w: float) -> tuple[Floats, Floats]:
            nonlocal low, high
            cost, violation = record.price(archs, columns)
            if record.measure is not None:  # its span shows only while it is measured
                low, high = min(low, float(cost.min())), max(high, float(cost.max()))
            quality = 1e-6 + np.maximum(high - cost, 0.0) / max(high - low, 1e-12)
            ratios = 1.0 + space.ratios(archs, columns)
            rest = np.maximum(violation - (ratios - 1.0).sum(axis=1), 0.0)
            return np.log(quality) + w * 10 * (np.log(ratios).sum(axis=1) + rest), violation

        while not record.stop:
            w = self.w
            archs, columns = space.sample(rng, min(self.population, record.room))
            score, violation = reward(archs, columns, w)
            quiet, best = 0, -np.inf
            oldest = 0
            while not record.stop and quiet < 400:
                count = min(self.batch, record.room, len(archs))
                fights = rng.integers(len(archs), size=(count, self.tournament))
                parents = fights[np.arange(count), np.argmax(score[fights], axis=1)]
                child_archs, children = archs[parents].copy(), columns[parents].copy()
                self._mutate(space, rng, child_archs, children)
                gained, broke = reward(child_archs, children, w)
                places = (oldest + np.arange(count)) % len(archs)
                oldest = int((oldest + count) % len(archs))
                archs[places], columns[places], score[places] = child_archs, children, gained
                violation[places] = broke
                quiet = 0 if gained.max() > best else quiet + 1
                best = max(best, float(gained.max()))
                if (violation <= 1e-9).mean() < 0.1 and w > -1e6:
                    w *= 1.5
                    score = score * 0 + reward(archs, columns, w)[0]
                    best = -np.inf

    def _mutate(self, space: Space, rng: np.random.Generator, archs: Ints, columns: Ints) -> None:
        """One or two groups, and sometimes the architecture, drawn anew."""
        count = len(archs)
        for _ in range(2):
            group = rng.integers(space.groups, size=count)
            change = rng.random(count) < (1.0 if _ == 0 else 0.5)
            fresh = space.starts[group] + (rng.random(count) * space.sizes[group]).astype(np.int64)
            rows = np.flatnonzero(change)
            columns[rows, group[rows]] = fresh[rows]
        if space.archs > 1:
            other = rng.random(count) < 0.15
            archs[other] = space.draw_archs(rng, int(other.sum()))
