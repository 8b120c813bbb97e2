# SPDX-License-Identifier: Apache-2.0
"""Tables of best costs for thousands of accelerators at once: ``codesign.cost.timing`` in NumPy.

Whether a tiling is legal depends on how deep an engine's buffers are, what it costs does not. So a
layer is priced once for each *core* (an engine without its depths, and a port) and tiling; each
price is put in the cell of the least depths that hold the tiling, and a running minimum over the
depths gives the best legal tiling of every core with every combination of depths.

A price is one 64-bit key, cycles · 2^32 + traffic (or traffic · 2^31 + cycles), so that the
minimum breaks ties by traffic (or cycles).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codesign.cost.memory import DEFAULT_TIMING, Timing, memory_cycles, placing
from codesign.cost.tiles import CHANNEL_SPLITS, INPUT_SPLITS, ORDERS, Order, row_tiles, stored
from codesign.errors import InputError
from codesign.space.accelerator import Engine
from codesign.space.workload import LayerShape

Array = npt.NDArray[np.int64]
By = Literal["cycles", "traffic"]

INFEASIBLE = np.iinfo(np.int64).max
"""Price of a layer that no legal tiling fits."""
_CYCLES, _TRAFFIC = 31, 32


@dataclass(frozen=True)
class Grid:
    """Depths that the buffers of an engine may have, ascending."""

    weight: tuple[int, ...]
    activation: tuple[int, ...]
    accumulator: tuple[int, ...] = (0,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of depths of each buffer."""
        return len(self.weight), len(self.activation), len(self.accumulator)


@dataclass(frozen=True)
class Machine:
    """What cores share: the DRAM and the fixed times."""

    rate: tuple[int, int]
    latency: int
    timing: Timing = DEFAULT_TIMING


@dataclass(frozen=True, eq=False)
class Cores:
    """Engines without depths, each with a port, as columns."""

    pi: Array
    po: Array
    px: Array
    post: Array
    port_shift: Array
    """Logarithm of the port's bytes, which are a power of two."""
    ping_pong: npt.NDArray[np.bool_]

    @staticmethod
    def of(engines: Sequence[Engine], port_bits: Sequence[int]) -> Cores:
        """Columns of these engines behind these ports."""

        def column(name: str) -> Array:
            return np.array([getattr(e, name) for e in engines], dtype=np.int64)

        return Cores(
            column("pi"),
            column("po"),
            column("px"),
            column("post"),
            np.array([bits.bit_length() - 4 for bits in port_bits], dtype=np.int64),
            np.array([e.ping_pong for e in engines], dtype=np.bool_),
        )

    def __len__(self) -> int:
        return len(self.pi)

    def take(self, places: Any) -> Cores:
        """The cores at ``places``."""
        return Cores(
            self.pi[places], self.po[places], self.px[places], self.post[places],
            self.port_shift[places], self.ping_pong[places],
        )  # fmt: skip


def pack(cycles: Array, traffic: Array, by: By) -> Array:
    """One key of two numbers; raises InputError where they are too large for it."""
    if cycles.size and (int(cycles.max()) >> _CYCLES or int(traffic.max()) >> _TRAFFIC):
        raise InputError(
            f"a layer takes {int(cycles.max())} cycles and {int(traffic.max())} bytes; "
            f"the tables hold less than 2^{_CYCLES} and 2^{_TRAFFIC}"
        )
    if by == "cycles":
        return (cycles << _TRAFFIC) | traffic
    return (traffic << _CYCLES) | cycles


def unpack(key: Array, by: By) -> tuple[Array, Array]:
    """(cycles, traffic) of keys; infeasible ones keep a value above all others."""
    if by == "cycles":
        return key >> _TRAFFIC, key & ((1 << _TRAFFIC) - 1)
    return key & ((1 << _CYCLES) - 1), key >> _CYCLES


