# SPDX-License-Identifier: Apache-2.0
"""Integer operators of the reference interpreter: anchors by hand, and a plain oracle."""

from __future__ import annotations

import re

import numpy as np
import numpy.testing as npt
import pytest

from codesign.errors import VerifyError
from codesign.ir import (
    S8,
    S32,
    U8,
    DType,
    Graph,
    GraphBuilder,
    Op,
    TensorType,
    ops,
    run,
    run_values,
)
from codesign.ir.graph import Array, dtype_of
from codesign.ir.kernels import abs_max, exact_dtype
from tests.support.graphs import random_inputs
from tests.support.integer_graphs import random_integer_graph
from tests.support.integer_oracle import integer_value, requantize

S16, U4, S64 = DType("signed", 16), DType("unsigned", 4), DType("signed", 64)
TOP = 2**31 - 1


def ints(values: object, dtype: DType = S32) -> Array:
    return np.array(values, dtype.numpy)


def apply(op: Op, *arrays: Array, formats: tuple[DType, ...] = ()) -> Array:
    """The operator's value for the arrays; ``formats``: those of the first operands."""
    builder = GraphBuilder("single")
    found = [*formats, *(dtype_of(a) for a in arrays[len(formats) :])]
    names = [
        builder.input(f"x{i}", TensorType(a.shape, dtype))
        for i, (a, dtype) in enumerate(zip(arrays, found))
    ]
    graph = builder.finish([builder.add(op, names, "y")])
    return run(graph, *arrays)[0]


# Requantize


@pytest.mark.parametrize(
    ("x", "m", "e", "expected"),
    [
        (1, 1 << 15, 16, 1),  # 0.5 rounds up
        (-1, 1 << 15, 16, 0),  # -0.5 rounds up, to zero
        (3, 1 << 15, 16, 2),
        (-3, 1 << 15, 16, -1),  # -1.5
        (2, 1 << 15, 16, 1),
        (1, 1 << 15, 17, 0),  # 0.25
        (-1, 1 << 15, 17, 0),  # -0.25
        (-3, 1 << 15, 17, -1),  # -0.75
        (1, (1 << 15) - 0, 15, 1),  # times one
        (7, 0, 1, 0),  # m = 0 is zero
        (TOP, 65535, 16, 2147450879),  # (2^31 - 1)·65535 / 65536 = 2147450878.99998
        (-(2**31), 65535, 16, -2147450880),
        (TOP, 1 << 15, 62, 0),  # 2^46 / 2^62
        (TOP, 65535, 62, 0),
        (-(2**31), 65535, 62, 0),  # just above -0.5
        (TOP, 65535, 47, 1),
        (-(2**31), 65535, 47, -1),
    ],
)
def test_requantize_anchors(x: int, m: int, e: int, expected: int) -> None:
    op = ops.Requantize(S32, S32.min, S32.max)
    assert apply(op, ints([x]), ints(m), ints(e)).tolist() == [expected]
    assert requantize(x, m, e, S32.min, S32.max) == expected


def test_requantize_clips_and_stores_narrow() -> None:
    x = ints([-200, -129, -128, -1, 0, 127, 128, 200])
    one = ints(1 << 15), ints(15)
    got = apply(ops.Requantize(S8, -128, 127), x, *one)
    assert got.dtype == np.int8
    assert got.tolist() == [-128, -128, -128, -1, 0, 127, 127, 127]
    got = apply(ops.Requantize(U4, 0, 11), x, *one)
    assert got.dtype == np.uint8
    assert got.tolist() == [0, 0, 0, 0, 0, 11, 11, 11]
    assert apply(ops.Requantize(S8, -5, 5), x, *one).tolist() == [-5, -5, -5, -1, 0, 5, 5, 5]


def test_requantize_per_channel() -> None:
    x = ints([[[100, -100]], [[100, -100]], [[100, -100]]]).reshape(1, 3, 1, 2)
    m, e = ints([1 << 15, 49152, 0]), ints([16, 18, 1])  # 0.5, 0.1875, 0
    got = apply(ops.Requantize(S8, -128, 127, axis=1), x, m, e)
    assert got.reshape(3, 2).tolist() == [[50, -50], [19, -19], [0, 0]]


def test_requantize_reads_unsigned_and_wide_formats() -> None:
    one = ints(1 << 15), ints(15)
    op = ops.Requantize(S16, S16.min, S16.max)
    assert apply(op, ints([0, 255], U8), *one).tolist() == [0, 255]
    u32 = DType("unsigned", 32)
    op = ops.Requantize(u32, 0, u32.max)
    assert apply(op, ints([0, 2**32 - 1], u32), *one).tolist() == [0, 2**32 - 1]


def test_requantize_agrees_with_fractions() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**31), 2**31, 4000)
    x[:2000] = rng.integers(-300, 300, 2000)  # small values meet more ties
    m = rng.integers(1 << 15, 1 << 16, 4000)
    m[::4] = 1 << 15
    e = rng.integers(1, 63, 4000)
    e[::4] = rng.integers(15, 25, 1000)
    op = ops.Requantize(S16, S16.min, S16.max, axis=0)
    got = apply(op, ints(x), ints(m), ints(e))
    rows = zip(x.tolist(), m.tolist(), e.tolist())
    want = [requantize(*row, S16.min, S16.max) for row in rows]
    assert got.tolist() == want


