# SPDX-License-Identifier: Apache-2.0
"""The exact mapper against every mapping there is, and against CoSA's program."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from codesign.errors import InfeasibleError, InputError
from codesign.flow.joint.cosa import map_layer_cosa
from codesign.space.mapping import (
    ONES,
    STAYS,
    Machine,
    MapCost,
    MapLayer,
    Mapping,
    Six,
    divisors,
    map_cost,
    map_layer_exact,
)
from codesign.space.workload import LayerShape

TINY = Machine(2, 2, 2, 12, 8, 48, 2, 4)


def splits(n: int) -> list[tuple[int, ...]]:
    """All ways to write n as a product of six factors."""
    found: list[tuple[int, ...]] = [()]
    for _ in range(5):
        found = [(*f, d) for f in found for d in divisors(n // math.prod(f))]
    return [(*f, n // math.prod(f)) for f in found]


def everything(layer: MapLayer, machine: Machine) -> tuple[int, int] | None:
    """The least (latency, bytes) over all mappings."""
    best: tuple[int, int] | None = None
    for parts in itertools.product(*map(splits, layer.bounds)):
        levels: list[Six] = [(r, s, p, q, c, k) for r, s, p, q, c, k in zip(*parts)]
        dram, glob, pe, cluster, lane, inner = levels
        for stay in STAYS:
            try:
                cost = map_cost(layer, machine, Mapping(dram, glob, pe, cluster, lane, inner, stay))
            except InfeasibleError:
                continue
            value = (cost.latency, cost.noc_bytes + cost.dram_bytes)
            best = value if best is None else min(best, value)
    return best


def check(seed: int) -> None:
    rng = random.Random(seed)
    bounds = [1] * 6
    for _ in range(rng.randint(1, 4)):
        bounds[rng.randrange(6)] *= rng.choice([2, 2, 3])
    r, s, p, q, c, k = bounds
    layer = MapLayer((r, s, p, q, c, k), rng.choice([1, 2]))
    machine = Machine(
        rng.choice([1, 2, 3]), rng.choice([1, 2]), rng.choice([1, 2, 3]), rng.choice([2, 6, 12]),
        rng.choice([2, 8]), rng.choice([8, 24, 96]), rng.choice([1, 2, 5]), rng.choice([2, 4]),
    )  # fmt: skip
    expected = everything(layer, machine)
    if expected is None:
        with pytest.raises(InfeasibleError):
            map_layer_exact(layer, machine)
        return
    cost = map_layer_exact(layer, machine).cost
    assert (cost.latency, cost.noc_bytes + cost.dram_bytes) == expected


@pytest.mark.parametrize("seed", range(25))
def test_no_mapping_is_better(seed: int) -> None:
    check(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_no_mapping_is_better_soak(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize(
    ("bounds", "stride"), [((1, 1, 14, 14, 256, 1024), 1), ((3, 3, 7, 7, 512, 512), 1),
                           ((1, 1, 28, 28, 256, 512), 2), ((1, 1, 1, 1, 2048, 1000), 1)]
)  # fmt: skip
def test_never_above_the_program_of_cosa(bounds: Six, stride: int) -> None:
    layer = MapLayer(bounds, stride)
    found = map_layer_exact(layer)
    assert found.cost == map_cost(layer, Machine(), found.mapping)
    program = map_layer_cosa(layer)
    assert program.optimal
    assert program.cost == map_cost(layer, Machine(), program.mapping)
    assert found.cost.latency <= program.cost.latency


def test_cost_by_hand() -> None:
    layer = MapLayer((1, 1, 2, 1, 4, 4))
    mapping = Mapping(
        dram=(1, 1, 2, 1, 1, 1), glob=(1, 1, 1, 1, 2, 2), pe=(1, 1, 1, 1, 1, 2),
        cluster=ONES, lane=(1, 1, 1, 1, 2, 1), inner=ONES, stay="outputs",
    )  # fmt: skip
    # e: C 2, K 2: weights 4, inputs 2, outputs 2 bytes. Outputs stay over C:
    # weights 4·(2·2)·2, inputs 2·(2·2)·2, outputs 2·2·2
    # DRAM: tile of C 4, K 4: inputs 4 + outputs 4, twice, and the weights
    machine = Machine(2, 2, 2, 12, 8, 48, 2, 4)
    assert map_cost(layer, machine, mapping) == MapCost(24, 2 * 4, 32 + 16 + 8, 16 + 32)


def test_what_does_not_fit() -> None:
    layer = MapLayer((1, 1, 1, 1, 4, 4))
    everything_inside = Mapping(ONES, ONES, ONES, ONES, ONES, layer.bounds, "inputs")
    for machine, message in (
        (Machine(input_bytes=3), "input buffer: 4 bytes needed, 3 there"),
        (Machine(weight_bytes=1), "weight buffers of a PE: 16 bytes needed, 8 there"),
        (Machine(global_bytes=6), "global buffer's inputs: 4 bytes needed, 3 there"),
    ):
        with pytest.raises(InfeasibleError) as raised:
            map_cost(layer, machine, everything_inside)
        assert str(raised.value) == message
    wide = Mapping(ONES, ONES, layer.bounds, ONES, ONES, ONES, "inputs")
    with pytest.raises(InfeasibleError) as raised:
        map_cost(layer, Machine(pes=8), wide)
    assert str(raised.value) == "16 PEs used, the machine has 8"
    with pytest.raises(InfeasibleError) as raised:
        map_cost(layer, Machine(), Mapping(ONES, ONES, ONES, ONES, ONES, ONES, "inputs"))
    assert str(raised.value) == (
        "the loops multiply to (1, 1, 1, 1, 1, 1), the layer has (1, 1, 1, 1, 4, 4)"
    )
    one = (1, 1)
    grouped = LayerShape("dense", 4, 4, 2, one, one, one, one, one)
    with pytest.raises(InputError, match=r"^the mapper takes dense layers of one group and stride"):
        MapLayer.of(grouped)
