# SPDX-License-Identifier: Apache-2.0
"""A fused chain [expand 1x1 →] depthwise [→ project 1x1]: what lies between stays on chip.

Tile after tile (output rows outside, middle channels inside) the dense engine expands into the
depthwise engine's activation buffer, the depthwise engine writes its result to the dense engine's
activation buffer, and the dense engine adds the projection of these middle channels to the sums
that wait in its accumulators. Input rows that two row tiles share are loaded and expanded for
each. Pipelined, the two engines work on neighbouring tiles at once; otherwise in turn. Weights come
again for each row tile, unless all of the chain's stay on chip (``resident``).

The projection adds to sums that stand in one half of the accumulator buffer, so nothing is drained
on chip meanwhile: dense = max(expansion, placing a block pixel a cycle) + projection.

    T = layers · layer + M(first load) + fill + max(C_b, M_b) + max(C_r, M_r) + M(last store)
    C = max(dense, depthwise) with fill = the lesser of the first tile's two, when pipelined
    C = dense + depthwise, fill = 0, when in turn

This is HAO's mapping of subgraphs, with the choice left to the solver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codesign.cost.memory import DEFAULT_TIMING, Memory, Timing, placing
from codesign.cost.tiles import ceil, channel_tiles, row_tiles, stored
from codesign.cost.timing import Cost
from codesign.errors import InfeasibleError
from codesign.space.accelerator import Accelerator, Engine
from codesign.space.workload import LayerShape


@dataclass(frozen=True)
class ChainShape:
    """The layers of a chain; their sizes fit each other."""

    expand: LayerShape | None
    depthwise: LayerShape
    project: LayerShape | None
    local_residual: bool = False

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """Those that are there, in order."""
        return tuple(s for s in (self.expand, self.depthwise, self.project) if s is not None)


@dataclass(frozen=True)
class ChainFormat:
    """(weight bits, activation bits) of each layer; None where the layer is not there."""

    expand: tuple[int, int] | None
    depthwise: tuple[int, int]
    project: tuple[int, int] | None


@dataclass(frozen=True)
class ChainTile:
    """One tiling of a chain."""

    rows: int
    """Output rows of a tile."""
    channels: int
    """Middle channels of a tile, in groups of the depthwise engine's ``po``."""
    resident: bool = False
    """All weights of the chain stay on chip."""
    expand_rate: int = 1
    project_rate: int = 1


@dataclass(frozen=True)
class ChainNeed:
    """Words needed in one bank of each buffer."""

    dense_weight: int
    dense_activation: int
    dense_accumulator: int
    depthwise_weight: int
    depthwise_activation: int

    def fits(self, dense: Engine, depthwise: Engine) -> bool:
        """Whether the engines' buffers hold it."""
        return (
            self.dense_weight <= dense.weight.depth
            and self.dense_activation <= dense.activation.depth
            and self.dense_accumulator <= dense.accumulator.depth
            and self.depthwise_weight <= depthwise.weight.depth
            and self.depthwise_activation <= depthwise.activation.depth
        )


def chain_need(chain: ChainShape, dense: Engine, depthwise: Engine, tile: ChainTile) -> ChainNeed:
    """What a tiling needs on chip; the expansion's sums leave row by row."""
    middle = min(tile.channels * depthwise.po, chain.depthwise.outputs)
    tiles = ceil(chain.depthwise.outputs, middle)
    copies = tiles if tile.resident else 1
    rows_in = chain.depthwise.rows_in(tile.rows)
    width_in, width_out = chain.depthwise.in_size[1], chain.depthwise.out_size[1]
    weight = activation = sums = 0
    if chain.expand is not None:
        lanes = dense.px * tile.expand_rate
        groups, inputs = ceil(middle, dense.po), ceil(chain.expand.inputs, dense.pi)
        weight += groups * inputs
        activation += rows_in * ceil(width_in, lanes) * inputs
        sums += ceil(width_in, lanes) * tile.expand_rate * groups
    if chain.project is not None:
        lanes = dense.px * tile.project_rate
        groups, inputs = ceil(chain.project.outputs, dense.po), ceil(middle, dense.pi)
        weight += groups * inputs
        pixels = tile.rows * ceil(width_out, lanes)
        activation += pixels * inputs
        sums += pixels * tile.project_rate * groups
    return ChainNeed(
        weight * copies,
        activation,
        sums,
        chain.depthwise.taps * tile.channels * copies,
        rows_in * ceil(width_in, depthwise.px) * tile.channels,
    )


