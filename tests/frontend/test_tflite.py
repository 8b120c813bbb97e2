# SPDX-License-Identifier: Apache-2.0
"""TFLite networks: operators against torch, quantized networks, MLPerf Tiny's files, damage."""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign import zoo
from codesign.data import cifar10, data_root
from codesign.errors import InputError, ParseError, UnsupportedError
from codesign.frontend import load_network
from codesign.ir import Graph, ops
from codesign.ir.batch import with_batch
from codesign.ir.graph import Array
from codesign.ir.interpret import run
from codesign.quant import absorb_qdq
from codesign.quant.torch_exec import run_torch
from tests.frontend.compare import TOLERANCE, difference
from tests.frontend.tflite_cases import CASES, SAME, normal
from tests.frontend.tflite_writer import Net

TO_IMAGE, TO_PLAIN = (0, 3, 1, 2), (0, 2, 3, 1)
NO_IMAGE = {"attention", "transpose_of_image", "sum_of_rows", "shape_computed_in_the_network",
            "squeeze_and_expand", "strided_slice_drops_an_axis"}  # fmt: skip
"""Cases whose operators need another order of the elements than that of an image."""


def load(net: Net, tmp_path: Path, batch: int = 1) -> Graph:
    graph = load_network(str(net.save(tmp_path / "net.tflite")), batch=batch).graph
    graph.verify()
    return graph


def message(net: Net, tmp_path: Path, kind: type[InputError] = InputError) -> str:
    with pytest.raises(kind) as caught:
        load(net, tmp_path)
    return str(caught.value).replace(str(tmp_path / "net.tflite"), "FILE")


def count(graph: Graph, kind: type[ops.Op]) -> int:
    return sum(isinstance(node.op, kind) for node in graph.nodes.values())


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str, tmp_path: Path) -> None:
    net, x, wanted = CASES[name]()
    graph = load(net, tmp_path)
    results = run(graph, x.transpose(TO_IMAGE) if x.ndim == 4 else x)
    assert len(results) == len(wanted)
    for result, want in zip(results, wanted):
        if want.ndim == 4 and net.operators[-1][0] != "TRANSPOSE":
            want = want.transpose(TO_IMAGE)
        assert difference(result, want) < TOLERANCE
    if name not in NO_IMAGE:
        assert count(graph, ops.Transpose) == 0


def test_transposes_around_an_image_network_cancel(tmp_path: Path) -> None:
    """A file made from a channels-first network: its input and output are what they were."""
    x, w, b = normal(1, 3, 6, 5), normal(4, 3, 3, 3), normal(4)
    net = Net()
    t = net.op("TRANSPOSE", [net.input(x.shape), net.ints(*TO_PLAIN)], (1, 6, 5, 3))
    t = net.op("CONV_2D", [t, net.const(w), net.const(b)], (1, 6, 5, 4), [SAME, 1, 1, 0, 1, 1])
    net.op("TRANSPOSE", [t, net.ints(*TO_IMAGE)], (1, 4, 6, 5))
    graph = load(net, tmp_path)
    assert count(graph, ops.Transpose) == 0
    weight = torch.from_numpy(w.transpose(TO_IMAGE).copy())
    want = torch.conv2d(torch.from_numpy(x), weight, torch.from_numpy(b), padding=1)
    assert difference(run(graph, x)[0], want.numpy()) < TOLERANCE


def quantized_net() -> tuple[Net, Array, Array]:
    """int8: pixels, convolution with a scale per channel and relu, pool, convolution."""
    rng = np.random.default_rng(5)
    net = Net()
    kinds = {"dtype": np.int8}
    x = net.input((1, 4, 4, 2), scale=1.0, zero=-128, name="pixels", **kinds)
    w = rng.integers(-127, 128, (3, 1, 1, 2)).astype(np.int8)
    steps = np.array([0.01, 0.02, 0.04], np.float32)
    b = np.array([300, -200, 100], np.int32)
    operands = [
        x,
        net.const(w, scale=steps, zero=[0, 0, 0]),
        net.const(b, scale=steps, zero=[0] * 3),
    ]
    options = [SAME, 1, 1, 1, 1, 1]
    t = net.op("CONV_2D", operands, (1, 4, 4, 3), options, scale=2.5, zero=-128,
               name="m/a/Relu;m/first/BiasAdd", **kinds)  # fmt: skip
    t = net.op("MAX_POOL_2D", [t], (1, 2, 2, 3), [SAME, 2, 2, 2, 2, 0], scale=2.5, zero=-128,
               name="m/pool", **kinds)  # fmt: skip
    v = rng.integers(-127, 128, (1, 1, 1, 3)).astype(np.int8)
    net.op("CONV_2D", [t, net.const(v, scale=0.5, zero=3), -1], (1, 2, 2, 1),
           [SAME, 1, 1, 0, 1, 1], scale=8.0, zero=7, name="m/last", **kinds)  # fmt: skip
    pixels = rng.integers(0, 256, (1, 4, 4, 2)).astype(np.float32)
    real = pixels @ (w[:, 0, 0] * steps[:, None]).T.astype(np.float64) + b * steps
    hidden = np.clip(np.floor(np.maximum(real, 0) / 2.5 + 0.5), 0, 255) * 2.5
    pooled = hidden.reshape(1, 2, 2, 2, 2, 3).max((2, 4))
    last = pooled @ ((v[0, 0, 0] - 3.0) * 0.5)
    y = (np.clip(np.floor(last / 8 + 0.5) + 7, -128, 127) - 7) * 8
    return net, pixels, y[..., None]


