# SPDX-License-Identifier: Apache-2.0
"""Tables hold exact decimals; the integer program built from them says what they say."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import product

import numpy as np
import pytest

from codesign.flow.options import DesignOptions
from codesign.flow.tables import Tables, build_tables, loss_decimals, to_problem
from codesign.ir.graph import Graph, GraphBuilder
from codesign.ir.ops import Conv2d
from codesign.ir.types import TensorType
from codesign.quant.formats import load_format
from codesign.solvers import solve

FORMATS = {name: load_format(name) for name in ("w8a8", "w4a8", "w4a4")}


def two_layers() -> Graph:
    b = GraphBuilder("two")
    x = b.input("x", TensorType((1, 3, 8, 8)))
    for name, shape in (("a", (4, 3, 3, 3)), ("b", (5, 4, 1, 1))):
        w = b.constant(np.ones(shape, np.float32), f"{name}.w")
        bias = b.constant(np.zeros(shape[0], np.float32), f"{name}.b")
        x = b.add(Conv2d(), [x, w, bias], name)
    return b.finish([x])


def tables(shared: tuple[tuple[str, ...], ...] = ()) -> Tables:
    loss = {"a": {"w8a8": 0.001, "w4a8": 0.5, "w4a4": 0.75},
            "b": {"w8a8": 0.002, "w4a8": 0.25, "w4a4": 1.5}}  # fmt: skip
    macs = {"a": 6 * 6 * 4 * 27, "b": 6 * 6 * 20}
    return build_tables(two_layers(), FORMATS, loss, macs, shared, {"a": 0.0, "b": 0.0})


def test_sizes_and_bit_operations_by_hand() -> None:
    found = tables()
    # a: 108 weights, 4 biases of 4 bytes; b: 20 weights, 5 biases
    assert found.size["a"] == {"w8a8": 108 + 16, "w4a8": 54 + 16, "w4a4": 54 + 16}
    assert found.size["b"] == {"w8a8": 20 + 20, "w4a8": 10 + 20, "w4a4": 10 + 20}
    assert found.bops["b"] == {"w8a8": 720 * 64, "w4a8": 720 * 32, "w4a4": 720 * 16}


def test_losses_become_decimals_of_nine_digits_and_never_gains() -> None:
    found = loss_decimals({"a": {"x": 12.3456789012, "y": -0.5}, "b": {"x": 1e-9, "y": 1 / 3}})
    assert found["a"] == {"x": Decimal("12.3456789"), "y": Decimal(0)}
    assert found["b"] == {"x": Decimal(0), "y": Decimal("0.3333333")}


@pytest.mark.parametrize("size", [111, 125, 140, 163, 170])
def test_the_program_finds_what_enumeration_finds(size: int) -> None:
    found = tables()
    options = DesignOptions(
        "toy", formats=tuple(FORMATS), max_size_kb=size / 1000, objective="loss"
    )
    solution = solve(to_problem(found, options))
    fits = [
        sum(found.loss[layer][f] for layer, f in zip("ab", pick))
        for pick in product(FORMATS, repeat=2)
        if sum(found.size[layer][f] for layer, f in zip("ab", pick)) <= size
    ]
    assert solution.objective == min(fits)
    assert solution.choices is not None
    assert found.total("loss", solution.choices) == min(fits)


def test_layers_that_read_one_tensor_share_its_bits() -> None:
    free, tied = tables(), tables((("a", "b"),))
    # loss of w4a4 is cheap in a only: alone a takes it, tied to b it cannot
    cheap = {"a": {**free.loss["a"], "w4a4": Decimal(0)}, "b": free.loss["b"]}
    options = DesignOptions("toy", formats=tuple(FORMATS), objective="loss")
    alone = solve(to_problem(replace(free, loss=cheap), options)).choices
    bound = solve(to_problem(replace(tied, loss=cheap), options)).choices
    assert alone == {"a": "w4a4", "b": "w8a8"}
    assert bound == {"a": "w8a8", "b": "w8a8"}


def test_a_loss_budget_lies_between_the_least_and_the_greatest_loss() -> None:
    options = DesignOptions("toy", formats=tuple(FORMATS), loss_budget=0.5)
    problem = to_problem(tables(), options)
    least, most = Decimal("0.003"), Decimal("2.25")
    assert problem.limits[0].value == (least + most) / 2


def test_a_share_is_of_the_reference_design() -> None:
    options = DesignOptions("toy", formats=tuple(FORMATS), limits=(("size", 75.0, "%"),))
    problem = to_problem(tables(), options)
    assert problem.limits[0].value == Decimal("0.75") * (124 + 40)
