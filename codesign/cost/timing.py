# SPDX-License-Identifier: Apache-2.0
"""Cycles and traffic of one layer on one engine under one tiling: the reference, in plain loops.

A layer runs tile after tile. With ping-pong buffers the loads of the next tile and the stores of
the last one go on while a tile is computed; the first load and the last store stand alone. Tiles
are of two kinds: the first of each inner loop brings what then stays (the burst), the others do
not. Within a kind loads, stores and compute even out over the tiles:

    T = layer + M(first load) + max(C_b, M_b) + max(C_r, M_r) + M(last store)
    M = memory cycles of the bytes, or the loader's for placing them, + latency for each tile

Without ping-pong buffers everything adds up. ``tests/cost`` holds hand-computed values, and the
vectorised form in ``codesign.cost.tables`` agrees with this one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from codesign.cost.memory import DEFAULT_TIMING, Memory, Timing, placing
from codesign.cost.tiles import (
    Tile,
    ceil,
    dense_need,
    dense_tiles,
    depthwise_need,
    depthwise_tiles,
    pixel_groups,
    stored,
)
from codesign.errors import InfeasibleError
from codesign.space.accelerator import Engine
from codesign.space.workload import LayerShape, VectorOp


@dataclass(frozen=True)
class Cost:
    """What a layer takes under one tiling."""

    cycles: int
    compute: int
    """Cycles in which the multipliers have work, tile starts included."""
    load_bytes: int
    store_bytes: int

    @property
    def traffic(self) -> int:
        """Bytes to and from DRAM."""
        return self.load_bytes + self.store_bytes


@dataclass
class _Kind:
    """Sums over the tiles of one kind."""

    compute: int = 0
    load: int = 0
    wait: int = 0
    store: int = 0
    tiles: int = 0


def _parts(total: int, part: int) -> list[int]:
    """``total`` cut in pieces of ``part``; the last one may be smaller."""
    return [min(part, total - at) for at in range(0, total, part)]


def dense_cost(
    shape: LayerShape, weight_bits: int, engine: Engine, memory: Memory, tile: Tile,
    timing: Timing = DEFAULT_TIMING,
) -> Cost:  # fmt: skip
    """One dense layer. Groups of channels run one after the other, each as a layer of its own.

    compute of a tile = pixel steps · channel groups · Σ over input tiles of
    max(taps · input groups, rate) + start of each input tile; at rate 2 the sums of a step take two
    words of the accumulator buffer, so a step has at least two cycles.
    """
    if shape.groups > 1:
        one = replace(
            shape,
            inputs=shape.inputs // shape.groups,
            outputs=shape.outputs // shape.groups,
            groups=1,
        )
        cost = dense_cost(one, weight_bits, engine, memory, tile, timing)
        n = shape.groups
        return Cost(n * cost.cycles, n * cost.compute, n * cost.load_bytes, n * cost.store_bytes)
    out_rows, out_width = shape.out_size
    lanes = engine.px * tile.rate
    rows = _parts(out_rows, tile.rows)
    channels = _parts(shape.outputs, tile.channels * engine.po)
    inputs = _parts(ceil(shape.inputs, engine.pi), tile.inputs)
    steps = sum(max(shape.taps * groups, tile.rate) for groups in inputs)
    again = len(inputs) > 1
    kinds = [_Kind(), _Kind()]
    by_rows = tile.order in ("spatial", "weights")
    order = (
        [(r, c) for r in range(len(rows)) for c in range(len(channels))]
        if by_rows
        else [(r, c) for c in range(len(channels)) for r in range(len(rows))]
    )
    slow = int(placing(memory.port_bytes, shape.stride[1], lanes, engine.pi))
    first_load = first_wait = last_outputs = 0
    for r, c in order:
        kind = kinds[0] if (c if by_rows else r) == 0 else kinds[1]
        load_inputs, load_weights = {
            "spatial": (c == 0 or again, len(channels) > 1 or again or r == 0),
            "channel": (len(rows) > 1 or again or c == 0, r == 0 or again),
            "weights": (c == 0, r == 0),
            "inputs": (c == 0, r == 0 or again),
        }[tile.order]
        outputs = rows[r] * out_width * stored(channels[c])
        load = wait = 0
        if load_inputs:
            load += shape.rows_in(rows[r]) * shape.in_size[1] * stored(shape.inputs)
            wait = slow * load
        if load_weights:
            load += ceil(channels[c] * shape.inputs * shape.taps * weight_bits, 8)
            load += 8 * channels[c]
        if shape.residual:
            load += outputs
        pixels = pixel_groups(shape, rows[r], out_width, lanes)
        compute = pixels * ceil(channels[c], engine.po) * steps + timing.tile * len(inputs)
        kind.compute += compute
        kind.load += load
        kind.wait += wait
        kind.store += outputs
        kind.tiles += 1
        if (r, c) == (0, 0):
            first_load, first_wait = load, wait
        last_outputs = outputs
    return _total(kinds, first_load, first_wait, last_outputs, engine, memory, timing)


def _total(
    kinds: list[_Kind], first_load: int, first_wait: int, last_store: int,
    engine: Engine, memory: Memory, timing: Timing,
) -> Cost:  # fmt: skip
    burst, rest = kinds
    compute = burst.compute + rest.compute
    load, store = burst.load + rest.load, burst.store + rest.store
    wait = burst.wait + rest.wait
    post = engine.post if engine.kind == "dense" else 0

    def moved(loads: int, stores: int, waits: int) -> int:
        drain = ceil(stores, post) if post else 0
        return max(memory.cycles(loads, stores, waits), drain)

    if not engine.ping_pong:
        tiles = burst.tiles + rest.tiles
        cycles = timing.layer + compute + moved(load, store, wait) + memory.latency * tiles
        return Cost(cycles, compute, load, store)
    ends = rest if rest.tiles else burst
    ends.store -= last_store
    burst.load -= first_load
    burst.wait -= first_wait
    in_burst = moved(burst.load, burst.store, burst.wait) + memory.latency * (burst.tiles - 1)
    in_rest = moved(rest.load, rest.store, rest.wait) + memory.latency * rest.tiles
    cycles = (
        timing.layer
        + moved(first_load, 0, first_wait)
        + memory.latency
        + max(burst.compute, in_burst)
        + max(rest.compute, in_rest)
        + moved(0, last_store, 0)
    )
    return Cost(cycles, compute, load, store)


def depthwise_cost(
    shape: LayerShape, weight_bits: int, engine: Engine, memory: Memory, tile: Tile,
    timing: Timing = DEFAULT_TIMING,
) -> Cost:  # fmt: skip
    """One depthwise layer on the depthwise engine, channel tiles outside, rows inside.

    compute of a tile = rows · ceil(width / px) · channel groups · max(taps, ceil(po·px / post)) +
    start: finished sums pass the requantisers before the next step's do.
    """
    out_rows, out_width = shape.out_size
    rows = _parts(out_rows, tile.rows)
    channels = _parts(shape.outputs, tile.channels * engine.po)
    step = max(shape.taps, ceil(engine.po * engine.px, engine.post))
    slow = int(placing(memory.port_bytes, shape.stride[1], engine.px, engine.po))
    kinds = [_Kind(), _Kind()]
    first_load = first_wait = last_store = 0
    for c, width in enumerate(channels):
        for r, height in enumerate(rows):
            kind = kinds[min(r, 1)]
            outputs = height * out_width * stored(width)
            load = shape.rows_in(height) * shape.in_size[1] * stored(width)
            wait = slow * load
            if r == 0:
                load += ceil(width * shape.taps * weight_bits, 8) + 8 * width
            if shape.residual:
                load += outputs
            steps = height * ceil(out_width, engine.px) * ceil(width, engine.po) * step
            kind.compute += steps + timing.tile
            kind.load += load
            kind.wait += wait
            kind.store += outputs
            kind.tiles += 1
            if (r, c) == (0, 0):
                first_load, first_wait = load, wait
            last_store = outputs
    return _total(kinds, first_load, first_wait, last_store, engine, memory, timing)


def vector_cycles(op: VectorOp, engine: Engine, memory: Memory, timing: Timing) -> int:
    """layer + max(ceil(work / post), memory) + latency: element operations run on the requantisers
    of the dense engine."""
    moved = memory.cycles(op.load_bytes, op.store_bytes)
    return timing.layer + max(ceil(op.work, engine.post), moved) + memory.latency


@dataclass(frozen=True)
class Mapped:
    """A layer's best tiling on an accelerator and what it takes."""

    engine: str
    """``"dense"`` or ``"depthwise"``."""
    tile: Tile
    cost: Cost


