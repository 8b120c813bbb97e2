# SPDX-License-Identifier: Apache-2.0
"""The normal form: each guarantee on a small graph."""

from __future__ import annotations

import pytest

from codesign.ir import Graph, ops
from codesign.passes.legalise import Legalise
from codesign.passes.pools import window_counts
from tests.passes.checks import Net, check_golden, check_same, op_counts, value_of


def legal(net: Net, *outputs: str, **options: bool) -> Graph:
    """The normal form; checked against the network, and to be final."""
    item = Legalise(**options)
    after = check_same(net.finish(*outputs), item)
    assert item.run(after) == after
    return after


def test_factors_and_shifts_go_into_the_convolution_before() -> None:
    check_golden(
        """
        %x = input : f32[1,1,2,2]
        %c.w = constant [1.0, 2.0] : f32[2,1,1,1]
        %c = conv2d(%x, %c.w) {bias = false} : f32[1,2,2,2] loc("conv")
        %o = constant [3.0, 4.0] : f32[1,2,1,1]
        %a = add(%o, %c) : f32[1,2,2,2]
        %t = constant [2.0, -1.0] : f32[2,1,1]
        %y = mul(%a, %t) : f32[1,2,2,2]
        return %y
        """,
        Legalise(),
        """
        %x = input : f32[1,1,2,2]
        %c.w = constant [2.0, -2.0] : f32[2,1,1,1]
        %c.bias = constant [6.0, -4.0] : f32[2] loc("conv")
        %c = conv2d(%x, %c.w, %c.bias) : f32[1,2,2,2] loc("conv")
        return %c
        """,
    )


def test_factors_go_into_the_convolutions_after() -> None:
    net = Net()
    x = net.relu(net.input(1, 4, 5, 5), "r")
    y = net.add(ops.Mul(), x, net.random(4, 1, 1), name="scaled")
    after = legal(net, net.conv(y, 4, 3, "a", groups=2), net.conv(y, 3, 1, "b", bias=True))
    assert op_counts(after) == {"activation": 1, "conv2d": 2}
    assert after.nodes["a"].inputs[0] == after.nodes["b"].inputs[0] == "r"


@pytest.mark.parametrize("padding", [0, 1])
def test_a_shift_goes_into_the_next_convolution_only_without_padding(padding: int) -> None:
    net = Net()
    x = net.relu(net.input(1, 4, 5, 5), "r")
    y = net.add(ops.Add(), x, net.random(4, 1, 1), name="shifted")
    after = legal(net, net.conv(y, 4, 3, "conv", groups=2, padding=padding))
    assert op_counts(after) == {"activation": 1, "conv2d": 1 + padding}
    assert ("shifted" in after.nodes) == bool(padding)


def test_what_is_left_on_a_feature_map_is_one_depthwise_convolution() -> None:
    check_golden(
        """
        %x = input : f32[1,2,3,3]
        %m = constant [2.0, 3.0] : f32[2,1,1]
        %s = mul(%x, %m) : f32[1,2,3,3] loc("norm")
        %o = constant 0.5 : f32[]
        %y = add(%s, %o) : f32[1,2,3,3] loc("norm")
        return %y
        """,
        Legalise(),
        """
        %x = input : f32[1,2,3,3]
        %y.weight = constant [2.0, 3.0] : f32[2,1,1,1] loc("norm")
        %y.bias = constant [0.5, 0.5] : f32[2] loc("norm")
        %y = conv2d(%x, %y.weight, %y.bias) {groups = 2} : f32[1,2,3,3] loc("norm")
        return %y
        """,
    )


def test_depthwise_can_be_switched_off() -> None:
    net = Net()
    y = net.add(ops.Mul(), net.input(1, 2, 3, 3), net.random(2, 1, 1))
    assert op_counts(legal(net, y, depthwise=False)) == {"mul": 1}


def test_attention_scores_are_no_feature_map() -> None:
    net = Net()
    scores = net.add(ops.MatMul(), net.input(1, 2, 3, 4, name="q"), net.input(1, 2, 4, 3, name="k"))
    scaled = net.add(ops.Mul(), net.constant(0.5, shape=(), name="half"), scores, name="scaled")
    after = legal(net, net.add(ops.Softmax(3), scaled))
    assert op_counts(after) == {"matmul": 1, "mul": 1, "softmax": 1}
    assert after.nodes["scaled"].inputs == ("matmul", "half")


def test_a_single_factor_goes_back_through_reshape_and_transpose() -> None:
    net = Net()
    y = net.linear(net.input(1, 6, 8), 4, "fc", bias=True)
    y = net.add(ops.Transpose((0, 2, 1)), net.add(ops.Reshape((1, 12, 2)), y))
    y = net.add(ops.Mul(), y, net.constant(0.25, shape=(1,)))
    assert op_counts(legal(net, y)) == {"linear": 1, "reshape": 1, "transpose": 1}


