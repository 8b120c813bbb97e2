# SPDX-License-Identifier: Apache-2.0
"""Another batch: each image's result stays its own."""

from __future__ import annotations

import numpy as np
import numpy.testing as npt
import pytest

from codesign.errors import InputError
from codesign.ir import (
    Graph,
    GraphBuilder,
    Op,
    TensorType,
    batch_size,
    ops,
    run,
    run_batched,
    with_batch,
)
from codesign.ir.graph import Array
from tests.support.graphs import random_graph, random_inputs
from tests.support.integer_graphs import random_integer_graph


def check(graph: Graph, seed: int, exact: bool) -> None:
    """Three images at once give what they give one by one."""
    three, alone = with_batch(graph, 3), with_batch(graph, 1)
    images = random_inputs(three, seed)
    together = run(three, *images)
    one_by_one = [run(alone, *(a[i : i + 1] for a in images)) for i in range(3)]
    for index, value in enumerate(together):
        joined = np.concatenate([parts[index] for parts in one_by_one])
        if exact:
            npt.assert_array_equal(value, joined)
        else:
            scale = max(1.0, float(np.abs(joined).max()))
            npt.assert_allclose(value, joined, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed: int) -> None:
    check(random_graph(seed, single_output=seed % 2 == 0), seed, exact=False)
    check(random_integer_graph(seed, float_ends=seed % 2 == 0), seed, exact=True)


def test_same_batch_is_the_same_graph() -> None:
    graph = random_graph(0, batch=2)
    assert batch_size(graph) == 2
    assert with_batch(graph, 2) is graph
    assert with_batch(with_batch(graph, 5), 2) == graph


def test_run_batched_joins_parts() -> None:
    graph = random_integer_graph(3, batch=1)
    images = random_inputs(with_batch(graph, 7), 3)
    (whole,) = run(with_batch(graph, 7), *images)
    for batch in (1, 2, 3, 7, 100):
        npt.assert_array_equal(run_batched(graph, *images, batch=batch)[0], whole)


def build(*steps: Op | tuple[Op, Array], shape: tuple[int, ...] = (1, 6)) -> Graph:
    """A chain of operators; a step may bring a constant as its second operand."""
    builder = GraphBuilder("net")
    x = builder.input("x", TensorType(shape))
    for i, step in enumerate(steps):
        op, *more = step if isinstance(step, tuple) else (step,)
        x = builder.add(op, [x, *(builder.constant(a) for a in more)], f"step{i}", f"layer.{i}")
    return builder.finish([x])


def test_constant_tokens_are_repeated() -> None:
    builder = GraphBuilder("net")
    x = builder.input("x", TensorType((1, 2, 3)))
    token = builder.constant(np.full((1, 1, 3), 9, np.float32), "token")
    graph = builder.finish([builder.add(ops.Concat(1), [token, x])])
    images = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    (got,) = run(with_batch(graph, 2), images)
    npt.assert_array_equal(got[:, 0], 9)
    npt.assert_array_equal(got[:, 1:], images)


def test_heads_folded_into_the_batch() -> None:
    fold, apart = ops.Reshape((4, 3, 2)), ops.Reshape((2, 2, 3, 2))
    graph = build(fold, ops.Softmax(1), apart, shape=(2, 2, 3, 2))
    assert with_batch(graph, 3).type("step0").shape == (6, 3, 2)
    check(graph, 0, exact=True)


def test_images_behind_a_reduced_axis() -> None:
    turn, total = ops.Transpose((1, 0, 2)), ops.Reduce("sum", (0,), keepdims=False)
    graph = build(turn, total, ops.Softmax(1), shape=(2, 3, 4))
    assert with_batch(graph, 5).type("step1").shape == (5, 4)
    check(graph, 0, exact=True)
    with pytest.raises(InputError, match="works along axis 0, which holds the images"):
        with_batch(build(turn, total, ops.Softmax(0), shape=(2, 3, 4)), 5)


ONES = np.ones((1, 6), np.float32)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (build(ops.Softmax(0)), "'step0' (softmax) from 'layer.0' works along axis 0, which holds "
         "the images"),
        (build(ops.Reduce("sum", (0,))), "'step0' (reduce) from 'layer.0' works along axis 0, "
         "which holds the images"),
        (build(ops.Slice(0, 0, 1)), "'step0' (slice) from 'layer.0' works along axis 0, which "
         "holds the images"),
        (build(ops.Pad((1, 0), (0, 0))), "'step0' (pad) from 'layer.0' works along axis 0, which "
         "holds the images"),
        (build(ops.Broadcast((2, 6))), "'step0' (broadcast) from 'layer.0' works along axis 0, "
         "which holds the images"),
        (build(ops.Transpose((1, 0)), ops.Softmax(1)), "'step1' (softmax) from 'layer.1' works "
         "along axis 1, which holds the images"),
        (build((ops.Add(), np.ones((2, 6), np.float32)), shape=(2, 6)), "'step0' (add) from "
         "'layer.0' combines the images with a constant for each of them"),
        (build((ops.Concat(1), np.ones((2, 6), np.float32)), shape=(2, 6)), "'step0' (concat) "
         "from 'layer.0' combines the images with a constant for each of them"),
        (build(ops.Reshape((3, 4)), shape=(2, 6)), "'step0' (reshape) from 'layer.0' takes the "
         "images of f32[2,6] apart"),
        (build(ops.Reshape((6,)), (ops.Linear(bias=False), ONES)), "'step1' (linear) from "
         "'layer.1' works along axis 0, which holds the images"),
    ],
)  # fmt: skip
def test_operators_that_mix_images_are_refused(graph: Graph, reason: str) -> None:
    old = batch_size(graph)
    with pytest.raises(InputError) as caught:
        with_batch(graph, 3)
    assert str(caught.value) == f"net: the batch cannot be changed from {old} to 3: node {reason}"


def test_different_axes_are_refused() -> None:
    builder = GraphBuilder("net")
    x = builder.input("x", TensorType((1, 1)))
    turned = builder.add(ops.Transpose((1, 0)), [x])
    graph = builder.finish([builder.add(ops.Add(), [x, turned], "sum")])
    with pytest.raises(InputError) as caught:
        with_batch(graph, 2)
    assert str(caught.value) == (
        "net: the batch cannot be changed from 1 to 2: node 'sum' (add) combines operands that "
        "hold the images on different axes"
    )


def test_bad_batches() -> None:
    graph = build(ops.Activation("relu"))
    with pytest.raises(InputError) as caught:
        with_batch(graph, 0)
    assert str(caught.value) == "net: the batch must be at least 1, got 0"
    builder = GraphBuilder("two")
    names = [builder.input(f"x{i}", TensorType((i + 1, 2))) for i in range(2)]
    with pytest.raises(InputError) as caught:
        batch_size(builder.finish([builder.add(ops.Add(), names)]))
    assert str(caught.value) == (
        "two: the inputs share no batch dimension (x0: f32[1,2], x1: f32[2,2])"
    )
    with pytest.raises(InputError) as caught:
        run_batched(graph, np.zeros((0, 6), np.float32))
    assert str(caught.value) == (
        "net: run_batched needs the same number of images for each input, got [0]"
    )
