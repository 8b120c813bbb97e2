# SPDX-License-Identifier: Apache-2.0
"""Tables over options: every unit's combinations of formats, priced on many accelerators.

Metrics that depend on the accelerator: latency (cycles), traffic (bytes), energy (femtojoules), and
for images in a stream the cycles in which each engine and the memory are taken. Metrics of the
formats alone: size (bytes), loss (the user's). A chain's price is the lesser of fused and layer by
layer, chosen for each combination on each accelerator; with ``split`` the two are options of their
own, because a fused chain takes both engines at once, which costs nothing in latency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.cost.bounds import Bounds
from codesign.cost.chain import ChainFormat
from codesign.cost.energy import DEFAULT_ENERGY, EnergyModel
from codesign.cost.fill import Filler, chain_shape
from codesign.cost.tables import INFEASIBLE, By, unpack
from codesign.space.options import Unit
from codesign.space.workload import Chain, VectorOp, Workload

Array: TypeAlias = npt.NDArray[np.int64]
Pricing: TypeAlias = Filler | Bounds

NEVER = 1 << 40
"""Cycles that stand for "does not run"."""
BUSY = ("busy_dense", "busy_depthwise", "busy_memory")
"""Cycles of one image in which the dense engine, the depthwise engine and the memory are taken."""


@dataclass(frozen=True, eq=False)
class Priced:
    """Cycles and traffic over options; rows are accelerators, or pairs of cores for bounds."""

    cycles: Array
    """(rows, options); NEVER where an option does not run."""
    traffic: Array
    fixed_cycles: Array
    """(rows,): operators without weights."""
    fixed_traffic: Array
    busy: tuple[Array, ...] = ()
    """As BUSY, each (rows, options); empty unless the tables are split."""
    fixed_busy: tuple[Array, ...] = ()

    def rows(self, chosen: slice) -> Priced:
        """The tables of some rows."""
        return Priced(
            self.cycles[chosen], self.traffic[chosen], self.fixed_cycles[chosen],
            self.fixed_traffic[chosen], tuple(b[chosen] for b in self.busy),
            tuple(b[chosen] for b in self.fixed_busy),
        )  # fmt: skip

    @staticmethod
    def join(parts: Sequence[Priced]) -> Priced:
        """Rows of all parts, in order."""
        return Priced(
            np.concatenate([p.cycles for p in parts]),
            np.concatenate([p.traffic for p in parts]),
            np.concatenate([p.fixed_cycles for p in parts]),
            np.concatenate([p.fixed_traffic for p in parts]),
            tuple(np.concatenate(columns) for columns in zip(*(p.busy for p in parts))),
            tuple(np.concatenate(columns) for columns in zip(*(p.fixed_busy for p in parts))),
        )


@dataclass(frozen=True)
class Entry:
    """One option of a unit."""

    formats: tuple[str, ...]
    """As in ``Unit.options``."""
    fused: tuple[tuple[Chain, bool], ...] = ()
    """Whether each of the unit's chains runs fused; empty where the better is taken."""