def test_a_factor_of_an_activation_does_not_pass_it() -> None:
    net = Net()
    y = net.linear(net.input(2, 3), 4, "fc")
    y = net.add(ops.Mul(), net.add(ops.Activation("sigmoid"), y), net.random(4))
    assert op_counts(legal(net, y)) == {"linear": 1, "activation": 1, "mul": 1}


def test_matmul_with_a_constant_is_a_linear() -> None:
    check_golden(
        """
        %x = input : f32[1,2,3]
        %w = constant [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[1,3,2] loc("proj")
        %y = matmul(%x, %w) : f32[1,2,2] loc("proj")
        return %y
        """,
        Legalise(),
        """
        %x = input : f32[1,2,3]
        %w = constant [1.0, 3.0, 5.0, 2.0, 4.0, 6.0] : f32[2,3] loc("proj")
        %y = linear(%x, %w) {bias = false} : f32[1,2,2] loc("proj")
        return %y
        """,
    )


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 3, 4)])
def test_matmul_with_a_batch_of_constants_stays(shape: tuple[int, ...]) -> None:
    net = Net()
    graph_output = net.add(ops.MatMul(), net.input(2, 5, 3), net.random(*shape))
    assert op_counts(legal(net, graph_output)) == {"matmul": 1}


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_linears_read_two_or_three_axes(rank: int) -> None:
    net = Net()
    shape = (2, 1, 3, 2, 4)[5 - rank :]
    after = legal(net, net.linear(net.input(*shape), 5, "fc", bias=True))
    linear = after.nodes["fc"]
    assert isinstance(linear.op, ops.Linear)
    assert after.type(linear.inputs[0]).rank == (rank if rank in (2, 3) else 2)
    assert op_counts(after).get("reshape", 0) == (0 if rank in (2, 3) else 2)


def test_a_fused_residual_is_reshaped_too() -> None:
    net = Net()
    x, r = net.input(2, 3, 2, 4), net.input(2, 3, 2, 5, name="r")
    op = ops.Linear(bias=False, residual=True, activation="relu")
    after = legal(net, net.add(op, x, net.random(5, 4), r, name="fc"))
    assert op_counts(after) == {"reshape": 3, "linear": 1}


def test_a_linear_on_a_channels_last_image_is_a_convolution() -> None:
    net = Net()
    y = net.add(ops.Transpose((0, 2, 3, 1)), net.input(2, 3, 4, 5))
    y = net.linear(y, 6, "mlp", bias=True)
    after = legal(net, net.add(ops.Transpose((0, 3, 1, 2)), y))
    conv = after.nodes["mlp"]
    assert isinstance(conv.op, ops.Conv2d)
    assert conv.inputs == ("x", "mlp.weight", "mlp.bias")
    assert value_of(after, "mlp.weight").shape == (6, 3, 1, 1)


def test_average_without_padding_counts_everything() -> None:
    net = Net()
    pool = ops.Pool2d("avg", (2, 2), (2, 2), count_include_pad=False)
    after = legal(net, net.add(pool, net.input(1, 2, 4, 5), name="pool"))
    assert after.nodes["pool"].op == ops.Pool2d("avg", (2, 2), (2, 2))


