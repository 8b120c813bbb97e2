# SPDX-License-Identifier: Apache-2.0
"""NSGA-II on a light predictor, measured where it promises most (DyNAS-T, SimQ-NAS).

For metrics that are not additive and take long to measure, such as the accuracy of an integer
network: a ridge regression over one-hot options is fitted to what was measured, NSGA-II searches on
it, and the best unmeasured choices are measured next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from codesign.solvers.baselines.base import Baseline, Recorder
from codesign.solvers.baselines.nsga2 import evolve, import_pymoo
from codesign.solvers.baselines.space import Floats, Ints, Space


@dataclass
class Predicted(Baseline):
    """Rounds of: fit, search on the fit, measure the best."""

    name = "nsga2-predicted"
    summary = "NSGA-II on a ridge predictor, best ones measured (as DyNAS-T, SimQ-NAS)"
    modules: ClassVar[tuple[str, ...]] = ("pymoo", "sklearn")
    takes_measure = True
    start: int = 32
    """Choices measured before the first fit."""
    each: int = 16
    """Choices measured a round."""
    population: int = 40
    generations: int = 8

    def prepare(self) -> None:
        import_pymoo()
        import sklearn.linear_model  # noqa: F401

    def search(self, space: Space, record: Recorder, rng: np.random.Generator) -> None:
        known = _Known(space, record)
        while not record.stop and len(known.values) < self.start:
            archs, columns = space.sample(rng, 64)
            _, violation = space.price(archs, columns)
            # the nearest to the limits if none keeps them: the fit needs something to start from
            order = np.argsort(violation, kind="stable")
            if not known.add(archs[order], columns[order], self.start // 2):
                break
        while not record.stop and known.values:
            archs, columns = self._promising(space, record, known, rng)
            if not known.add(archs, columns, self.each):
                more = space.sample(rng, 64)
                if not known.add(*more, self.each):
                    return

    def _promising(
        self, space: Space, record: Recorder, known: _Known, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """The last generation on a fit to what is known, best first."""
        model = known.fit()
        generation = 0

        def predicted(archs: Ints, columns: Ints) -> tuple[Floats, Floats]:
            return model(archs, columns), space.price(archs, columns)[1]

        def enough() -> bool:
            nonlocal generation
            generation += 1
            return generation > self.generations or record.deadline.passed

        archs, columns = evolve(space, predicted, rng, self.population, enough)
        guess, violation = predicted(archs, columns)
        order = np.lexsort((guess, np.where(violation <= 1e-9, 0.0, violation)))
        return archs[order], columns[order]


class _Known:
    """What was measured: one-hot rows and values."""

    def __init__(self, space: Space, record: Recorder) -> None:
        self.space, self.record = space, record
        self.scale = max(map(abs, space.span())) or 1.0
        self.seen: set[tuple[int, ...]] = set()
        self.rows: list[Floats] = []
        self.values: list[float] = []

    def add(self, archs: Ints, columns: Ints, count: int) -> int:
        """Measure the first ``count`` that are new; how many there were."""
        added = 0
        for arch, line in zip(archs, columns):
            key = (int(arch), *map(int, line))
            if key in self.seen:
                continue
            if added == count or self.record.stop:
                break
            self.seen.add(key)
            added += 1
            self.rows.append(self.hot(np.array([arch]), line[None])[0])
            self.values.append(self._value(int(arch), line))
        return added

    def _value(self, arch: int, line: Ints) -> float:
        """Measured where a measure was given (feasible choices only), else the objective."""
        record, space = self.record, self.space
        record.evaluations += 1
        feasible = record.offer(arch, line)
        if record.measure is not None and feasible:
            return record.last
        cost, _ = space.price(np.array([arch]), line[None])
        if record.measure is None:
            return float(cost[0])
        # an infeasible choice is not worth a measurement: as bad as the worst that is known
        return max((v for v in self.values), default=0.0)

    def hot(self, archs: Ints, columns: Ints) -> Floats:
        """One-hot options, and the sum of costs of the architecture where there are several."""
        found = np.zeros((len(archs), self.space.columns + 1))
        found[np.arange(len(archs))[:, None], columns] = 1.0
        if self.space.archs > 1:
            cost, _ = self.space.price(archs, columns)
            found[:, -1] = cost / self.scale
        return found

    def fit(self) -> Callable[[Ints, Ints], Floats]:
        """(architectures, columns) to predicted value."""
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=1e-3).fit(np.stack(self.rows), np.array(self.values))

        def predict(archs: Ints, columns: Ints) -> Floats:
            found: Floats = model.predict(self.hot(archs, columns))
            return found

        return predict
