# SPDX-License-Identifier: Apache-2.0
"""Simulated annealing, as SAMO searches mappings (Montgomerie-Corcoran et al., 2022)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from codesign.solvers.baselines.base import Baseline, Recorder
from codesign.solvers.baselines.space import Space


@dataclass
class Annealing(Baseline):
    """One choice, changed in one group (or its architecture) at a time; worse ones are taken with
    probability exp(-worse / temperature). Limits are penalties. Restarts grow in length."""

    name = "annealing"
    summary = "simulated annealing over single changes, growing restarts (as SAMO)"
    moves: int = 250
    """Of the first run; each next one has twice as many."""
    hot: float = 0.3
    """First temperature, in spreads of the cost of a single change."""
    cold: float = 1e-4
    change_architecture: float = 0.1
    """Share of moves."""

    def search(self, space: Space, record: Recorder, rng: np.random.Generator) -> None:
        length = self.moves
        while not record.stop:
            _Walk(space, record, random.Random(int(rng.integers(1 << 60))), self, rng).run(length)
            length *= 2


class _Walk:
    """One cooling. Tables of the current architecture are plain lists, faster one by one."""

    def __init__(
        self, space: Space, record: Recorder, draw: random.Random, setting: Annealing,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.space, self.record, self.draw, self.setting = space, record, draw, setting
        archs, columns = space.sample(rng, 2)
        self.arch = int(archs[0])
        self.chosen = [int(c) for c in columns[0]]
        self.touching: list[list[int]] = [[] for _ in range(space.columns)]
        for place, (_, clause) in enumerate(space.clauses):
            for column in clause:
                self.touching[int(column)].append(place)
        self.clauses = [(arch, [int(c) for c in clause]) for arch, clause in space.clauses]
        self.bounds: list[float] = space.bounds.tolist()
        self.scales: list[float] = space.scales.tolist()
        self._enter(self.arch)
        costs = space.row(space.cost, self.arch)
        high = np.maximum.reduceat(costs, space.starts)
        low = np.minimum.reduceat(costs, space.starts)
        self.unit = float((high - low).mean()) or 1.0
        self.penalty = 20.0 * float((high - low).sum() or self.unit)
        self.low: float | None = None

    def _enter(self, arch: int) -> None:
        space = self.space
        self.arch = arch
        self.cost = space.row(space.cost, arch).tolist()
        self.weights = [space.row(w, arch).tolist() for w in space.weights]
        self.allowed = space.mask(arch).tolist()
        self.total = sum(self.cost[c] for c in self.chosen) + float(space.base[arch])
        self.sums = [sum(w[c] for c in self.chosen) for w in self.weights]
        self.bad = sum(not self.allowed[c] for c in self.chosen)
        self.bad += sum(map(self._hit, range(len(self.clauses))))

    def _hit(self, place: int) -> bool:
        arch, clause = self.clauses[place]
        group_of = self.space.group_of
        return (arch < 0 or arch == self.arch) and all(
            self.chosen[group_of[c]] == c for c in clause
        )

    def _violation(self, sums: list[float], bad: int) -> float:
        found = float(bad)
        for total, bound, scale in zip(sums, self.bounds, self.scales):
            if total > bound:
                found += (total - bound) / scale
        return found

    def run(self, length: int) -> None:
        setting, draw, record, space = self.setting, self.draw, self.record, self.space
        hot, cold = setting.hot * self.unit, setting.cold * self.unit
        energy = self.total + self.penalty * self._violation(self.sums, self.bad)
        self._offer()
        for move in range(length):
            if move % 64 == 0:
                if record.stop:
                    return
                temperature = hot * (cold / hot) ** (move / length)
            record.evaluations += 1
            if space.archs > 1 and draw.random() < setting.change_architecture:
                before = self.arch
                self._enter(space.draw(draw))
                found = self.total + self.penalty * self._violation(self.sums, self.bad)
                if self._takes(found - energy, temperature):
                    energy = found
                    self._offer()
                else:
                    self._enter(before)
                continue
            group = draw.randrange(space.groups)
            size = int(space.sizes[group])
            old = self.chosen[group]
            new = int(space.starts[group]) + draw.randrange(size)
            if new == old:
                continue
            total = self.total + self.cost[new] - self.cost[old]
            sums = [s + w[new] - w[old] for s, w in zip(self.sums, self.weights)]
            bad = self.bad + self.allowed[old] - self.allowed[new]
            touched = {*self.touching[old], *self.touching[new]}
            bad -= sum(map(self._hit, touched))
            self.chosen[group] = new
            bad += sum(map(self._hit, touched))
            found = total + self.penalty * self._violation(sums, bad)
            if self._takes(found - energy, temperature):
                energy, self.total, self.sums, self.bad = found, total, sums, bad
                self._offer()
            else:
                self.chosen[group] = old

    def _takes(self, worse: float, temperature: float) -> bool:
        return worse <= 0 or self.draw.random() < math.exp(-worse / temperature)

    def _offer(self) -> None:
        if self.low is not None and self.total >= self.low:
            return
        if self._violation(self.sums, self.bad) <= 1e-9 and self.record.offer(
            self.arch, np.array(self.chosen)
        ):
            self.low = self.total
