# SPDX-License-Identifier: Apache-2.0
"""Tables over options: every unit's combinations of formats, priced on many accelerators.

Metrics that depend on the accelerator: latency (cycles), traffic (bytes), energy (femtojoules).
Metrics of the formats alone: size (bytes), loss (the user's). A chain's price is the lesser of
fused and layer by layer: fusion is chosen for each combination on each accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.cost.bounds import Bounds
from codesign.cost.chain import ChainFormat
from codesign.cost.energy import DEFAULT_ENERGY, EnergyModel
from codesign.cost.fill import Filler, chain_shape
from codesign.cost.tables import INFEASIBLE, By, unpack
from codesign.space.options import Unit
from codesign.space.workload import Chain, Workload

Array: TypeAlias = npt.NDArray[np.int64]
Pricing: TypeAlias = Filler | Bounds

NEVER = 1 << 40
"""Cycles that stand for "does not run"."""


@dataclass(frozen=True, eq=False)
class Priced:
    """Cycles and traffic over options; rows are accelerators, or pairs of cores for bounds."""

    cycles: Array
    """(rows, options); NEVER where an option does not run."""
    traffic: Array
    fixed_cycles: Array
    """(rows,): operators without weights."""
    fixed_traffic: Array

    def rows(self, chosen: slice) -> Priced:
        """The tables of some rows."""
        return Priced(
            self.cycles[chosen], self.traffic[chosen], self.fixed_cycles[chosen],
            self.fixed_traffic[chosen],
        )  # fmt: skip

    @staticmethod
    def join(parts: Sequence[Priced]) -> Priced:
        """Rows of all parts, in order."""
        return Priced(
            np.concatenate([p.cycles for p in parts]),
            np.concatenate([p.traffic for p in parts]),
            np.concatenate([p.fixed_cycles for p in parts]),
            np.concatenate([p.fixed_traffic for p in parts]),
        )


_Seen: TypeAlias = dict[object, tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class OptionTables:
    """The options of a network, ready to be priced."""

    workload: Workload
    formats: Mapping[str, tuple[int, int]]
    """Name to (weight bits, activation bits)."""
    units: tuple[Unit, ...]
    loss: Array | None = None
    """(layers, formats), integers of the user's unit; None when there is no loss."""
    fusion: bool = True
    by: By = "cycles"
    """What tilings are chosen by."""
    energy: EnergyModel = DEFAULT_ENERGY
    measured: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(layer, format) to measured cycles that replace the model's on every accelerator."""

    @cached_property
    def offsets(self) -> Array:
        """Where each unit's options start, and the end of the last."""
        return np.cumsum([0, *(len(unit.options) for unit in self.units)])

    def choice_metric(self, name: str) -> Array:
        """(options,) of "loss" or "size"."""
        position = {fmt: i for i, fmt in enumerate(self.formats)}
        found = []
        for unit in self.units:
            for option in unit.options:
                total = 0
                for place, fmt in unit.chosen(option).items():
                    if name == "size":
                        shape = self.workload.layers[place].shape
                        total += shape.weight_bytes(self.formats[fmt][0])
                    else:
                        assert self.loss is not None
                        total += int(self.loss[place, position[fmt]])
                found.append(total)
        peak = max(map(abs, found), default=0)
        return np.array(found, dtype=np.int64 if peak * len(self.units) < 2**62 else object)

    def price(self, pricing: Pricing) -> Priced:
        """Cycles and traffic (rows, options); NEVER where an option does not run."""
        seen: _Seen = {}
        cycles, traffic = [], []
        for unit in self.units:
            for option in unit.options:
                c, t = self._unit(pricing, unit, option, seen)
                cycles.append(c)
                traffic.append(t)
        fixed = [unpack(pricing.vector(op), self.by) for op in self.workload.vector_ops]
        count = len(cycles[0])
        zero = np.zeros(count, dtype=np.int64)
        return Priced(
            np.stack(cycles, axis=1),
            np.stack(traffic, axis=1),
            sum((c for c, _ in fixed), zero),
            sum((t for _, t in fixed), zero),
        )

    def _unit(
        self, pricing: Pricing, unit: Unit, option: tuple[str, ...],
        seen: _Seen,
    ) -> tuple[Array, Array]:  # fmt: skip
        chosen = unit.chosen(option)
        parts = []
        left = dict(chosen)
        if self.fusion:
            for chain in self.workload.chains:
                if chain.depthwise in chosen:
                    parts.append(self._chain(pricing, chain.layers, chain, chosen, seen))
                    for place in chain.layers:
                        del left[place]
        parts += [self._layer(pricing, place, fmt, seen) for place, fmt in left.items()]
        if not parts:  # a variant without layers
            zero = np.zeros(len(pricing), dtype=np.int64)
            return zero, zero
        cycles, traffic = parts[0]
        for c, t in parts[1:]:
            cycles, traffic = np.minimum(cycles + c, NEVER), traffic + t
        return cycles, traffic

    def _layer(self, pricing: Pricing, place: int, fmt: str, seen: _Seen) -> tuple[Array, Array]:
        layer = self.workload.layers[place]
        measured = self.measured.get((layer.name, fmt))
        key = (layer.shape, fmt, measured)
        if key not in seen:
            found = pricing.layer(layer.shape, self.formats[fmt])
            cycles, traffic = unpack(found, self.by)
            if measured is not None:
                cycles = np.full_like(cycles, measured)
            never = found == INFEASIBLE
            seen[key] = np.where(never, NEVER, cycles), np.where(never, 0, traffic)
        return seen[key]

    def _chain(
        self, pricing: Pricing, layers: Sequence[int], chain: Chain, chosen: Mapping[int, str],
        seen: _Seen,
    ) -> tuple[Array, Array]:  # fmt: skip
        names = tuple(self.workload.layers[p].name for p in layers)
        fixed = tuple(self.measured.get((n, chosen[p])) for n, p in zip(names, layers))
        shape = chain_shape(self.workload, chain)
        key = (shape, tuple(chosen[p] for p in layers), fixed)
        if key in seen:
            return seen[key]
        apart = [self._layer(pricing, p, chosen[p], seen) for p in layers]
        zero = np.zeros(len(apart[0][0]), dtype=np.int64)
        cycles = np.minimum(sum((c for c, _ in apart), zero), NEVER)
        traffic = sum((t for _, t in apart), zero)
        if any(f is not None for f in fixed):
            seen[key] = cycles, traffic  # what was measured was measured layer by layer
            return seen[key]
        formats = self._chain_format(chain, chosen)
        if isinstance(pricing, Filler):
            every = [
                ChainFormat(e, d, p)
                for e in (self.formats.values() if chain.expand is not None else [None])
                for d in self.formats.values()
                for p in (self.formats.values() if chain.project is not None else [None])
            ]
            pricing.prepare_chains(shape, every)
        found = pricing.chain(shape, formats)
        c, t = unpack(found, self.by)
        never = found == INFEASIBLE
        c, t = np.where(never, NEVER, c), np.where(never, 0, t)
        if isinstance(pricing, Bounds):  # each number by itself, so that both are lower bounds
            seen[key] = np.minimum(cycles, c), np.where(never, traffic, np.minimum(traffic, t))
            return seen[key]
        better = (c < cycles) | ((c == cycles) & (t < traffic))
        if self.by == "traffic":
            better = (cycles == NEVER) | ((c < NEVER) & (t <= traffic))
            better &= ~((t == traffic) & (c > cycles))
        seen[key] = np.where(better, c, cycles), np.where(better, t, traffic)
        return seen[key]

    def _chain_format(self, chain: Chain, chosen: Mapping[int, str]) -> ChainFormat:
        def bits(place: int | None) -> tuple[int, int] | None:
            return None if place is None else self.formats[chosen[place]]

        depthwise = self.formats[chosen[chain.depthwise]]
        return ChainFormat(bits(chain.expand), depthwise, bits(chain.project))

    @cached_property
    def mac_energy(self) -> Array:
        """(options,): energy of the multiplications."""
        found = []
        for unit in self.units:
            for option in unit.options:
                found.append(
                    sum(
                        self.workload.layers[p].shape.macs * self.energy.mac(*self.formats[f])
                        for p, f in unit.chosen(option).items()
                    )
                )
        return np.array(found, dtype=np.int64)

    def joint_metric(self, name: str, priced: Priced) -> tuple[Array, Array]:
        """(rows, options) and (rows,) of the part that does not depend on the choice."""
        if name == "latency":
            return priced.cycles, priced.fixed_cycles
        if name == "traffic":
            return priced.traffic, priced.fixed_traffic
        moved = self.energy.moved(priced.traffic, priced.cycles) + self.mac_energy
        return moved, self.energy.moved(priced.fixed_traffic, priced.fixed_cycles)
