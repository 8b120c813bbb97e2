# SPDX-License-Identifier: Apache-2.0
"""Values stored in 16 bits between kernels, and requantisation in 32 bits: exact, and used where
the ranges prove it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.ir import Graph, GraphBuilder, TensorType, interpret, ops
from codesign.ir.types import DType
from codesign.targets.host import HostTarget
from codesign.targets.layers import random_inputs
from codesign.targets.tvm_lower.groups import make_groups
from codesign.targets.tvm_lower.isa.base import LEAST_SHIFT, SUM_LIMIT
from codesign.targets.tvm_lower.machine import x86_machine
from codesign.targets.tvm_lower.templates.epilogue import short_lift
from codesign.targets.tvm_lower.tiles import no_tiles
from codesign.targets.tvm_lower.wide import wide_values
from tests.targets.checks import extremes

U8, S8, S16 = (DType.parse(name) for name in ("u8", "s8", "s16"))


class Layers:
    """Builds chains of requantised convolutions with weights at their extremes."""

    def __init__(self, shape: tuple[int, int, int, int], weight: int = 8, seed: int = 0) -> None:
        self.rng = np.random.default_rng([seed, weight])
        self.weight = weight
        self.builder = GraphBuilder("chain")
        self.start = self.builder.input("x", TensorType(shape, U8))

    def conv(
        self, x: str, outputs: int, size: int = 1, groups: int = 1, dtype: DType = U8,
        stride: int = 1, name: str = "",
    ) -> str:  # fmt: skip
        b, rng = self.builder, self.rng
        limit = 2 ** (self.weight - 1) - 1
        kernel = (outputs, b.type(x).shape[1] // groups, size, size)
        w = np.where(rng.random(kernel) < 0.8, rng.choice([-limit, limit], kernel),
                     rng.integers(-limit, limit + 1, kernel))  # fmt: skip
        bias = rng.integers(-(2**14), 2**14, outputs).astype(np.int32)
        weights = b.constant(w.astype(np.int8), dtype=DType("signed", self.weight))
        conv = b.add(ops.Conv2d((stride, stride), (size // 2,) * 4, (1, 1), groups),
                     [x, weights, b.constant(bias)])  # fmt: skip
        return self.scaled(conv, dtype, outputs, name)

    def scaled(self, x: str, dtype: DType, channels: int, name: str = "") -> str:
        b, rng = self.builder, self.rng
        m = rng.integers(2**15, 2**16, channels).astype(np.int32)
        m[::3] = rng.choice([0, 2**15, 2**16 - 1])
        e = rng.integers(24, 30, channels).astype(np.int32)
        return b.add(ops.Requantize(dtype, dtype.min, dtype.max, 1),
                     [x, b.constant(m), b.constant(e)], name)  # fmt: skip

    def plus(self, x: str, side: str, name: str) -> str:
        b = self.builder
        one = [b.constant(np.asarray(2**15, np.int32)), b.constant(np.array(15, np.int32))]
        scaled = b.add(ops.Requantize(S16, S16.min, S16.max, -1), [side, *one])
        return b.add(ops.Clip(S8, S8.min, S8.max), [b.add(ops.Add(), [x, scaled])], name)


def inverted_residuals(weight: int = 8, seed: int = 0) -> Graph:
    """1x1, depthwise, 1x1 with a residual, twice, then a 3x3 that reads bytes."""
    layers = Layers((1, 16, 9, 7), weight, seed)
    x = layers.conv(layers.start, 24, dtype=S8, name="in")
    for index in range(2):
        y = layers.conv(x, 40, name=f"expand{index}")
        y = layers.conv(y, 40, 3, 40, name=f"depthwise{index}")
        y = layers.conv(y, 24, dtype=S16, name=f"project{index}")
        x = layers.plus(y, x, f"sum{index}")
    last = layers.conv(x, 16, 1, dtype=U8, name="last")
    return layers.builder.finish([layers.conv(last, 8, 3, name="out")])


def wide(graph: Graph, level: str = "haswell") -> frozenset[str]:
    machine = replace(x86_machine(level), threads=2)
    return wide_values(graph, make_groups(graph), machine, no_tiles)


def test_what_is_stored_in_words() -> None:
    graph = inverted_residuals()
    # read by 1x1 convolutions, and as residuals, but not: what a depthwise or 3x3 reads, outputs
    assert wide(graph) == {"in", "depthwise0", "sum0", "depthwise1", "sum1"}
    assert wide(graph, "cascadelake") == frozenset()  # VNNI multiplies bytes
    assert wide(inverted_residuals(7)) == frozenset()  # so does vpmaddubsw, exactly


def test_a_value_that_others_read_stays_in_bytes() -> None:
    layers = Layers((1, 16, 6, 6))
    x = layers.conv(layers.start, 16, name="x")
    one, three = layers.conv(x, 8, name="one"), layers.conv(x, 8, 3, name="three")
    graph = layers.builder.finish([one, three])
    assert wide(graph) == frozenset()
    layers = Layers((1, 16, 6, 6))
    x = layers.conv(layers.start, 16, name="x")
    one, pooled = layers.conv(x, 8), layers.builder.add(ops.Pool2d("max", (2, 2), (2, 2)), [x])
    assert wide(layers.builder.finish([one, pooled])) == frozenset()


def test_strides_and_many_weights_are_exact() -> None:
    """Words read with a stride in place, copied without the pixels between, weights in bytes."""
    layers = Layers((1, 128, 5, 7))
    copied = layers.conv(layers.start, 136, stride=2, name="copied")
    x = layers.conv(layers.start, 528, dtype=S8, name="middle")
    graph = layers.builder.finish([copied, layers.conv(x, 136, stride=2), layers.conv(x, 264)])
    assert wide(graph) == {"middle"}
    runner = HostTarget(tuned=False).runner(graph)
    for arrays in (random_inputs(graph), *extremes(graph)):
        for found, expected in zip(runner.run(*arrays), interpret.run(graph, *arrays)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("weight", range(2, 9))
def test_chains_of_every_width_are_exact(weight: int) -> None:
    """Weights at the bound of the narrow accumulators: all pairs saturate that can."""
    graph = inverted_residuals(weight)
    for threads in (1, 2) if weight == 8 else (2,):
        runner = HostTarget(threads=threads, tuned=False).runner(graph)
        for arrays in (random_inputs(graph), *extremes(graph)):
            expected = interpret.run(graph, *arrays)[0]
            np.testing.assert_array_equal(runner.run(*arrays)[0], expected)


def scaled_layer(sums: int, e: int, seed: int, most: int = 32) -> Graph:
    """A 1x1 convolution whose sums and biases reach just ``sums``, scaled to all of s16."""
    rng = np.random.default_rng([sums, e, seed])
    b = GraphBuilder("scaled")
    x = b.input("x", TensorType((1, 8, 3, 5), U8))
    wide = min(127, sums // (8 * 255))  # so that the sums leave room for a bias
    w = rng.integers(-wide, wide + 1, (16, 8, 1, 1))
    room = sums - np.abs(w).sum(axis=(1, 2, 3)) * 255
    bias = np.where(rng.random(16) < 0.5, room, -room).astype(np.int32)
    bias[::4] = rng.integers(-(2**16), 2**16, 4)
    conv = b.add(ops.Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1),
                 [x, b.constant(w.astype(np.int8), dtype=S8), b.constant(bias)])  # fmt: skip
    m = rng.choice([2**15, 2**15 + 1, 2**16 - 1, 51234, 0], 16).astype(np.int32)
    shifts = rng.integers(e, most + 1, 16).astype(np.int32)
    shifts[:4] = e
    s32 = DType.parse("s32")
    y = b.add(ops.Requantize(s32, -(2**31), 2**31 - 1, 1),
              [conv, b.constant(m), b.constant(shifts)])  # fmt: skip
    return b.finish([y])


@pytest.mark.parametrize("sums", [SUM_LIMIT - 1, SUM_LIMIT])
@pytest.mark.parametrize("e", [LEAST_SHIFT - 1, LEAST_SHIFT])
def test_scaling_at_its_bounds(sums: int, e: int) -> None:
    for seed in range(3):
        graph = scaled_layer(sums, e, seed)
        (conv, scaled) = (n for n in graph.nodes.values() if n.op.name in ("conv2d", "requantize"))
        w, bias = (graph.constants[v] for v in conv.inputs[1:])
        shifts = graph.constants[scaled.inputs[2]]
        lift = short_lift(U8, w, bias.astype(np.int64), shifts)
        fits = sums < SUM_LIMIT and e >= LEAST_SHIFT
        assert (lift is not None) == fits  # sums at their limit leave no room for a shift
        runner = HostTarget(threads=1, tuned=False).runner(graph)
        for arrays in (random_inputs(graph), *extremes(graph)):
            expected = interpret.run(graph, *arrays)[0]
            np.testing.assert_array_equal(runner.run(*arrays)[0], expected)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
def test_more_chains_are_exact(seed: int) -> None:
    graph = inverted_residuals(2 + seed % 7, seed + 1)
    runner = HostTarget(tuned=False).runner(graph)
    for arrays in (random_inputs(graph, seed), *extremes(graph)):
        np.testing.assert_array_equal(
            runner.run(*arrays)[0], interpret.run(graph, *arrays)[0]
        )


@pytest.mark.parametrize("e", [4, 10, LEAST_SHIFT - 1])
@pytest.mark.parametrize("over", [0, 1])
def test_small_sums_are_lifted_to_the_least_shift(e: int, over: int) -> None:
    lift = LEAST_SHIFT - e
    graph = scaled_layer((SUM_LIMIT >> lift) - 1 + over, e, 0, most=32 - lift)
    (conv, scaled) = (n for n in graph.nodes.values() if n.op.name in ("conv2d", "requantize"))
    w, bias = (graph.constants[v] for v in conv.inputs[1:])
    shifts = graph.constants[scaled.inputs[2]]
    found = short_lift(U8, w, bias.astype(np.int64), shifts)
    assert found == (None if over else lift)
    assert short_lift(U8, w[:, :1] // 8, bias // 512, np.minimum(shifts, 20)) == max(lift, 8)
    runner = HostTarget(threads=1, tuned=False).runner(graph)
    for arrays in (random_inputs(graph), *extremes(graph)):
        expected = interpret.run(graph, *arrays)[0]
        np.testing.assert_array_equal(runner.run(*arrays)[0], expected)
