# SPDX-License-Identifier: Apache-2.0
"""Types, the graph as a value, the builder, rewriting."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from codesign.ir import DType, GraphBuilder, TensorType, ops, rewrite
from codesign.ir.graph import dtype_of, rename
from tests.support.graphs import random_graph


@pytest.mark.parametrize(
    ("text", "least", "most", "storage"),
    [
        ("s8", -128, 127, "int8"), ("u8", 0, 255, "uint8"), ("s2", -2, 1, "int8"),
        ("u1", 0, 1, "uint8"), ("s9", -256, 255, "int16"), ("u17", 0, 131071, "uint32"),
        ("s32", -(2**31), 2**31 - 1, "int32"), ("u64", 0, 2**64 - 1, "uint64"),
    ],
)  # fmt: skip
def test_integer_formats(text: str, least: int, most: int, storage: str) -> None:
    dtype = DType.parse(text)
    assert (dtype.min, dtype.max, dtype.numpy.name, str(dtype)) == (least, most, storage, text)


@pytest.mark.parametrize("text", ["f16", "s0", "u65", "i8", "s", "8", "s8 ", ""])
def test_formats_that_do_not_exist(text: str) -> None:
    with pytest.raises(ValueError, match="no number format"):
        DType.parse(text)


def test_floats_have_no_range() -> None:
    with pytest.raises(ValueError, match="f32 is no integer format"):
        _ = DType.parse("f32").min


def test_tensor_types() -> None:
    kind = TensorType.parse("s3[2,3,1,1]@NHWC")
    assert (kind.size, kind.bytes, kind.rank) == (6, 3, 4)  # 18 bits
    assert str(kind) == "s3[2,3,1,1]@NHWC"
    assert str(TensorType(())) == "f32[]"
    with pytest.raises(ValueError, match=r"layout 'NHW' does not name each axis of \(1, 2, 3, 4\)"):
        TensorType((1, 2, 3, 4), layout="NHW")
    for bad in ("f32", "f32[1", "f32[,]", "f32[1,]", "f32[-1]", "f32[1]@", "f32[1] "):
        with pytest.raises(ValueError, match="not a tensor type"):
            TensorType.parse(bad)


def test_dtype_of_arrays() -> None:
    assert str(dtype_of(np.zeros(1, np.uint16))) == "u16"
    with pytest.raises(ValueError, match="no number format stores bool"):
        dtype_of(np.zeros(1, bool))


def test_builder_makes_names_legal_and_unique() -> None:
    builder = GraphBuilder("net")
    names = [builder.input(n, TensorType((1,))) for n in ("a/b:0", "a b 0", "1st", "", "a_b_0")]
    assert names == ["a_b_0", "a_b_0_1", "_1st", "input", "a_b_0_2"]


def test_structure() -> None:
    builder = GraphBuilder("net")
    x = builder.input("x", TensorType((1, 4)))
    w = builder.constant(np.ones((4, 4), np.float32), "w")
    y = builder.add(ops.Linear(bias=False, residual=True), [x, w, x], "y")
    z = builder.add(ops.Mul(), [y, y], "z")
    graph = builder.finish([z])
    assert graph.inputs == ("x",)
    assert graph.users == {"x": ("y", "y"), "w": ("y",), "y": ("z", "z"), "z": ()}
    assert [n.name for n in graph.layers()] == ["y"]
    node = graph.nodes["y"]
    assert graph.operand(node, "residual") == "x"
    assert graph.operand(node, "bias") is None
    assert graph.nx.number_of_edges() == 5
    assert [d["operand"] for _, _, d in graph.nx.in_edges("y", data=True)] == [0, 2, 1]
    with pytest.raises(TypeError):
        graph.nodes["q"] = node  # type: ignore[index]


def test_equality_and_pickling() -> None:
    graph = random_graph(4)
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert random_graph(4) == graph
    assert rename(graph, "other") != graph
    assert graph != "graph"
    name = next(iter(graph.constants))
    constants = {**graph.constants, name: -graph.constants[name]}
    assert type(graph)(graph.name, graph.nodes, graph.outputs, constants) != graph


def test_zero_and_minus_zero_differ() -> None:
    def make(value: float) -> object:
        builder = GraphBuilder("net")
        return builder.finish([builder.constant(np.array(value, np.float32))])

    assert make(0.0) == make(0.0)
    assert make(0.0) != make(-0.0)
    assert make(np.nan) == make(np.nan)


def test_rewrite_replaces_and_copies() -> None:
    graph = random_graph(7)
    assert rewrite(graph, lambda builder, node, inputs: None) == graph
    activations = [n for n in graph.nodes.values() if isinstance(n.op, ops.Activation)]
    assert activations
    bare = rewrite(
        graph, lambda b, node, inputs: inputs[0] if isinstance(node.op, ops.Activation) else None
    )
    assert len(bare.nodes) == len(graph.nodes) - len(activations)
