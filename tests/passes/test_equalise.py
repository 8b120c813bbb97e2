# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalisation: by hand, chains, and where it must not act."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir import Graph, ops
from codesign.ir.graph import Array
from codesign.ir.interpret import run
from codesign.passes import Pipeline, parse_pipeline
from codesign.passes.equalise import Equalise
from tests.passes.checks import (
    FLOAT64_BOUND,
    Net,
    check_golden,
    check_same,
    in_double,
    value_of,
)  # fmt: skip


def test_by_hand() -> None:
    """Ranges 8 and 2 give s = 2, ranges 1 and 4 give s = 1/2; both sides end at 4 and 2."""
    check_golden(
        """
        %x = input : f32[1,1,2,2]
        %a.w = constant [8.0, -1.0] : f32[2,1,1,1]
        %a.b = constant [4.0, 3.0] : f32[2]
        %a = conv2d(%x, %a.w, %a.b) {activation = "relu"} : f32[1,2,2,2] loc("a")
        %b.w = constant [2.0, 4.0] : f32[1,2,1,1]
        %b = conv2d(%a, %b.w) {bias = false} : f32[1,1,2,2] loc("b")
        return %b
        """,
        Equalise(),
        """
        %x = input : f32[1,1,2,2]
        %a.w = constant [4.0, -2.0] : f32[2,1,1,1]
        %a.b = constant [2.0, 6.0] : f32[2]
        %a = conv2d(%x, %a.w, %a.b) {activation = "relu"} : f32[1,2,2,2] loc("a")
        %b.w = constant [4.0, 2.0] : f32[1,2,1,1]
        %b = conv2d(%a, %b.w) {bias = false} : f32[1,1,2,2] loc("b")
        return %b
        """,
    )


def out_range(weight: Array) -> Array:
    return np.asarray(np.abs(weight).reshape(len(weight), -1).max(1))


def chain(*, fused: bool = True, middle: str = "relu") -> Graph:
    net = Net(seed=3)
    x = net.input(1, 2, 7, 7)
    y = net.conv(x, 6, 3, "expand", bias=True)
    y = net.add(ops.Activation(middle, 0.1), y)  # type: ignore[arg-type]
    y = net.relu(net.conv(y, 6, 3, "depthwise", groups=6, bias=True))
    y = net.conv(y, 3, 1, "project")
    graph = net.finish(y)
    return parse_pipeline("fuse").run(graph).graph if fused else graph


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("middle", ["relu", "leaky_relu"])
def test_a_depthwise_chain_ends_with_equal_ranges(fused: bool, middle: str) -> None:
    graph = in_double(chain(fused=fused, middle=middle))
    item = Equalise(iterations=200, tolerance=1e-9)
    after = check_same(graph, item, FLOAT64_BOUND)
    expand, depthwise, project = (
        value_of(after, f"{name}.weight") for name in ("expand", "depthwise", "project")
    )
    first, middle_range = out_range(expand), out_range(depthwise)
    last = np.abs(project).max((0, 2, 3))
    assert np.allclose(first, middle_range, rtol=1e-6)
    assert np.allclose(middle_range, last, rtol=1e-6)
    # Nagel et al., equation 12: the geometric mean of the three ranges.
    before = [value_of(graph, f"{name}.weight") for name in ("expand", "depthwise", "project")]
    ranges = out_range(before[0]) * out_range(before[1]) * np.abs(before[2]).max((0, 2, 3))
    assert np.allclose(first, ranges ** (1 / 3), rtol=1e-6)
    assert item.run(after).nodes == after.nodes