def best_tile(
    shape: LayerShape, weight_bits: int, activation_bits: int, engine: Engine, memory: Memory,
    timing: Timing = DEFAULT_TIMING, by: str = "cycles",
) -> Mapped:  # fmt: skip
    """The legal tiling of least cycles (then traffic), or of least traffic (then cycles).

    Raises InfeasibleError when the engine does not take the format or no tiling fits its buffers.
    """
    if not engine.takes(weight_bits, activation_bits):
        raise InfeasibleError(
            f"format w{weight_bits}a{activation_bits} does not run on an engine of "
            f"{engine.weight_bits} x {engine.activation_bits} bits"
        )
    found: Mapped | None = None
    best = (0, 0)
    if engine.kind == "depthwise":
        tiles = (t for t in depthwise_tiles(shape, engine))
    else:
        one = (
            shape
            if shape.groups == 1
            else replace(
                shape, inputs=shape.inputs // shape.groups, outputs=shape.outputs // shape.groups
            )
        )
        tiles = (t for t in dense_tiles(one, engine, weight_bits, activation_bits))
    for tile in tiles:
        if engine.kind == "depthwise":
            if not depthwise_need(shape, engine, tile).fits(engine):
                continue
            cost = depthwise_cost(shape, weight_bits, engine, memory, tile, timing)
        else:
            if not dense_need(one, engine, tile).fits(engine):
                continue
            cost = dense_cost(shape, weight_bits, engine, memory, tile, timing)
        key = (cost.cycles, cost.traffic) if by == "cycles" else (cost.traffic, cost.cycles)
        if found is None or key < best:
            found, best = Mapped(engine.kind, tile, cost), key
    if found is None:
        raise InfeasibleError(
            f"no tiling of {shape} fits the buffers of the {engine.kind} engine "
            f"({engine.weight.depth} weight, {engine.activation.depth} activation, "
            f"{engine.accumulator.depth} accumulator words); give deeper buffers"
        )
    return found
