# SPDX-License-Identifier: Apache-2.0
"""Float operators within 1e-4 of the interpreter; quantize and dequantize bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.ir import F32, GraphBuilder, TensorType, ops
from codesign.ir.ops import ACTIVATIONS
from codesign.ir.types import DType
from tests.support.graphs import random_graph, random_inputs
from tests.targets.checks import assert_close, assert_exact, compiled, single


def floats(*shape: int, seed: int = 0) -> Any:
    """Normal float32 values."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", [a for a in ACTIVATIONS if a != "none"])
def test_activation(name: Any) -> None:
    # From the flat ends through every kink, and where exp overflows.
    x = np.concatenate([np.linspace(-8, 8, 161), [-3, 3, 0, 6, -100, 100]]).astype(np.float32)
    assert_close(single(ops.Activation(name, 0.1), TensorType(x.shape, F32)), x)


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (ops.Conv2d(padding=(1, 1, 1, 1)), [(2, 5, 9, 7), (24, 5, 3, 3), (24,)]),
        (ops.Conv2d(groups=16, activation="relu6"), [(1, 16, 9, 7), (16, 1, 3, 3), (16,)]),
        (ops.Conv2d(groups=2, residual=True, activation="silu"),
         [(1, 6, 5, 5), (10, 3, 1, 1), (10,), (1, 10, 5, 5)]),
        (ops.Linear(activation="gelu"), [(3, 33), (10, 33), (10,)]),
        (ops.MatMul(), [(2, 3, 7, 5), (3, 5, 9)]),
        (ops.Softmax(1), [(3, 50, 2)]),
        (ops.Softmax(2), [(2, 3, 17)]),
        (ops.LayerNorm(), [(2, 7, 24), (24,), (24,)]),
        (ops.LayerNorm(1e-3), [(2, 7, 4), (7, 4), (7, 4)]),
        (ops.Pool2d("avg", (3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=False), [(1, 8, 9, 9)]),
        (ops.Pool2d("avg", (2, 3), (1, 2), (1, 0, 0, 2)), [(1, 3, 6, 9)]),
        (ops.Reduce("mean", (2, 3)), [(2, 16, 7, 7)]),
        (ops.Reduce("mean", (1,), keepdims=False), [(2, 16, 7)]),
        (ops.Resize((9, 11), "bilinear", "half_pixel"), [(1, 4, 5, 4)]),
        (ops.Resize((3, 7), "bilinear", "align_corners"), [(1, 4, 5, 4)]),
        (ops.BatchNorm(), [(2, 5, 4, 4), (5,), (5,), (5,), (5,)]),
    ],
)  # fmt: skip
def test_operator(op: ops.Op, shapes: list[tuple[int, ...]]) -> None:
    x, *rest = [floats(*shape) for shape in shapes]
    constants = [np.abs(value) + 0.5 if op.name == "batch_norm" else value for value in rest]
    assert_close(single(op, TensorType(x.shape, F32), *constants), x)


@pytest.mark.parametrize("size", [3, 7, 56])
def test_layer_norm_of_equal_values(size: int) -> None:
    """Nothing is left but beta, though the mean of equal floats may be another float."""
    x = np.repeat(floats(64, 1) * 5, size, 1)
    gamma, beta = floats(size, seed=1), floats(size, seed=2)
    graph = single(ops.LayerNorm(1e-6), TensorType(x.shape, F32), gamma, beta)
    assert_exact(graph, [(x,)])
    np.testing.assert_array_equal(compiled(graph).run(x)[0], np.broadcast_to(beta, x.shape))


@pytest.mark.parametrize("seed", range(6))
def test_generated(seed: int) -> None:
    graph = random_graph(seed, prepared=bool(seed % 2), blocks=3, single_output=bool(seed % 3))
    assert_close(graph, *random_inputs(graph, seed))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 300))
def test_generated_soak(seed: int) -> None:
    graph = random_graph(seed, prepared=bool(seed % 2), single_output=bool(seed % 3))
    assert_close(graph, *random_inputs(graph, seed))


SCALES = (0.05, 0.1, 1 / 3, 0.25, 1.0, 0.0078125, 3.0517578e-05, 7.77)


@pytest.mark.parametrize("dtype", ["s8", "u8", "u4", "s2", "s16"])
@pytest.mark.parametrize("scale", SCALES)
def test_quantize_at_the_boundaries(dtype: str, scale: float) -> None:
    """x/s = k + 0.5 and its float neighbours: no contraction or reciprocal may move them."""
    s = np.float32(scale)
    d = DType.parse(dtype)
    steps = np.unique(np.linspace(max(d.min, -300) - 2, min(d.max, 300) + 2, 613).round())
    edges = ((steps + 0.5).astype(np.float32) * s).astype(np.float32)
    x = np.concatenate([edges, np.nextafter(edges, np.float32(np.inf)),
                        np.nextafter(edges, np.float32(-np.inf)),
                        np.array([0, -0.0, 1e30, -1e30, np.inf, -np.inf], np.float32)])
    graph = single(ops.Quantize(d), TensorType(x.shape, F32), np.asarray(s))
    assert_exact(graph, [(x,)])


def test_quantize_behind_a_product() -> None:
    """A fused multiply-add in the float part must not reach into the division and rounding."""
    b = GraphBuilder("island")
    q = b.input("q", TensorType((1, 8, 4, 4), DType.parse("s8")))
    x = b.add(ops.Dequantize(), [q, b.constant(np.array(0.1, np.float32))])
    y = b.add(ops.Quantize(DType.parse("s8")), [x, b.constant(np.array(0.2, np.float32))])
    assert_exact(b.finish([y]))


def test_quantize_per_channel_with_zero_points() -> None:
    scale = np.array([0.1, 0.02, 3.0], np.float32)
    op = ops.Quantize(DType.parse("u8"), 1, (128, 3, 0))
    graph = single(op, TensorType((2, 3, 5, 5), F32), scale)
    x = floats(2, 3, 5, 5) * 10
    assert_exact(graph, [(x,)])
    back = ops.Dequantize(1, (128, 3, 0))
    assert_exact(single(back, TensorType((2, 3, 5, 5), DType.parse("u8")), scale))


@pytest.mark.parametrize("dtype", ["s8", "s16", "s24", "s32", "u32"])
@pytest.mark.parametrize("scale", [0.1, 1 / 3, 3.0517578e-05, 1.0000001])
def test_dequantize_rounds_once(dtype: str, scale: float) -> None:
    d = DType.parse(dtype)
    rng = np.random.default_rng(3)
    x = rng.integers(d.min, d.max, 4000, endpoint=True).astype(d.numpy)
    graph = single(ops.Dequantize(), TensorType(x.shape, d), np.array(scale, np.float32))
    assert_exact(graph, [(x,)])


def test_float_batches_agree() -> None:
    """Each image of a batch gives what it gives alone."""
    w, bias = floats(8, 3, 3, 3), floats(8)
    x = floats(4, 3, 8, 8)
    batch = compiled(single(ops.Conv2d(), TensorType(x.shape, F32), w, bias))
    one = compiled(single(ops.Conv2d(), TensorType((1, 3, 8, 8), F32), w, bias))
    (together,) = batch.run(x)
    for i in range(4):
        np.testing.assert_array_equal(together[i : i + 1], one.run(x[i : i + 1])[0])
