# SPDX-License-Identifier: Apache-2.0
"""``codesign.cost.chain`` in NumPy: best costs of a chain for many pairs of engines at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.cost.chain import ChainShape
from codesign.cost.memory import memory_cycles, placing
from codesign.cost.tables import (
    Array,
    By,
    Cores,
    Grid,
    Machine,
    _ceil,
    _Cells,
    pack,
    rows_in,
)
from codesign.cost.tiles import CHANNEL_SPLITS, row_tiles, stored


@dataclass(frozen=True)
class ChainBits:
    """What of a chain's formats and tiling rates its cost depends on."""

    expand: int = 0
    """Weight bits; 0 where the layer is not there."""
    depthwise: int = 8
    project: int = 0
    expand_rate: int = 1
    project_rate: int = 1


def chain_tables(
    chain: ChainShape, wanted: Sequence[ChainBits], dense: Cores, depthwise: Cores,
    dense_grid: Grid, depthwise_grid: Grid, machine: Machine, pipelined: bool = True,
    by: By = "cycles",
) -> Iterator[tuple[ChainBits, Array]]:  # fmt: skip
    """Best keys of the chain for pairs of cores (row i of ``dense`` with row i of ``depthwise``),
    at exactly the rates asked for: (pairs, dense weight, activation and accumulator depths,
    depthwise weight and activation depths)."""
    rates = sorted({(bits.expand_rate, bits.project_rate) for bits in wanted})
    for expand_rate, project_rate in rates:
        here = (expand_rate, project_rate)
        group = [b for b in wanted if (b.expand_rate, b.project_rate) == here]
        plan = _Plan(chain, expand_rate, project_rate, dense, depthwise, machine, pipelined)
        cells = _Cells(
            len(dense), dense_grid.weight, dense_grid.activation, dense_grid.accumulator,
            depthwise_grid.weight, depthwise_grid.activation,
        )  # fmt: skip
        places = [cells.places(*plan.needs(resident)) for resident in (False, True)]
        for bits in group:
            cells.clear()
            for resident, place in zip((False, True), places):
                cycles, traffic = plan.cost(bits, resident)
                cells.put(pack(cycles, traffic, by), place)
            yield bits, cells.best()


