# SPDX-License-Identifier: Apache-2.0
"""Fusion of bias, residual and activation."""

from __future__ import annotations

import pytest

from codesign.ir import Graph, ops
from codesign.passes.fuse import Fuse
from tests.passes.checks import Net, check_golden, check_same, op_counts

BLOCK = """
    %x = input : f32[1,2,3,3]
    %w = constant [1.0, 2.0, 3.0, 4.0] : f32[2,2,1,1]
    %c = conv2d(%x, %w) {bias = false} : f32[1,2,3,3] loc("conv")
    %o = constant [0.5, -1.5] : f32[2,1,1]
    %b = add(%c, %o) : f32[1,2,3,3]
    %s = add(%x, %b) : f32[1,2,3,3]
    %r = activation(%s) {kind = "relu6"} : f32[1,2,3,3] loc("act")
    return %r
"""
HEAD = """
    %x = input : f32[1,2,3,3]
    %w = constant [1.0, 2.0, 3.0, 4.0] : f32[2,2,1,1]
"""
BIAS = '%c.bias = constant [0.5, -1.5] : f32[2] loc("conv")'


def test_everything_into_the_layer() -> None:
    check_golden(
        BLOCK,
        Fuse(),
        f"""{HEAD}
        {BIAS}
        %c = conv2d(%x, %w, %c.bias, %x) {{residual = true, activation = "relu6"}} \
: f32[1,2,3,3] loc("conv")
        return %c
        """.replace("\n\n", "\n"),
    )


def test_without_residual() -> None:
    check_golden(
        BLOCK,
        Fuse(add=False),
        f"""{HEAD}
        {BIAS}
        %c = conv2d(%x, %w, %c.bias) : f32[1,2,3,3] loc("conv")
        %s = add(%x, %c) : f32[1,2,3,3]
        %r = activation(%s) {{kind = "relu6"}} : f32[1,2,3,3] loc("act")
        return %r
        """.replace("\n\n", "\n"),
    )


def test_without_activations() -> None:
    check_golden(
        BLOCK,
        Fuse(activations=False),
        f"""{HEAD}
        {BIAS}
        %c = conv2d(%x, %w, %c.bias, %x) {{residual = true}} : f32[1,2,3,3] loc("conv")
        %r = activation(%c) {{kind = "relu6"}} : f32[1,2,3,3] loc("act")
        return %r
        """.replace("\n\n", "\n"),
    )


def test_without_bias_nothing_behind_it_fuses() -> None:
    net = Net()
    y = net.add(ops.Add(), net.conv(net.input(1, 2, 3, 3), 2, 1, "c"), net.random(2, 1, 1))
    graph = net.finish(net.relu(y))
    assert Fuse(bias=False).run(graph) == graph


def test_linear_takes_all_three() -> None:
    net = Net()
    x, r = net.input(2, 3, 4), net.input(2, 3, 5, name="r")
    y = net.add(ops.Add(), net.linear(x, 5, "fc", bias=True), net.random(1, 1, 5, name="offset"))
    y = net.add(ops.Activation("leaky_relu", 0.25), net.add(ops.Add(), r, y))
    after = check_same(net.finish(y), Fuse())
    assert op_counts(after) == {"linear": 1}
    node = after.nodes["fc"]
    assert node.op == ops.Linear(True, True, "leaky_relu", 0.25)
    assert node.inputs == ("x", "fc.weight", "fc.bias", "r")
    assert node.source == "module.fc"


def residual(swapped: bool, projected: bool) -> Graph:
    net = Net()
    x = net.input(1, 2, 5, 5)
    shortcut = net.conv(x, 2, 1, "shortcut", bias=True) if projected else x
    y = net.conv(net.relu(net.conv(x, 2, 3, "first")), 2, 3, "second", bias=True)
    pair = (shortcut, y) if swapped else (y, shortcut)
    return net.finish(net.relu(net.add(ops.Add(), *pair, name="sum"), "out"))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("projected", [False, True])
def test_the_deeper_branch_takes_the_residual(swapped: bool, projected: bool) -> None:
    after = check_same(residual(swapped, projected), Fuse())
    assert set(op_counts(after)) == {"conv2d"}
    second = after.nodes["second"]
    assert second.inputs[-1] == ("shortcut" if projected else "x")
    assert isinstance(second.op, ops.Conv2d)
    assert (second.op.residual, second.op.activation) == (True, "relu")
    assert after.outputs == ("second",)
    assert list(after.nodes)[-1] == "second"


def test_equal_depth_takes_the_first_operand() -> None:
    net = Net()
    x = net.input(1, 2, 5, 5)
    a, b = net.conv(x, 2, 3, "a"), net.conv(x, 2, 1, "b")
    after = check_same(net.finish(net.add(ops.Add(), b, a)), Fuse())
    assert after.nodes["b"].inputs[-1] == "a"


@pytest.mark.parametrize(
    "how", ["output", "read twice", "itself", "broadcast residual", "constant map", "activation"]
)
def test_what_must_not_fuse(how: str) -> None:
    net = Net()
    x = net.input(1, 2, 3, 3)
    c = net.conv(x, 2, 3, "c", bias=True)
    outputs: list[str] = []
    if how == "output":
        outputs = [net.relu(c), c]
    if how == "read twice":
        outputs = [net.relu(c), net.add(ops.Activation("tanh"), c)]
    if how == "itself":
        outputs = [net.add(ops.Add(), c, c)]
    if how == "broadcast residual":
        outputs = [net.add(ops.Add(), c, net.input(1, 2, 1, 1, name="one"))]
    if how == "constant map":
        outputs = [net.add(ops.Add(), c, net.random(3, 3, name="map"))]
    if how == "activation":
        done = ops.Conv2d(groups=2, bias=False, activation="sigmoid")
        c = net.add(done, x, net.random(2, 1, 1, 1))
        outputs = [net.relu(net.add(ops.Add(), c, x))]
    graph = net.finish(*outputs)
    assert check_same(graph, Fuse()) == graph