@dataclass
class _Kind:
    expand: int = 0
    project: int = 0
    depthwise: int = 0
    load: int = 0
    store: int = 0
    drain: int = 0
    """Bytes of results to memory."""
    placed: int = 0
    """Bytes of results to the other engine: a block pixel a cycle at best."""
    wait: int = 0
    tiles: int = 0

    def dense(self, post: int) -> int:
        """Cycles of the dense engine and of what it waits for."""
        return max(self.expand, ceil(self.placed, min(post, 8))) + self.project


def chain_cost(
    chain: ChainShape, formats: ChainFormat, dense: Engine, depthwise: Engine, memory: Memory,
    tile: ChainTile, timing: Timing = DEFAULT_TIMING, pipelined: bool = True,
) -> Cost:  # fmt: skip
    """The chain under one tiling, in plain loops; see the module."""
    mid = chain.depthwise
    out_width, in_width = mid.out_size[1], mid.in_size[1]
    rows = [min(tile.rows, mid.out_size[0] - at) for at in range(0, mid.out_size[0], tile.rows)]
    part = tile.channels * depthwise.po
    middle = [min(part, mid.outputs - at) for at in range(0, mid.outputs, part)]
    step = max(mid.taps, ceil(depthwise.po * depthwise.px, depthwise.post))
    kinds = [_Kind(), _Kind()]
    first_load = last_store = last_drain = first_wait = 0
    first = _Kind()
    if chain.expand is not None:
        assert formats.expand is not None
        lanes = dense.px * tile.expand_rate
        slow = int(placing(memory.port_bytes, 1, lanes, dense.pi))
    else:
        slow = int(placing(memory.port_bytes, mid.stride[1], depthwise.px, depthwise.po))
    for r, height in enumerate(rows):
        for m, width in enumerate(middle):
            kind = kinds[min(m, 1)]
            weights = r == 0 or (len(middle) > 1 and not tile.resident)
            rows_in = mid.rows_in(height)
            load = store = drain = placed = wait = expand = project = 0
            if chain.expand is not None:
                assert formats.expand is not None
                inputs = chain.expand.inputs
                load += rows_in * in_width * stored(inputs) if m == 0 else 0
                wait = slow * load
                load += ceil(width * inputs * formats.expand[0], 8) + 8 * width if weights else 0
                lanes = dense.px * tile.expand_rate
                expand = (
                    rows_in
                    * ceil(in_width, lanes)
                    * ceil(width, dense.po)
                    * max(ceil(inputs, dense.pi), tile.expand_rate)
                    + timing.tile
                )
                placed += rows_in * in_width * stored(width)
            else:
                load += rows_in * in_width * stored(width)
                wait = slow * load
            if weights:
                load += ceil(width * mid.taps * formats.depthwise[0], 8) + 8 * width
            on_depthwise = (
                height * ceil(out_width, depthwise.px) * ceil(width, depthwise.po) * step
                + timing.tile
            )
            if chain.project is not None:
                assert formats.project is not None
                outputs = chain.project.outputs
                load += ceil(width * outputs * formats.project[0], 8) if weights else 0
                lanes = dense.px * tile.project_rate
                project = (
                    height
                    * ceil(out_width, lanes)
                    * ceil(outputs, dense.po)
                    * max(ceil(width, dense.pi), tile.project_rate)
                    + timing.tile
                )
                if m == 0:
                    load += 8 * outputs if weights else 0
                    if chain.project.residual:
                        load += height * out_width * stored(outputs)
                if m == len(middle) - 1:
                    store = height * out_width * stored(outputs)
                    drain += store
            else:
                store = height * out_width * stored(width)
            kind.expand += expand
            kind.project += project
            kind.depthwise += on_depthwise
            kind.load += load
            kind.store += store
            kind.drain += drain
            kind.placed += placed
            kind.wait += wait
            kind.tiles += 1
            if (r, m) == (0, 0):
                first = _Kind(expand, project, on_depthwise, placed=placed)
                first_load, first_wait = load, wait
            last_store, last_drain = store, store if chain.project is not None else 0
    return _total(
        chain, kinds, first_load, first_wait, last_store, last_drain,
        min(first.dense(dense.post), first.depthwise),
        dense, depthwise, memory, timing, pipelined,
    )  # fmt: skip


