# SPDX-License-Identifier: Apache-2.0
"""Every rule of the operators and of graphs, by its exact message."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from codesign.errors import VerifyError
from codesign.ir import F32, S8, S32, U8, DType, Graph, GraphBuilder, Node, Op, TensorType, ops
from codesign.ir.graph import Array
from codesign.ir.ops import OpError

IMAGE = "f32[1,4,8,8]"


def result(op: Op, *types: str) -> str:
    return str(op.infer([TensorType.parse(t) for t in types]))


RULES: dict[str, list[tuple[Op, tuple[str, ...], str]]] = {
    "input": [(ops.Input(TensorType((2, 0))), (), "input has an empty dimension: f32[2,0]")],
    "conv2d": [
        (ops.Conv2d(), (IMAGE, "f32[8,4,3,3]"), "conv2d takes 3 operands (x, w, bias), got 2"),
        (ops.Conv2d(bias=False), ("f32[4,8]", "f32[8,4,3,3]"),
         "conv2d input must have 4 axes (N, C, H, W), got f32[4,8]"),
        (ops.Conv2d(bias=False), (IMAGE, "f32[8,4]"),
         "conv2d weight must have 4 axes (O, C/groups, KH, KW), got f32[8,4]"),
        (ops.Conv2d(groups=0, bias=False), (IMAGE, "f32[8,4,3,3]"),
         "conv2d groups must be positive, got 0"),
        (ops.Conv2d(groups=2, bias=False), (IMAGE, "f32[8,4,3,3]"),
         "conv2d input has 4 channels, weight f32[8,4,3,3] with groups 2 takes 8"),
        (ops.Conv2d(groups=2, bias=False), (IMAGE, "f32[7,2,3,3]"),
         "conv2d input has 4 channels, weight f32[7,2,3,3] with groups 2 takes 4"),
        (ops.Conv2d((0, 1), bias=False), (IMAGE, "f32[8,4,3,3]"),
         "conv2d stride must be positive, got (0, 1)"),
        (ops.Conv2d(dilation=(1, 0), bias=False), (IMAGE, "f32[8,4,3,3]"),
         "conv2d dilation must be positive, got (1, 0)"),
        (ops.Conv2d(padding=(0, -1, 0, 0), bias=False), (IMAGE, "f32[8,4,3,3]"),
         "conv2d padding must not be negative, got (0, -1, 0, 0)"),
        (ops.Conv2d(bias=False), (IMAGE, "f32[8,4,9,9]"),
         "conv2d kernel f32[8,4,9,9] is larger than the padded input f32[1,4,8,8]"),
        (ops.Conv2d(bias=False), (IMAGE, "s8[8,4,3,3]"),
         "conv2d mixes float and integer operands: f32[1,4,8,8], s8[8,4,3,3]"),
        (ops.Conv2d(), (IMAGE, "f32[8,4,3,3]", "f32[4]"),
         "conv2d bias must have shape [8], got f32[4]"),
        (ops.Conv2d(), ("u8[1,4,8,8]", "s8[8,4,3,3]", "s16[8]"),
         "conv2d bias must be s32, got s16"),
        (ops.Conv2d(bias=False, residual=True), (IMAGE, "f32[8,4,3,3]", "f32[1,8,8,8]"),
         "conv2d residual must be f32[1,8,6,6], got f32[1,8,8,8]"),
        (ops.Conv2d(bias=False, activation="relu6"), ("u8[1,4,8,8]", "s8[8,4,3,3]"),
         "activation 'relu6' has no integer form; integer graphs use clip or lookup"),
    ],
    "linear": [
        (ops.Linear(bias=False), ("f32[]", "f32[2,3]"),
         "linear takes x [..., K] and w [O, K], got f32[], f32[2,3]"),
        (ops.Linear(bias=False), ("f32[4]", "f32[2,3]"),
         "linear input f32[4] does not fit weight f32[2,3]"),
        (ops.Linear(), ("f32[3]", "f32[2,3]", "f32[3]"),
         "linear bias must have shape [2], got f32[3]"),
        (ops.Linear(bias=False, residual=True), ("f32[3]", "f32[2,3]", "f32[3]"),
         "linear residual must be f32[2], got f32[3]"),
    ],
    "matmul": [
        (ops.MatMul(), ("f32[3]", "f32[3,2]"), "matmul takes matrices, got f32[3], f32[3,2]"),
        (ops.MatMul(), ("f32[2,3]", "f32[2,3]"), "matmul inner sizes differ: f32[2,3], f32[2,3]"),
        (ops.MatMul(), ("f32[2,1,3]", "f32[5,3,1]"), "matmul cannot broadcast [2] with [5]"),
    ],
    "batch_norm": [
        (ops.BatchNorm(), ("u8[1,4]", "f32[4]", "f32[4]", "f32[4]", "f32[4]"),
         "batch_norm takes float [N, C, ...], got u8[1,4]"),
        (ops.BatchNorm(), ("f32[1,4]", "f32[4]", "f32[4]", "f32[3]", "f32[4]"),
         "batch_norm mean must be [4], got f32[3]"),
    ],
    "arithmetic": [
        (ops.Add(), ("f32[2,3]", "f32[4]"), "add cannot broadcast [2, 3] with [4]"),
        (ops.Mul(), ("f32[2]", "s8[2]"), "mul mixes float and integer operands: f32[2], s8[2]"),
    ],
    "concat": [
        (ops.Concat(), (), "concat takes at least one operand"),
        (ops.Concat(2), ("f32[2,3]",), "concat axis 2 is not one of f32[2,3]"),
        (ops.Concat(), ("f32[2,3]", "f32[1,3]"), "concat operands do not fit: f32[2,3], f32[1,3]"),
        (ops.Concat(), ("u8[2,3]", "s8[2,3]"), "concat operands do not fit: u8[2,3], s8[2,3]"),
    ],
    "slice": [
        (ops.Slice(2, 0, 1), ("f32[2,3]",), "slice axis 2 is not one of f32[2,3]"),
        (ops.Slice(1, 0, 4), ("f32[2,3]",), "slice [0:4:1] does not fit axis 1 of f32[2,3]"),
        (ops.Slice(1, 2, 2), ("f32[2,3]",), "slice [2:2:1] does not fit axis 1 of f32[2,3]"),
        (ops.Slice(1, 0, 3, 0), ("f32[2,3]",), "slice [0:3:0] does not fit axis 1 of f32[2,3]"),
    ],
    "activation": [
        (ops.Activation("none"), ("f32[2]",), "activation 'none' is no operator"),
        (ops.Activation("gelu"), ("s8[2]",),
         "activation 'gelu' has no integer form; integer graphs use clip or lookup"),
    ],
    "pool2d": [
        (ops.Pool2d("max", (2, 2), (1, 1)), ("f32[2]",),
         "pool2d input must have 4 axes (N, C, H, W), got f32[2]"),
        (ops.Pool2d("max", (2, 2), (1, 1), (2, 0, 0, 0)), (IMAGE,),
         "pool2d padding (2, 0, 0, 0) must be smaller than the window (2, 2)"),
        (ops.Pool2d("avg", (2, 2), (1, 1)), ("u8[1,4,8,8]",),
         "pool2d 'avg' has no integer form; integer graphs use 'sum' and requantize"),
        (ops.Pool2d("max", (9, 2), (1, 1)), (IMAGE,),
         "pool2d window (9, 2) is larger than padded f32[1,4,8,8]"),
    ],
    "reduce": [
        (ops.Reduce("max", ()), (IMAGE,), "reduce axes () do not fit f32[1,4,8,8]"),
        (ops.Reduce("max", (1, 1)), (IMAGE,), "reduce axes (1, 1) do not fit f32[1,4,8,8]"),
        (ops.Reduce("max", (4,)), (IMAGE,), "reduce axes (4,) do not fit f32[1,4,8,8]"),
        (ops.Reduce("mean", (2, 3)), ("s8[1,4,8,8]",),
         "reduce 'mean' has no integer form; integer graphs use 'sum' and requantize"),
    ],
    "norms": [
        (ops.Softmax(4), (IMAGE,), "softmax axis 4 on f32[1,4,8,8]"),
        (ops.Softmax(0), ("s8[2]",), "softmax axis 0 on s8[2]"),
        (ops.LayerNorm(), ("f32[2,3]", "f32[2]", "f32[2]"),
         "layer_norm parameters f32[2], f32[2] do not fit the trailing axes of f32[2,3]"),
    ],
    "moves": [
        (ops.Reshape((5,)), ("f32[2,3]",), "reshape of f32[2,3] (6 elements) to [5] (5 elements)"),
        (ops.Broadcast((3,)), ("f32[2]",), "broadcast cannot broadcast [2] with [3]"),
        (ops.Broadcast((2, 1)), ("f32[2,3]",), "broadcast cannot take f32[2,3] to [2, 1]"),
        (ops.Transpose((0, 0)), ("f32[2,3]",),
         "transpose [0, 0] is no permutation of the axes of f32[2,3]"),
        (ops.Pad((1,), (1,)), ("f32[2,3]",), "pad (1,), (1,) does not fit f32[2,3]"),
        (ops.Pad((1, 0), (0, 3), "reflect"), ("f32[2,3]",),
         "reflect pad (1, 0), (0, 3) is larger than f32[2,3]"),
        (ops.Pad((0, 1), (0, 0), value=0.5), ("s8[2,3]",), "pad value 0.5 does not fit s8[2,3]"),
        (ops.Pad((0, 1), (0, 0), value=128), ("s8[2,3]",), "pad value 128 does not fit s8[2,3]"),
        (ops.Resize((0, 3)), (IMAGE,), "resize of f32[1,4,8,8] to (0, 3)"),
        (ops.Resize((3, 3), "bilinear"), ("u8[1,4,8,8]",), "bilinear resize has no integer form"),
    ],
    "quantize": [
        (ops.Quantize(U8), ("u8[2]", "f32[]"), "quantize takes a float, got u8[2]"),
        (ops.Quantize(F32), ("f32[2]", "f32[]"),
         "quantize gives an integer of up to 32 bits, not f32"),
        (ops.Quantize(U8), ("f32[2]", "f32[1]"),
         "quantize scale must be a scalar f32[], got f32[1]"),
        (ops.Quantize(U8, 1), ("f32[2,3]", "f32[2]"),
         "quantize scale must be f32[3] for axis 1 of f32[2,3], got f32[2]"),
        (ops.Quantize(U8, 0, (0, 1, 2)), ("f32[2,3]", "f32[2]"),
         "quantize zero_point does not fit scale"),
        (ops.Dequantize(), ("f32[2]", "f32[]"), "dequantize takes an integer, got f32[2]"),
        (ops.Dequantize(), ("s8[2]", "s8[]"), "dequantize scale must be f32, got s8[]"),
    ],
    "requantize": [
        (ops.Requantize(U8, 0, 255), ("s33[2]", "s32[]", "s32[]"),
         "requantize takes up to s32, got s33[2]"),
        (ops.Requantize(U8, -1, 255), ("s32[2]", "s32[]", "s32[]"),
         "requantize range [-1, 255] does not fit u8 [0, 255]"),
        (ops.Requantize(U8, 9, 8), ("s32[2]", "s32[]", "s32[]"),
         "requantize range [9, 8] does not fit u8 [0, 255]"),
        (ops.Requantize(U8, 0, 255, 1), ("s32[2,3]", "s32[3]", "s32[]"),
         "requantize e must be s32[3] for axis 1 of s32[2,3], got s32[]"),
        (ops.Requantize(U8, 0, 255), ("s32[2,3]", "u16[]", "s32[]"),
         "requantize m must be s32[] for axis -1 of s32[2,3], got u16[]"),
        (ops.Clip(S8, -129, 0), ("s32[2]",), "clip range [-129, 0] does not fit s8 [-128, 127]"),
        (ops.Clip(S8, 0, 0), ("f32[2]",), "clip takes an integer, got f32[2]"),
        (ops.Lookup(), ("s17[2]", "s8[4]"), "lookup takes up to 16 bits, got s17[2]"),
        (ops.Lookup(), ("s4[2]", "s8[15]"), "lookup table must hold 16 integers, got s8[15]"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("op", "types", "message"), [rule for rules in RULES.values() for rule in rules]
)
def test_operator_rules(op: Op, types: tuple[str, ...], message: str) -> None:
    with pytest.raises(OpError) as caught:
        result(op, *types)
    assert str(caught.value) == message


def test_result_types() -> None:
    conv = ops.Conv2d((2, 1), (1, 0, 2, 1), (2, 1), 2, False)
    assert result(conv, "u4[2,4,9,9]@NHWC", "s3[6,2,3,2]") == "s32[2,6,4,9]@NHWC"
    assert result(ops.Add(), "s8[2,1]", "u8[3]") == "s32[2,3]"
    assert result(ops.Reduce("sum", (1,), False), "u8[2,3,4]") == "s32[2,4]"
    assert result(ops.Pool2d("max", (3, 3), (2, 2), (1, 1, 1, 1)), "s5[1,2,7,8]") == "s5[1,2,4,4]"
    assert result(ops.Concat(), "u8[1,2,3]", "u8[1,5,3]") == "u8[1,7,3]"
    assert result(ops.Slice(1, 1, 6, 2), "f32[2,7]") == "f32[2,3]"
    assert result(ops.Lookup(), "s4[3]", "u6[16]") == "u6[3]"


# Graphs


@pytest.fixture
def graph() -> Graph:
    builder = GraphBuilder("net")
    x = builder.input("x", TensorType((2, 3)))
    w = builder.constant(np.array([1, -2, 3], np.int8), "w", DType("signed", 3))
    builder.add(ops.Clip(S8, 0, 3), [w], "c")
    return builder.finish([builder.add(ops.Activation("relu"), [x], "y", "act.1")])


def changed(graph: Graph, **nodes: Node) -> Graph:
    return dataclasses.replace(graph, nodes={**graph.nodes, **nodes})


def fails(graph: Graph) -> str:
    with pytest.raises(VerifyError) as caught:
        graph.verify()
    return str(caught.value)


def test_graph_rules(graph: Graph) -> None:
    y = graph.nodes["y"]
    assert fails(changed(graph, y=dataclasses.replace(y, name="z"))) == (
        "net: node 'z' (activation) from 'act.1': is stored under the name 'y'"
    )
    assert fails(changed(graph, **{"a b": dataclasses.replace(y, name="a b")})) == (
        "net: node 'a b' (activation) from 'act.1': name must be letters, digits, '_' and '.', "
        "not starting with a digit"
    )
    assert fails(changed(graph, y=dataclasses.replace(y, inputs=("q",)))) == (
        "net: node 'y' (activation) from 'act.1': reads 'q', which is defined nowhere"
    )
    assert fails(changed(graph, y=dataclasses.replace(y, inputs=("y",)))) == (
        "net: node 'y' (activation) from 'act.1': reads 'y', which is defined later"
    )
    assert fails(changed(graph, y=dataclasses.replace(y, type=TensorType((3, 2))))) == (
        "net: node 'y' (activation) from 'act.1': result type is f32[2,3], the node says f32[3,2]"
    )
    assert fails(changed(graph, y=dataclasses.replace(y, op=ops.Softmax(2)))) == (
        "net: node 'y' (softmax) from 'act.1': softmax axis 2 on f32[2,3]"
    )
    assert fails(dataclasses.replace(graph, outputs=())) == "net: graph: has no outputs"
    assert fails(dataclasses.replace(graph, outputs=("q",))) == (
        "net: graph: output 'q' is defined nowhere"
    )


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({}, "node 'w' (constant): has no value"),
        ({"w": np.zeros(2, np.int8)}, "node 'w' (constant): value is int8[2], the type is s3[3]"),
        ({"w": np.zeros(3, np.uint8)}, "node 'w' (constant): value is uint8[3], the type is s3[3]"),
        ({"w": np.array([0, 4, -5], np.int8)}, "node 'w' (constant): values -5..4 do not fit s3"),
        (
            {"w": np.zeros(3, np.int8), "y": np.zeros(3)},
            "graph: constant 'y' belongs to no constant node",
        ),
    ],
)
def test_constant_rules(graph: Graph, constants: dict[str, Array], message: str) -> None:
    assert fails(dataclasses.replace(graph, constants=constants)) == f"net: {message}"


def test_builder_names_the_node() -> None:
    builder = GraphBuilder("net")
    x = builder.input("x", TensorType((2, 3)))
    with pytest.raises(VerifyError) as caught:
        builder.add(ops.Softmax(2), [x], "y", "blocks.3")
    assert str(caught.value) == (
        "net: node 'y' (softmax) from 'blocks.3': softmax axis 2 on f32[2,3]"
    )


def test_integer_arithmetic_is_s32() -> None:
    assert ops.Add().infer([TensorType((1,), S8), TensorType((1,), U8)]).dtype == S32
