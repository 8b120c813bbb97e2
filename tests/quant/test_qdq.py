# SPDX-License-Identifier: Apache-2.0
"""Networks that come with quantizers keep their scales."""

from __future__ import annotations

import numpy as np

from codesign.ir.graph import Array, Graph, GraphBuilder
from codesign.ir.interpret import run
from codesign.ir.ops import Activation, Dequantize, Linear, Quantize
from codesign.ir.types import S8, U8, DType, TensorType
from codesign.passes.standard import prepare
from codesign.quant import LayerFormat, QuantOptions, absorb_qdq, calibrate, quantize_graph

WEIGHT = np.array([[3, -127, 50], [10, 20, -100]], np.int8)
STEPS = np.array([0.5, 0.25], np.float32)


def network(kind: DType, zero_point: int, relu: bool = True) -> Graph:
    """Quantizers around input, weights and output of a linear layer, exact in binary."""
    b = GraphBuilder("qdq")

    def pair(value: str, scale: float, dtype: DType, zero: int = 0) -> str:
        step = b.constant(np.array(scale, np.float32), "step")
        q = b.add(Quantize(dtype, zero_point=(zero,)), [value, step], "q")
        return b.add(Dequantize(zero_point=(zero,)), [q, step], "dq")

    x = pair(b.input("x", TensorType((1, 3))), 0.125, S8)
    steps = b.constant(STEPS, "steps")
    w = b.add(Dequantize(axis=0, zero_point=(0, 0)), [b.constant(WEIGHT, "w8"), steps], "w")
    y = b.add(Linear(bias=False), [x, w], "fc")
    if relu:
        y = b.add(Activation("relu"), [y], "relu")
    y = pair(y, 0.5, kind, zero_point)
    v = b.constant(np.ones((1, 2), np.float32), "v")
    return b.finish([b.add(Linear(bias=False), [y, v], "last")])


def integer(graph: Graph, images: Array) -> tuple[Graph, Array]:
    """The integer network with the scales kept, and its results."""
    imported = absorb_qdq(graph)
    ready = prepare().run(imported.graph).graph
    options = QuantOptions(
        scales=imported.scales_in(ready), weight_scales=imported.weight_scales,
        bias_correction=False,
    )  # fmt: skip
    formats = {node.name: LayerFormat(8, 8) for node in ready.layers()}
    made = quantize_graph(ready, calibrate(ready, [images]), formats, options)
    return made.graph, np.concatenate([run(made.graph, v[None])[0] for v in images])


def test_scales_and_weights_are_kept() -> None:
    images = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32) * 0.05
    graph = network(U8, 0)
    imported = absorb_qdq(graph)
    assert imported.scales == {"x": 0.125, "relu": 0.5}
    assert imported.notes == ()
    np.testing.assert_array_equal(imported.weight_scales["w"], STEPS)
    made, got = integer(graph, images)
    np.testing.assert_array_equal(made.constants["fc.weight"], WEIGHT)
    want = np.concatenate([run(graph, v[None])[0] for v in images])
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3 * np.abs(want).max() + 1e-6)


def test_unsigned_quantizer_of_signed_values_is_a_relu() -> None:
    imported = absorb_qdq(network(U8, 0, relu=False))
    assert [n.op.name for n in imported.graph.nodes.values() if n.op.name == "activation"] == [
        "activation"
    ]
    (name,) = [n.name for n in imported.graph.nodes.values() if n.op.name == "activation"]
    assert imported.scales[name] == 0.5
    ready = prepare().run(imported.graph).graph
    assert imported.scales_in(ready) == {"x": 0.125, "fc": 0.5}


def test_zero_points_are_calibrated() -> None:
    imported = absorb_qdq(network(U8, 3))
    assert imported.scales == {"x": 0.125}
    assert imported.notes == ("q_1: zero point 3 is not 0; calibrated",)