_Cost: TypeAlias = tuple[Array, ...]
"""Cycles and traffic, and with ``split`` the three of BUSY."""
_Seen: TypeAlias = dict[object, _Cost]


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
    split: bool = False
    """Fused and layer by layer are options of their own, with BUSY metrics."""

    @cached_property
    def entries(self) -> tuple[tuple[Entry, ...], ...]:
        """The options of every unit, in the order of the tables' columns."""
        return tuple(
            tuple(e for option in unit.options for e in self._entries(unit, option))
            for unit in self.units
        )

    def _entries(self, unit: Unit, option: tuple[str, ...]) -> Iterable[Entry]:
        if not self.split:
            return [Entry(option)]
        chosen = unit.chosen(option)
        chains = [c for c in self._chains_in(chosen) if not any(self._measured(c, chosen))]
        ways = product((False, True), repeat=len(chains))
        return [Entry(option, tuple(zip(chains, way))) for way in ways]

    def _chains_in(self, chosen: Mapping[int, str]) -> list[Chain]:
        return [c for c in self.workload.chains if self.fusion and c.depthwise in chosen]

    def _measured(self, chain: Chain, chosen: Mapping[int, str]) -> list[bool]:
        names = self.workload.layers
        return [(names[p].name, chosen[p]) in self.measured for p in chain.layers]

    @cached_property
    def offsets(self) -> Array:
        """Where each unit's options start, and the end of the last."""
        return np.cumsum([0, *(len(entries) for entries in self.entries)])

    def columns_of(self, layer: int, format: str) -> Array:
        """Columns in which a layer has a format."""
        found = [
            start + at
            for unit, entries, start in zip(self.units, self.entries, self.offsets)
            for at, entry in enumerate(entries)
            if unit.chosen(entry.formats).get(layer) == format
        ]
        return np.array(found, dtype=np.int64)

    def choice_metric(self, name: str) -> Array:
        """(options,) of "loss" or "size"."""
        position = {fmt: i for i, fmt in enumerate(self.formats)}
        found = []
        for unit, entries in zip(self.units, self.entries):
            for entry in entries:
                total = 0
                for place, fmt in unit.chosen(entry.formats).items():
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
        costs = [
            self._unit(pricing, unit, entry, seen)
            for unit, entries in zip(self.units, self.entries)
            for entry in entries
        ]
        tables = [np.stack(column, axis=1) for column in zip(*costs)]
        count = len(tables[0])
        fixed = [self._vector(pricing, op) for op in self.workload.vector_ops]
        zero = np.zeros(count, dtype=np.int64)
        sums = [sum(column, zero) for column in zip(*fixed)] or [zero] * len(tables)
        return Priced(
            tables[0], tables[1], sums[0], sums[1], tuple(tables[2:]), tuple(sums[2:])
        )  # fmt: skip

    def _vector(self, pricing: Pricing, op: VectorOp) -> _Cost:
        cycles, traffic = unpack(pricing.vector(op), self.by)
        if not self.split:
            return cycles, traffic
        moved = pricing.moved(op.load_bytes, op.store_bytes)
        return cycles, traffic, cycles, np.zeros_like(cycles), moved

    def _unit(self, pricing: Pricing, unit: Unit, entry: Entry, seen: _Seen) -> _Cost:
        chosen = unit.chosen(entry.formats)
        fused = dict(entry.fused)
        parts = []
        left = dict(chosen)
        for chain in self._chains_in(chosen):
            way = fused.get(chain)
            if self.split and not way:
                continue  # layer by layer
            parts.append(self._chain(pricing, chain, chosen, seen, way))
            for place in chain.layers:
                del left[place]
        parts += [self._layer(pricing, place, fmt, seen) for place, fmt in left.items()]
        if not parts:  # a variant without layers
            zero = np.zeros(len(pricing), dtype=np.int64)
            return (zero,) * (5 if self.split else 2)
        total = parts[0]
        for part in parts[1:]:
            total = _add(total, part)
        return total

    def _layer(self, pricing: Pricing, place: int, fmt: str, seen: _Seen) -> _Cost:
        layer = self.workload.layers[place]
        measured = self.measured.get((layer.name, fmt))
        key = (layer.shape, fmt, measured)
        if key not in seen:
            found = pricing.layer(layer.shape, self.formats[fmt])
            cycles, traffic = unpack(found, self.by)
            if measured is not None:
                cycles = np.full_like(cycles, measured)
            never = found == INFEASIBLE
            cycles, traffic = np.where(never, NEVER, cycles), np.where(never, 0, traffic)
            cost: _Cost = (cycles, traffic)
            if self.split:
                apart = pricing.has_depthwise & (layer.shape.kind == "depthwise")
                store = layer.shape.output_bytes
                moved = pricing.moved(np.maximum(traffic - store, 0), store)
                zero = np.zeros_like(cycles)
                cost = (
                    cycles, traffic, np.where(apart, zero, cycles), np.where(apart, cycles, zero),
                    moved,
                )  # fmt: skip
            seen[key] = cost
        return seen[key]

    def _chain(
        self, pricing: Pricing, chain: Chain, chosen: Mapping[int, str], seen: _Seen,
        way: bool | None,
    ) -> _Cost:  # fmt: skip
        """A chain's cost: fused where ``way`` is True, the better of both where it is None."""
        names = [self.workload.layers[p].name for p in chain.layers]
        fixed = tuple(self.measured.get((n, chosen[p])) for n, p in zip(names, chain.layers))
        shape = chain_shape(self.workload, chain)
        key = (shape, tuple(chosen[p] for p in chain.layers), fixed, way)
        if key in seen:
            return seen[key]
        apart = [self._layer(pricing, p, chosen[p], seen) for p in chain.layers]
        cycles, traffic = apart[0][:2]
        for part in apart[1:]:
            cycles, traffic = _add((cycles, traffic), part[:2])
        if any(f is not None for f in fixed):
            seen[key] = cycles, traffic  # what was measured was measured layer by layer
            return seen[key]
        formats = self._chain_format(chain, chosen)
        if isinstance(pricing, Filler) and ("ready", shape) not in seen:
            every = [
                ChainFormat(e, d, p)
                for e in (self.formats.values() if chain.expand is not None else [None])
                for d in self.formats.values()
                for p in (self.formats.values() if chain.project is not None else [None])
            ]
            pricing.prepare_chains(shape, every)
            seen["ready", shape] = ()
        found = pricing.chain(shape, formats)
        c, t = unpack(found, self.by)
        never = found == INFEASIBLE
        c, t = np.where(never, NEVER, c), np.where(never, 0, t)
        if way:
            store = shape.layers[-1].output_bytes
            seen[key] = c, t, c, c, pricing.moved(np.maximum(t - store, 0), store)
            return seen[key]
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
        for unit, entries in zip(self.units, self.entries):
            for entry in entries:
                found.append(
                    sum(
                        self.workload.layers[p].shape.macs * self.energy.mac(*self.formats[f])
                        for p, f in unit.chosen(entry.formats).items()
                    )
                )
        return np.array(found, dtype=np.int64)

    def joint_metric(self, name: str, priced: Priced) -> tuple[Array, Array]:
        """(rows, options) and (rows,) of the part that does not depend on the choice."""
        if name == "latency":
            return priced.cycles, priced.fixed_cycles
        if name == "traffic":
            return priced.traffic, priced.fixed_traffic
        if name in BUSY:
            place = BUSY.index(name)
            return priced.busy[place], priced.fixed_busy[place]
        moved = self.energy.moved(priced.traffic, priced.cycles) + self.mac_energy
        return moved, self.energy.moved(priced.fixed_traffic, priced.fixed_cycles)


def _add(one: _Cost, other: _Cost) -> _Cost:
    """Sums; cycles that stand for "does not run" stay what they are."""
    cycles = np.minimum(one[0] + other[0], NEVER)
    return (cycles, *(a + b for a, b in zip(one[1:], other[1:])))