def test_quantized_network(tmp_path: Path) -> None:
    net, pixels, want = quantized_net()
    graph = load(net, tmp_path)
    (result,) = run(graph, pixels.transpose(TO_IMAGE))
    np.testing.assert_array_equal(result, want.transpose(TO_IMAGE))
    found = {n.name: n for n in graph.nodes.values() if isinstance(n.op, ops.Quantize)}
    # the pool moves values of one scale: no quantizer of its own
    assert {name: str(node.type.dtype) for name, node in found.items()} == {
        "pixels.quantize": "u8", "first.quantize": "u8", "last.quantize": "s8",
    }  # fmt: skip
    assert [node.op.zero_point for node in found.values()] == [(0,), (0,), (7,)]  # type: ignore[attr-defined]
    assert str(graph.type("first.weight.q")) == "s8[3,2,1,1]"


def test_scales_of_a_quantized_network_are_kept(tmp_path: Path) -> None:
    imported = absorb_qdq(load(quantized_net()[0], tmp_path))
    assert count(imported.graph, ops.Quantize) == count(imported.graph, ops.Dequantize) == 0
    assert dict(imported.scales) == {"pixels": 1.0, "first.relu": 2.5}
    steps = imported.weight_scales["first.weight"]
    np.testing.assert_array_equal(steps, np.array([0.01, 0.02, 0.04], np.float32))
    assert imported.notes == (
        "last.weight: weight zero point is not 0; its scale is chosen anew",
        "last.quantize: zero point 7 is not 0; calibrated",
    )


@pytest.mark.parametrize(
    ("dtype", "zero", "kind", "point"),
    [
        (np.int8, -128, "u8", 0), (np.int8, 0, "s8", 0), (np.int8, 5, "s8", 5),
        (np.uint8, 128, "s8", 0), (np.uint8, 0, "u8", 0), (np.uint8, 3, "u8", 3),
        (np.int16, 0, "s16", 0),
    ],
)  # fmt: skip
def test_number_formats(
    dtype: type[np.integer], zero: int, kind: str, point: int, tmp_path: Path
) -> None:
    """Zero points of half the range change the sign instead: the same real numbers."""
    net = Net()
    net.op("QUANTIZE", [net.input((1, 600))], (1, 600), dtype=dtype, scale=0.5, zero=zero, name="q")
    graph = load(net, tmp_path)
    op = graph.nodes["q.quantize"].op
    assert isinstance(op, ops.Quantize)
    assert (str(op.dtype), op.zero_point) == (kind, (point,))
    x = np.linspace(-150, 150, 600, dtype=np.float32)[None]
    info = np.iinfo(dtype)
    want = (np.clip(np.floor(x / 0.5 + 0.5) + zero, info.min, info.max) - zero) * 0.5
    np.testing.assert_array_equal(run(graph, x)[0], want)


def test_batch(tmp_path: Path) -> None:
    net, x, (want,) = CASES["mean_global"]()
    graph = load(net, tmp_path, batch=4)
    (result,) = run(graph, np.concatenate([x, x]).transpose(TO_IMAGE))
    assert difference(result, np.concatenate([want, want])) < TOLERANCE


