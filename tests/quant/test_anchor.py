# SPDX-License-Identifier: Apache-2.0
"""A two-layer network worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.errors import InputError, UnsupportedError, VerifyError
from codesign.ir.graph import Array, Graph, GraphBuilder
from codesign.ir.interpret import run
from codesign.ir.ops import Activation, Add, Concat, Conv2d, Linear, Pool2d, Reshape
from codesign.ir.types import TensorType
from codesign.quant import (
    LayerFormat,
    QuantOptions,
    accumulator_bits,
    calibrate,
    quantize_graph,
    shared_inputs,
)
from codesign.quant.torch_exec import run_torch

PLAIN = QuantOptions(method="minmax", weight_clip="max", bias_correction=False)
W8A8 = LayerFormat(8, 8)


def tiny() -> Graph:
    """y = W2 · relu(W1 · x + b1) + b2 with two inputs, two hidden values, one output."""
    b = GraphBuilder("tiny")
    x = b.input("x", TensorType((1, 2)))
    w1 = b.constant(np.array([[1.27, -0.64], [0.5, 1.0]], np.float32), "w1")
    b1 = b.constant(np.array([0.5, -0.25], np.float32), "b1")
    h = b.add(Linear(activation="relu"), [x, w1, b1], "fc1", "net.fc1")
    w2 = b.constant(np.array([[0.7, -0.3]], np.float32), "w2")
    b2 = b.constant(np.array([0.1], np.float32), "b2")
    return b.finish([b.add(Linear(), [h, w2, b2], "fc2", "net.fc2")])


X = np.array([[2.0, 1.0], [1.0, 2.55], [0.0, 0.0]], np.float32)


def test_by_hand() -> None:
    """x in u8 with step 0.01: hidden float values are (2.4, 1.75), (0.138, 2.8), (0.5, 0)."""
    graph = tiny()
    made = quantize_graph(
        graph, calibrate(graph, [X]), {"fc1": W8A8, "fc2": LayerFormat(4, 8)}, PLAIN
    )
    g = made.graph
    # Steps: x 2.55/255, rows of W1 1.27/127 and 1/127, hidden 2.8/255, W2 0.7/7 with 4 bits.
    x_step, h_step = np.float32(2.55 / 255), np.float32(np.float32(2.8) / 255)
    np.testing.assert_allclose(made.scales["x.q"], x_step, rtol=1e-6)
    np.testing.assert_allclose(made.scales["fc1.weight"], [0.01, 1 / 127], rtol=1e-6)
    np.testing.assert_allclose(made.scales["fc1.out"], h_step, rtol=1e-6)
    np.testing.assert_allclose(made.scales["fc2.weight"], [0.1], rtol=1e-6)
    assert g.constants["fc1.weight"].tolist() == [[127, -64], [64, 127]]  # 63.5 rounds up
    assert g.constants["fc2.weight"].tolist() == [[7, -3]]
    assert str(g.type("fc2.weight")) == "s4[1,2]"
    # Biases: 0.5 / (0.01 · 0.01) = 5000; −0.25 · 127 / 0.01 = −3175; 0.1 / (0.1 · 2.8/255) = 91.07.
    assert g.constants["fc1.bias"].tolist() == [5000, -3175]
    assert g.constants["fc2.bias"].tolist() == [91]
    # x = (2, 1) is (200, 100): 200·127 − 100·64 + 5000 = 24000; 200·64 + 100·127 − 3175 = 22325.
    # Hidden: 24000 · 0.0001 / h_step = 218.57 → 219; 22325 · (0.01/127) / h_step = 160.09 → 160.
    # fc2: 7·219 − 3·160 + 91 = 1144 steps of 0.1 · h_step = 1.2562.
    assert str(g.type("fc1")) == "s32[1,2]"
    assert str(g.type("fc1.out")) == "u8[1,2]"
    assert str(g.type("fc2.out")) == "s16[1,1]"
    (y,) = run(g, X[:1])
    out = float(made.scales["fc2.out"])
    assert y[0, 0] == np.float32(round(1144 * 0.1 * float(h_step) / out)) * np.float32(out)
    # fc1 row 0: up to 255·127 + 5000 and down to −255·64; row 1: up to 255·191, down to −3175.
    assert accumulator_bits(g, g.nodes["fc1"]) == 17
    # fc2: up to 255·7 + 91 = 1876, down to −765.
    assert accumulator_bits(g, g.nodes["fc2"]) == 12
    assert g.nodes["fc1"].source == "net.fc1"
    np.testing.assert_array_equal(
        run_torch(g, [X])[0], np.concatenate([run(g, v[None])[0] for v in X])
    )


def test_signed_input_and_narrow_weights() -> None:
    graph = tiny()
    made = quantize_graph(
        graph, calibrate(graph, [X - 1]), {"fc1": LayerFormat(2, 4), "fc2": W8A8}, PLAIN
    )
    assert str(made.graph.type("x.q")) == "s4[1,2]"
    assert set(np.unique(made.graph.constants["fc1.weight"])) <= {-1, 0, 1}


def residual_net() -> Graph:
    """Two convolutions that read one pooled tensor, one with a residual, then a concat."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("residual")
    x = b.input("x", TensorType((1, 4, 6, 6)))

    def weights(name: str) -> list[str]:
        w = b.constant(rng.normal(size=(4, 4, 1, 1)).astype(np.float32), f"{name}.w")
        return [w, b.constant(rng.normal(size=4).astype(np.float32), f"{name}.b")]

    stem = b.add(Conv2d(activation="relu"), [x, *weights("stem")], "stem")
    pool = b.add(Pool2d("max", (2, 2), (2, 2)), [stem], "pool")
    left = b.add(Conv2d(residual=True, activation="relu6"), [pool, *weights("left"), pool], "left")
    right = b.add(Conv2d(activation="hardswish"), [pool, *weights("right")], "right")
    both = b.add(Concat(1), [left, right], "both")
    return b.finish([both])