def _total(
    chain: ChainShape, kinds: list[_Kind], first_load: int, first_wait: int, last_store: int,
    last_drain: int, fill: int, dense: Engine, depthwise: Engine, memory: Memory, timing: Timing,
    pipelined: bool,
) -> Cost:  # fmt: skip
    burst, rest = kinds
    layers = len(chain.layers)
    load, store = burst.load + rest.load, burst.store + rest.store
    compute = [k.dense(dense.post) + k.depthwise for k in kinds]

    def moved(loads: int, stores: int, waits: int, drained: int) -> int:
        return max(memory.cycles(loads, stores, waits), ceil(drained, dense.post))

    def kind_moved(kind: _Kind) -> int:
        return moved(kind.load, kind.store, kind.wait, kind.drain)

    if not (dense.ping_pong and depthwise.ping_pong):
        tiles = burst.tiles + rest.tiles
        cycles = (
            layers * timing.layer
            + sum(compute)
            + moved(load, store, burst.wait + rest.wait, burst.drain + rest.drain)
            + memory.latency * tiles
        )
        return Cost(cycles, sum(compute), load, store)
    if pipelined:
        compute = [max(k.dense(dense.post), k.depthwise) for k in kinds]
    else:
        fill = 0
    ends = rest if rest.tiles else burst
    ends.store -= last_store
    ends.drain -= last_drain
    burst.load -= first_load
    burst.wait -= first_wait
    cycles = (
        layers * timing.layer
        + moved(first_load, 0, first_wait, 0)
        + memory.latency
        + fill
        + max(
            compute[0],
            kind_moved(burst) + memory.latency * (burst.tiles - 1),
        )
        + max(compute[1], kind_moved(rest) + memory.latency * rest.tiles)
        + moved(0, last_store, 0, last_drain)
    )
    return Cost(cycles, sum(compute), load, store)


def chain_tiles(
    chain: ChainShape, formats: ChainFormat, dense: Engine, depthwise: Engine
) -> Iterator[ChainTile]:
    """Every tiling tried, legal or not."""
    one: tuple[int, ...] = (1,)
    expand = one if formats.expand is None else dense.rates(*formats.expand)
    project = one if formats.project is None else dense.rates(*formats.project)
    for expand_rate in expand:
        for project_rate in project:
            for resident in (False, True):
                for rows in row_tiles(chain.depthwise.out_size[0]):
                    for channels in channel_tiles(ceil(chain.depthwise.outputs, depthwise.po)):
                        yield ChainTile(rows, channels, resident, expand_rate, project_rate)


def chain_runs(formats: ChainFormat, accelerator: Accelerator) -> bool:
    """Whether the engines take the chain's formats."""
    dense, depthwise = accelerator.dense, accelerator.depthwise
    if depthwise is None or not depthwise.takes(*formats.depthwise):
        return False
    return all(dense.takes(*f) for f in (formats.expand, formats.project) if f is not None)


def best_chain_tile(
    chain: ChainShape, formats: ChainFormat, accelerator: Accelerator, memory: Memory,
    timing: Timing = DEFAULT_TIMING, pipelined: bool = True, by: str = "cycles",
) -> tuple[ChainTile, Cost]:  # fmt: skip
    """The legal tiling of least cycles (then traffic), or of least traffic (then cycles).

    Raises InfeasibleError when the engines do not take the formats or nothing fits.
    """
    dense, depthwise = accelerator.dense, accelerator.depthwise
    if not chain_runs(formats, accelerator):
        raise InfeasibleError(f"the chain's formats do not run on accelerator {accelerator.name}")
    assert depthwise is not None
    found: tuple[ChainTile, Cost] | None = None
    best = (0, 0)
    for tile in chain_tiles(chain, formats, dense, depthwise):
        if not chain_need(chain, dense, depthwise, tile).fits(dense, depthwise):
            continue
        cost = chain_cost(chain, formats, dense, depthwise, memory, tile, timing, pipelined)
        key = (cost.cycles, cost.traffic) if by == "cycles" else (cost.traffic, cost.cycles)
        if found is None or key < best:
            found, best = (tile, cost), key
    if found is None:
        raise InfeasibleError(f"no tiling of the chain fits accelerator {accelerator.name}")
    return found
