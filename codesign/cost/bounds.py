# SPDX-License-Identifier: Apache-2.0
"""Lower bounds of a layer's or chain's cycles and traffic, whatever the buffers and the tiling.

They need no tables, so that accelerators that cannot be best are discarded before theirs are
filled. Each is below ``timing`` and ``chain`` because sums of ceilings are at least the ceiling of
the sum, and every byte of weights, inputs and results moves at least once:

    cycles ≥ layer + max(steps of the whole layer at full lanes, memory cycles of the least bytes)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from codesign.cost.chain import ChainFormat, ChainShape
from codesign.cost.memory import DEFAULT_TIMING, Timing, memory_cycles
from codesign.cost.tables import INFEASIBLE, Array, By, _ceil, _pixels, pack
from codesign.space.generate import Space
from codesign.space.workload import LayerShape, VectorOp


@dataclass(frozen=True, eq=False)
class Bounds:
    """The same questions as ``Filler`` answers, for the space's pairs of cores."""

    space: Space
    timing: Timing = DEFAULT_TIMING
    by: By = "cycles"
    pipelined: bool = True

    @cached_property
    def _pairs(self) -> tuple[Array, Array]:
        keys = np.stack([self.space.dense_cores[2], self.space.depthwise_cores[1]], axis=1)
        # places in the order of both cores, in one number
        flat = keys[:, 0] * (int(keys[:, 1].max()) + 2) + keys[:, 1] + 1
        _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
        return first, inverse.reshape(-1)

    @property
    def first(self) -> Array:
        """One accelerator of each pair."""
        return self._pairs[0]

    @property
    def pair(self) -> Array:
        """The pair of each accelerator."""
        return self._pairs[1]

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def _dense(self) -> tuple[Any, Any, Array, Array]:
        """Columns over pairs: core, doubling, weight bits, activation bits."""
        cores, doubles, place = self.space.dense_cores
        at = place[self.first]
        base = self.space.base[self.first]
        bases = self.space.dense_bases
        weight = np.array([e.weight_bits for e in bases])[base]
        activation = np.array([e.activation_bits for e in bases])[base]
        return cores.take(at), doubles[at], weight, activation

    @cached_property
    def _depthwise(self) -> tuple[Any, Any]:
        cores, place = self.space.depthwise_cores
        at = place[self.first]
        has = at >= 0
        if not len(cores):
            return None, has
        return cores.take(np.where(has, at, 0)), has

    @property
    def has_depthwise(self) -> Any:
        """Pairs with a depthwise engine."""
        return self._depthwise[1]

    def moved(self, load: Any, store: Any) -> Array:
        """Memory cycles (pairs,) of these bytes."""
        core, device = self._dense[0], self.space.device
        found: Array = memory_cycles(load, store, core.port_shift, device.dram_rate)
        return found

    def _mem(self, load: int, store: int) -> Any:
        core = self._dense[0]
        device = self.space.device
        return memory_cycles(np.int64(load), np.int64(store), core.port_shift, device.dram_rate)

    def _steps(self, shape: LayerShape, bits: tuple[int, int]) -> Any:
        """Least steps of a dense layer over pairs; INFEASIBLE where the format does not run."""
        core, doubles, weight, activation = self._dense
        g = shape.groups
        gi, go = _ceil(shape.inputs // g, core.pi), _ceil(shape.outputs // g, core.po)
        height, width = shape.out_size

        def at(rate: int) -> Any:
            pixels = _pixels(shape.flat, height, width, core.px * rate)
            return g * pixels * go * np.maximum(shape.taps * gi, rate)

        steps = at(1)
        if max(bits) <= 4:
            steps = np.where(doubles, np.minimum(steps, at(2)), steps)
        return np.where((weight >= bits[0]) & (activation >= bits[1]), steps, INFEASIBLE)

    def _depthwise_steps(self, shape: LayerShape) -> Any:
        core, has = self._depthwise
        if core is None:
            return np.full(len(self), INFEASIBLE, dtype=np.int64)
        step = np.maximum(shape.taps, _ceil(core.po * core.px, core.post))
        height, width = shape.out_size
        return np.where(
            has, height * _ceil(width, core.px) * _ceil(shape.outputs, core.po) * step, INFEASIBLE
        )

    def layer(self, shape: LayerShape, bits: tuple[int, int]) -> Array:
        """Keys (pairs,) that no tiling of the layer beats."""
        has = self._depthwise[1]
        if shape.kind == "depthwise":
            steps = np.where(has, self._depthwise_steps(shape), self._steps(shape, bits))
        else:
            steps = self._steps(shape, bits)
        load, store = _layer_bytes(shape, bits[0])
        return self._key(steps, load, store, 1)

    def _key(self, steps: Any, load: int, store: int, layers: int) -> Array:
        runs = steps < INFEASIBLE
        cycles = np.where(runs, np.maximum(steps, self._mem(load, store)), 0)
        cycles = cycles + layers * self.timing.layer
        traffic = np.full(cycles.shape, load + store, dtype=np.int64)
        return np.where(runs, pack(cycles, traffic, self.by), INFEASIBLE)

    def chain(self, chain: ChainShape, formats: ChainFormat) -> Array:
        """Keys (pairs,) that neither the fused chain nor its layers one by one beat."""
        dense: Any = np.zeros(len(self), dtype=np.int64)
        load = store = 0
        for shape, bits in ((chain.expand, formats.expand), (chain.project, formats.project)):
            if shape is not None and bits is not None:
                steps = self._steps(shape, bits)
                dense = np.where(
                    (dense == INFEASIBLE) | (steps == INFEASIBLE), INFEASIBLE, dense + steps
                )
        depthwise = self._depthwise_steps(chain.depthwise)
        runs = (dense < INFEASIBLE) & (depthwise < INFEASIBLE)
        both = (
            np.maximum(dense, depthwise)
            if self.pipelined
            else np.where(runs, dense, 0) + np.where(runs, depthwise, 0)
        )
        for shape, bits in zip(chain.layers, _present(formats)):
            load += shape.weight_bytes(bits[0])
        head, tail = chain.layers[0], chain.layers[-1]
        load += _input_bytes(head)
        if tail.residual and not chain.local_residual:
            load += _output_bytes(tail)
        store = _output_bytes(tail)
        # one command a layer: fused or not, the fixed time is paid for each
        return self._key(np.where(runs, both, INFEASIBLE), load, store, len(chain.layers))

    def vector(self, op: VectorOp) -> Array:
        """Keys (pairs,) of an operator without weights; exact."""
        core = self._dense[0]
        busy = np.maximum(_ceil(op.work, core.post), self._mem(op.load_bytes, op.store_bytes))
        cycles = self.timing.layer + self.space.device.dram_latency_cycles + busy
        traffic = np.full(cycles.shape, op.load_bytes + op.store_bytes, dtype=np.int64)
        return pack(cycles, traffic, self.by)


def _present(formats: ChainFormat) -> list[tuple[int, int]]:
    return [f for f in (formats.expand, formats.depthwise, formats.project) if f is not None]


def _input_bytes(shape: LayerShape) -> int:
    """Rows read at least: all tiles' rows overlap when the window is larger than the stride, so one
    tile reads least; otherwise single rows skip what lies between the windows."""
    rows = shape.out_size[0]
    least = min(shape.rows_in(rows), rows * shape.rows_in(1))
    return least * shape.in_size[1] * shape.inputs


def _output_bytes(shape: LayerShape) -> int:
    return shape.out_size[0] * shape.out_size[1] * shape.outputs


def _layer_bytes(shape: LayerShape, weight_bits: int) -> tuple[int, int]:
    store = _output_bytes(shape)
    load = shape.weight_bytes(weight_bits) + _input_bytes(shape)
    return load + (store if shape.residual else 0), store
