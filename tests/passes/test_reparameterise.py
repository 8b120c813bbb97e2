# SPDX-License-Identifier: Apache-2.0
"""Re-parameterisation: by hand, every kind of branch, and the zoo's RepVGG."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.frontend import load_network
from codesign.ir import Graph, ops
from codesign.passes import parse_pipeline, prepare
from codesign.passes.kernels import Kernel, merge_kernels
from codesign.passes.reparameterise import Reparameterise
from tests.passes.checks import (
    FLOAT64_BOUND,
    Net,
    check_golden,
    check_same,
    in_double,
    op_counts,
    value_of,
    worst_error,
)  # fmt: skip


def test_by_hand_three_by_three_one_by_one_and_identity() -> None:
    """In the middle of the 3x3 kernel the 1x1's 10 and the identity's 1 are added."""
    check_golden(
        """
        %x = input : f32[1,1,3,3]
        %a.w = constant [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0] : f32[1,1,3,3]
        %a.b = constant [0.5] : f32[1]
        %a = conv2d(%x, %a.w, %a.b) {padding = [1, 1, 1, 1]} : f32[1,1,3,3] loc("dense")
        %b.w = constant [10.0] : f32[1,1,1,1]
        %b.b = constant [0.25] : f32[1]
        %b = conv2d(%x, %b.w, %b.b) : f32[1,1,3,3] loc("pointwise")
        %s = add(%a, %b) : f32[1,1,3,3]
        %y = add(%s, %x) : f32[1,1,3,3]
        return %y
        """,
        Reparameterise(),
        """
        %x = input : f32[1,1,3,3]
        %a.w = constant [1.0, 2.0, 3.0, 4.0, 16.0, 6.0, 7.0, 8.0, 9.0] : f32[1,1,3,3] loc("dense")
        %a.b = constant [0.75] : f32[1] loc("dense")
        %a = conv2d(%x, %a.w, %a.b) {padding = [1, 1, 1, 1]} : f32[1,1,3,3] loc("dense")
        return %a
        """,
    )


def merged(net: Net, *terms: str) -> Graph:
    """The graph of the sum of ``terms`` and a relu; checked to become one convolution."""
    total = terms[0]
    for term in terms[1:]:
        total = net.add(ops.Add(), total, term, name="sum")
    graph = net.finish(net.relu(total))
    after = check_same(in_double(graph), Reparameterise(), FLOAT64_BOUND)
    assert op_counts(after) == {"conv2d": 1, "activation": 1}
    assert Reparameterise().run(after) == after
    return after


def conv_op(graph: Graph) -> ops.Conv2d:
    (op,) = (n.op for n in graph.nodes.values() if isinstance(n.op, ops.Conv2d))
    return op


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_strides_and_odd_sizes(stride: int, size: int) -> None:
    net = Net(seed=stride)
    x = net.input(2, 3, size, size + 1)
    branches = [net.conv(x, 4, k, f"conv{k}", stride=stride, bias=True) for k in (3, 1, 5)]
    op = conv_op(merged(net, *(net.norm(b, f"{b}.bn") for b in branches)))
    assert op.stride == (stride, stride)
    assert op.padding == (2, 2, 2, 2)


def test_identity_with_batch_norm() -> None:
    net = Net()
    x = net.relu(net.input(1, 3, 5, 5), "in")
    dense = net.norm(net.conv(x, 3, 3, "dense"), "n1")
    total = net.add(ops.Add(), dense, net.norm(x, "n2"))
    after = check_same(net.finish(total), Reparameterise())
    assert op_counts(after) == {"activation": 1, "conv2d": 1}


def test_grouped_and_depthwise_branches() -> None:
    net = Net()
    x = net.input(1, 6, 5, 5)
    after = merged(
        net,
        net.conv(x, 6, 3, "halves", groups=2),
        net.conv(x, 6, 3, "thirds", groups=3),
        net.conv(x, 6, 5, "dense"),
        net.conv(x, 6, 3, "depthwise", groups=6),
        x,
    )
    assert conv_op(after).groups == 1
    assert value_of(after, "dense.weight").shape == (6, 6, 5, 5)


def test_depthwise_stays_depthwise() -> None:
    net = Net()
    x = net.input(1, 4, 6, 6)
    after = merged(net, net.conv(x, 4, 3, "wide", groups=4), net.conv(x, 4, 1, "one", groups=4), x)
    assert conv_op(after).groups == 4
    assert value_of(after, "wide.weight").shape == (4, 1, 3, 3)


def test_dilation_is_kept_where_taps_allow() -> None:
    net = Net()
    x = net.input(1, 2, 9, 9)
    after = merged(net, net.conv(x, 2, 3, "far", dilation=2), net.conv(x, 2, 1, "near"), x)
    assert conv_op(after).dilation == (2, 2)
    assert value_of(after, "far.weight").shape == (2, 2, 3, 3)


def test_average_pool_and_constants() -> None:
    net = Net()
    x = net.input(1, 3, 6, 6)
    pool = net.add(ops.Pool2d("avg", (3, 3), (1, 1), (1, 1, 1, 1)), x)
    scaled = net.add(ops.Mul(), net.conv(x, 3, 3, "conv"), net.random(3, 1, 1))
    merged(net, pool, net.random(1, 3, 1, 1), scaled, net.constant(0.5, shape=()))


def test_uneven_padding_and_kernels() -> None:
    net = Net()
    x = net.input(1, 2, 6, 7)
    tall = ops.Conv2d(padding=(2, 0, 0, 1), bias=False)
    flat = ops.Conv2d(padding=(0, 1, 0, 1), bias=False)
    a = net.add(tall, x, net.random(2, 2, 3, 2, name="a.w"), name="a")
    b = net.add(flat, x, net.random(2, 2, 1, 3, name="b.w"), name="b")
    total = net.add(ops.Add(), a, b)
    graph = in_double(net.finish(total))
    after = check_same(graph, Reparameterise(grow=True), FLOAT64_BOUND)
    assert conv_op(after).padding == (2, 1, 0, 1)
    assert value_of(after, "a.w").shape == (2, 2, 3, 3)


def test_what_costs_more_is_left_unless_asked() -> None:
    net = Net()
    x = net.input(1, 8, 6, 6)
    depthwise, dense = net.conv(x, 8, 3, "depthwise", groups=8), net.conv(x, 8, 1, "dense")
    graph = in_double(net.finish(net.add(ops.Add(), depthwise, dense)))
    assert Reparameterise().run(graph) == graph
    after = check_same(graph, Reparameterise(grow=True), FLOAT64_BOUND)
    assert op_counts(after) == {"conv2d": 1}


def test_other_terms_stay_in_the_sum() -> None:
    net = Net()
    x, other = net.input(1, 2, 5, 5), net.input(1, 2, 5, 5, name="other")
    total = net.add(ops.Add(), net.conv(x, 2, 3, "conv"), other, name="first")
    graph = in_double(net.finish(net.add(ops.Add(), total, x, name="total")))
    after = check_same(graph, Reparameterise(), FLOAT64_BOUND)
    assert op_counts(after) == {"conv2d": 1, "add": 1}
    assert after.nodes["total"].inputs == ("conv", "other")


def test_two_groups_in_one_sum() -> None:
    net = Net()
    x, z = net.input(1, 2, 5, 5), net.input(1, 2, 5, 5, name="z")
    terms = [net.conv(v, 2, k, f"c{v}{k}", bias=True) for v in (x, z) for k in (1, 3)]
    total = terms[0]
    for term in [*terms[1:], net.random(2, 1, 1)]:
        total = net.add(ops.Add(), total, term, name="total")
    after = check_same(in_double(net.finish(total)), Reparameterise(), FLOAT64_BOUND)
    assert op_counts(after) == {"conv2d": 2, "add": 1}


@pytest.mark.parametrize("how", ["output", "read twice", "relu between", "strides differ"])
def test_what_must_not_merge(how: str) -> None:
    net = Net()
    x = net.input(1, 2, 5, 5)
    a = net.conv(x, 2, 3, "a")
    b = net.conv(x, 2, 1, "b")
    outputs = [b] if how == "output" else []
    if how == "read twice":
        outputs = [net.relu(b)]
    if how == "relu between":
        b = net.relu(b)
    if how == "strides differ":
        wide = net.input(1, 2, 9, 9, name="wide")
        a = net.conv(wide, 2, 1, "c", stride=2)
        b = net.conv(wide, 2, 5, "d", padding=0)
    graph = in_double(net.finish(net.add(ops.Add(), a, b), *outputs))
    assert Reparameterise().run(graph) == graph


def test_a_plain_residual_block_is_left() -> None:
    net = Net()
    x = net.input(1, 2, 5, 5)
    y = net.conv(net.relu(net.conv(x, 2, 3, "first")), 2, 3, "second")
    graph = net.finish(net.relu(net.add(ops.Add(), y, x)))
    assert Reparameterise().run(graph) == graph


def test_regrouping_keeps_each_channel_at_its_place() -> None:
    kernel = Kernel(np.arange(1.0, 5).reshape(4, 1, 1, 1), np.zeros(4), 4)
    halves = kernel.regrouped(2)[:, :, 0, 0]
    assert halves.tolist() == [[1, 0], [0, 2], [3, 0], [0, 4]]
    assert (kernel.regrouped(1)[:, :, 0, 0] == np.diag([1, 2, 3, 4])).all()
    assert merge_kernels([kernel, Kernel.identity(4)]).weight.ravel().tolist() == [2, 3, 4, 5]


def test_repvgg_collapses_to_plain_convolutions() -> None:
    """RepVGG's three-branch blocks become one 3x3 each (Ding et al. 2021, figure 4)."""
    graph = load_network("zoo:repvgg_small").graph
    for pipeline in (
        parse_pipeline("fold-batch-norm,reparameterise,fuse"),
        parse_pipeline("reparameterise,fuse"),
        prepare(),
    ):
        after = pipeline.run(graph).graph
        assert op_counts(after) == {"conv2d": 8, "reduce": 1, "reshape": 1, "linear": 1}
        convs = [n for n in after.nodes.values() if isinstance(n.op, ops.Conv2d)]
        assert all(after.type(n.inputs[1]).shape[2:] == (3, 3) for n in convs)
        assert all(n.op.activation == "relu" for n in convs if isinstance(n.op, ops.Conv2d))
        # Sums of up to 1152 products in float32: sqrt(1152) · 6e-8 a layer, over eight layers.
        assert worst_error(graph, after) < 1e-5
