# SPDX-License-Identifier: Apache-2.0
"""Float operators of the reference interpreter against torch in float64."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest

from codesign.ir import Graph, GraphBuilder, Op, TensorType, ops, run, run_values
from codesign.ir.graph import Array
from tests.support.graphs import ACTIVATIONS, COORDINATES, ROUNDINGS, random_graph, random_inputs
from tests.support.torch_oracle import torch_value


def values(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def single(op: Op, *arrays: Array) -> Graph:
    """A graph of one operator; every operand is an input."""
    builder = GraphBuilder("single")
    names = [builder.input(f"x{i}", TensorType(a.shape)) for i, a in enumerate(arrays)]
    return builder.finish([builder.add(op, names, "y")])


def check_node(graph: Graph, name: str, computed: dict[str, Array]) -> None:
    """The node's value against torch, for the operand values the interpreter had."""
    node = graph.nodes[name]
    expected = torch_value(graph, node, [computed[v] for v in node.inputs])
    got = computed[name]
    assert got.dtype == np.float32
    scale = max(1.0, float(np.abs(expected).max()))
    npt.assert_allclose(got, expected, rtol=1e-5, atol=4e-6 * scale, err_msg=f"{node}")


def check(op: Op, *arrays: Array) -> None:
    graph = single(op, *arrays)
    check_node(graph, "y", run_values(graph, arrays, keep="all"))


@pytest.mark.parametrize("activation", ["none", *ACTIVATIONS])
def test_conv_with_bias_residual_and_activation(activation: ops.ActivationKind) -> None:
    op = ops.Conv2d((2, 1), (1, 0, 2, 1), (1, 2), 1, True, True, activation, 0.125)
    check(op, values(0, 2, 3, 9, 10), values(1, 5, 3, 3, 2), values(2, 5), values(3, 2, 5, 5, 9))


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 2), (5, 5)])
def test_conv_groups_strides_dilations(
    groups: int, stride: tuple[int, int], dilation: tuple[int, int], kernel: tuple[int, int]
) -> None:
    op = ops.Conv2d(stride, (2, 1, 0, 3), dilation, groups, bias=False)
    check(op, values(0, 2, 6, 11, 9), values(1, 12, 6 // groups, *kernel))


def test_conv_in_several_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = values(0, 7, 3, 8, 8), values(1, 4, 3, 3, 3)
    graph = single(ops.Conv2d(bias=False), x, w)
    whole = run(graph, x, w)[0]
    monkeypatch.setattr("codesign.ir.kernels._CHUNK", 2 * 3 * 9 * 36)
    npt.assert_array_equal(run(graph, x, w)[0], whole)


def test_linear_on_every_rank() -> None:
    w, bias = values(1, 5, 7), values(2, 5)
    for shape in ((7,), (3, 7), (2, 3, 7), (2, 1, 3, 7)):
        check(ops.Linear(), values(0, *shape), w, bias)
    op = ops.Linear(bias=False, residual=True, activation="gelu")
    check(op, values(0, 3, 7), w, values(3, 3, 5))


@pytest.mark.parametrize(
    ("a", "b"), [((3, 4), (4, 5)), ((2, 6, 3, 4), (2, 6, 4, 5)), ((2, 6, 3, 4), (4, 5))]
)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check(ops.MatMul(), values(0, *a), values(1, *b))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation_also_at_extremes(kind: ops.ActivationKind) -> None:
    x = np.array([0, -0.0, 1e-30, 3, -3, 6, 2.999, 20, -20, 90, -90, 1e4, -1e4], np.float32)
    check(ops.Activation(kind, 0.25), x)


def test_activation_of_infinity_and_nan() -> None:
    x = np.array([np.inf, -np.inf, np.nan], np.float32)
    npt.assert_array_equal(run(single(ops.Activation("relu"), x), x)[0], [np.inf, 0, np.nan])
    npt.assert_array_equal(run(single(ops.Activation("sigmoid"), x), x)[0], [1, 0, np.nan])


@pytest.mark.parametrize("kind", ["max", "avg", "sum"])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 0, 2, 1)])
def test_pool(kind: str, count_include_pad: bool, padding: tuple[int, int, int, int]) -> None:
    shape = values(0, 2, 3, 9, 8)
    op = ops.Pool2d(kind, (3, 2), (2, 1), padding, (1, 1), count_include_pad)  # type: ignore[arg-type]
    check(op, shape)
    check(ops.Pool2d("max", (2, 2), (1, 2), padding, (2, 2)), shape - 5)


