# SPDX-License-Identifier: Apache-2.0
"""Costs of a workload's layers and chains on every accelerator of a space.

One row of keys (see ``codesign.cost.tables``) for each different shape and format; layers of the
same shape share it. Rows can be kept on disk, under a hash of everything they depend on.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.cost.chain import ChainFormat, ChainShape
from codesign.cost.chain_tables import ChainBits, chain_tables, pairs
from codesign.cost.memory import DEFAULT_TIMING, Timing, memory_cycles
from codesign.cost.tables import (
    INFEASIBLE,
    Array,
    By,
    Machine,
    dense_table,
    depthwise_table,
    pack,
)
from codesign.space.generate import Space
from codesign.space.workload import Chain, LayerShape, VectorOp, Workload

VERSION = 3
"""Raised whenever the cost model changes, so that old files are not read."""
BOTTOM = -1
Format: TypeAlias = tuple[int, int]
"""(weight bits, activation bits)."""
Key: TypeAlias = tuple[object, ...]
"""What a row depends on, beyond the filler's own settings."""


@dataclass(eq=False)
class Filler:
    """Rows of keys over the accelerators of ``space``, filled when first asked for."""

    space: Space
    timing: Timing = DEFAULT_TIMING
    by: By = "cycles"
    pipelined: bool = True
    cache: Path | None = None
    """Folder that rows are kept in; None: not kept."""
    _rows: dict[Key, Array] = field(default_factory=dict)
    _loaded: set[Key] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.space)

    @cached_property
    def machine(self) -> Machine:
        """What all cores share."""
        device = self.space.device
        return Machine(device.dram_rate, device.dram_latency_cycles, self.timing)

    @cached_property
    def _widths(self) -> tuple[Array, Array]:
        """Weight and activation bits of each accelerator's dense engine."""
        bases = self.space.dense_bases
        weights = np.array([e.weight_bits for e in bases])[self.space.base]
        return weights, np.array([e.activation_bits for e in bases])[self.space.base]

    @cached_property
    def has_depthwise(self) -> npt.NDArray[np.bool_]:
        """Accelerators with a depthwise engine."""
        return np.array([e is not None for e in self.space.depthwise_bases])[self.space.dw_base]

    def takes(self, weight_bits: int, activation_bits: int) -> npt.NDArray[np.bool_]:
        """Accelerators whose dense engine takes the format."""
        weights, activations = self._widths
        found: npt.NDArray[np.bool_] = (weights >= weight_bits) & (activations >= activation_bits)
        return found

    def layer(self, shape: LayerShape, bits: Format) -> Array:
        """Keys (accelerators,) of a layer; INFEASIBLE where it cannot run.

        A depthwise layer runs on the depthwise engine where there is one, else on the dense engine
        as one group a channel.
        """
        if shape.kind == "depthwise":
            weight_bits = bits[0]
            on_dense = np.where(self.has_depthwise, INFEASIBLE, self._dense_row(shape, bits))
            return np.minimum(on_dense, self._depthwise_row(shape, weight_bits))
        return self._dense_row(shape, bits)

    def _dense_row(self, shape: LayerShape, bits: Format) -> Array:
        meant = self.takes(*bits)
        if shape.kind == "depthwise":
            meant = meant & ~self.has_depthwise
        key = self._variant(shape, bits[0], 1)
        if max(bits) <= 4:
            key = np.minimum(key, self._variant(shape, bits[0], 2))
        return np.where(meant, key, INFEASIBLE)

    def _variant(self, shape: LayerShape, weight_bits: int, rate: int) -> Array:
        """Keys of one layer at one rate, on the cores that can take it."""
        name = ("dense", shape, weight_bits, rate)

        def fill() -> Array:
            cores, doubles, place = self.space.dense_cores
            wide = np.zeros(len(cores), dtype=np.bool_)
            used = self._widths[0] >= weight_bits
            if shape.kind == "depthwise":
                used = used & ~self.has_depthwise
            wide[place[used]] = True
            chosen = np.flatnonzero(wide & doubles if rate == 2 else wide)
            row = np.full(len(self.space), INFEASIBLE, dtype=np.int64)
            if not len(chosen):
                return row
            grid = self.space.dense_grid
            table = dense_table(
                shape, weight_bits, (rate,), cores.take(chosen), grid, self.machine, self.by
            )
            back = np.full(len(cores), BOTTOM, dtype=np.int64)
            back[chosen] = np.arange(len(chosen))
            at = back[place]
            there = at >= 0
            axes = self.space.axes
            row[there] = table[
                at[there],
                axes["weight"][there],
                axes["activation"][there],
                axes["accumulator"][there],
            ]
            return row

        return self._row(name, fill)

    def _depthwise_row(self, shape: LayerShape, weight_bits: int) -> Array:
        def fill() -> Array:
            row = np.full(len(self.space), INFEASIBLE, dtype=np.int64)
            cores, place = self.space.depthwise_cores
            if not len(cores):
                return row
            grid = self.space.depthwise_grid
            table = depthwise_table(shape, weight_bits, cores, grid, self.machine, self.by)
            there = place >= 0
            row[there] = table[place[there], 0, self.space.axes["dw_activation"][there]]
            return row

        return self._row(("depthwise", shape, weight_bits), fill)

    def chain(self, chain: ChainShape, formats: ChainFormat) -> Array:
        """Keys (accelerators,) of a fused chain; INFEASIBLE where it cannot run."""
        meant = self.has_depthwise.copy()
        rates = []
        for bits in (formats.expand, formats.project):
            if bits is not None:
                meant &= self.takes(*bits)
            rates.append((1, 2) if bits is not None and max(bits) <= 4 else (1,))
        key = np.full(len(self.space), INFEASIBLE, dtype=np.int64)
        for expand_rate in rates[0]:
            for project_rate in rates[1]:
                wanted = ChainBits(
                    0 if formats.expand is None else formats.expand[0],
                    formats.depthwise[0],
                    0 if formats.project is None else formats.project[0],
                    expand_rate,
                    project_rate,
                )
                key = np.minimum(key, self._chain_row(chain, wanted))
        return np.where(meant, key, INFEASIBLE)

    def prepare_chains(self, chain: ChainShape, formats: Sequence[ChainFormat]) -> None:
        """Fill all rows of a chain that ``formats`` need, sharing what they have in common."""
        wanted: dict[ChainBits, None] = {}
        for f in formats:
            expand = (1, 2) if f.expand is not None and max(f.expand) <= 4 else (1,)
            project = (1, 2) if f.project is not None and max(f.project) <= 4 else (1,)
            for e in expand:
                for p in project:
                    left = 0 if f.expand is None else f.expand[0]
                    right = 0 if f.project is None else f.project[0]
                    wanted[ChainBits(left, f.depthwise[0], right, e, p)] = None
        missing = [b for b in wanted if not self._known((chain, b))]
        # cores by the widest weights and by doubling, so that none is priced for what it cannot do
        rows = {b: np.full(len(self.space), INFEASIBLE, dtype=np.int64) for b in missing}
        for there, doubling, widest in self._chain_groups():
            able = [
                b
                for b in missing
                if max(b.expand, b.project) <= widest
                and (doubling or (b.expand_rate, b.project_rate) == (1, 1))
            ]
            if able:
                self._fill_chain(chain, able, there, rows)
        for bits, row in rows.items():
            self._keep((chain, bits), row)

    def _chain_groups(self) -> Iterator[tuple[Array, bool, int]]:
        doubles, place = self.space.dense_cores[1:]
        doubling = doubles[place]
        for widest in np.unique(self._widths[0]):
            for flag in (False, True):
                mask = self.has_depthwise & (self._widths[0] == widest) & (doubling == flag)
                there = np.flatnonzero(mask)
                if len(there):
                    yield there, flag, int(widest)

    def _fill_chain(
        self, chain: ChainShape, wanted: Sequence[ChainBits], there: Array,
        rows: Mapping[ChainBits, Array],
    ) -> None:  # fmt: skip
        dense, _, place = self.space.dense_cores
        depthwise, dw_place = self.space.depthwise_cores
        both = np.stack([place[there], dw_place[there]], axis=1)
        found, inverse = np.unique(both, axis=0, return_inverse=True)
        left, right = pairs(dense, depthwise, [(int(a), int(b)) for a, b in found])
        axes = {name: column[there] for name, column in self.space.axes.items()}
        at = (
            inverse.reshape(-1), axes["weight"], axes["activation"], axes["accumulator"],
            np.zeros(len(there), dtype=np.int64), axes["dw_activation"],
        )  # fmt: skip
        grids = self.space.dense_grid, self.space.depthwise_grid
        tables = chain_tables(
            chain, wanted, left, right, *grids, self.machine, self.pipelined, self.by
        )
        for bits, table in tables:
            rows[bits][there] = table[at]

    def _chain_row(self, chain: ChainShape, bits: ChainBits) -> Array:
        name = (chain, bits)
        if not self._known(name):
            formats = ChainFormat(
                (bits.expand, 8) if bits.expand else None,
                (bits.depthwise, 8),
                (bits.project, 8) if bits.project else None,
            )
            if (bits.expand_rate, bits.project_rate) != (1, 1):
                formats = ChainFormat(
                    (bits.expand, 4) if bits.expand else None,
                    (bits.depthwise, 4),
                    (bits.project, 4) if bits.project else None,
                )
            self.prepare_chains(chain, [formats])
        return self._rows[name]

    def moved(self, load: Array | int, store: Array | int) -> Array:
        """Memory cycles (accelerators,) of these bytes, as ``Memory.cycles``."""
        cores, _, place = self.space.dense_cores
        found: Array = memory_cycles(load, store, cores.port_shift[place], self.machine.rate)
        return found

    def vector(self, op: VectorOp) -> Array:
        """Keys of an operator without weights: ``timing.vector_cycles`` on every accelerator."""
        cores, _, place = self.space.dense_cores
        moved = memory_cycles(op.load_bytes, op.store_bytes, cores.port_shift, self.machine.rate)
        busy = np.maximum(-(-op.work // cores.post), moved)
        cycles = self.timing.layer + self.machine.latency + busy
        traffic = np.full(len(cores), op.load_bytes + op.store_bytes, dtype=np.int64)
        return pack(cycles, traffic, self.by)[place]

    def _row(self, name: Key, fill: object) -> Array:
        if not self._known(name):
            self._keep(name, fill())  # type: ignore[operator]
        return self._rows[name]

    def _known(self, name: Key) -> bool:
        if name in self._rows:
            return True
        if self.cache is None or name in self._loaded:
            return False
        self._loaded.add(name)
        path = self._path(name)
        try:
            row = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            return False
        if row.shape != (len(self.space),) or row.dtype != np.int64:
            return False
        self._rows[name] = row
        return True

    def _keep(self, name: Key, row: Array) -> None:
        self._rows[name] = row
        if self.cache is None:
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=self.cache, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.save(file, row)
        Path(aside).replace(self._path(name))

    def _path(self, name: Key) -> Path:
        assert self.cache is not None
        text = f"{VERSION} {self._space_hash} {self.machine} {self.by} {self.pipelined} {name!r}"
        return self.cache / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"

    @cached_property
    def _space_hash(self) -> str:
        space = self.space
        digest = hashlib.sha256(
            repr((space.device, space.options, space.dense_bases, space.depthwise_bases)).encode()
        )
        for column in (space.base, space.dw_base, *space.axes.values()):
            digest.update(np.ascontiguousarray(column, dtype=np.int64).tobytes())
        return digest.hexdigest()


def chain_shape(workload: Workload, chain: Chain) -> ChainShape:
    """The shapes of a workload's chain."""

    def shape(index: int | None) -> LayerShape | None:
        return None if index is None else workload.layers[index].shape

    depthwise = workload.layers[chain.depthwise].shape
    return ChainShape(shape(chain.expand), depthwise, shape(chain.project), chain.local_residual)
