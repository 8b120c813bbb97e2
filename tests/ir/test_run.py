# SPDX-License-Identifier: Apache-2.0
"""Running a graph: inputs, kept values, errors."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest

from codesign.errors import InputError
from codesign.ir import DType, Graph, GraphBuilder, TensorType, ops, run, run_values
from codesign.ir.graph import Array

U4 = DType("unsigned", 4)


@pytest.fixture
def graph() -> Graph:
    """(a · 2 + b, relu of it); the integer input c is passed through."""
    builder = GraphBuilder("net")
    a = builder.input("a", TensorType((1, 3)))
    b = builder.input("b", TensorType((1, 3)))
    c = builder.input("c", TensorType((2,), U4))
    two = builder.constant(np.array(2, np.float32), "two")
    total = builder.add(ops.Add(), [builder.add(ops.Mul(), [a, two], "double"), b], "total")
    return builder.finish([total, builder.add(ops.Activation("relu"), [total], "relu"), c])


A = np.array([[1, -2, 3]], np.float32)
B = np.array([[-4, 1, 1]], np.float32)
C = np.array([0, 15], np.uint8)


def test_outputs_in_order(graph: Graph) -> None:
    total, relu, c = run(graph, A, B, C)
    assert total.tolist() == [[-2, -3, 7]]
    assert relu.tolist() == [[0, 0, 7]]
    assert c is C


def test_kept_values(graph: Graph) -> None:
    inputs: dict[str, Array] = {"b": B, "c": C, "a": A}
    assert list(run_values(graph, inputs)) == ["c", "total", "relu"]
    kept = run_values(graph, [A, B, C], keep=["double", "two"])
    assert list(kept) == ["c", "two", "double", "total", "relu"]
    assert kept["double"].tolist() == [[2, -4, 6]]
    assert list(run_values(graph, [A, B, C], keep="all")) == list(graph.nodes)


def test_observer_sees_computed_values_once(graph: Graph) -> None:
    seen: list[tuple[str, Array]] = []
    run_values(graph, [A, B, C], observe=lambda name, value: seen.append((name, value)))
    assert [name for name, _ in seen] == ["a", "b", "c", "double", "total", "relu"]
    npt.assert_array_equal(seen[4][1], [[-2, -3, 7]])


def test_running_changes_nothing(graph: Graph) -> None:
    a, b, c = A.copy(), B.copy(), C.copy()
    run(graph, a, b, c)
    npt.assert_array_equal(a, A)
    npt.assert_array_equal(b, B)
    assert graph.constants["two"] == 2
    with pytest.raises(ValueError, match="read-only"):
        graph.constants["two"][...] = 3


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([A, B], "net takes 3 inputs (a, b, c), got 2"),
        ({"a": A, "B": B, "c": C}, "net takes the inputs a, b, c, got a, B, c"),
        ({}, "net takes the inputs a, b, c, got none"),
        (
            [A, B[:, :2], C],
            "net: input 'b' must be float32[1, 3], got float32[1, 2]",
        ),
        (
            [A, B.astype(np.float64), C],
            "net: input 'b' must be float32[1, 3], got float64[1, 3]",
        ),
        (
            [np.tile(A, (5, 1)), B, C],
            "net: input 'a' must be float32[1, 3], got float32[5, 3]; for another batch use "
            "with_batch(graph, 5) or run_batched",
        ),
        (
            [A, B, np.array([3, 16], np.uint8)],
            "net: input 'c' holds 3..16, which does not fit u4 (0..15)",
        ),
    ],
)
def test_wrong_inputs(graph: Graph, inputs: list[Array] | dict[str, Array], message: str) -> None:
    with pytest.raises(InputError) as caught:
        run_values(graph, inputs)
    assert str(caught.value) == message


def test_unknown_values_to_keep(graph: Graph) -> None:
    with pytest.raises(InputError) as caught:
        run_values(graph, [A, B, C], keep=["z", "total", "q"])
    assert str(caught.value) == "net has no value called 'q', 'z'"
