# SPDX-License-Identifier: Apache-2.0
"""Fused chains and the double rate on the functional model."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from codesign.cost.chain import ChainTile
from codesign.cost.tiles import Tile
from codesign.ir import DType, Graph, GraphBuilder, TensorType, ops
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.isa import Dest, Unit
from tests.support.fpga import accelerator, check_network, random_inputs

S16 = DType("signed", 16)


class Maker:
    """Integer layers with random weights."""

    def __init__(self, seed: int, weight_bits: int = 8, activation_bits: int = 8) -> None:
        self.rng = np.random.default_rng([seed, 7])
        self.b = GraphBuilder(f"chain{seed}")
        self.bits = weight_bits
        self.unsigned = DType("unsigned", activation_bits)
        self.signed = DType("signed", activation_bits)

    def pick(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def conv(self, x: str, outputs: int, kernel: int, stride: int, groups: int, name: str) -> str:
        channels = self.b.type(x).shape[1]
        most = 2 ** (self.bits - 1) - 1
        shape = (outputs, channels // groups, kernel, kernel)
        w = self.b.constant(
            self.rng.integers(-most, most, shape, endpoint=True).astype(np.int8), f"{name}.w",
            DType("signed", self.bits),
        )  # fmt: skip
        bias = self.b.constant(self.rng.integers(-99, 99, outputs).astype(np.int32), f"{name}.b")
        pad = kernel // 2
        op = ops.Conv2d((stride, stride), (pad, pad, pad, pad), (1, 1), groups)
        return self.b.add(op, [x, w, bias], name)

    def requantize(self, x: str, dtype: DType, name: str, axis: int = 1) -> str:
        count = self.b.type(x).shape[1] if axis == 1 else ()
        m = self.b.constant(self.rng.integers(1 << 15, 1 << 16, count).astype(np.int32))
        shift = 18 if dtype.bits == 16 else 26 - dtype.bits - (8 - self.bits)
        if axis < 0:
            shift = 13
        e = self.b.constant(np.full(count, shift, np.int32))
        return self.b.add(ops.Requantize(dtype, dtype.min, dtype.max, axis), [x, m, e], name)


def chain(
    seed: int, expand: bool, project: bool, residual: bool, bits: tuple[int, int] = (8, 8),
    size: tuple[int, int] | None = None,
) -> Graph:  # fmt: skip
    """[expand] depthwise [project] with any sizes; with ``residual`` the input is added."""
    m = Maker(seed, *bits)
    channels = 8 * m.pick(1, 3) if not expand else m.pick(3, 24)
    size = size or (m.pick(3, 12), m.pick(3, 13))
    x = m.b.input("x", TensorType((1, channels, *size), m.signed if expand else m.unsigned))
    middle = m.pick(5, 60) if expand else channels
    kernel, stride = (3, 5)[m.pick(0, 1)], 1 if residual else m.pick(1, 2)
    y = x
    if expand:
        y = m.requantize(m.conv(y, middle, 1, 1, 1, "expand"), m.unsigned, "expand.out")
    y = m.requantize(
        m.conv(y, middle, kernel, stride, middle, "depthwise"), m.unsigned, "depthwise.out"
    )
    if project:
        outputs = channels if residual else m.pick(4, 40)
        y = m.conv(y, outputs, 1, 1, 1, "project")
        if residual:
            parts = [m.requantize(y, S16, "sum"), m.requantize(x, S16, "residual", -1)]
            total = m.b.add(ops.Add(), parts, "add")
            y = m.b.add(ops.Clip(m.signed, m.signed.min, m.signed.max), [total], "project.out")
        else:
            y = m.requantize(y, m.signed, "project.out")
    return m.b.finish([y])


@pytest.mark.parametrize("seed", range(24))
def test_chains(seed: int) -> None:
    rng = np.random.default_rng([seed, 8])
    expand, project = [(True, True), (True, False), (False, True)][seed % 3]
    graph = chain(seed, expand, project, expand and project and bool(rng.integers(2)))
    names = [n for n in ("expand", "depthwise", "project") if n in graph.nodes]
    tile = ChainTile(int(rng.integers(1, 6)), int(rng.integers(1, 4)), bool(rng.integers(2)))
    machine = accelerator(
        int(rng.choice([4, 8, 16])), int(rng.choice([8, 16])), int(rng.choice([1, 2, 3, 4])),
        (256, 512, 128), (int(rng.choice([8, 16])), int(rng.choice([1, 2, 3]))), (256, 512),
        int(rng.choice([4, 8])),
    )  # fmt: skip
    program = compile_network(graph, machine, chains=[(names, tile)])
    assert any(c.values.get("to_chip") for c in program.commands), "the chain was not fused"
    inner = {f"{n}.out" for n in names[:-1]}
    assert not inner & set(program.places)
    check_network(graph, machine, random_inputs(graph, rng), program)


def places(program: Program) -> list[int]:
    """First words of what is placed for the depthwise engine, in order."""
    found = []
    for command in program.commands:
        v = command.values
        if command.unit is Unit.LOAD and v["dest"] == Dest.DEPTHWISE_ACT:
            found.append(v["base"])
        if command.unit is Unit.DRAIN and v.get("to_chip"):
            found.append(v["place_base"])
    return found


@pytest.mark.parametrize("seed", range(12))
def test_rows_come_round(seed: int) -> None:
    """Images that the depthwise engine's buffer does not hold: no row is made twice, and rows
    stand across the buffer's end."""
    rng = np.random.default_rng([seed, 10])
    expand, project = [(True, True), (True, False), (False, True)][seed % 3]
    residual = expand and project and seed % 2 == 1
    bits = (4, 4) if seed % 4 == 0 else (8, 8)
    graph = chain(seed, expand, project, residual, bits, (int(rng.integers(20, 40)), 9))
    names = [n for n in ("expand", "depthwise", "project") if n in graph.nodes]
    node = graph.nodes["expand.out" if expand else "x"].type
    conv = graph.nodes["depthwise"].op
    assert isinstance(conv, ops.Conv2d)
    po, px = int(rng.choice([8, 16])), int(rng.choice([2, 3]))
    columns = -(-9 // conv.stride[1])
    row = -(-columns // px) * conv.stride[1] * -(-node.shape[1] // po)
    depth = 1 << (row * node.shape[2] - 1).bit_length() - 2  # half of what the image takes
    machine = accelerator(
        int(rng.choice([4, 8, 16])), int(rng.choice([8, 16])), int(rng.choice([1, 2, 3])),
        (256, 512, 128), (po, px), (256, depth), 8, double=bool(seed % 2),
        port=(64, 128)[seed // 2 % 2],
    )  # fmt: skip
    program = compile_network(graph, machine, chains=[(names, ChainTile(5, 1))])
    bases = places(program)
    again = any(later < first for first, later in pairwise(bases))
    assert again or bases[-1] + row > 2 * depth, "never came round"
    assert max(bases) < 2 * depth
    rows = sum(
        c.values["rows"] for c in program.commands
        if (c.unit is Unit.DRAIN and c.values.get("to_chip"))
        or (c.unit is Unit.LOAD and c.values["dest"] == Dest.DEPTHWISE_ACT)
    )  # fmt: skip
    assert rows == node.shape[2]
    check_network(graph, machine, random_inputs(graph, rng), program)


def test_a_chain_that_does_not_fit_runs_layer_by_layer() -> None:
    graph = chain(0, True, True, False)
    machine = accelerator(po=8, px=2, depths=(512, 512, 4))
    program = compile_network(
        graph, machine, chains=[(("expand", "depthwise", "project"), ChainTile(4, 1))]
    )
    assert not any(c.values.get("to_chip") for c in program.commands)
    check_network(graph, machine, random_inputs(graph, np.random.default_rng(0)), program)


@pytest.mark.parametrize("seed", range(8))
def test_double_rate(seed: int) -> None:
    """4-bit layers at twice the pixels, alone and in chains."""
    rng = np.random.default_rng([seed, 9])
    graph = chain(seed, True, True, bool(rng.integers(2)), (4, 4))
    machine = accelerator(
        int(rng.choice([4, 8, 16])), 8, int(rng.choice([1, 2, 3])), (256, 512, 128), double=True
    )
    if seed % 2:
        tile = ChainTile(2, 1, False, 2, 2)
        program = compile_network(
            graph, machine, chains=[(("expand", "depthwise", "project"), tile)]
        )
    else:
        tiles = {n: Tile(3, 2, 2, "spatial", 2) for n in ("expand", "project")}
        program = compile_network(graph, machine, tiles=tiles)
    dense = [c for c in program.commands if c.unit is Unit.DENSE]
    assert all(c.values["double"] for c in dense)
    check_network(graph, machine, random_inputs(graph, rng), program)