def _ceil(a: Any, b: Any) -> Any:
    return -(-a // b)


def _pixels(flat: bool, rows: Any, width: int, lanes: Any) -> Any:
    return _ceil(rows * width, lanes) if flat else rows * _ceil(width, lanes)


def rows_in(shape: LayerShape, rows: Any) -> Any:
    """``LayerShape.rows_in`` over an array."""
    reach = (shape.kernel[0] - 1) * shape.dilation[0] + 1
    return np.minimum((rows - 1) * shape.stride[0] + reach, shape.in_size[0])


class _Cells:
    """Least keys by the depths that a tiling needs and by core.

    The cores are the last axis, so that the minimum over depths runs along long rows.
    """

    def __init__(self, cores: int, *depths: Sequence[int]) -> None:
        self.depths = [np.array(d, dtype=np.int64) for d in depths]
        # the last place on each axis takes what needs more than the deepest
        self.cells = np.full((*(len(d) + 1 for d in depths), cores), INFEASIBLE, dtype=np.int64)

    def places(self, *needs: Any) -> Array:
        """Where keys of these needs go; the needs broadcast to the keys' shape (cores, …)."""
        cores = self.cells.shape[-1]
        ndim = max(np.ndim(need) for need in needs)
        place: Any = 0
        for depth, need in zip(self.depths, needs):
            place = place * (len(depth) + 1) + np.searchsorted(depth, need)
        found: Array = place * cores + np.arange(cores).reshape(-1, *(1,) * (ndim - 1))
        return found

    def put(self, key: Array, places: Array) -> None:
        """Keep the least key of every cell."""
        key, places = np.broadcast_arrays(key, places)
        np.minimum.at(self.cells.reshape(-1), places.ravel(), key.ravel())

    def clear(self) -> None:
        """Forget all keys."""
        self.cells.fill(INFEASIBLE)

    def best(self) -> Array:
        """(cores, depths, …): the least key among tilings that need no more than each depth."""
        cells = self.cells[tuple(slice(0, len(d)) for d in self.depths)].copy()
        for axis, depth in enumerate(self.depths):
            moved = np.moveaxis(cells, axis, 0)
            for place in range(1, len(depth)):
                np.minimum(moved[place], moved[place - 1], out=moved[place])
        return np.moveaxis(cells, -1, 0)


def dense_table(
    shape: LayerShape, weight_bits: int, rates: Sequence[int], cores: Cores, grid: Grid,
    machine: Machine, by: By = "cycles",
) -> Array:  # fmt: skip
    """Best keys (cores, weight depths, activation depths, accumulator depths) of a dense layer,
    where every core may run it at every one of ``rates``."""
    repeat = shape.groups
    one = replace(shape, inputs=shape.inputs // repeat, outputs=shape.outputs // repeat, groups=1)
    cells = _Cells(len(cores), grid.weight, grid.activation, grid.accumulator)
    for rate in rates:
        for priced in dense_prices(one, weight_bits, rate, cores, machine):
            cycles, traffic = np.broadcast_arrays(priced.cycles * repeat, priced.traffic * repeat)
            cells.put(pack(cycles, traffic, by), cells.places(*priced.needs))
    return cells.best()


@dataclass(frozen=True, eq=False)
class Prices:
    """All tilings of one loop order: arrays over (cores, row tiles, channel tiles, input tiles)."""

    order: Order
    cycles: Any
    traffic: Any
    needs: tuple[Any, Any, Any]
    rows: Array
    channels: Any
    inputs: Any


def dense_prices(
    shape: LayerShape, weight_bits: int, rate: int, cores: Cores, machine: Machine
) -> Iterator[Prices]:
    """``timing.dense_cost`` of every tiling tried, for one group of channels."""
    axes = (-1, 1, 1, 1)  # cores, row tiles, channel tiles, input tiles
    pi, po, px = (column.reshape(axes) for column in (cores.pi, cores.po, cores.px))
    taps, (height, width) = shape.taps, shape.out_size
    ci, co = shape.inputs, shape.outputs
    lanes = px * rate
    gi, go = _ceil(ci, pi), _ceil(co, po)
    rows = np.array(row_tiles(height), dtype=np.int64).reshape(1, -1, 1, 1)
    n_r = _ceil(height, rows)
    last_rows = height - (n_r - 1) * rows
    tg = _ceil(go, np.array(CHANNEL_SPLITS).reshape(1, 1, -1, 1))
    n_c = _ceil(co, tg * po)
    channels = np.minimum(tg * po, co)
    last_channels = co - (n_c - 1) * tg * po
    ti = _ceil(gi, np.array(INPUT_SPLITS).reshape(1, 1, 1, -1))
    pixels = _pixels(shape.flat, rows, width, lanes)
    all_pixels = (n_r - 1) * pixels + _pixels(shape.flat, last_rows, width, lanes)
    row_bytes = shape.in_size[1] * stored(ci)
    inputs0 = rows_in(shape, rows) * row_bytes
    inputs = (n_r - 1) * inputs0 + rows_in(shape, last_rows) * row_bytes

    def weight_bytes(count: Any) -> Any:
        return _ceil(count * ci * taps * weight_bits, 8) + 8 * count

    weights0 = weight_bytes(channels)
    weights = (n_c - 1) * weights0 + weight_bytes(last_channels)
    area = height * width
    out, last_out = stored(channels), stored(last_channels)  # as they stand in memory
    all_out = (n_c - 1) * out + last_out
    sums = pixels * rate * tg
    port_bytes = 1 << cores.port_shift.reshape(axes)
    slow = placing(port_bytes, shape.stride[1], lanes, pi)
    zero = np.zeros((1, 1, 1, 1), dtype=np.int64)
    for order in ORDERS:
        by_rows = order in ("spatial", "weights")
        t = gi if order == "weights" else ti
        n_i = _ceil(gi, t)
        rest_i = gi - (n_i - 1) * t
        steps = (n_i - 1) * np.maximum(taps * t, rate) + np.maximum(taps * rest_i, rate)
        again = n_i > 1
        compute = all_pixels * go * steps + machine.timing.tile * n_r * n_c * n_i
        if by_rows:
            tiles_b, tiles_r = n_r, n_r * (n_c - 1)
            compute_b = all_pixels * tg * steps + machine.timing.tile * n_r * n_i
            store_b, store_r = area * out, area * (all_out - out)
        else:
            tiles_b, tiles_r = n_c, n_c * (n_r - 1)
            compute_b = pixels * go * steps + machine.timing.tile * n_c * n_i
            store_b, store_r = rows * width * all_out, (height - rows) * width * all_out
        counts = n_r, n_c, again
        load_b, load_r = _loads(order, counts, inputs0, inputs, weights0, weights)
        waits = _loads(order, counts, slow * inputs0, slow * inputs, zero, zero)
        first = inputs0 + weights0
        last = last_rows * width * last_out
        if shape.residual:
            load_b, load_r = load_b + store_b, load_r + store_r
            first = first + rows * width * out
        cycles = _cycles(
            cores, axes, machine, compute_b, compute - compute_b, load_b, load_r, store_b, store_r,
            tiles_b, tiles_r, first, last, *waits, slow * inputs0, drain=True,
        )  # fmt: skip
        traffic = load_b + load_r + area * all_out
        need_w = taps * (go * gi if order == "weights" else tg * t)
        held = shape.in_size[0] if order == "inputs" else rows_in(shape, rows)
        need_a = _pixels(shape.flat, held, shape.in_size[1], lanes) * (
            gi if order == "inputs" else t
        )
        yield Prices(order, cycles, traffic, (need_w, need_a, sums), rows, tg, t)


def _loads(
    order: Order, counts: tuple[Any, Any, Any], part0: Any, part: Any, heavy0: Any, heavy: Any
) -> tuple[Any, Any]:
    """Bytes loaded for burst and other tiles. ``part``: inputs of the first row tile and of all;
    ``heavy``: weights of the first channel tile and of all; ``counts``: row tiles, channel tiles,
    whether input tiles make both come again."""
    n_r, n_c, again = counts
    if order == "spatial":
        return (
            part + np.where((n_c > 1) | again, n_r, 1) * heavy0,
            np.where(again, (n_c - 1) * part, 0) + n_r * (heavy - heavy0),
        )
    if order == "channel":
        rest = n_c * (part - part0) + np.where(again, (n_r - 1) * heavy, 0)
        return (
            heavy + np.where((n_r > 1) | again, n_c, 1) * part0,
            np.where((n_r > 1) | again, rest, 0),
        )
    if order == "weights":
        return part + heavy0, heavy - heavy0
    return heavy + part0, part - part0 + np.where(again, (n_r - 1) * heavy, 0)


def _cycles(
    cores: Cores, axes: tuple[int, ...], machine: Machine, compute_b: Any, compute_r: Any,
    load_b: Any, load_r: Any, store_b: Any, store_r: Any, tiles_b: Any, tiles_r: Any, first: Any,
    last: Any, wait_b: Any, wait_r: Any, first_wait: Any, drain: bool,
) -> Any:  # fmt: skip
    """The sum of ``timing._total`` over arrays."""
    port, post = cores.port_shift.reshape(axes), cores.post.reshape(axes)

    def moved(load: Any, store: Any, wait: Any) -> Any:
        found = memory_cycles(load, store, port, machine.rate, wait)
        return np.maximum(found, _ceil(store, post)) if drain else found

    single = tiles_r == 0
    stay_b = store_b - np.where(single, last, 0)
    stay_r = store_r - np.where(single, 0, last)
    in_b = moved(load_b - first, stay_b, wait_b - first_wait) + machine.latency * (tiles_b - 1)
    in_r = moved(load_r, stay_r, wait_r) + machine.latency * tiles_r
    overlapped = (
        machine.timing.layer + moved(first, 0, first_wait) + machine.latency
        + np.maximum(compute_b, in_b) + np.maximum(compute_r, in_r) + moved(0, last, 0)
    )  # fmt: skip
    if cores.ping_pong.all():
        return overlapped
    plain = (
        machine.timing.layer + compute_b + compute_r
        + moved(load_b + load_r, store_b + store_r, wait_b + wait_r)
        + machine.latency * (tiles_b + tiles_r)
    )  # fmt: skip
    return np.where(cores.ping_pong.reshape(axes), overlapped, plain)


def depthwise_table(
    shape: LayerShape, weight_bits: int, cores: Cores, grid: Grid, machine: Machine,
    by: By = "cycles",
) -> Array:  # fmt: skip
    """Best keys (cores, weight depths, activation depths) of a depthwise layer on depthwise
    engines."""
    axes = (-1, 1, 1)  # cores, row tiles, channel tiles
    po, px, post = (column.reshape(axes) for column in (cores.po, cores.px, cores.post))
    taps, (height, width), co = shape.taps, shape.out_size, shape.outputs
    go = _ceil(co, po)
    rows = np.array(row_tiles(height), dtype=np.int64).reshape(1, -1, 1)
    n_r = _ceil(height, rows)
    tg = _ceil(go, np.array(CHANNEL_SPLITS).reshape(1, 1, -1))
    n_c = _ceil(co, tg * po)
    channels = np.minimum(tg * po, co)
    last_rows, last_channels = height - (n_r - 1) * rows, co - (n_c - 1) * tg * po
    step = np.maximum(taps, _ceil(po * px, post))

    def weight_bytes(count: Any) -> Any:
        return _ceil(count * taps * weight_bits, 8) + 8 * count

    across = _ceil(width, px) * go * step
    start = machine.timing.tile
    in0 = rows_in(shape, rows) * shape.in_size[1]
    in_all = (n_r - 1) * in0 + rows_in(shape, last_rows) * shape.in_size[1]
    out, last_out = stored(channels), stored(last_channels)
    all_out = (n_c - 1) * out + last_out
    load_b = in0 * all_out + (n_c - 1) * weight_bytes(channels) + weight_bytes(last_channels)
    load_r = (in_all - in0) * all_out
    store_b, store_r = rows * width * all_out, (height - rows) * width * all_out
    first = in0 * out + weight_bytes(channels)
    slow = placing(1 << cores.port_shift.reshape(axes), shape.stride[1], px, po)
    waits = slow * in0 * all_out, slow * (in_all - in0) * all_out, slow * in0 * out
    if shape.residual:
        load_b, load_r = load_b + store_b, load_r + store_r
        first = first + rows * width * out
    cycles = _cycles(
        cores, axes, machine, rows * across + start * n_c,
        (height - rows) * across + start * n_c * (n_r - 1),
        load_b, load_r, store_b, store_r, n_c, n_c * (n_r - 1), first,
        last_rows * width * last_out, *waits, drain=False,
    )  # fmt: skip
    traffic = load_b + load_r + height * width * all_out
    cells = _Cells(len(cores), grid.weight, grid.activation)
    held = rows_in(shape, rows) * _ceil(shape.in_size[1], px) * tg
    cycles, traffic = np.broadcast_arrays(cycles, traffic)
    cells.put(pack(cycles, traffic, by), cells.places(taps * tg, held))
    return cells.best()