def test_unsupported_operators_are_listed_at_once(tmp_path: Path) -> None:
    net = Net()
    t = net.op("TRANSPOSE_CONV", [net.input((1, 4, 4, 2))], (1, 8, 8, 2), name="up/first")
    t = net.op("RELU", [t], (1, 8, 8, 2), name="up/relu")
    t = net.op("Flex", [t], (1, 8, 8, 2), name="up/custom")
    wide = [SAME, 1, 1, 4, 1, 1]
    x, w = net.input((1, 4, 4, 2)), net.const(normal(1, 1, 1, 2))
    net.op("CONV_2D", [x, w, -1], (1, 4, 4, 1), wide, name="up/conv")
    assert message(net, tmp_path, UnsupportedError) == (
        "network 'net': 3 operators are not supported:"
        "\n  TRANSPOSE_CONV at 'first (operator 0)': the IR has no transposed convolution; use a "
        "resize and a convolution"
        "\n  CUSTOM:Flex at 'custom (operator 2)': the IR has no such operator; replace it"
        "\n  CONV_2D at 'conv (operator 3)': fused activation with code 4; relu (1), relu from "
        "-1 to 1 (2) and relu6 (3) can be taken"
    )


def test_wrong_shapes(tmp_path: Path) -> None:
    net = Net()
    net.op("RELU", [net.input((1, 8))], (1, 9), name="r")
    assert message(net, tmp_path, UnsupportedError) == (
        "network 'net': 1 operator is not supported:"
        "\n  RELU at 'r (operator 0)': its result has shape [1, 8], the file says [1, 9]"
    )
    net = Net()
    x, w = net.input((1, 4, 4, 2)), net.const(normal(5, 3, 3, 4))
    net.op("CONV_2D", [x, w, -1], (1, 4, 4, 5), [SAME, 1, 1, 0, 1, 1], name="c")
    assert message(net, tmp_path, UnsupportedError).endswith(
        "CONV_2D at 'c (operator 0)': kernel [5, 3, 3, 4] for 2 channels"
    )


def test_inputs_that_cannot_be_taken(tmp_path: Path) -> None:
    net = Net()
    net.op("RELU", [net.input((1, 8), np.int32, name="tokens")], (1, 8))
    assert message(net, tmp_path) == (
        "network file 'FILE': input 'tokens' is int32, expected float32 or a quantized integer"
    )
    net = Net()
    net.op("RELU", [net.input((1, 1, 8), name="x", signature=(-1, -1, 8))], (1, 1, 8))
    assert message(net, tmp_path) == (
        "network file 'FILE': input 'x': dimension 1 is dynamic; only the batch (dimension 0) may "
        "be; convert with fixed sizes"
    )
    net = Net()
    net.op("RELU", [net.input((0, 8), name="x")], (0, 8))
    assert message(net, tmp_path) == (
        "network file 'FILE': input 'x' has an empty dimension: [0, 8]"
    )


def test_files_that_make_no_sense(tmp_path: Path) -> None:
    net = Net()
    net.op("ADD", [net.input((1, 8)), net.tensor((1, 8), name="late")], (1, 8), [0], name="sum")
    assert message(net, tmp_path, ParseError) == (
        "'FILE' is a damaged TFLite file: ADD at 'sum (operator 0)': tensor 'late' is read before "
        "an operator computes it"
    )
    net = Net()
    net.op("RELU", [7], (1, 8))
    assert message(net, tmp_path, ParseError) == (
        "'FILE' is a damaged TFLite file: tensor numbers (7,) of 1 tensors"
    )
    net = Net()
    net.op("RELU", [], (1, 8), name="r")
    net.input((1, 8))
    assert message(net, tmp_path, ParseError) == (
        "'FILE' is a damaged TFLite file: RELU at 'r (operator 0)': RELU lacks operand 0"
    )
    net = Net()
    net.op("RELU", [net.const(normal(1, 8))], (1, 8))
    assert message(net, tmp_path) == "network file 'FILE' has no inputs or no outputs"
    net = Net()
    w = normal(3, 8)
    w[1, 2] = np.nan
    net.op("FULLY_CONNECTED", [net.input((1, 8)), net.const(w), -1], (1, 3), [0] * 4, name="fc")
    assert message(net, tmp_path) == (
        "network 'net': tensor 'fc.weight' of layer 'fc' holds NaN or infinite values (1 of 24); "
        "retrain or repair the weights"
    )
    net = Net()
    t = net.op("QUANTIZE", [net.input((1, 8))], (1, 8), dtype=np.int8, scale=0.0, zero=0, name="q")
    assert message(net, tmp_path, UnsupportedError).endswith(
        "QUANTIZE at 'q (operator 0)': tensor 'q' has a scale that is not positive and finite"
    )
    assert t == 1


def damage(content: bytes, cut: float | None, edits: list[tuple[float, int]]) -> bytes:
    changed = bytearray(content)
    for place, value in edits:
        changed[8 + int(place * (len(changed) - 9))] = value
    return bytes(changed if cut is None else changed[: int(cut * len(changed))])


