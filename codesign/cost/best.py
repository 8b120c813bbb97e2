# SPDX-License-Identifier: Apache-2.0
"""The best tiling on one accelerator, found in the vectorised prices and priced again in loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from codesign.cost.chain import ChainFormat, ChainShape, ChainTile, chain_cost, chain_runs
from codesign.cost.chain_tables import ChainBits, _Plan
from codesign.cost.memory import Memory
from codesign.cost.tables import INFEASIBLE, Array, By, Cores, Machine, dense_prices, pack
from codesign.cost.tiles import CHANNEL_SPLITS, Tile, row_tiles
from codesign.cost.timing import Cost, Mapped, best_tile, dense_cost
from codesign.space.accelerator import Accelerator
from codesign.space.device import Device
from codesign.space.workload import LayerShape


def _least(
    key: Array, needs: Sequence[Any], depths: Sequence[int]
) -> tuple[int, tuple[int, ...]] | None:
    """The least key whose needs are within the depths, and its place."""
    legal: Any = True
    for need, depth in zip(needs, depths):
        legal = legal & (np.asarray(need) <= depth)
    key = np.where(legal, key, INFEASIBLE)
    flat = int(key.argmin())
    least = int(key.reshape(-1)[flat])
    if least == INFEASIBLE:
        return None
    return least, tuple(int(i) for i in np.unravel_index(flat, key.shape))


def map_layer(
    shape: LayerShape, weight_bits: int, activation_bits: int, accelerator: Accelerator,
    device: Device, machine: Machine, by: By = "cycles",
) -> Mapped:  # fmt: skip
    """The layer's best tiling; as ``timing.best_tile`` on the engine that it runs on, but fast.

    Raises InfeasibleError as that does.
    """
    memory = Memory.of(device, accelerator.port_bits)
    engine = accelerator.dense
    if shape.kind == "depthwise" and accelerator.depthwise is not None:
        engine = accelerator.depthwise
    if engine.kind == "depthwise" or not engine.takes(weight_bits, activation_bits):
        return best_tile(shape, weight_bits, activation_bits, engine, memory, machine.timing, by)
    n = shape.groups
    one = replace(shape, inputs=shape.inputs // n, outputs=shape.outputs // n, groups=1)
    cores = Cores.of([engine], [accelerator.port_bits])
    depths = (engine.weight.depth, engine.activation.depth, engine.accumulator.depth)
    found: tuple[int, Tile] | None = None
    for rate in engine.rates(weight_bits, activation_bits):
        for priced in dense_prices(one, weight_bits, rate, cores, machine):
            cycles, traffic = np.broadcast_arrays(priced.cycles * n, priced.traffic * n)
            least = _least(pack(cycles, traffic, by), priced.needs, depths)
            if least is not None and (found is None or least[0] < found[0]):
                _, r, c, i = least[1]
                inputs = np.broadcast_to(priced.inputs, (1, 1, 1, cycles.shape[3]))
                tile = Tile(
                    int(priced.rows[0, r, 0, 0]),
                    int(priced.channels[0, 0, c, 0]),
                    int(inputs[0, 0, 0, i]),
                    priced.order,
                    rate,
                )
                found = least[0], tile
    if found is None:
        # for its message
        return best_tile(shape, weight_bits, activation_bits, engine, memory, machine.timing, by)
    cost = dense_cost(shape, weight_bits, engine, memory, found[1], machine.timing)
    return Mapped("dense", found[1], cost)


def map_chain(
    chain: ChainShape, formats: ChainFormat, accelerator: Accelerator, device: Device,
    machine: Machine, pipelined: bool = True, by: By = "cycles",
) -> tuple[ChainTile, Cost] | None:  # fmt: skip
    """The chain's best fused tiling, as ``chain.best_chain_tile``; None when it does not fit."""
    if not chain_runs(formats, accelerator):
        return None
    dense, depthwise = accelerator.dense, accelerator.depthwise
    assert depthwise is not None
    ports = [accelerator.port_bits]
    columns = Cores.of([dense], ports), Cores.of([depthwise], ports)
    depths = (
        dense.weight.depth, dense.activation.depth, dense.accumulator.depth,
        depthwise.weight.depth, depthwise.activation.depth,
    )  # fmt: skip
    rows = row_tiles(chain.depthwise.out_size[0])
    groups = -(-chain.depthwise.outputs // depthwise.po)
    found: tuple[int, ChainTile] | None = None
    one: tuple[int, ...] = (1,)
    for expand in one if formats.expand is None else dense.rates(*formats.expand):
        for project in one if formats.project is None else dense.rates(*formats.project):
            plan = _Plan(chain, expand, project, *columns, machine, pipelined)
            bits = ChainBits(
                0 if formats.expand is None else formats.expand[0],
                formats.depthwise[0],
                0 if formats.project is None else formats.project[0],
                expand,
                project,
            )
            for resident in (False, True):
                cycles, traffic = plan.cost(bits, resident)
                key = pack(cycles, traffic, by)
                least = _least(key, plan.needs(resident), depths)
                if least is not None and (found is None or least[0] < found[0]):
                    _, r, c = least[1]
                    channels = -(-groups // CHANNEL_SPLITS[c])
                    found = least[0], ChainTile(rows[r], channels, resident, expand, project)
    if found is None:
        return None
    memory = Memory.of(device, accelerator.port_bits)
    cost = chain_cost(chain, formats, dense, depthwise, memory, found[1], machine.timing, pipelined)
    return found[1], cost
