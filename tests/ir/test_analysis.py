# SPDX-License-Identifier: Apache-2.0
"""Counts of operations, parameters and bytes, against counts by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from codesign.ir import DType, Graph, GraphBuilder, TensorType, graph_stats, layer_stats, ops
from codesign.ir.analysis import LayerStats, peak_bytes
from tests.support.graphs import random_graph
from tests.support.integer_graphs import random_integer_graph


def zeros(builder: GraphBuilder, *shape: int, dtype: str = "f32") -> str:
    kind = DType.parse(dtype)
    return builder.constant(np.zeros(shape, kind.numpy), "c", kind)


def test_counts_by_hand() -> None:
    b = GraphBuilder("net")
    x = b.input("x", TensorType((2, 6, 9, 9), DType("unsigned", 4)))
    w = zeros(b, 4, 3, 3, 3, dtype="s3")
    op = ops.Conv2d((2, 2), (1, 1, 1, 1), groups=2)
    conv = b.add(op, [x, w, zeros(b, 4, dtype="s32")], "conv", "features.0")
    clip = b.add(ops.Clip(DType("unsigned", 2), 0, 3), [conv], "clip")
    flat = b.add(ops.Reshape((2, 100)), [clip], "flat")
    fc = b.add(ops.Linear(bias=False), [flat, zeros(b, 7, 100, dtype="s8")], "fc")
    graph = b.finish([fc])
    rows = layer_stats(graph)
    # conv: 2·4·5·5 results of 3·3·3 products; 108 weights of 3 bits are 40.5 bytes.
    assert rows[0] == LayerStats(
        "conv", "conv2d", "features.0", macs=200 * 27, parameters=112,
        weight_bytes=41 + 16, input_bytes=486, output_bytes=800,
    )  # fmt: skip
    assert rows[1] == LayerStats("clip", "clip", "", 0, 0, 0, 800, 50)
    assert rows[3] == LayerStats("fc", "linear", "", 1400, 700, 700, 50, 56)
    total = graph_stats(graph)
    assert (total.macs, total.parameters, total.weight_bytes) == (6800, 812, 757)
    assert total.peak_bytes == 486 + 800


def test_which_constants_are_parameters() -> None:
    b = GraphBuilder("net")
    x = b.input("x", TensorType((1, 4, 3)))
    norm = [zeros(b, 4) for _ in range(4)]
    y = b.add(ops.BatchNorm(), [x, *norm], "norm")
    y = b.add(ops.Mul(), [y, zeros(b)], "scale")
    y = b.add(ops.Add(), [y, zeros(b, 4, 3)], "position")
    y = b.add(ops.LayerNorm(), [y, zeros(b, 3), zeros(b, 3)], "layer_norm")
    y = b.add(ops.MatMul(), [y, b.add(ops.Transpose((0, 2, 1)), [y])], "square")
    counts = {row.name: row for row in layer_stats(b.finish([y]))}
    assert counts["norm"].parameters == 8  # gamma and beta; the statistics are not trained
    assert counts["norm"].weight_bytes == 64
    assert counts["scale"].parameters == 0
    assert counts["position"].parameters == 12
    assert counts["layer_norm"].parameters == 6
    assert counts["square"].macs == 4 * 4 * 3


def test_shared_constants_count_once() -> None:
    b = GraphBuilder("net")
    x = b.input("x", TensorType((1, 4)))
    w = zeros(b, 4, 4)
    y = b.add(ops.Linear(bias=False), [b.add(ops.Linear(bias=False), [x, w]), w])
    graph = b.finish([y])
    assert [row.parameters for row in layer_stats(graph)] == [16, 0]
    assert (graph_stats(graph).parameters, graph_stats(graph).macs) == (16, 32)


def test_values_read_twice_count_once() -> None:
    b = GraphBuilder("net")
    x = b.input("x", TensorType((1, 4)))
    graph = b.finish([b.add(ops.Mul(), [x, x])])
    assert layer_stats(graph)[0].input_bytes == 16


def test_peak_holds_what_a_shortcut_needs() -> None:
    b = GraphBuilder("net")
    x = b.input("x", TensorType((1, 10)))
    y = b.add(ops.Activation("relu"), [x])
    z = b.add(ops.Activation("relu"), [y])
    graph = b.finish([b.add(ops.Add(), [z, x])])
    assert peak_bytes(graph) == 120  # x, and two of y, z and the sum
    assert peak_bytes(dataclasses.replace(graph, outputs=(*graph.outputs, y))) == 160


@pytest.mark.parametrize("make", [random_graph, random_integer_graph])
def test_sums_hold_on_generated_graphs(make: object) -> None:
    for seed in range(20):
        graph: Graph = make(seed)  # type: ignore[operator]
        read = {v for n in graph.nodes.values() for v in n.inputs if graph.is_constant(v)}
        stats = graph_stats(graph)
        assert stats.weight_bytes == sum(graph.type(v).bytes for v in read)
        assert sum(graph.type(v).size for v in read) >= stats.parameters > 0
        assert stats.macs > 0