def test_flattened_images_and_pools_pass_scales_on() -> None:
    net = Net()
    y = net.relu(net.conv(net.input(1, 2, 6, 6), 4, 3, "conv", bias=True))
    y = net.add(ops.Pool2d("max", (2, 2), (2, 2)), y)
    y = net.linear(net.add(ops.Reshape((1, 36)), y), 5, "hidden", bias=True)
    graph = in_double(net.finish(net.linear(net.relu(y), 3, "head")))
    after = check_same(graph, Equalise(iterations=100, tolerance=1e-9), FLOAT64_BOUND)
    columns = np.abs(value_of(after, "hidden.weight")).reshape(5, 4, 9).max((0, 2))
    assert np.allclose(out_range(value_of(after, "conv.weight")), columns, rtol=1e-6)
    assert np.allclose(
        out_range(value_of(after, "hidden.weight")),
        np.abs(value_of(after, "head.weight")).max(0),
        rtol=1e-6,
    )


def test_the_mean_over_an_image_passes_scales_on() -> None:
    net = Net()
    y = net.relu(net.conv(net.input(1, 2, 5, 5), 4, 3, "conv", bias=True))
    y = net.add(ops.Reshape((1, 4)), net.add(ops.Reduce("mean", (2, 3)), y))
    graph = in_double(net.finish(net.linear(y, 3, "head")))
    after = check_same(graph, Equalise(), FLOAT64_BOUND)
    assert after != graph


def test_dead_channels_are_left() -> None:
    net = Net()
    w = np.array([[[[0.0]]], [[[4.0]]]], np.float32)
    first = net.builder.constant(w, "w1")
    y = net.add(ops.Conv2d(bias=False, activation="relu"), net.input(1, 1, 2, 2), first)
    y = net.add(ops.Conv2d(bias=False), y, net.constant(3, 1, shape=(1, 2, 1, 1), name="w2"))
    after = check_same(net.finish(y), Equalise())
    assert value_of(after, "w1").ravel().tolist() == [0, 2]
    assert value_of(after, "w2").ravel().tolist() == [3, 2]


@pytest.mark.parametrize(
    "how", ["relu6", "hardswish", "output", "read twice", "add", "residual", "shared weight"]
)
def test_where_it_must_not_act(how: str) -> None:
    net = Net()
    x = net.input(1, 3, 5, 5)
    y = net.conv(x, 3, 3, "a", bias=True)
    outputs: list[str] = []
    if how in ("relu6", "hardswish"):
        y = net.add(ops.Activation(how), y)  # type: ignore[arg-type]
    if how == "output":
        outputs = [y]
    if how == "read twice":
        outputs = [net.relu(y)]
    if how == "add":
        y = net.add(ops.Add(), y, x)
    if how == "residual":
        y = net.add(ops.Conv2d(bias=False, residual=True), x, net.random(3, 3, 1, 1), x)
    if how == "shared weight":
        w = net.random(3, 3, 1, 1, name="shared")
        y = net.add(ops.Conv2d(bias=False), net.add(ops.Conv2d(bias=False), x, w), w)
    else:
        y = net.conv(y, 2, 3, "b")
    graph = net.finish(y, *outputs)
    assert Equalise().run(graph) == graph


def test_relu6_is_converted_only_if_asked() -> None:
    net = Net()
    y = net.add(ops.Activation("relu6"), net.conv(net.input(1, 3, 5, 5), 3, 3, "a", bias=True))
    graph = net.finish(net.conv(y, 2, 3, "b"))
    for fused in (graph, parse_pipeline("fuse").run(graph).graph):
        after = Pipeline([Equalise(relu6=True)]).run(fused).graph
        kinds = {
            getattr(n.op, "kind", getattr(n.op, "activation", None)) for n in after.nodes.values()
        }
        assert "relu" in kinds
        assert "relu6" not in kinds
        # Below 6 both compute the same: inputs small enough that no activation reaches it.
        x = np.full((1, 3, 5, 5), 1e-3, np.float32)
        assert np.allclose(run(fused, x)[0], run(after, x)[0], rtol=1e-5, atol=1e-6)


def test_iterations_bound_the_work() -> None:
    graph = chain()
    assert Equalise(iterations=0).run(graph) == graph
    assert Equalise(iterations=1).run(graph) != Equalise(iterations=9, tolerance=0).run(graph)
