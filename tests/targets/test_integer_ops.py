# SPDX-License-Identifier: Apache-2.0
"""Every integer operator, compiled, equals the interpreter bit for bit, also at the extremes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.ir import Graph, GraphBuilder, ops
from codesign.ir.types import DType
from tests.targets.checks import assert_exact, compiled, integers, kind, single

CONVOLUTIONS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "3x3": ("u8[1,16,9,8]", (16, 16, 3, 3), {"padding": (1, 1, 1, 1)}),
    "1x1": ("u8[1,32,7,7]", (64, 32, 1, 1), {}),
    "1x1 of three channels": ("u8[1,3,5,5]", (5, 3, 1, 1), {}),
    "signed stem": ("s8[1,3,13,11]", (16, 3, 7, 7), {"stride": (2, 2), "padding": (3, 3, 3, 3)}),
    "asymmetric padding": ("s8[1,4,8,8]", (8, 4, 3, 3), {"stride": (2, 2),
                                                         "padding": (0, 0, 1, 1)}),
    "padding on three sides": ("u8[2,5,6,7]", (10, 5, 2, 4), {"padding": (1, 3, 0, 2)}),
    "dilated": ("u8[1,8,12,12]", (24, 8, 3, 3), {"dilation": (2, 3), "padding": (2, 3, 2, 3)}),
    "grouped": ("s8[1,12,6,6]", (18, 4, 3, 3), {"groups": 3, "padding": (1, 1, 1, 1)}),
    "grouped by 16": ("u8[1,32,6,6]", (32, 16, 3, 3), {"groups": 2}),
    "depthwise": ("u8[1,24,9,9]", (24, 1, 3, 3), {"groups": 24, "padding": (1, 1, 1, 1)}),
    "depthwise of seven": ("s8[2,7,9,5]", (7, 1, 5, 3), {"groups": 7, "stride": (2, 1),
                                                         "padding": (2, 1, 2, 1)}),
    "depth multiplier": ("u8[1,6,5,5]", (18, 1, 3, 3), {"groups": 6}),
    "whole image": ("u8[1,4,5,6]", (3, 4, 5, 6), {}),
    "u4 by s4": ("u4[1,16,6,6]", (16, 16, 3, 3), {"padding": (1, 1, 1, 1)}),
    "s2 activations": ("s2[1,8,6,6]", (16, 8, 3, 3), {"padding": (1, 1, 1, 1)}),
    "s16 activations": ("s16[1,8,6,6]", (8, 8, 3, 3), {}),
    "relu": ("s8[1,8,6,6]", (16, 8, 3, 3), {"activation": "relu"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d(case: str, bias: bool) -> None:
    x, shape, options = CONVOLUTIONS[case]
    weights = "s4" if case == "u4 by s4" else "s8"
    w = integers(weights, *shape)
    operands: list[Any] = [kind(x), w]
    if bias:
        # As large as the sums leave room for: correction by 128 times the weights wraps on the way.
        operands.append(integers("s24", shape[0]) * 120 if "s16" not in x else
                        integers("s20", shape[0]))
    assert_exact(single(ops.Conv2d(bias=bias, **options), *operands))


def test_conv2d_with_residual_and_computed_weights() -> None:
    b = GraphBuilder("computed")
    x = b.input("x", kind("u8[1,4,6,6]"))
    w = b.input("w", kind("s8[8,4,3,3]"))
    bias = b.input("b", kind("s20[8]"))
    wide = b.add(ops.Clip(DType.parse("s32"), -(2**19), 2**19 - 1), [bias])
    r = b.constant(integers("s20", 1, 8, 4, 4).astype(np.int32), "r")
    y = b.add(ops.Conv2d(residual=True), [x, w, wide, r])
    depthwise = b.input("dw", kind("s8[4,1,3,3]"))
    z = b.add(ops.Conv2d(groups=4, bias=False), [x, depthwise])
    assert_exact(b.finish([y, z]))


@pytest.mark.parametrize(
    ("x", "outputs"),
    [("u8[1,64]", 10), ("s8[1,65]", 1000), ("u8[3,16]", 16), ("s8[2,5,12]", 24),
     ("u8[2,3,4,8]", 8), ("u4[7]", 5), ("s8[2,1,2,3,9]", 7)],
)  # fmt: skip
def test_linear(x: str, outputs: int) -> None:
    depth = kind(x).shape[-1]
    w, bias = integers("s8", outputs, depth), integers("s24", outputs) * 100
    assert_exact(single(ops.Linear(), kind(x), w, bias))


@pytest.mark.parametrize(
    ("a", "b"),
    [("s8[3,5]", "s8[5,7]"), ("u8[2,4,9,16]", "s8[2,4,16,24]"), ("s8[2,3,6,8]", "u8[8,16]"),
     ("s8[4,1,3,2]", "s8[5,2,9]"), ("u8[2,4,1,1]", "u8[2,4,1,1]"), ("s8[8,1,1]", "u8[8,1,1]"),
     ("s8[1,1]", "u8[1,1]"), ("s8[5,3,1]", "s8[5,1,2]")],
)  # fmt: skip
def test_matmul(a: str, b: str) -> None:
    assert_exact(single(ops.MatMul(), kind(a), kind(b)))


@pytest.mark.parametrize(
    ("a", "b"),
    [("s16[1,16,5,5]", "s16[1,16,5,5]"), ("u8[2,3,4,5]", "s8[3,1,1]"), ("s8[1,7]", "u4[6,1]")],
)
@pytest.mark.parametrize("op", [ops.Add(), ops.Mul()])
def test_binary(op: ops.Op, a: str, b: str) -> None:
    if op.name == "mul" and "s16" in a:
        # -2^15 squared is still in s32
        a, b = "s16[1,8,3,3]", "s16[1,8,3,3]"
    assert_exact(single(op, kind(a), kind(b)))


@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.parametrize("x", ["s32[3,6,4,4]", "u8[3,6,4,4]", "s16[3,6]"])
def test_requantize(x: str, axis: int) -> None:
    count = () if axis < 0 else (kind(x).shape[axis],)
    rng = np.random.default_rng(1)
    for dtype, lo, hi in (("u8", 0, 255), ("s16", -32768, 32767), ("s4", -8, 5), ("u1", 0, 1)):
        m = rng.integers(1 << 15, 1 << 16, count).astype(np.int32)
        e = rng.integers(1, 63, count).astype(np.int32)
        if count:
            m[0], e[0] = 0, 1
            m[-1], e[-1] = (1 << 16) - 1, 62
        op = ops.Requantize(DType.parse(dtype), lo, hi, axis)
        graph = single(op, kind(x), np.asarray(m), np.asarray(e))
        assert_exact(graph)


def test_requantize_rounds_half_up() -> None:
    """The rule of DESIGN section 3 on values that lie exactly between two results."""
    x = np.arange(-40, 40, dtype=np.int32)
    op = ops.Requantize(DType.parse("s8"), -128, 127)
    graph = single(op, kind("s32[80]"), np.array(1 << 15, np.int32), np.array(17, np.int32))
    (found,) = compiled(graph).run(x)
    np.testing.assert_array_equal(found, np.floor(x / 4 + 0.5).astype(np.int8))
    assert_exact(graph, [(x,)])


@pytest.mark.parametrize("x", ["s32[1,8,3,3]", "u32[9]", "u8[2,5]", "s5[3,3]"])
@pytest.mark.parametrize(
    ("dtype", "lo", "hi"), [("u8", 0, 255), ("s3", -4, 3), ("u32", 0, 2**32 - 1)]
)
def test_clip(x: str, dtype: str, lo: int, hi: int) -> None:
    assert_exact(single(ops.Clip(DType.parse(dtype), lo, hi), kind(x)))


@pytest.mark.parametrize("x", ["s8[1,16,4,4]", "u3[2,9]", "s10[40]"])
@pytest.mark.parametrize("table", ["u8", "s4", "s16"])
def test_lookup(x: str, table: str) -> None:
    entries = integers(table, 1 << kind(x).dtype.bits)
    b = GraphBuilder("lookup")
    value = b.input("x", kind(x))
    y = b.add(ops.Lookup(), [value, b.constant(entries, "table", DType.parse(table))])
    assert_exact(b.finish([y]))


POOLS: list[dict[str, Any]] = [
    {"kernel": (2, 2), "stride": (2, 2)},
    {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)},
    {"kernel": (3, 2), "stride": (1, 2), "padding": (0, 1, 2, 0)},
    {"kernel": (2, 3), "stride": (1, 1), "dilation": (2, 2)},
]


@pytest.mark.parametrize("options", POOLS)
@pytest.mark.parametrize("pool", ["max", "sum"])
@pytest.mark.parametrize("x", ["u8[1,16,9,9]", "s8[2,5,7,6]", "s3[1,3,8,8]"])
def test_pool2d(x: str, pool: Any, options: dict[str, Any]) -> None:
    assert_exact(single(ops.Pool2d(kind=pool, **options), kind(x)))


@pytest.mark.parametrize("reduction", ["sum", "max"])
@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize(
    ("x", "axes"),
    [("u8[2,16,7,7]", (2, 3)), ("s8[2,5,3,4]", (1,)), ("s16[4,9]", (1,)), ("s8[3,4,5]", (0, 2)),
     ("u8[3,5]", (0, 1))],
)  # fmt: skip
def test_reduce(x: str, axes: tuple[int, ...], reduction: Any, keepdims: bool) -> None:
    assert_exact(single(ops.Reduce(reduction, axes, keepdims), kind(x)))


MOVES: dict[str, tuple[ops.Op, tuple[str, ...]]] = {
    "concat channels": (ops.Concat(1), ("u8[1,16,4,4]", "u8[1,5,4,4]", "u8[1,3,4,4]")),
    "concat rows": (ops.Concat(0), ("s8[2,7]", "s8[1,7]")),
    "slice": (ops.Slice(1, 2, 11, 3), ("s8[1,16,4,4]",)),
    "slice columns": (ops.Slice(3, 1, 4), ("s8[1,6,4,5]",)),
    "reshape": (ops.Reshape((4, 24)), ("u4[2,3,4,4]",)),
    "broadcast": (ops.Broadcast((2, 3, 4)), ("s8[3,1]",)),
    "transpose": (ops.Transpose((0, 2, 3, 1)), ("s8[2,3,4,5]",)),
    "transpose rows": (ops.Transpose((1, 0)), ("s32[6,17]",)),
    "pad": (ops.Pad((0, 0, 1, 2), (0, 0, 0, 3), value=-3.0), ("s8[1,5,4,4]",)),
    "pad reflect": (ops.Pad((0, 0, 2, 1), (0, 0, 1, 3), "reflect"), ("s8[1,5,4,4]",)),
    "pad edge": (ops.Pad((1, 0), (0, 9), "edge"), ("u8[3,4]",)),
    "nearest": (ops.Resize((9, 6)), ("u8[1,5,4,3]",)),
    "nearest half pixel": (
        ops.Resize((5, 8), "nearest", "half_pixel", "round_prefer_ceil"), ("s8[1,16,7,3]",)),
    "relu": (ops.Activation("relu"), ("s8[2,9]",)),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVES)
def test_moves(case: str) -> None:
    op, operands = MOVES[case]
    assert_exact(single(op, *(kind(text) for text in operands)))


def fused(shared: bool) -> Graph:
    """conv → s16 → + requantised residual → clip; with ``shared`` the sum is read twice."""
    b = GraphBuilder("fused")
    x = b.input("x", kind("u8[1,16,7,7]"))
    s16 = DType.parse("s16")
    w = b.constant(integers("s8", 16, 16, 3, 3))
    bias = b.constant(integers("s16", 16).astype(np.int32))
    conv = b.add(ops.Conv2d(padding=(1, 1, 1, 1)), [x, w, bias])
    m, e = (integers("s8", 16).astype(np.int32) * 100 + 49152, np.arange(16, 32, dtype=np.int32))
    y = b.add(ops.Requantize(s16, -32768, 32767, 1), [conv, b.constant(m), b.constant(e)])
    half = [b.constant(np.array(1 << 15, np.int32)), b.constant(np.array(10, np.int32))]
    r = b.add(ops.Requantize(s16, -32768, 32767), [x, *half])
    total = b.add(ops.Add(), [y, r])
    out = b.add(ops.Clip(DType.parse("u6"), 0, 63), [total])
    return b.finish([out, total] if shared else [out])


@pytest.mark.parametrize("shared", [False, True])
def test_residual_block(shared: bool) -> None:
    assert_exact(fused(shared))
