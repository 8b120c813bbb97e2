# SPDX-License-Identifier: Apache-2.0
"""Dead code, constants, common subexpressions and identities."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir import TensorType, ops
from codesign.ir.types import DType
from codesign.passes.bounds import ANY, activation_bounds, bounds
from codesign.passes.common_subexpressions import CommonSubexpressions
from codesign.passes.eliminate_dead_code import EliminateDeadCode
from codesign.passes.fold_constants import FoldConstants
from codesign.passes.remove_identities import RemoveIdentities
from tests.passes.checks import Net, check_golden, check_same, graph_of, op_counts


def test_dead_code_goes_and_inputs_stay() -> None:
    check_golden(
        """
        %x = input : f32[1,2]
        %unused = input : f32[3]
        %w = constant [1.0, 2.0] : f32[2]
        %dead = mul(%x, %w) : f32[1,2]
        %deader = activation(%dead) {kind = "relu"} : f32[1,2]
        %y = activation(%x) {kind = "relu"} : f32[1,2]
        return %y
        """,
        EliminateDeadCode(),
        """
        %x = input : f32[1,2]
        %unused = input : f32[3]
        %y = activation(%x) {kind = "relu"} : f32[1,2]
        return %y
        """,
    )


def test_other_passes_leave_dead_code_alone() -> None:
    net = Net()
    x = net.input(1, 2)
    net.relu(x, "dead")
    graph = net.finish(net.relu(x, "y"))
    assert "dead" in RemoveIdentities().run(graph).nodes


def test_constants_are_evaluated_under_the_nodes_name() -> None:
    check_golden(
        """
        %x = input : f32[3,2]
        %w = constant [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[2,3]
        %t = transpose(%w) {perm = [1, 0]} : f32[3,2] loc("fc.t")
        %h = constant 0.5 : f32[]
        %s = mul(%t, %h) : f32[3,2] loc("fc.scale")
        %y = add(%x, %s) : f32[3,2]
        return %y
        """,
        FoldConstants(),
        """
        %x = input : f32[3,2]
        %s = constant [0.5, 2.0, 1.0, 2.5, 1.5, 3.0] : f32[3,2] loc("fc.scale")
        %y = add(%x, %s) : f32[3,2]
        return %y
        """,
    )


def test_large_results_are_left_unless_the_operands_are_large() -> None:
    net = Net()
    x = net.input(4, 5)
    wide = net.add(ops.Broadcast((4, 5)), net.random(1, 5), name="wide")
    shaped = net.add(ops.Reshape((4, 5)), net.random(20), name="shaped")
    y = net.add(ops.Add(), net.add(ops.Add(), x, wide), shaped)
    after = check_same(net.finish(y), FoldConstants(max_elements=10))
    assert op_counts(after) == {"broadcast": 1, "add": 2}
    assert "shaped" in after.constants


@pytest.mark.parametrize("fold", [False, True])
def test_quantizers_of_weights_are_kept_unless_asked(fold: bool) -> None:
    net = Net()
    codes = net.builder.constant(np.array([[1, -2]], np.int8), "codes")
    scale = net.constant(0.5, shape=(), name="scale")
    w = net.add(ops.Dequantize(), codes, scale, name="w")
    graph = net.finish(net.add(ops.Linear(bias=False), net.input(1, 2), w))
    after = check_same(graph, FoldConstants(quantizers=fold))
    assert ("w" in after.constants) == fold
    assert fold or after == graph


def test_a_constant_output_keeps_its_name() -> None:
    net = Net()
    net.input(1)
    graph = net.finish(net.add(ops.Activation("relu"), net.constant(-1.0, 2.0), name="y"))
    after = check_same(graph, FoldConstants())
    assert after.outputs == ("y",)
    assert after.constants["y"].tolist() == [0, 2]


def test_common_subexpressions_keep_the_first() -> None:
    check_golden(
        """
        %x = input : f32[1,2]
        %c = constant [1.0, 2.0] : f32[2]
        %d = constant [1.0, 2.0] : f32[2]
        %e = constant [1.0, 3.0] : f32[2]
        %a = mul(%x, %c) : f32[1,2]
        %b = mul(%x, %d) : f32[1,2]
        %other = mul(%x, %e) : f32[1,2]
        %ra = activation(%a) {kind = "relu"} : f32[1,2]
        %rb = activation(%b) {kind = "relu"} : f32[1,2]
        %y = add(%ra, %rb) : f32[1,2]
        return %y, %other, %rb
        """,
        CommonSubexpressions(),
        """
        %x = input : f32[1,2]
        %c = constant [1.0, 2.0] : f32[2]
        %e = constant [1.0, 3.0] : f32[2]
        %a = mul(%x, %c) : f32[1,2]
        %other = mul(%x, %e) : f32[1,2]
        %ra = activation(%a) {kind = "relu"} : f32[1,2]
        %y = add(%ra, %ra) : f32[1,2]
        return %y, %other, %ra
        """,
    )


def test_equal_weights_of_different_layers_stay_apart() -> None:
    net = Net()
    x = net.input(1, 2)
    weights = [net.constant(1, 0, 0, 1, shape=(2, 2), name=f"w{i}") for i in range(2)]
    y = net.add(ops.Linear(bias=False), net.relu(x), weights[0], name="first")
    graph = net.finish(net.add(ops.Linear(bias=False), y, weights[1], name="second"))
    assert CommonSubexpressions().run(graph) == graph


IDENTITIES: list[tuple[ops.Op, tuple[int, ...]]] = [
    (ops.Reshape((2, 3, 4, 5)), (2, 3, 4, 5)),
    (ops.Transpose((0, 1, 2, 3)), (2, 3, 4, 5)),
    (ops.Slice(1, 0, 3), (2, 3, 4, 5)),
    (ops.Pad((0,) * 4, (0,) * 4, "edge"), (2, 3, 4, 5)),
    (ops.Broadcast((2, 3, 4, 5)), (2, 3, 4, 5)),
    (ops.Resize((4, 5), "bilinear", "align_corners"), (2, 3, 4, 5)),
    (ops.Resize((4, 5), "nearest", "half_pixel", "round_prefer_ceil"), (2, 3, 4, 5)),
    (ops.Concat(2), (2, 3, 4, 5)),
    (ops.Pool2d("avg", (1, 1), (1, 1), count_include_pad=False), (2, 3, 4, 5)),
    (ops.Reduce("max", (2, 3)), (2, 3, 1, 1)),
    (ops.Activation("relu"), (2, 3, 4, 5)),
    (ops.Activation("relu6"), (2, 3, 4, 5)),
    (ops.Activation("leaky_relu", 0.1), (2, 3, 4, 5)),
]


@pytest.mark.parametrize(("op", "shape"), IDENTITIES, ids=lambda v: getattr(v, "name", ""))
def test_identities_go(op: ops.Op, shape: tuple[int, ...]) -> None:
    net = Net()
    x = net.add(ops.Activation("sigmoid"), net.input(*shape), name="s")
    after = check_same(net.finish(net.add(op, x)), RemoveIdentities(), 0.0)
    assert after.outputs == ("s",)
    assert len(after.nodes) == 2


NO_IDENTITIES: list[tuple[ops.Op, tuple[int, ...]]] = [
    (ops.Reshape((2, 3, 20)), (2, 3, 4, 5)),
    (ops.Transpose((0, 1, 3, 2)), (2, 3, 5, 5)),
    (ops.Pad((0, 0, 1, 0), (0,) * 4), (2, 3, 4, 5)),
    (ops.Pool2d("max", (1, 1), (2, 1)), (2, 3, 4, 5)),
    (ops.Pool2d("max", (3, 3), (1, 1), (1, 1, 1, 1)), (2, 3, 4, 5)),
    (ops.Reduce("max", (2, 3), keepdims=False), (2, 3, 1, 1)),
    (ops.Activation("relu"), (2, 3, 4, 5)),
    (ops.Activation("tanh"), (2, 3, 4, 5)),
]


@pytest.mark.parametrize(("op", "shape"), NO_IDENTITIES, ids=lambda v: getattr(v, "name", ""))
def test_what_changes_something_stays(op: ops.Op, shape: tuple[int, ...]) -> None:
    net = Net()
    graph = net.finish(net.add(op, net.input(*shape)))
    assert RemoveIdentities().run(graph) == graph


def test_neutral_constants_go_only_where_the_shape_stays() -> None:
    check_golden(
        """
        %x = input : f32[1,2]
        %o = constant [1.0, 1.0] : f32[2]
        %z = constant 0.0 : f32[]
        %a = mul(%o, %x) : f32[1,2]
        %b = add(%a, %z) : f32[1,2]
        %m = constant [0.0, 0.0] : f32[2,1]
        %y = add(%b, %m) : f32[2,2]
        return %y
        """,
        RemoveIdentities(),
        """
        %x = input : f32[1,2]
        %m = constant [0.0, 0.0] : f32[2,1]
        %y = add(%x, %m) : f32[2,2]
        return %y
        """,
    )


def test_adding_zero_to_an_integer_widens_it() -> None:
    graph = graph_of(
        """
        %x = input : s8[2]
        %z = constant [0, 0] : s8[2]
        %y = add(%x, %z) : s32[2]
        return %y
        """
    )
    assert RemoveIdentities().run(graph) == graph


def test_clips_of_what_fits_go() -> None:
    check_golden(
        """
        %x = input : u4[2]
        %a = clip(%x) {dtype = u4, lo = 0, hi = 15} : u4[2]
        %y = clip(%a) {dtype = u4, lo = 0, hi = 14} : u4[2]
        return %y
        """,
        RemoveIdentities(),
        """
        %x = input : u4[2]
        %y = clip(%x) {dtype = u4, lo = 0, hi = 14} : u4[2]
        return %y
        """,
    )


def test_chains_of_layout_operators_merge() -> None:
    check_golden(
        """
        %x = input : f32[2,3,4,5]
        %a = transpose(%x) {perm = [0, 2, 3, 1]} : f32[2,4,5,3]
        %b = transpose(%a) {perm = [0, 2, 1, 3]} : f32[2,5,4,3]
        %c = transpose(%b) {perm = [0, 3, 2, 1]} : f32[2,3,4,5]
        %d = reshape(%c) {shape = [6, 20]} : f32[6,20]
        %e = reshape(%d) {shape = [120]} : f32[120]
        return %e, %b
        """,
        RemoveIdentities(),
        """
        %x = input : f32[2,3,4,5]
        %b = transpose(%x) {perm = [0, 3, 2, 1]} : f32[2,5,4,3]
        %e = reshape(%x) {shape = [120]} : f32[120]
        return %e, %b
        """,
    )


def test_a_transpose_of_single_pixels_is_a_reshape() -> None:
    net = Net()
    graph = net.finish(net.add(ops.Transpose((0, 2, 3, 1)), net.input(2, 3, 1, 1), name="t"))
    after = check_same(graph, RemoveIdentities(), 0.0)
    assert after.nodes["t"].op == ops.Reshape((2, 1, 1, 3))


def test_relu_before_relu6_goes() -> None:
    net = Net()
    y = net.add(ops.Activation("relu6"), net.relu(net.input(2, 3)), name="y")
    after = check_same(net.finish(net.relu(y, "again")), RemoveIdentities(), 0.0)
    assert [(n.name, n.inputs) for n in after.nodes.values()] == [("x", ()), ("y", ("x",))]


def test_relu_after_a_residual_sum_of_relus_goes() -> None:
    net = Net()
    x = net.input(1, 2, 4, 4)
    total = net.add(ops.Add(), net.relu(x, "r"), net.add(ops.Activation("sigmoid"), x))
    pooled = net.add(ops.Pool2d("max", (2, 2), (2, 2), (1, 1, 1, 1)), total, name="pool")
    after = check_same(net.finish(net.relu(pooled, "last")), RemoveIdentities(), 0.0)
    assert after.outputs == ("pool",)


def test_bounds_follow_the_operators() -> None:
    net = Net()
    x = net.input(1, 2, 4, 4)
    six = net.add(ops.Activation("relu6"), x, name="six")
    shift = net.add(ops.Add(), six, net.constant(-2, 3, shape=(2, 1, 1)), name="shift")
    flip = net.add(ops.Mul(), shift, net.constant(-1, shape=()), name="flip")
    both = net.add(ops.Concat(1), six, flip, name="both")
    mean = net.add(ops.Pool2d("avg", (2, 2), (1, 1), (1, 0, 0, 0)), both, name="mean")
    net.add(ops.Reduce("sum", (2, 3)), six, name="total")
    net.add(ops.Pad((0,) * 4, (0, 0, 1, 1), value=9), six, name="pad")
    net.add(ops.Mul(), six, x, name="unknown")
    net.add(ops.Softmax(1), x, name="soft")
    found = bounds(net.finish(mean))
    inf = float("inf")
    assert found["shift"] == (-2, 9)
    assert found["flip"] == (-9, 2)
    assert found["mean"] == found["both"] == (-9, 6)
    assert found["total"] == (0, inf)
    assert found["pad"] == (0, 9)
    assert found["unknown"] == found["x"] == ANY
    assert found["soft"] == (0, 1)


def test_bounds_of_activations() -> None:
    assert activation_bounds("relu6", (-3, 4)) == (0, 4)
    assert activation_bounds("relu6", (7, 8)) == (6, 6)
    assert activation_bounds("silu", (1, 2)) == (0, 2)
    assert activation_bounds("silu", (-1, 2)) == ANY
    assert activation_bounds("leaky_relu", (0, 2)) == (0, 2)
    assert activation_bounds("tanh", ANY) == (-1, 1)


def test_bounds_of_integers_are_their_format() -> None:
    net = Net()
    x = net.add(ops.Input(TensorType((2,), DType.parse("s5"))), name="x")
    assert bounds(net.finish(x))["x"] == (-16, 15)
