# SPDX-License-Identifier: Apache-2.0
"""QDQ networks: integers, scales and zero points arrive as they are in the file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from codesign.errors import UnsupportedError
from codesign.frontend import from_onnx
from codesign.ir import DType, ops
from tests.frontend.compare import check, runtime
from tests.frontend.test_onnx import IMAGE, model, node, weights


def qdq() -> onnx.ModelProto:
    """Quantized input (u8 with zero point), per-channel s8 weights, s32 bias, s8 output."""
    nodes = [
        node("QuantizeLinear", "x sx zx", "xq"), node("DequantizeLinear", "xq sx zx", "xd"),
        node("DequantizeLinear", "w sw zw", "wd", axis=0),
        node("DequantizeLinear", "b sb", "bd", axis=0),
        node("Conv", "xd wd bd", "c"), node("Relu", "c", "r"),
        node("QuantizeLinear", "r sr zr", "rq"), node("DequantizeLinear", "rq sr zr"),
    ]  # fmt: skip
    rng = np.random.default_rng(1)
    return model(
        nodes, IMAGE,
        sx=np.float32(0.03), zx=np.uint8(120),
        w=rng.integers(-127, 128, (6, 4, 3, 3), np.int8),
        sw=rng.uniform(0.001, 0.01, 6).astype(np.float32), zw=np.zeros(6, np.int8),
        b=rng.integers(-500, 500, 6, np.int32),
        sb=rng.uniform(0.001, 0.01, 6).astype(np.float32),
        sr=np.float32(0.05), zr=np.int8(-3),
    )  # fmt: skip


def test_quantized_convolution() -> None:
    made = qdq()
    graph = from_onnx(made)
    found = {n.name: n.op for n in graph.nodes.values()}
    assert found["QuantizeLinear_of_xq"] == ops.Quantize(DType("unsigned", 8), -1, (120,))
    assert found["DequantizeLinear_of_wd"] == ops.Dequantize(0, (0,))
    assert found["QuantizeLinear_of_rq"] == ops.Quantize(DType("signed", 8), -1, (-3,))
    assert str(graph.type("w")) == "s8[6,4,3,3]"
    assert str(graph.type("b")) == "s32[6]"
    # noise is nowhere near half a step: both roundings agree
    check(graph, [x := weights(*IMAGE)], runtime(made, [x]))


def test_halves_round_up() -> None:
    """ONNX rounds 0.5 to 0 and 1.5 to 2; the IR takes both up (documented)."""
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")]
    made = model(nodes, (4,), s=np.float32(1), z=np.int8(0))
    from codesign.ir.interpret import run

    halves = np.array([0.5, 1.5, -0.5, 1.25], np.float32)
    assert run(from_onnx(made), halves)[0].tolist() == [1, 2, 0, 1]
    assert runtime(made, [halves])[0].tolist() == [0, 2, 0, 1]


def test_four_bit_weights() -> None:
    integers = np.random.default_rng(2).integers(-8, 8, (9, 5))
    made = model(
        [node("DequantizeLinear", "w s", "d", axis=1), node("MatMul", "x d")],
        IMAGE, 21, s=np.linspace(0.1, 0.5, 5, dtype=np.float32),
    )  # fmt: skip
    made.graph.initializer.append(
        helper.make_tensor("w", TensorProto.INT4, integers.shape, integers.reshape(-1))
    )
    graph = from_onnx(made)
    layer = next(n for n in graph.nodes.values() if isinstance(n.op, ops.Linear))
    dequantize = graph.nodes[layer.inputs[1]]
    assert dequantize.op == ops.Dequantize(0)
    assert str(graph.type(dequantize.inputs[0])) == "s4[5,9]"
    assert np.array_equal(graph.constants[dequantize.inputs[0]], integers.T)
    # onnxruntime multiplies 4-bit weights with rounded activations, so NumPy tells what is right
    x = weights(*IMAGE)
    check(graph, [x], [x @ (integers * np.linspace(0.1, 0.5, 5)).astype(np.float32)])


def test_what_cannot_be_taken() -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q bad z"),
        node("DynamicQuantizeLinear", "x", "a b c"),
    ]
    made = model(nodes, IMAGE, s=np.float32(1), z=np.int8(0), bad=np.float32(-1))
    with pytest.raises(UnsupportedError) as caught:
        from_onnx(made, name="net")
    assert str(caught.value) == (
        "network 'net': 2 operators are not supported:\n"
        "  DequantizeLinear at 'DequantizeLinear_of_y': scale 'bad' holds values that are not "
        "positive and finite\n"
        "  DynamicQuantizeLinear at 'DynamicQuantizeLinear_of_a b c': scales chosen at run time; "
        "quantize statically"
    )
