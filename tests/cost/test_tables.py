# SPDX-License-Identifier: Apache-2.0
"""The vectorised tables against the reference in plain loops, and their use of buffers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from codesign.cost.chain import ChainFormat, best_chain_tile
from codesign.cost.chain_tables import ChainBits, chain_tables
from codesign.cost.memory import Memory, Timing
from codesign.cost.tables import (
    INFEASIBLE,
    By,
    Cores,
    Grid,
    Machine,
    dense_table,
    depthwise_table,
    unpack,
)
from codesign.cost.timing import best_tile
from codesign.errors import InfeasibleError
from codesign.space.accelerator import Accelerator
from tests.cost.conftest import draw_chain, draw_dense, draw_depthwise, draw_shape

RATES = ((1, 3), (625, 7462), (3, 2))
GRID = Grid((512, 1024, 2048), (512, 2048, 8192), (256, 1024))
DW_GRID = Grid((256, 1024), (1024, 4096))


def memory_of(rng: random.Random) -> tuple[Memory, Machine, int]:
    port = rng.choice([64, 128])
    rate, latency = rng.choice(RATES), rng.choice([0, 30])
    timing = Timing(rng.choice([0, 100]), rng.choice([0, 20]))
    return Memory(port // 8, rate, latency), Machine(rate, latency, timing), port


def expected(found: tuple[int, int] | None, key: int, by: By) -> None:
    if found is None:
        assert key == INFEASIBLE
    else:
        cycles, traffic = unpack(np.array(key), by)
        assert (int(cycles), int(traffic)) == found


def check_layer(seed: int) -> None:
    rng = random.Random(seed)
    shape = draw_shape(rng)
    memory, machine, port = memory_of(rng)
    weight_bits, activation_bits = rng.choice([(8, 8), (4, 8), (4, 4), (2, 3)])
    by: By = rng.choice(["cycles", "traffic"])
    place: tuple[int, ...]
    cores: Cores
    if shape.kind == "depthwise" and rng.random() < 0.7:
        engine = draw_depthwise(rng)
        cores = Cores.of([engine], [port])
        table = depthwise_table(shape, weight_bits, cores, DW_GRID, machine, by)
        place = (
            DW_GRID.weight.index(engine.weight.depth),
            DW_GRID.activation.index(engine.activation.depth),
        )
    else:
        engine = draw_dense(rng)
        rates = engine.rates(weight_bits, activation_bits)
        cores = Cores.of([engine], [port])
        table = dense_table(shape, weight_bits, rates, cores, GRID, machine, by)
        place = (
            GRID.weight.index(engine.weight.depth),
            GRID.activation.index(engine.activation.depth),
            GRID.accumulator.index(engine.accumulator.depth),
        )
    try:
        best = best_tile(
            shape, weight_bits, activation_bits, engine, memory, machine.timing, by
        ).cost
        found = (best.cycles, best.traffic)
    except InfeasibleError:
        found = None
    expected(found, int(table[(0, *place)]), by)


@pytest.mark.parametrize("seed", range(40))
def test_layer_table_agrees_with_loops(seed: int) -> None:
    check_layer(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 3000))
def test_layer_table_agrees_with_loops_soak(seed: int) -> None:
    check_layer(seed)


def check_chain(seed: int) -> None:
    rng = random.Random(seed)
    chain = draw_chain(rng)
    memory, machine, port = memory_of(rng)
    dense, depthwise = draw_dense(rng), draw_depthwise(rng)
    pipelined = rng.random() < 0.5
    by: By = rng.choice(["cycles", "traffic"])
    draw = [rng.choice([(8, 8), (4, 8), (4, 4)]) for _ in range(3)]
    formats = ChainFormat(
        draw[0] if chain.expand else None, draw[1], draw[2] if chain.project else None
    )

    def rates(bits: tuple[int, int] | None) -> tuple[int, ...]:
        return (1,) if bits is None else dense.rates(*bits)

    wanted = [
        ChainBits(
            draw[0][0] if chain.expand else 0, draw[1][0], draw[2][0] if chain.project else 0, e, p
        )
        for e in rates(formats.expand)
        for p in rates(formats.project)
    ]
    cores = Cores.of([dense], [port]), Cores.of([depthwise], [port])
    tables = chain_tables(chain, wanted, *cores, GRID, DW_GRID, machine, pipelined, by)
    table = np.minimum.reduce([found for _, found in tables])
    place = (
        GRID.weight.index(dense.weight.depth),
        GRID.activation.index(dense.activation.depth),
        GRID.accumulator.index(dense.accumulator.depth),
        DW_GRID.weight.index(depthwise.weight.depth),
        DW_GRID.activation.index(depthwise.activation.depth),
    )
    try:
        cost = best_chain_tile(
            chain, formats, Accelerator(dense, depthwise, port), memory, machine.timing,
            pipelined, by,
        )[1]  # fmt: skip
        found = (cost.cycles, cost.traffic)
    except InfeasibleError:
        found = None
    expected(found, int(table[(0, *place)]), by)


@pytest.mark.parametrize("seed", range(40))
def test_chain_table_agrees_with_loops(seed: int) -> None:
    check_chain(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 3000))
def test_chain_table_agrees_with_loops_soak(seed: int) -> None:
    check_chain(seed)