def test_structure() -> None:
    graph = residual_net()
    x = np.random.default_rng(1).normal(size=(4, 4, 6, 6)).astype(np.float32)
    assert shared_inputs(graph) == (("stem",), ("left", "right"))
    formats = {"stem": W8A8, "left": LayerFormat(4, 5), "right": LayerFormat(8, 5)}
    g = quantize_graph(graph, calibrate(graph, [x]), formats, PLAIN).graph
    assert [str(g.type(n).dtype) for n in ("stem.out", "pool", "left.sum", "left.residual")] == [
        "u5", "u5", "s16", "s16",
    ]  # fmt: skip
    assert g.nodes["left.out"].op.name == "clip"
    assert str(g.type("right.pre").dtype) == "s8"
    assert g.nodes["right.out"].op.name == "lookup"
    # Both operands of the concat, which nothing else reads, are made in its format.
    assert g.nodes["both"].inputs == ("left.out", "right.out")


def test_relu_after_add_is_one_clip() -> None:
    b = GraphBuilder("sum")
    x = b.input("x", TensorType((1, 3)))
    eye = np.eye(3, dtype=np.float32)
    fc = b.add(Linear(bias=False), [x, b.constant(eye, "w")], "fc")
    total = b.add(Add(), [fc, b.constant(np.array([1, 2, -3], np.float32), "c")], "total")
    graph = b.finish([b.add(Activation("relu"), [total], "relu")])
    g = quantize_graph(graph, calibrate(graph, [eye]), {"fc": W8A8}).graph
    assert [n.op.name for n in g.nodes.values() if n.op.name != "constant"] == [
        "input", "quantize", "linear", "requantize", "requantize", "add", "clip", "dequantize",
    ]  # fmt: skip