FILES = [make()[0].bytes() for make in CASES.values()] + [quantized_net()[0].bytes()]


def check_damage(which: int, cut: float | None, edits: list[tuple[float, int]], path: Path) -> None:
    path.write_bytes(damage(FILES[which], cut, edits))
    with contextlib.suppress(InputError):
        load_network(str(path)).graph.verify()


DAMAGE = {
    "which": st.integers(0, len(FILES) - 1),
    "cut": st.one_of(st.none(), st.none(), st.floats(0, 1)),
    "edits": st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
}
CHECKS = [HealthCheck.function_scoped_fixture]


@settings(max_examples=400, deadline=None, suppress_health_check=CHECKS)
@given(**DAMAGE)
def test_damage_is_an_input_error_and_nothing_else(
    which: int, cut: float | None, edits: list[tuple[float, int]], tmp_path: Path
) -> None:
    check_damage(which, cut, edits, tmp_path / "damaged.tflite")


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None, suppress_health_check=CHECKS)
@given(**DAMAGE)
def test_much_damage(
    which: int, cut: float | None, edits: list[tuple[float, int]], tmp_path: Path
) -> None:
    check_damage(which, cut, edits, tmp_path / "damaged.tflite")


# MLPerf Tiny's files.


@cache
def mlperf(name: str) -> Path:
    try:
        return data_root() / "mlperf_tiny" / name
    except InputError as error:
        pytest.skip(str(error))


@cache
def images() -> tuple[Array, Array]:
    try:
        x, y = cifar10("test")
    except InputError as error:
        pytest.skip(str(error))
    return x[:100].astype(np.float32), y[:100]


@cache
def probabilities(name: str) -> Array:
    graph = load_network(str(mlperf(name))).graph
    return run_torch(with_batch(graph, 100), [images()[0]])[0]


def keras() -> Array:
    model = zoo.load("resnet8", weights=mlperf("resnet8_cifar10.h5"))
    with torch.no_grad():
        result: Array = model.module(torch.from_numpy(images()[0])).softmax(1).numpy()
    return result


def test_float_file_gives_what_the_keras_weights_give() -> None:
    found = probabilities("resnet8_cifar10_float.tflite")
    assert float(np.abs(found - keras()).max()) < 1e-4
    assert int((found.argmax(1) == images()[1]).sum()) == int(
        (keras().argmax(1) == images()[1]).sum()
    )


def test_layers_of_the_files() -> None:
    names = ["conv2d", *(f"conv2d_{i}" for i in range(1, 9)), "dense"]
    for name in ("resnet8_cifar10_float.tflite", "resnet8_cifar10_int8.tflite"):
        graph = load_network(str(mlperf(name))).graph
        found = [n.name for n in graph.nodes.values() if n.op.name in ("conv2d", "linear")]
        assert found == names
        assert [graph.type(v).shape for v in graph.inputs] == [(1, 3, 32, 32)]
        assert graph.type(graph.outputs[0]).shape == (1, 10)
        assert count(graph, ops.Transpose) == 0


def test_int8_file_agrees_with_the_float_file() -> None:
    exact = probabilities("resnet8_cifar10_float.tflite").argmax(1)
    rounded = probabilities("resnet8_cifar10_int8.tflite").argmax(1)
    assert (exact == rounded).mean() >= 0.9


def test_scales_of_the_int8_file_are_kept() -> None:
    imported = absorb_qdq(load_network(str(mlperf("resnet8_cifar10_int8.tflite"))).graph)
    assert len(imported.graph.layers()) == 10
    weights = [layer.inputs[1] for layer in imported.graph.layers()]
    assert set(weights) <= set(imported.weight_scales)
    # what a relu, an average or the softmax gave, and the pixels: zero point -128, that is 0
    assert imported.scales["input_1_int8"] == 1.0
    assert imported.scales["conv2d.relu"] == np.float32(0.03939355)
    assert sorted(round(scale, 6) for scale in imported.scales.values()) == [
        0.003906, 0.02845, 0.039394, 0.045673, 0.050946, 0.053236, 0.076293, 0.127069, 0.127069,
        1.0,
    ]  # fmt: skip
    dropped = ("conv2d_2", "conv2d_4", "conv2d_5", "conv2d_7", "conv2d_8", "dense")
    points = (4, 4, -17, -2, 38, 24)
    assert imported.notes == tuple(
        f"{name}.quantize: zero point {point} is not 0; calibrated"
        for name, point in zip(dropped, points)
    )
