# SPDX-License-Identifier: Apache-2.0
"""Batch norm folding: by hand, as text, and where it must not happen."""

from __future__ import annotations

import pytest

from codesign.errors import InputError
from codesign.ir import ops
from codesign.passes.fold_batch_norm import FoldBatchNorm
from tests.passes.checks import Net, check_golden, check_same, graph_of, op_counts, value_of

NORM = """
    %g = constant [3.0, -2.0] : f32[2]
    %b = constant [0.5, 1.0] : f32[2]
    %m = constant [1.0, 4.0] : f32[2]
    %v = constant [3.75, 0.75] : f32[2]
"""
"""With eps 0.25 the deviations are 2 and 1: scale 1.5 and −2, shift −1 and 9."""


def test_by_hand_into_a_convolution() -> None:
    check_golden(
        f"""
        %x = input : f32[1,1,2,2]
        %c.w = constant [2.0, 3.0] : f32[2,1,1,1]
        %c.b = constant [10.0, 20.0] : f32[2]
        %c = conv2d(%x, %c.w, %c.b) : f32[1,2,2,2] loc("stem.conv")
        {NORM}
        %y = batch_norm(%c, %g, %b, %m, %v) {{eps = 0.25}} : f32[1,2,2,2] loc("stem.bn")
        return %y
        """,
        FoldBatchNorm(),
        # 2 · 1.5, 3 · −2; 10 · 1.5 − 1, 20 · −2 + 9
        """
        %x = input : f32[1,1,2,2]
        %c.w = constant [3.0, -6.0] : f32[2,1,1,1]
        %c.b = constant [14.0, -31.0] : f32[2]
        %c = conv2d(%x, %c.w, %c.b) : f32[1,2,2,2] loc("stem.conv")
        return %c
        """,
    )


def test_by_hand_into_a_linear_without_bias() -> None:
    check_golden(
        f"""
        %x = input : f32[1,1]
        %l.w = constant [2.0, 3.0] : f32[2,1]
        %l = linear(%x, %l.w) {{bias = false}} : f32[1,2] loc("fc")
        {NORM}
        %y = batch_norm(%l, %g, %b, %m, %v) {{eps = 0.25}} : f32[1,2]
        return %y
        """,
        FoldBatchNorm(),
        """
        %x = input : f32[1,1]
        %l.w = constant [3.0, -6.0] : f32[2,1]
        %l.bias = constant [-1.0, 9.0] : f32[2] loc("fc")
        %l = linear(%x, %l.w, %l.bias) : f32[1,2] loc("fc")
        return %l
        """,
    )


def test_alone_it_becomes_mul_and_add() -> None:
    check_golden(
        f"""
        %x = input : f32[1,2,1,1]
        {NORM}
        %y = batch_norm(%x, %g, %b, %m, %v) {{eps = 0.25}} : f32[1,2,1,1] loc("bn")
        return %y
        """,
        FoldBatchNorm(),
        """
        %x = input : f32[1,2,1,1]
        %y.scale = constant [1.5, -2.0] : f32[1,2,1,1] loc("bn")
        %y.shift = constant [-1.0, 9.0] : f32[1,2,1,1] loc("bn")
        %y.mul = mul(%x, %y.scale) : f32[1,2,1,1] loc("bn")
        %y = add(%y.mul, %y.shift) : f32[1,2,1,1] loc("bn")
        return %y
        """,
    )


def test_standalone_off_leaves_it() -> None:
    net = Net()
    graph = net.finish(net.norm(net.input(1, 3, 4, 4), "bn"))
    assert FoldBatchNorm(standalone=False).run(graph) == graph


def test_the_weight_format_and_names_stay() -> None:
    net = Net()
    y = net.norm(net.conv(net.input(1, 2, 5, 5), 4, 3, "conv", groups=2), "bn")
    graph = net.finish(net.norm(y, "again"))
    after = check_same(graph, FoldBatchNorm())
    assert op_counts(after) == {"conv2d": 1}
    assert after.outputs == ("conv",)
    assert after.nodes["conv"].source == "module.conv"
    assert str(after.type("conv.weight")) == "f32[4,1,3,3]"
    assert list(after.constants) == ["conv.weight", "conv.bias"]


@pytest.mark.parametrize("how", ["read twice", "output", "fused activation"])
def test_a_layer_whose_result_is_wanted_stays(how: str) -> None:
    net = Net()
    c = net.conv(net.input(1, 2, 4, 4), 2, 3, "conv")
    if how == "fused activation":
        c = net.add(ops.Conv2d(groups=2, bias=False, activation="relu"), c, net.random(2, 1, 1, 1))
    y = net.norm(c, "bn")
    outputs = {"read twice": [y, net.relu(c)], "output": [y, c], "fused activation": [y]}[how]
    after = check_same(net.finish(*outputs), FoldBatchNorm())
    assert op_counts(after)["mul"] == op_counts(after)["add"] == 1
    assert "batch_norm" not in op_counts(after)


def test_a_linear_over_tokens_is_not_confused() -> None:
    """For [N, T, K] batch norm works on axis 1, which is no output of the linear."""
    net = Net()
    graph = net.finish(net.norm(net.linear(net.input(2, 3, 5), 3, "fc"), "bn"))
    after = check_same(graph, FoldBatchNorm())
    assert op_counts(after) == {"linear": 1, "mul": 1, "add": 1}


def test_weights_shared_by_two_layers_are_told_apart() -> None:
    net = Net()
    x = net.input(1, 2, 4, 4)
    w = net.random(2, 2, 1, 1, name="shared")
    first = net.add(ops.Conv2d(bias=False), x, w, name="first")
    second = net.add(ops.Conv2d(bias=False), first, w, name="second")
    graph = net.finish(net.norm(second, "bn"))
    after = check_same(graph, FoldBatchNorm())
    assert after.nodes["first"].inputs[1] == "shared"
    assert after.nodes["second"].inputs[1] == "shared_1"
    assert (value_of(after, "shared") == value_of(graph, "shared")).all()


def test_computed_parameters_are_left() -> None:
    net = Net()
    x, gamma = net.input(1, 2, 3, 3), net.input(2, name="gamma")
    rest = [net.random(2), net.random(2), net.constant(1, 1)]
    graph = net.finish(net.add(ops.BatchNorm(), x, gamma, *rest, name="bn"))
    assert FoldBatchNorm().run(graph) == graph


@pytest.mark.parametrize(
    ("variance", "message"),
    [
        ("[1.0, -0.5]", "var + eps must be positive, channel 1 has -0.25"),
        ("[nan, 1.0]", "var of channel 0 is nan"),
    ],
)
def test_impossible_parameters(variance: str, message: str) -> None:
    graph = graph_of(
        f"""
        %x = input : f32[1,2,1,1]
        %g = constant [1.0, 1.0] : f32[2]
        %v = constant {variance} : f32[2]
        %y = batch_norm(%x, %g, %g, %g, %v) {{eps = 0.25}} : f32[1,2,1,1] loc("layer1.bn")
        return %y
        """
    )
    with pytest.raises(InputError) as error:
        FoldBatchNorm().run(graph)
    assert str(error.value) == f"g: batch_norm 'y' from 'layer1.bn': {message}"