def test_dead_and_tiny_channels_keep_their_bias() -> None:
    b = GraphBuilder("dead")
    x = b.input("x", TensorType((1, 2)))
    weight = b.constant(np.array([[0, 0], [1e-9, 0], [0, 0], [1, 1]], np.float32), "w")
    bias = b.constant(np.array([3.0, -2.0, 0.0, 0.5], np.float32), "b")
    graph = b.finish([b.add(Linear(), [x, weight, bias], "fc")])
    data = np.random.default_rng(0).random((16, 2)).astype(np.float32)
    made = quantize_graph(graph, calibrate(graph, [data]), {"fc": W8A8}, PLAIN)
    want = np.concatenate([run(graph, v[None])[0] for v in data])
    np.testing.assert_allclose(run_torch(made.graph, [data])[0], want, rtol=0, atol=0.02)


def error(
    kind: type[Exception], graph: Graph, formats: dict[str, LayerFormat], data: Array = X
) -> str:
    with pytest.raises(kind) as caught:
        quantize_graph(graph, calibrate(graph, [data]), formats, PLAIN)
    return str(caught.value)


def test_format_messages() -> None:
    assert error(InputError, tiny(), {"fc1": W8A8}) == "tiny: no format for layers fc2"
    assert error(InputError, tiny(), {"fc1": W8A8, "fc2": W8A8, "fc3": W8A8}) == (
        "tiny: formats for fc3, which are no layers with weights"
    )
    data = np.ones((2, 4, 6, 6), np.float32)
    formats = {"stem": W8A8, "left": W8A8, "right": LayerFormat(8, 4)}
    assert error(InputError, residual_net(), formats, data) == (
        "residual: layers that read one tensor must have the same activation bits "
        "(left: 8, right: 4)"
    )


def test_accumulator_that_does_not_fit() -> None:
    b = GraphBuilder("wide")
    x = b.input("x", TensorType((1, 70000)))
    weight = b.constant(np.ones((1, 70000), np.float32), "w")
    graph = b.finish([b.add(Linear(bias=False), [x, weight], "fc")])
    assert error(UnsupportedError, graph, {"fc": W8A8}, np.ones((1, 70000), np.float32)) == (
        "wide: layer 'fc' in w8a8 needs a 33-bit accumulator, 32 is the limit; choose fewer "
        "bits or keep it in float"
    )


def test_nan_weights() -> None:
    b = GraphBuilder("broken")
    x = b.input("x", TensorType((1, 2)))
    weight = b.constant(np.array([[1, np.nan]], np.float32), "w")
    graph = b.finish([b.add(Linear(bias=False), [x, weight], "fc")])
    calibration = calibrate(tiny(), [X])
    with pytest.raises(InputError) as caught:
        quantize_graph(graph, calibration, {"fc": W8A8})
    assert str(caught.value) == (
        "broken: 1 of 2 values of 'w' (read by fc) are NaN or infinite; the network cannot be "
        "quantized"
    )


def test_an_integer_network_is_refused() -> None:
    graph = tiny()
    formats = {"fc1": W8A8, "fc2": W8A8}
    made = quantize_graph(graph, calibrate(graph, [X]), formats, PLAIN).graph
    with pytest.raises((InputError, VerifyError)):
        quantize_graph(made, calibrate(graph, [X]), formats, PLAIN)


def test_reshape_shares_the_scale() -> None:
    b = GraphBuilder("flat")
    x = b.input("x", TensorType((1, 2, 2, 2)))
    flat = b.add(Reshape((1, 8)), [x], "flat")
    weight = b.constant(np.ones((1, 8), np.float32), "w")
    graph = b.finish([b.add(Linear(bias=False), [flat, weight], "fc")])
    data = np.random.default_rng(0).random((4, 2, 2, 2)).astype(np.float32)
    made = quantize_graph(graph, calibrate(graph, [data]), {"fc": LayerFormat(8, 3)}, PLAIN)
    assert str(made.graph.type("x.q")) == "u3[1,2,2,2]"
    assert made.scales["flat"] == made.scales["x.q"]