@pytest.mark.parametrize("kind", ["mean", "max", "sum"])
@pytest.mark.parametrize("axes", [(2, 3), (0,), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_reduce(kind: str, axes: tuple[int, ...], keepdims: bool) -> None:
    check(ops.Reduce(kind, axes, keepdims), values(0, 2, 3, 4, 5))  # type: ignore[arg-type]


def test_norms_and_softmax() -> None:
    x, positive = values(0, 2, 4, 3, 5), np.abs(values(9, 4)) + 0.5
    check(ops.BatchNorm(1e-3), x, values(1, 4), values(2, 4), values(3, 4), positive)
    check(ops.BatchNorm(), values(0, 6, 4), values(1, 4), values(2, 4), values(3, 4), positive)
    check(ops.LayerNorm(), x, values(1, 5), values(2, 5))
    check(ops.LayerNorm(1e-6), x, values(1, 3, 5), values(2, 3, 5))
    for axis in range(4):
        check(ops.Softmax(axis), x * 30)


@pytest.mark.parametrize("size", [3, 6, 7, 10, 56])
def test_layer_norm_of_equal_values(size: int) -> None:
    """Nothing is left but beta, though the mean of equal floats may be another float."""
    x = np.repeat(values(0, 64, 1) * 5, size, 1).astype(np.float32)
    gamma, beta = values(1, size).astype(np.float32), values(2, size).astype(np.float32)
    (found,) = run(single(ops.LayerNorm(1e-6), x, gamma, beta), x, gamma, beta)
    npt.assert_array_equal(found, np.broadcast_to(beta, x.shape))


def test_arithmetic_broadcasts() -> None:
    for other in ((2, 3, 4, 5), (3, 1, 1), (1, 3, 1, 1), (), (2, 1, 4, 1)):
        check(ops.Add(), values(0, 2, 3, 4, 5), values(1, *other))
        check(ops.Mul(), values(1, *other), values(0, 2, 3, 4, 5))


def test_moving_operators() -> None:
    x = values(0, 2, 3, 4, 5)
    check(ops.Concat(2), x, values(1, 2, 3, 1, 5), values(2, 2, 3, 6, 5))
    check(ops.Slice(3, 1, 5, 2), x)
    check(ops.Reshape((6, 20)), x)
    check(ops.Transpose((2, 0, 3, 1)), x)
    check(ops.Broadcast((2, 3, 4, 5)), values(1, 3, 1, 5))
    check(ops.Pad((0, 1, 2, 0), (1, 0, 3, 1), "constant", -1.5), x)
    check(ops.Pad((0, 0, 2, 4), (0, 0, 3, 1), "reflect"), x)
    check(ops.Pad((0, 0, 2, 5), (0, 0, 3, 1), "edge"), x)


@pytest.mark.parametrize("size", [(1, 1), (3, 10), (8, 5), (4, 5), (7, 15)])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_resize(size: tuple[int, int], coordinates: str) -> None:
    x = values(0, 2, 2, 4, 5)
    check(ops.Resize(size, "bilinear", coordinates), x)  # type: ignore[arg-type]
    for rounding in ROUNDINGS:
        check(ops.Resize(size, "nearest", coordinates, rounding), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(3, 10), (8, 5), (12, 20), (2, 3)])
def test_resize_as_torch_interpolates(size: tuple[int, int]) -> None:
    import torch
    from torch.nn.functional import interpolate

    x = values(0, 2, 2, 4, 5)
    cases = [
        (ops.Resize(size, "nearest"), {"mode": "nearest"}),
        (ops.Resize(size, "nearest", "half_pixel", "round_prefer_ceil"), {"mode": "nearest-exact"}),
        (ops.Resize(size, "bilinear", "half_pixel"), {"mode": "bilinear"}),
        (
            ops.Resize(size, "bilinear", "align_corners"),
            {"mode": "bilinear", "align_corners": True},
        ),
    ]
    for op, options in cases:
        expected = interpolate(torch.from_numpy(x), size, **options).numpy()  # type: ignore[arg-type]
        npt.assert_allclose(run(single(op, x), x)[0], expected, rtol=1e-5, atol=1e-6)


def check_random(seed: int, prepared: bool) -> None:
    graph = random_graph(seed, prepared=prepared, single_output=seed % 2 == 0)
    computed = run_values(graph, random_inputs(graph, seed), keep="all")
    for node in graph.nodes.values():
        if not isinstance(node.op, (ops.Input, ops.Constant)):
            check_node(graph, node.name, computed)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed: int) -> None:
    check_random(seed, prepared=seed % 3 == 0)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_many_random_graphs(seed: int) -> None:
    check_random(seed, prepared=seed % 3 == 0)


def test_generator_covers_every_float_operator() -> None:
    seen = {n.op.name for seed in range(60) for n in random_graph(seed).nodes.values()}
    assert seen >= set(ops.OPS) - {"quantize", "dequantize", "requantize", "clip", "lookup"}
