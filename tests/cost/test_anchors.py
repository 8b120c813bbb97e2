# SPDX-License-Identifier: Apache-2.0
"""Every cost function at values worked out by hand (the sums stand beside them)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.cost.chain import ChainFormat, ChainShape, ChainTile, chain_cost, chain_need
from codesign.cost.energy import EnergyModel
from codesign.cost.memory import Memory, Timing
from codesign.cost.packing import lut_product, products_per_multiplier
from codesign.cost.resources import lutram, ramb18
from codesign.cost.tables import pack, unpack
from codesign.cost.tiles import (
    Need,
    Tile,
    channel_tiles,
    dense_need,
    depthwise_need,
    input_tiles,
    row_tiles,
)
from codesign.cost.timing import best_tile, dense_cost, depthwise_cost, vector_cycles
from codesign.errors import InfeasibleError, InputError
from codesign.space.accelerator import Buffer, Engine
from codesign.space.workload import LayerShape, VectorOp

ONE = (1, 1)
MEMORY = Memory(16, (1, 16), 10)
"""16 bytes a cycle through the port and from DRAM, 10 cycles of latency."""
TIMING = Timing(100, 20)
DENSE = Engine("dense", 16, 16, 1, Buffer(64), Buffer(64), Buffer(64), post=16)
DEPTHWISE = Engine("depthwise", 1, 8, 2, Buffer(64), Buffer(64), post=4)
POINTWISE = LayerShape("dense", 16, 16, 1, ONE, ONE, ONE, (4, 4), (4, 4))
WINDOW = LayerShape("depthwise", 8, 8, 8, (3, 3), ONE, ONE, (6, 6), (4, 4))


def dense(shape: LayerShape, tile: Tile, engine: Engine = DENSE) -> int:
    return dense_cost(shape, 8, engine, MEMORY, tile, TIMING).cycles


def test_one_tile() -> None:
    # load 4·4·16 + 16·16 + 8·16 = 640 B = 40 + 10, 16 more to place 256 B in one memory; compute
    # 16 + 20; store 256 B = 16
    cost = dense_cost(POINTWISE, 8, DENSE, MEMORY, Tile(4, 1, 1, "spatial"), TIMING)
    assert (cost.cycles, cost.compute) == (100 + 66 + 36 + 16, 36)
    assert (cost.load_bytes, cost.store_bytes, cost.traffic) == (640, 256, 896)


def test_placing_costs_the_ports_time() -> None:
    """Two pixels of a wide beat go to two memories in one cycle, unless a stride or one memory
    alone brings both to the same; a block of 8 channels takes two words of 4."""
    pairs = replace(DENSE, px=2)
    # 640 B in 40 cycles as they come; compute 8 + 20
    assert dense(POINTWISE, Tile(4, 1, 1, "spatial"), pairs) == 100 + 50 + 28 + 16
    strided = replace(POINTWISE, stride=(1, 2), out_size=(4, 2))
    # rows of one pixel group: 4 + 20; results 128 B
    assert dense(strided, Tile(4, 1, 1, "spatial"), pairs) == 100 + 66 + 24 + 8
    narrow = replace(pairs, pi=4)
    # 32 steps; 384 B of weights 24, inputs 16 twice
    assert dense(POINTWISE, Tile(4, 1, 4, "spatial"), narrow) == 100 + 66 + 52 + 16
    small = Memory(8, (1, 16), 10)
    # 8 bytes a cycle: 80 cycles, with pi = 4 the inputs' 32 once more; results 32
    found = dense_cost(POINTWISE, 8, narrow, small, Tile(4, 1, 4, "spatial"), TIMING)
    assert found.cycles == 100 + 80 + 32 + 10 + 52 + 32


def test_two_row_tiles() -> None:
    # first load 128 + 384 B = 32 + 8 + 10; compute 2·(8 + 20) hides 256 B; last store 128 B = 8
    assert dense(POINTWISE, Tile(2, 1, 1, "spatial")) == 100 + 50 + 56 + 8


def test_two_channel_tiles_bring_the_weights_again() -> None:
    shape = LayerShape("dense", 16, 32, 1, ONE, ONE, ONE, (4, 4), (4, 4))
    # spatial, rows of 2: burst tiles load 2·(128 + 384), the others 2·384; 2·32·... see the sum
    cost = dense_cost(shape, 8, DENSE, MEMORY, Tile(2, 1, 1, "spatial"), TIMING)
    assert cost.load_bytes == 2 * (128 + 384) + 2 * 384
    # channel: weights 2·384 once, the 256 B of inputs for each of two channel tiles
    cost = dense_cost(shape, 8, DENSE, MEMORY, Tile(2, 1, 1, "channel"), TIMING)
    assert cost.load_bytes == 2 * 384 + 2 * 256
    # weights or inputs stay: everything once
    for order in ("weights", "inputs"):
        cost = dense_cost(shape, 8, DENSE, MEMORY, Tile(2, 1, 1, order), TIMING)
        assert cost.load_bytes == 2 * 384 + 256


def test_tiled_input_channels() -> None:
    shape = LayerShape("dense", 64, 16, 1, ONE, ONE, ONE, (4, 4), (4, 4))
    # four input tiles: steps 4·1, starts 4·20; load 16·64 + 16·64 + 128
    cost = dense_cost(shape, 8, DENSE, MEMORY, Tile(4, 1, 1, "spatial"), TIMING)
    assert (cost.compute, cost.load_bytes) == (16 * 4 + 80, 1024 + 1024 + 128)


def test_residual_is_loaded() -> None:
    shape = LayerShape("dense", 16, 16, 1, ONE, ONE, ONE, (4, 4), (4, 4), True)
    cost = dense_cost(shape, 8, DENSE, MEMORY, Tile(4, 1, 1, "spatial"), TIMING)
    assert cost.load_bytes == 640 + 256


def test_groups_run_one_after_the_other() -> None:
    shape = LayerShape("dense", 32, 32, 2, ONE, ONE, ONE, (4, 4), (4, 4))
    assert dense(shape, Tile(4, 1, 1, "spatial")) == 2 * 218


def test_without_ping_pong_everything_adds_up() -> None:
    engine = Engine("dense", 16, 16, 1, Buffer(64, 1), Buffer(64), Buffer(64), post=16)
    # compute 36; max(640/16, 256/16, 896/16) = 56; one latency
    assert dense(POINTWISE, Tile(4, 1, 1, "spatial"), engine) == 100 + 36 + 56 + 10


def test_few_requantisers_hold_up_the_stores() -> None:
    engine = Engine("dense", 16, 16, 1, Buffer(64), Buffer(64), Buffer(64), post=2)
    assert dense(POINTWISE, Tile(4, 1, 1, "spatial"), engine) == 100 + 66 + 36 + 128


def test_doubled_rate() -> None:
    engine = Engine("dense", 16, 16, 1, Buffer(64), Buffer(64), Buffer(64), double=True, post=16)
    wide = LayerShape("dense", 32, 16, 1, ONE, ONE, ONE, (4, 4), (4, 4))
    assert engine.rates(4, 4) == (1, 2)
    assert engine.rates(4, 8) == (1,)
    # 32 inputs are two steps a pixel: 16·2 + 20 alone, 8·2 + 20 doubled
    for rate, compute in ((1, 52), (2, 36)):
        tile = Tile(4, 1, 2, "spatial", rate)
        assert dense_cost(wide, 4, engine, MEMORY, tile, TIMING).compute == compute
    # 16 inputs are one step, but two words of sums: no gain
    tile = Tile(4, 1, 1, "spatial", 2)
    assert dense_cost(POINTWISE, 4, engine, MEMORY, tile, TIMING).compute == 8 * 2 + 20


def test_depthwise() -> None:
    # load 6·6·8 + 72 + 64 = 424 B = 27 + 10; compute 4·2·9 + 20; store 128 B = 8
    cost = depthwise_cost(WINDOW, 8, DEPTHWISE, MEMORY, Tile(4, 1), TIMING)
    assert (cost.cycles, cost.traffic) == (100 + 37 + 92 + 8, 424 + 128)


def test_depthwise_waits_for_requantisers() -> None:
    engine = Engine("depthwise", 1, 8, 2, Buffer(64), Buffer(64), post=1)
    # a step of 8·2 sums through one requantiser: 16 cycles rather than 9
    cost = depthwise_cost(WINDOW, 8, engine, MEMORY, Tile(4, 1), TIMING)
    assert cost.compute == 4 * 2 * 16 + 20


def chain() -> ChainShape:
    expand = LayerShape("dense", 16, 8, 1, ONE, ONE, ONE, (6, 6), (6, 6))
    project = LayerShape("dense", 8, 16, 1, ONE, ONE, ONE, (4, 4), (4, 4))
    return ChainShape(expand, WINDOW, project)


def test_chain() -> None:
    formats = ChainFormat((8, 8), (8, 8), (8, 8))
    tile = ChainTile(4, 1)
    # load 6·6·16 + (128 + 64) + (72 + 64) + 128 + 128 = 1160 B = 73 + 10, 36 more to place 576 B
    # dense 36 + 20 + 16 + 20, depthwise 72 + 20; store 256 B = 16; expansion places 288/8 = 36
    for pipelined, compute in ((True, 92 + 92), (False, 92 + 92)):
        cost = chain_cost(chain(), formats, DENSE, DEPTHWISE, MEMORY, tile, TIMING, pipelined)
        assert cost.cycles == 300 + 83 + 36 + compute + 16
        assert (cost.load_bytes, cost.store_bytes) == (1160, 256)
    # two row tiles of 4 input rows each: dense 2·(24 + 8 + 40), depthwise 2·(36 + 20); weights stay
    cost = chain_cost(chain(), formats, DENSE, DEPTHWISE, MEMORY, ChainTile(2, 1), TIMING)
    # first load 4·6·16 + 584 = 968 B = 61 + 10; fill min(72, 56); last store 128 B = 8
    assert cost.cycles == 300 + 71 + 24 + 56 + 144 + 8


def test_needs() -> None:
    assert dense_need(POINTWISE, DENSE, Tile(2, 1, 1, "spatial")) == Need(1, 8, 8)
    assert dense_need(POINTWISE, DENSE, Tile(2, 1, 1, "inputs")) == Need(1, 16, 8)
    wide = LayerShape("dense", 32, 64, 1, (3, 3), ONE, ONE, (6, 6), (4, 4))
    assert dense_need(wide, DENSE, Tile(2, 1, 1, "weights")) == Need(9 * 4 * 2, 4 * 6, 8)
    assert dense_need(wide, DENSE, Tile(2, 2, 1, "channel")) == Need(18, 24, 16)
    assert depthwise_need(WINDOW, DEPTHWISE, Tile(2, 1)) == Need(9, 4 * 3, 0)
    need = chain_need(chain(), DENSE, DEPTHWISE, ChainTile(2, 1))
    assert (need.dense_weight, need.depthwise_weight) == (1 + 1, 9)
    assert (need.dense_activation, need.depthwise_activation) == (24 + 8, 4 * 3)
    assert need.dense_accumulator == 6 + 8


def test_tiles_tried() -> None:
    assert row_tiles(7) == [7, 4, 3, 2, 1]
    assert channel_tiles(5) == [5, 3, 2, 1]
    assert input_tiles(20) == [20, 5, 2, 1]


def test_memory_is_bound_by_port_or_dram() -> None:
    assert MEMORY.cycles(160, 160) == 20  # DRAM: 320 bytes, one direction at a time
    assert Memory(8, (1, 16), 0).cycles(160, 160) == 20  # port: 160 bytes each way
    assert Memory(16, (3, 2), 0).cycles(10, 0) == 15


def test_vector_operator() -> None:
    op = VectorOp("add", 100, 60, 1000)
    assert vector_cycles(op, DENSE, MEMORY, TIMING) == 100 + 63 + 10  # 1000 / 16 rounded up


@pytest.mark.parametrize(
    ("width", "depth", "rams"),
    # synthesised by yosys: 36x512 one RAMB18, 72x512 and 64x1024 one and two RAMB36, and so on
    [(36, 512, 1), (72, 512, 2), (64, 1024, 4), (128, 512, 4), (64, 4096, 16), (512, 512, 15),
     (8, 2048, 1), (16, 32, 0)],
)  # fmt: skip
def test_block_ram(width: int, depth: int, rams: int) -> None:
    assert int(ramb18(width, depth)) == rams


def test_shallow_memories_are_luts() -> None:
    assert int(lutram(64, 64)) == 74  # 10 RAM64M8 of 7 bits and 8 LUTs hold 70
    assert int(lutram(64, 65)) == 0


def test_packing() -> None:
    assert [products_per_multiplier("dsp48e1", *b) for b in ((8, 8), (4, 8), (4, 4))] == [2, 2, 4]
    assert [products_per_multiplier("mult18", *b) for b in ((8, 8), (4, 8), (4, 4))] == [1, 1, 2]
    assert products_per_multiplier("lut", 4, 4) == 0
    assert lut_product("ecp5", 4, 4) == 41


def test_energy() -> None:
    model = EnergyModel(multiply_8x8=200, add=100, dram_byte=160_000, static_cycle=7)
    assert model.mac(4, 8) == 200
    assert model.moved(10, 3) == 1_600_021


def test_keys() -> None:
    key = pack(np.array([5]), np.array([9]), "traffic")
    assert [int(v[0]) for v in unpack(key, "traffic")] == [5, 9]
    with pytest.raises(InputError) as raised:
        pack(np.array([1 << 31]), np.array([9]), "cycles")
    assert str(raised.value) == (
        "a layer takes 2147483648 cycles and 9 bytes; the tables hold less than 2^31 and 2^32"
    )


def test_what_does_not_fit() -> None:
    tiny = Engine("dense", 4, 8, 1, Buffer(1), Buffer(1), Buffer(1))
    with pytest.raises(InfeasibleError) as raised:
        best_tile(POINTWISE, 8, 8, tiny, MEMORY)
    assert str(raised.value).endswith(
        "fits the buffers of the dense engine (1 weight, 1 activation, 1 accumulator words); "
        "give deeper buffers"
    )
    narrow = Engine("dense", 4, 8, 1, Buffer(9), Buffer(9), Buffer(9), 4, 8)
    with pytest.raises(InfeasibleError) as raised:
        best_tile(POINTWISE, 8, 8, narrow, MEMORY)
    assert str(raised.value) == "format w8a8 does not run on an engine of 4 x 8 bits"