@pytest.mark.parametrize(
    ("m", "e", "message"),
    [
        (65536, 16, "multipliers m must be 0 or within 2^15..2^16-1"),
        (32767, 16, "multipliers m must be 0 or within 2^15..2^16-1"),
        (-32768, 16, "multipliers m must be 0 or within 2^15..2^16-1"),
        (32768, 0, "shifts e must be within 1..62"),
        (32768, 63, "shifts e must be within 1..62"),
    ],
)
def test_requantize_refuses_illegal_parameters(m: int, e: int, message: str) -> None:
    with pytest.raises(VerifyError, match=re.escape(f"node 'y' (requantize): {message}")):
        apply(ops.Requantize(S8, -128, 127), ints([1]), ints(m), ints(e))


# Quantize, dequantize, clip, lookup


def test_quantize_rounds_half_up_and_clips() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 1e9, -1e9, np.inf], np.float32)
    got = apply(ops.Quantize(S8), x, np.array(1, np.float32))
    # 0.49999997 + 0.5 is 1 in float32: part of the rule, and every back end does the same.
    assert got.tolist() == [-2, -1, 0, 1, 2, 3, 1, 127, -128, 127]
    got = apply(ops.Quantize(U4, -1, (3,)), x[:6], np.array(0.5, np.float32))
    assert got.tolist() == [0, 0, 2, 4, 6, 8]


def test_quantize_divides_in_float32() -> None:
    # x / scale is 1.5; the product with the rounded reciprocal is less, and rounds to 1.
    x, scale = np.float32(91.5), np.float32(61)
    assert x * (np.float32(1) / scale) < 1.5
    assert apply(ops.Quantize(S8), np.array([x]), np.array(scale)).tolist() == [2]


def test_quantize_per_axis_with_zero_points() -> None:
    x = np.array([[1, 2], [1, 2], [-1, -2]], np.float32)
    op = ops.Quantize(S8, 0, (0, -10, 5))
    got = apply(op, x, np.array([1, 0.5, 0.25], np.float32))
    assert got.tolist() == [[1, 2], [-8, -6], [1, -3]]


def test_quantize_refuses_nan() -> None:
    with pytest.raises(VerifyError, match=re.escape("node 'y' (quantize): cannot quantize NaN")):
        apply(ops.Quantize(S8), np.array([np.nan], np.float32), np.array(1, np.float32))


def test_dequantize_rounds_once() -> None:
    scale = np.array(0.1, np.float32)
    got = apply(ops.Dequantize(), ints([-3, 0, 7], S8), scale)
    assert got.dtype == np.float32
    assert got.tolist() == [np.float32(v) * np.float32(0.1) for v in (-3, 0, 7)]
    wide = ints([TOP, -(2**31), 16777217, 1234567891])
    exact = [np.float32(int(v) * float(scale)) for v in wide]  # one rounding in double is finer
    assert apply(ops.Dequantize(), wide, scale).tolist() == exact
    # Two roundings would give 16777216 · 3 = 50331648.
    assert apply(ops.Dequantize(), ints([16777217]), np.array(3, np.float32)).tolist() == [50331652]


def test_dequantize_per_axis_with_zero_points() -> None:
    x = ints([[0, 255], [0, 255]], U8)
    got = apply(ops.Dequantize(0, (0, 128)), x, np.array([0.5, 2], np.float32))
    assert got.tolist() == [[0, 127.5], [-256, 254]]


def test_clip() -> None:
    got = apply(ops.Clip(U8, 2, 200), ints([-5, 0, 2, 77, 200, 300]))
    assert got.dtype == np.uint8
    assert got.tolist() == [2, 2, 2, 77, 200, 200]
    top = DType("unsigned", 64)
    assert apply(ops.Clip(top, 1, 2**64 - 1), ints([0, 2**64 - 1], top)).tolist() == [1, 2**64 - 1]
    assert apply(ops.Clip(S8, -4, 5), ints([0, 2**64 - 1], top)).tolist() == [0, 5]


def test_lookup_starts_at_the_least_value() -> None:
    table = np.arange(-8, 8).astype(np.int8) * 3
    s4 = DType("signed", 4)
    assert apply(ops.Lookup(), ints([-8, -1, 0, 7], s4), table, formats=(s4,)).tolist() == (
        [-24, -3, 0, 21]
    )
    squares = (np.arange(256) ** 2).astype(np.uint16)
    assert apply(ops.Lookup(), ints([0, 255], U8), squares).tolist() == [0, 65025]


# Exact sums


def test_exact_dtype_boundaries() -> None:
    kinds = [exact_dtype(b) for b in (2**24, 2**24 + 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63)]
    assert [str(k) for k in kinds] == ["float32", "float64", "float64", "int64", "int64", "object"]
    assert abs_max(np.array([-(2**63), 5])) == 2**63
    assert abs_max(np.array([], np.int8)) == 0


