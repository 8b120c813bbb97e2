# SPDX-License-Identifier: Apache-2.0
"""Activations written as arithmetic."""

from __future__ import annotations

import pytest

from codesign.ir import ops
from codesign.passes.recognise_activations import RecogniseActivations
from tests.passes.checks import Net, check_same, op_counts

NAMED = {
    "silu": "silu",
    "silu swapped": "silu",
    "hardswish of hardsigmoid": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "x*gate*sixth": "hardswish",
    "gate*sixth*x": "hardswish",
    "x*(sixth*gate)": "hardswish",
    "sixth*x*gate": "hardswish",
}


def write(net: Net, x: str, how: str) -> str:
    def mul(a: str, b: str, name: str = "product") -> str:
        return net.add(ops.Mul(), a, b, name=name, source="act")

    sixth = net.constant(1 / 6, shape=(), name="sixth")
    shifted = net.add(ops.Add(), net.constant(3, shape=(), name="three"), x)
    gate = net.add(ops.Activation("relu6"), shifted)
    sigmoid = net.add(ops.Activation("sigmoid"), x)
    hard = net.add(ops.Activation("hardsigmoid"), x)
    return {
        "silu": lambda: mul(x, sigmoid, "y"),
        "silu swapped": lambda: mul(sigmoid, x, "y"),
        "hardswish of hardsigmoid": lambda: mul(x, hard, "y"),
        "hardsigmoid": lambda: mul(gate, sixth, "y"),
        "x*gate*sixth": lambda: mul(mul(x, gate), sixth, "y"),
        "gate*sixth*x": lambda: mul(mul(gate, sixth), x, "y"),
        "x*(sixth*gate)": lambda: mul(x, mul(sixth, gate), "y"),
        "sixth*x*gate": lambda: mul(mul(sixth, x), gate, "y"),
        "fifth": lambda: mul(gate, net.constant(1 / 5, shape=(), name="fifth"), "y"),
        "gate alone": lambda: mul(x, gate, "y"),
        "other value": lambda: mul(net.relu(x), sigmoid, "y"),
    }[how]()


@pytest.mark.parametrize(("how", "kind"), NAMED.items())
def test_patterns_get_their_name(how: str, kind: str) -> None:
    net = Net()
    y = write(net, net.input(2, 3, 4), how)
    after = check_same(net.finish(y), RecogniseActivations())
    node = after.nodes["y"]
    assert node.op == ops.Activation(kind)  # type: ignore[arg-type]
    assert (node.source, node.inputs) == ("act", ("x",))


@pytest.mark.parametrize("how", ["fifth", "gate alone", "other value"])
def test_what_only_looks_like_one_stays(how: str) -> None:
    net = Net()
    graph = net.finish(write(net, net.input(2, 3, 4), how))
    assert check_same(graph, RecogniseActivations()) == graph


def test_a_gate_with_another_reader_stays() -> None:
    net = Net()
    x = net.input(2, 3)
    gate = net.add(ops.Activation("sigmoid"), x, name="gate")
    after = check_same(
        net.finish(net.add(ops.Mul(), x, gate, name="y"), gate), RecogniseActivations()
    )
    assert op_counts(after) == {"activation": 2}
    assert after.outputs == ("y", "gate")


def test_gated_units_keep_their_other_factor() -> None:
    """silu(x) · v: only the inner product is the activation."""
    net = Net()
    x, v = net.input(2, 3), net.input(2, 3, name="v")
    silu = net.add(ops.Mul(), x, net.add(ops.Activation("sigmoid"), x), name="silu")
    after = check_same(net.finish(net.add(ops.Mul(), silu, v, name="y")), RecogniseActivations())
    assert op_counts(after) == {"activation": 1, "mul": 1}
    assert after.nodes["y"].inputs == ("silu", "v")
