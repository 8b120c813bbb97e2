# SPDX-License-Identifier: Apache-2.0
"""From graphs to layers, chains and units."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.errors import InfeasibleError, InputError, UnsupportedError
from codesign.ir.graph import Graph, GraphBuilder
from codesign.ir.ops import Add, Conv2d, Linear, Reduce, Reshape
from codesign.ir.types import TensorType
from codesign.space.options import units_of
from codesign.space.workload import Chain, LayerShape, VectorOp, workload_of

ONE = (1, 1)
BITS = {"w8a8": 8, "w4a8": 8, "w4a4": 4}


def conv(
    b: GraphBuilder, x: str, outputs: int, kernel: int, name: str, stride: int = 1, groups: int = 1,
    residual: str = "",
) -> str:  # fmt: skip
    channels = b.type(x).shape[1]
    w = b.constant(np.ones((outputs, channels // groups, kernel, kernel), np.float32))
    pad = kernel // 2
    op = Conv2d((stride, stride), (pad,) * 4, ONE, groups, False, bool(residual), "relu")
    return b.add(op, [x, w, *([residual] if residual else [])], name)


def inverted_residual(fused_add: bool) -> Graph:
    b = GraphBuilder("net")
    x = conv(b, b.input("x", TensorType((1, 3, 8, 8))), 4, 3, "stem")
    h = conv(b, x, 12, 1, "expand")
    h = conv(b, h, 12, 3, "window", groups=12)
    if fused_add:
        y = conv(b, h, 4, 1, "project", residual=x)
    else:
        y = b.add(Add(), [conv(b, h, 4, 1, "project"), x], "add")
    y = b.add(Reduce("mean", (2, 3)), [y], "pool")
    y = b.add(Reshape((1, 4)), [y], "flat")
    w = b.constant(np.ones((10, 4), np.float32))
    return b.finish([b.add(Linear(bias=False), [y, w], "fc")])


@pytest.mark.parametrize("fused_add", [False, True])
def test_inverted_residual(fused_add: bool) -> None:
    work = workload_of(inverted_residual(fused_add))
    assert [layer.name for layer in work.layers] == ["stem", "expand", "window", "project", "fc"]
    assert work.chains == (Chain(1, 2, 3, True),)
    assert work.layers[2].shape == LayerShape(
        "depthwise", 12, 12, 12, (3, 3), ONE, ONE, (8, 8), (8, 8)
    )
    assert work.layers[3].shape == LayerShape(
        "dense", 12, 4, 1, ONE, ONE, ONE, (8, 8), (8, 8), True
    )
    assert work.layers[4].shape == LayerShape("dense", 4, 10, 1, ONE, ONE, ONE, ONE, ONE)
    assert work.vector_ops == (VectorOp("pool", 256, 4, 256),)
    assert work.macs == 64 * (4 * 27 + 48 + 12 * 9 + 48) + 40


def test_shared_input_and_strided_shortcut() -> None:
    b = GraphBuilder("net")
    x = b.input("x", TensorType((1, 4, 8, 8)))
    left = conv(b, x, 8, 3, "left", 2)
    right = conv(b, x, 8, 1, "right", 2)
    y = b.add(Add(), [left, right], "add")
    work = workload_of(b.finish([y]))
    assert work.shared_inputs() == ((0, 1),)
    assert [layer.shape.residual for layer in work.layers] == [False, True]
    assert not work.vector_ops
    assert work.layers[1].shape.rows_in(4) == 7
    units = units_of(work, list(BITS), BITS)
    # both read one tensor, so both have 8 or both 4 bits of it
    assert [u.layers for u in units] == [(0, 1)]
    assert set(units[0].options) == {
        ("w8a8", "w8a8"), ("w8a8", "w4a8"), ("w4a8", "w8a8"), ("w4a8", "w4a8"), ("w4a4", "w4a4"),
    }  # fmt: skip


def test_expansion_that_others_read_is_not_fused() -> None:
    b = GraphBuilder("net")
    h = conv(b, b.input("x", TensorType((1, 3, 8, 8))), 12, 1, "expand")
    y = conv(b, h, 12, 3, "window", groups=12)
    work = workload_of(b.finish([y, h]))
    assert work.chains == ()


def test_units_under_ties_and_forbids() -> None:
    work = workload_of(inverted_residual(True))
    free = units_of(work, list(BITS), BITS)
    # the stem's own, the chain of three, the last layer; stem input and x differ
    assert [u.layers for u in free] == [(0,), (1, 2, 3), (4,)]
    assert [len(u.options) for u in free] == [3, 27, 3]
    apart = units_of(work, list(BITS), BITS, fused=False)
    assert [len(u.options) for u in apart] == [3] * 5
    tied = units_of(work, list(BITS), BITS, fused=False, ties=[["stem", "fc"]])
    assert tied[0].options == tuple((f, f) for f in BITS)
    barred = units_of(
        work, list(BITS), BITS, fused=False, forbid=[[("stem", "w4a4"), ("fc", "w4a4")]]
    )
    assert len(barred[0].options) == 8
    kept = units_of(work, list(BITS), BITS, fused=False, only={"stem": ["w8a8"]})
    assert kept[0].options == (("w8a8",),)
    with pytest.raises(InfeasibleError) as none_left:
        units_of(work, ["w8a8"], BITS, fused=False, forbid=[[("fc", "w8a8")]])
    assert str(none_left.value) == "ties, forbids and formats leave no choice for layers fc"
    with pytest.raises(InputError) as unknown:
        units_of(work, list(BITS), BITS, ties=[["stem", "fcc"]])
    assert str(unknown.value) == (
        "tie: unknown layer 'fcc' (known: stem, expand, window, project, fc)"
    )
    with pytest.raises(InputError) as format_unknown:
        units_of(work, list(BITS), BITS, forbid=[[("stem", "w2a2")]])
    assert str(format_unknown.value) == (
        "forbid: unknown format 'w2a2' (offered: w8a8, w4a8, w4a4)"
    )


def test_batches_and_empty_networks() -> None:
    b = GraphBuilder("net")
    y = conv(b, b.input("x", TensorType((2, 3, 8, 8))), 4, 3, "stem")
    with pytest.raises(UnsupportedError) as raised:
        workload_of(b.finish([y]))
    assert str(raised.value) == (
        "layer 'stem' has a batch of 2; the accelerator takes one image at a time: export the "
        "network with batch 1"
    )
    b = GraphBuilder("none")
    x = b.input("x", TensorType((1, 3)))
    with pytest.raises(InputError) as empty:
        workload_of(b.finish([x]))
    assert str(empty.value) == "network 'none' has no convolution or linear layer"