def test_average_of_real_elements_is_a_sum_times_a_map() -> None:
    net = Net()
    pool = ops.Pool2d("avg", (3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=False)
    after = legal(net, net.add(pool, net.input(1, 2, 4, 5), name="pool"))
    assert op_counts(after) == {"pool2d": 1, "mul": 1}
    counts = 1 / value_of(after, "pool.inverse")
    # Rows see 2 then 3 of 4, columns 2, 3 and 2 of 5.
    assert counts.round(4).tolist() == [[[[4, 6, 4], [6, 9, 6]]]]


def test_window_counts_with_dilation() -> None:
    op = ops.Pool2d("avg", (2, 1), (1, 1), (1, 0, 1, 0), (2, 1), count_include_pad=False)
    assert window_counts(op, (3, 2)).tolist() == [[1, 1], [2, 2], [1, 1]]


@pytest.mark.parametrize(("kind", "reduced"), [("avg", "mean"), ("max", "max"), ("sum", "sum")])
def test_pools_over_the_image_are_reductions(kind: str, reduced: str) -> None:
    net = Net()
    pool = ops.Pool2d(kind, (4, 5), (1, 1))  # type: ignore[arg-type]
    after = legal(net, net.add(pool, net.input(1, 2, 4, 5), name="pool"))
    assert after.nodes["pool"].op == ops.Reduce(reduced, (2, 3))  # type: ignore[arg-type]


def test_reductions_of_an_image_have_one_form() -> None:
    net = Net()
    x = net.input(2, 3, 4, 5)
    flat = net.add(ops.Reduce("mean", (3, 2), keepdims=False), x, name="flat")
    rows = net.add(ops.Reduce("mean", (3,)), x)
    steps = net.add(ops.Reduce("mean", (2,)), rows, name="steps")
    after = check_same(net.finish(flat, steps), Legalise())
    reduces = [n.op for n in after.nodes.values() if isinstance(n.op, ops.Reduce)]
    assert reduces == [ops.Reduce("mean", (2, 3))] * 2
    assert after.nodes["flat"].type.shape == (2, 3, 1, 1)
    assert after.outputs == ("flat.flat", "steps")


def test_padding_goes_into_convolutions_and_sums() -> None:
    check_golden(
        """
        %x = input : f32[1,1,4,4]
        %p = pad(%x) {before = [0, 0, 0, 1], after = [0, 0, 1, 2]} : f32[1,1,5,7]
        %w = constant [1.0, 2.0, 3.0, 4.0] : f32[1,1,2,2]
        %c = conv2d(%p, %w) {padding = [1, 0, 0, 0], bias = false} : f32[1,1,5,6]
        %s = pool2d(%p) {kind = "avg", kernel = [3, 3], stride = [1, 1]} : f32[1,1,3,5]
        return %c, %s
        """,
        Legalise(),
        """
        %x = input : f32[1,1,4,4]
        %w = constant [1.0, 2.0, 3.0, 4.0] : f32[1,1,2,2]
        %c = conv2d(%x, %w) {padding = [1, 1, 1, 2], bias = false} : f32[1,1,5,6]
        %s = pool2d(%x) {kind = "avg", kernel = [3, 3], stride = [1, 1], \
padding = [0, 1, 1, 2]} : f32[1,1,3,5]
        return %c, %s
        """.replace("\\\n", ""),
    )


@pytest.mark.parametrize("how", ["edge", "value", "channels", "max", "wide"])
def test_padding_that_means_something_else_stays(how: str) -> None:
    net = Net()
    x = net.input(1, 2, 4, 4)
    amounts = (0, 1, 0, 0) if how == "channels" else (0, 0, 1, 1)
    if how == "wide":
        amounts = (0, 0, 3, 3)
    mode, value = ("edge", 0.0) if how == "edge" else ("constant", float(how == "value"))
    y = net.add(ops.Pad(amounts, amounts, mode, value), x, name="pad")  # type: ignore[arg-type]
    if how in ("max", "wide"):
        pool = ops.Pool2d("max" if how == "max" else "avg", (2, 2), (1, 1))
        after = legal(net, net.add(pool, y))
    else:
        after = legal(net, net.conv(y, 2, 3, "conv"))
    assert "pad" in after.nodes


def test_zeros_of_a_pad_node_are_real_elements_of_an_average() -> None:
    """A pool that counts only real elements counts those; only its own padding does not count."""
    net = Net()
    y = net.add(ops.Pad((0, 0, 1, 1), (0, 0, 1, 1)), net.input(1, 2, 4, 4))
    own = ops.Pool2d("avg", (4, 4), (2, 2), (1, 1, 1, 1), count_include_pad=False)
    after = legal(net, net.add(own, y, name="pool"))
    assert op_counts(after) == {"pool2d": 1, "mul": 1}
    assert (1 / value_of(after, "pool.inverse")).round(4).tolist() == [
        [[[9, 12, 9], [12, 16, 12], [9, 12, 9]]]
    ]


def test_infinite_padding_goes_into_a_max_pool() -> None:
    net = Net()
    pad = ops.Pad((0, 0, 1, 1), (0, 0, 1, 1), value=-float("inf"))
    y = net.add(pad, net.input(1, 2, 4, 4))
    after = legal(net, net.add(ops.Pool2d("max", (3, 3), (2, 2)), y, name="pool"))
    assert after.nodes["pool"].op == ops.Pool2d("max", (3, 3), (2, 2), (1, 1, 1, 1))


def test_arithmetic_reads_past_broadcasts() -> None:
    net = Net()
    x, s = net.input(1, 2, 3, 3), net.input(1, 2, 1, 1, name="s")
    wide = net.add(ops.Broadcast((1, 2, 3, 3)), s)
    after = legal(net, net.add(ops.Mul(), wide, x, name="y"))
    assert after.nodes["y"].inputs == ("s", "x")
    assert op_counts(after) == {"mul": 1}


def test_a_broadcast_that_makes_the_shape_stays() -> None:
    net = Net()
    s = net.input(1, 2, 1, 1, name="s")
    wide = net.add(ops.Broadcast((1, 2, 3, 3)), s)
    assert op_counts(legal(net, net.add(ops.Mul(), wide, s))) == {"broadcast": 1, "mul": 1}
