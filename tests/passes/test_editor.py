# SPDX-License-Identifier: Apache-2.0
"""The working copy that passes edit."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.errors import VerifyError
from codesign.ir import F32, TensorType, ops
from codesign.passes.editor import Editor, channel_vector
from tests.passes.checks import Net


def small() -> Editor:
    net = Net("small")
    x = net.input(1, 2)
    a = net.relu(x, "a")
    return Editor(net.finish(net.relu(net.add(ops.Mul(), a, net.constant(2, 3), name="m"), "y")))


def test_nothing_changed_gives_an_equal_graph() -> None:
    net = Net()
    x = net.input(1, 2)
    net.relu(x, "dead")
    graph = net.finish(net.relu(x, "y"))
    assert Editor(graph).finish() == graph


def test_users_follow_every_change() -> None:
    editor = small()
    assert [n.name for n in editor.users("a")] == ["m"]
    editor.replace("m", "a")
    assert [n.name for n in editor.users("a")] == ["y"]
    assert list(editor.finish().nodes) == ["x", "a", "y"]


def test_new_operands_are_moved_before_their_readers() -> None:
    editor = small()
    late = editor.constant(np.array([5.0, 7.0]), F32, "late")
    editor.update("m", inputs=("a", late))
    assert list(editor.finish().nodes) == ["x", "a", "late", "m", "y"]


def test_names_are_taken_over() -> None:
    editor = small()
    editor.take_place("m", editor.add(ops.Activation("tanh"), ("a",), "m"))
    graph = editor.finish()
    assert graph.nodes["m"].op == ops.Activation("tanh")
    assert graph.nodes["y"].inputs == ("m",)
    assert editor.rename_if_free("m", "y") == "m"


def test_types_must_stay() -> None:
    editor = small()
    with pytest.raises(
        VerifyError, match=r"^small: node 'a' changes type: f32\[1,2\] to f32\[2\]$"
    ):
        editor.update("a", ops.Reshape((2,)))
    wide = editor.add(ops.Broadcast((3, 2)), ("x",), "wide")
    with pytest.raises(VerifyError) as error:
        editor.replace("a", wide)
    assert str(error.value) == "small: 'wide' (f32[3,2]) cannot stand for 'a' (f32[1,2])"
    with pytest.raises(VerifyError) as error:
        editor.add(ops.Reshape((5,)), ("x",), "bad")
    assert str(error.value) == (
        "small: node 'bad' (reshape): reshape of f32[1,2] (2 elements) to [5] (5 elements)"
    )


def test_a_cycle_is_found() -> None:
    editor = small()
    editor.update("a", inputs=("y",))
    with pytest.raises(VerifyError, match=r"^small: node 'a' depends on itself$"):
        editor.finish()


@pytest.mark.parametrize(
    ("shape", "axis", "length"),
    [((), 1, 4), ((1,), 1, 4), ((3, 1, 1), 1, None), ((4, 1, 1), 1, 4), ((1, 4, 1, 1), 1, 4),
     ((4,), 1, None), ((4,), 3, None), ((6,), 3, 6), ((6,), -1, 6), ((1, 1, 1, 1, 1), 1, None)],
)  # fmt: skip
def test_channel_vectors(shape: tuple[int, ...], axis: int, length: int | None) -> None:
    found = channel_vector(np.ones(shape, np.float32), TensorType((2, 4, 5, 6)), axis)
    assert (None if found is None else len(found)) == length