def test_sums_beyond_24_bits_stay_exact() -> None:
    # 2^24 + 1 has no float32: the first product would swallow the second.
    x, w = ints([[1 << 12, 1]], S16), ints([[1 << 12, 1]], S16)
    assert apply(ops.Linear(bias=False), x, w).tolist() == [[2**24 + 1]]
    x = ints([[2**30, 1, -(2**30)]], S32)
    assert apply(ops.Linear(bias=False), x, ints([[2**30, 1, 2**30]])).tolist() == [[1]]
    bias = ints([1])
    assert apply(ops.Linear(), ints([[4096]], S16), ints([[4096]], S16), bias).tolist() == (
        [[2**24 + 1]]
    )


def test_sums_beyond_64_bits_stay_exact() -> None:
    x = ints([[2**62, 2**62, -(2**62), -(2**62), 5]], S64)
    assert apply(ops.Linear(bias=False), x, ints([[4, 4, 4, 4, 1]], S64)).tolist() == [[5]]
    a = ints([[2**63 - 1]], S64)
    assert apply(ops.Add(), a, ints([[-(2**63)]], S64)).tolist() == [[-1]]


RANGE = "do not fit s32 (-2147483648..2147483647)"


@pytest.mark.parametrize(
    ("op", "arrays", "message"),
    [
        (ops.Linear(), (ints([[TOP]]), ints([[1]]), ints([1])),
         f"node 'y' (linear): overflow: results 2147483648..2147483648 {RANGE}"),
        (ops.Linear(activation="relu"), (ints([[-TOP]]), ints([[1]]), ints([-2])),
         f"node 'y' (linear): overflow: results -2147483649..-2147483649 {RANGE}"),
        (ops.Add(), (ints([TOP, 0]), ints([1, 0])),
         f"node 'y' (add): overflow: results 0..2147483648 {RANGE}"),
        (ops.Mul(), (ints([65536]), ints([65536])),
         f"node 'y' (mul): overflow: results 4294967296..4294967296 {RANGE}"),
        (ops.MatMul(), (ints([[TOP, TOP]]), ints([[1], [1]])),
         f"node 'y' (matmul): overflow: results 4294967294..4294967294 {RANGE}"),
        (ops.Reduce("sum", (0,), False), (ints([TOP, 1]),),
         f"node 'y' (reduce): overflow: results 2147483648..2147483648 {RANGE}"),
        (ops.Pool2d("sum", (1, 2), (1, 1)), (ints([[[[-TOP, -2]]]]),),
         f"node 'y' (pool2d): overflow: results -2147483649..-2147483649 {RANGE}"),
        (ops.Conv2d(bias=False), (ints([[[[TOP]]]]), ints([[[[-2]]]])),
         f"node 'y' (conv2d): overflow: results -4294967294..-4294967294 {RANGE}"),
    ],
)  # fmt: skip
def test_overflow_is_an_error(op: Op, arrays: tuple[Array, ...], message: str) -> None:
    with pytest.raises(VerifyError) as caught:
        apply(op, *arrays)
    assert str(caught.value) == message


def test_the_greatest_accumulator_is_no_overflow() -> None:
    assert apply(ops.Linear(), ints([[TOP - 1]]), ints([[1]]), ints([1])).tolist() == [[TOP]]
    assert apply(ops.Add(), ints([-TOP]), ints([-1])).tolist() == [-(2**31)]


def test_max_pool_padding_is_below_everything() -> None:
    x = ints([[[[-128, -100], [-120, -128]]]], S8)
    got = apply(ops.Pool2d("max", (2, 2), (1, 1), (1, 1, 1, 1)), x)
    rows = [[-128, -100, -100], [-120, -100, -100], [-120, -120, -128]]
    assert got.reshape(3, 3).tolist() == rows


def check_random(graph: Graph, seed: int) -> int:
    """Every integer node against the oracle; the number of nodes with more than one value."""
    computed = run_values(graph, random_inputs(graph, seed), keep="all")
    varied = 0
    for node in graph.nodes.values():
        if isinstance(node.op, (ops.Input, ops.Constant, ops.Dequantize)):
            continue
        got = computed[node.name]
        want = integer_value(graph, node, [computed[v] for v in node.inputs])
        assert got.dtype == node.type.dtype.numpy
        npt.assert_array_equal(got.astype(object), want, err_msg=str(node))
        varied += len(np.unique(got)) > 1
    return varied


@pytest.mark.parametrize("seed", range(120))
def test_random_graphs(seed: int) -> None:
    graph = random_integer_graph(seed, blocks=4, float_ends=seed % 2 == 0, batch=1)
    assert check_random(graph, seed) > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1500))
def test_many_random_graphs(seed: int) -> None:
    graph = random_integer_graph(seed, blocks=6, float_ends=seed % 2 == 0)
    assert check_random(graph, seed) > 0


def test_generator_covers_every_integer_operator() -> None:
    seen = {n.op.name for s in range(60) for n in random_integer_graph(s).nodes.values()}
    floats = {"batch_norm", "softmax", "layer_norm"}
    assert seen == set(ops.OPS) - floats