class _Plan:
    """What all formats of a chain share at given rates."""

    def __init__(
        self, chain: ChainShape, expand_rate: int, project_rate: int, dense: Cores,
        depthwise: Cores, machine: Machine, pipelined: bool,
    ) -> None:  # fmt: skip
        self.chain, self.machine = chain, machine
        axes = (-1, 1, 1)  # pairs, row tiles, tiles of middle channels
        pi, po, px, post = (c.reshape(axes) for c in (dense.pi, dense.po, dense.px, dense.post))
        dw_po, dw_px, dw_post = (
            c.reshape(axes) for c in (depthwise.po, depthwise.px, depthwise.post)
        )
        mid = chain.depthwise
        (height, width), in_width, total = mid.out_size, mid.in_size[1], mid.outputs
        start, taps = machine.timing.tile, mid.taps
        rows = np.array(row_tiles(height), dtype=np.int64).reshape(1, -1, 1)
        n_r = _ceil(height, rows)
        last_rows = height - (n_r - 1) * rows
        tiles = _ceil(_ceil(total, dw_po), np.array(CHANNEL_SPLITS).reshape(1, 1, -1))
        n_m = _ceil(total, tiles * dw_po)
        part = np.minimum(tiles * dw_po, total)
        last_part = total - (n_m - 1) * tiles * dw_po
        in0, in_last = rows_in(mid, rows), rows_in(mid, last_rows)
        in_rows = (n_r - 1) * in0 + in_last  # of all row tiles, shared rows counted again
        held = stored(part)  # middle channels as memory and buffers hold them
        all_held = (n_m - 1) * held + stored(last_part)
        zero = np.zeros((1, 1, 1), dtype=np.int64)
        # burst: first tile of middle channels of each row tile; rest: the others
        dense_b: Any = zero
        dense_r: Any = zero
        first_dense: Any = zero
        drain_b: Any = zero
        drain_all: Any = zero
        load_inputs_b: Any = zero
        load_inputs_r: Any = zero
        first_inputs: Any = zero
        need_w: Any = zero
        need_a: Any = zero
        need_o: Any = zero

        if chain.expand is not None:
            ci = chain.expand.inputs
            lanes = px * expand_rate
            steps = np.maximum(_ceil(ci, pi), expand_rate)
            pixels = in0 * _ceil(in_width, lanes)
            all_pixels = in_rows * _ceil(in_width, lanes)
            groups, last_groups = _ceil(part, po), _ceil(last_part, po)
            all_groups = (n_m - 1) * groups + last_groups
            out = np.minimum(post, 8)  # bytes a cycle into the depthwise engine's buffer
            placed_b = in_rows * in_width * held
            placed_r = in_rows * in_width * all_held - placed_b
            expand_b = all_pixels * groups * steps + start * n_r
            expand_r = all_pixels * all_groups * steps + start * n_r * n_m - expand_b
            dense_b = dense_b + np.maximum(expand_b, _ceil(placed_b, out))
            dense_r = dense_r + np.maximum(expand_r, _ceil(placed_r, out))
            first_dense = first_dense + np.maximum(
                pixels * groups * steps + start, _ceil(in0 * in_width * held, out)
            )
            slow = placing(1 << dense.port_shift.reshape(axes), 1, lanes, pi)
            load_inputs_b = load_inputs_b + in_rows * in_width * stored(ci)
            first_inputs = first_inputs + in0 * in_width * stored(ci)
            inputs = _ceil(ci, pi)
            need_w = need_w + groups * inputs
            need_a = need_a + pixels * inputs
            need_o = need_o + _ceil(in_width, lanes) * expand_rate * groups
        else:
            port_bytes = 1 << dense.port_shift.reshape(axes)
            slow = placing(port_bytes, mid.stride[1], dw_px, dw_po)
            load_inputs_b = load_inputs_b + in_rows * in_width * held
            load_inputs_r = load_inputs_r + in_rows * in_width * (all_held - held)
            first_inputs = first_inputs + in0 * in_width * held
        # before residuals: what the loader places in activation buffers
        self.wait_b, self.wait_r = slow * load_inputs_b, slow * load_inputs_r
        self.first_wait = slow * first_inputs
        step = np.maximum(taps, _ceil(dw_po * dw_px, dw_post))
        across = _ceil(width, dw_px) * step
        depthwise_b = height * across * _ceil(part, dw_po) + start * n_r
        all_dw = (n_m - 1) * _ceil(part, dw_po) + _ceil(last_part, dw_po)
        depthwise_all = height * across * all_dw + start * n_r * n_m
        first_depthwise = rows * across * _ceil(part, dw_po) + start
        once = zero  # bytes of the first tile of middle channels beyond its weights
        if chain.project is not None:
            co = chain.project.outputs
            lanes = px * project_rate
            pixels = rows * _ceil(width, lanes)
            all_pixels = height * _ceil(width, lanes)
            steps = np.maximum(_ceil(part, pi), project_rate)
            last_steps = np.maximum(_ceil(last_part, pi), project_rate)
            out_groups = _ceil(co, po)
            all_steps = (n_m - 1) * steps + last_steps
            dense_b = dense_b + all_pixels * out_groups * steps + start * n_r
            dense_r = dense_r + all_pixels * out_groups * (all_steps - steps)
            dense_r = dense_r + start * n_r * (n_m - 1)
            first_dense = first_dense + pixels * out_groups * steps + start
            drained = height * width * stored(co)
            drain_all = drain_all + drained
            drain_b = drain_b + np.where(n_m == 1, drained, 0)
            store_all: Any = zero + drained
            store_b: Any = np.where(n_m == 1, drained, 0)
            last_store = last_rows * width * stored(co)
            last_drain: Any = last_store
            once = once + 8 * co
            if chain.project.residual:
                load_inputs_b = load_inputs_b + drained
                first_inputs = first_inputs + rows * width * stored(co)
            need_w = need_w + out_groups * _ceil(part, pi)
            need_a = need_a + pixels * _ceil(part, pi)
            need_o = need_o + pixels * project_rate * out_groups
        else:
            store_all = zero + height * width * all_held
            store_b = height * width * held
            last_store = last_rows * width * stored(last_part)
            last_drain = zero

        self.part, self.last_part, self.n_m, self.n_r = part, last_part, n_m, n_r
        self.load_b, self.load_r = load_inputs_b, load_inputs_r
        self.first_inputs, self.once = first_inputs, once
        self.port, self.post = dense.port_shift.reshape(axes), post
        self.need = (need_w, need_a, need_o, taps * tiles, in0 * _ceil(in_width, dw_px) * tiles)
        self.in_turn = dense_b + dense_r + depthwise_all
        self.overlaps = (dense.ping_pong & depthwise.ping_pong).reshape(axes)
        if pipelined:
            self.compute_b = np.maximum(dense_b, depthwise_b)
            self.compute_r = np.maximum(dense_r, depthwise_all - depthwise_b)
            self.fill: Any = np.minimum(first_dense, first_depthwise)
        else:
            self.compute_b = dense_b + depthwise_b
            self.compute_r, self.fill = self.in_turn - self.compute_b, 0
        self.tiles_r = n_r * (n_m - 1)
        single = self.tiles_r == 0
        self.store, self.drain = store_all, drain_all
        self.last_store, self.last_drain = last_store, last_drain
        # what is left for the two kinds of tiles when the last store stands alone
        self.store_b = np.where(single, store_b - last_store, store_b)
        self.store_r = np.where(single, 0, store_all - store_b - last_store)
        self.drain_b = np.where(single, drain_b - last_drain, drain_b)
        self.drain_r = np.where(single, 0, drain_all - drain_b - last_drain)

    def needs(self, resident: bool) -> tuple[Any, ...]:
        """Words needed in each buffer; see ``chain.chain_need``."""
        weight, activation, sums, dw_weight, dw_activation = self.need
        copies = self.n_m if resident else 1
        return weight * copies, activation, sums, dw_weight * copies, dw_activation

    def cost(self, bits: ChainBits, resident: bool) -> tuple[Array, Array]:
        """(cycles, traffic) over (pairs, row tiles, tiles of middle channels)."""
        machine, n_r, n_m = self.machine, self.n_r, self.n_m
        weights0 = self._weight_bytes(bits, self.part)
        weights = (n_m - 1) * weights0 + self._weight_bytes(bits, self.last_part)
        first = self.first_inputs + weights0 + self.once
        times = 1 if resident else np.where(n_m > 1, n_r, 1)
        load_b = self.load_b + times * (weights0 + self.once)
        load_r = self.load_r + times * (weights - weights0)
        wait_b = self.wait_b - self.first_wait
        in_b = self._moved(load_b - first, self.store_b, wait_b, self.drain_b)
        in_r = self._moved(load_r, self.store_r, self.wait_r, self.drain_r)
        layers = len(self.chain.layers) * machine.timing.layer
        cycles = (
            layers
            + self._moved(first, 0, self.first_wait, 0)
            + machine.latency
            + self.fill
            + np.maximum(self.compute_b, in_b + machine.latency * (n_r - 1))
            + np.maximum(self.compute_r, in_r + machine.latency * self.tiles_r)
            + self._moved(0, self.last_store, 0, self.last_drain)
        )
        if not self.overlaps.all():
            moved = self._moved(load_b + load_r, self.store, self.wait_b + self.wait_r, self.drain)
            plain = layers + self.in_turn + moved + machine.latency * n_r * n_m
            cycles = np.where(self.overlaps, cycles, plain)
        cycles, traffic = np.broadcast_arrays(cycles, load_b + load_r + self.store)
        return cycles, traffic

    def _weight_bytes(self, bits: ChainBits, count: Any) -> Any:
        """Weights and factors of ``count`` middle channels; the projection's factors are apart."""
        chain = self.chain
        found = _ceil(count * chain.depthwise.taps * bits.depthwise, 8) + 8 * count
        if chain.expand is not None:
            found = found + _ceil(count * chain.expand.inputs * bits.expand, 8) + 8 * count
        if chain.project is not None:
            found = found + _ceil(count * chain.project.outputs * bits.project, 8)
        return found

    def _moved(self, load: Any, store: Any, wait: Any, drain: Any) -> Any:
        found = memory_cycles(load, store, self.port, self.machine.rate, wait)
        return np.maximum(found, _ceil(drain, self.post))


def pairs(dense: Cores, depthwise: Cores, places: Sequence[tuple[int, int]]) -> tuple[Cores, Cores]:
    """Columns of both engines for pairs (place in ``dense``, place in ``depthwise``)."""
    left, right = np.array(places, dtype=np.int64).reshape(-1, 2).T
    return dense.take(left), depthwise.take(right)
