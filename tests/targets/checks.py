# SPDX-License-Identifier: Apache-2.0
"""Compile a graph, run it, compare it with the reference interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codesign.ir import Graph, GraphBuilder, TensorType, interpret, ops
from codesign.ir.graph import Array
from codesign.ir.types import DType
from codesign.targets.host import HostRunner, HostTarget

FLOAT_ERROR = 1e-4
"""Of float networks, relative to the greatest magnitude of the result."""


def extremes(graph: Graph) -> list[tuple[Array, ...]]:
    """Inputs at the ends of their formats: all least, all greatest, alternating, random."""
    rng = np.random.default_rng(7)

    def fill(choose: int) -> tuple[Array, ...]:
        arrays: list[Array] = []
        for name in graph.inputs:
            kind = graph.type(name)
            if kind.dtype.is_float:
                low, high = -1e4, 1e4
                free = rng.standard_normal(kind.shape)
            else:
                low, high = float(kind.dtype.min), float(kind.dtype.max)
                free = rng.integers(
                    kind.dtype.min, kind.dtype.max, kind.shape, endpoint=True
                ).astype(np.float64)
            mixed = np.where(rng.random(kind.shape) < 0.5, low, high)
            values = (np.full(kind.shape, low), np.full(kind.shape, high), mixed, free)[choose]
            arrays.append(values.astype(kind.dtype.numpy))
        return tuple(arrays)

    return [fill(choose) for choose in range(4)]


def compiled(graph: Graph) -> HostRunner:
    """The graph compiled in memory for one thread a core."""
    return HostTarget().runner(graph)


def assert_exact(graph: Graph, inputs: Sequence[tuple[Array, ...]] | None = None) -> None:
    """Bit for bit the interpreter's results: types, shapes, values."""
    runner = compiled(graph)
    for arrays in extremes(graph) if inputs is None else inputs:
        expected = interpret.run(graph, *arrays)
        found = runner.run(*arrays)
        for name, one, other in zip(graph.outputs, found, expected, strict=True):
            assert one.dtype == other.dtype, name
            np.testing.assert_array_equal(one, other, err_msg=f"{graph.name}: {name}")


def assert_close(graph: Graph, *arrays: Array) -> None:
    """Within FLOAT_ERROR of the interpreter's results."""
    expected = interpret.run(graph, *arrays)
    found = compiled(graph).run(*arrays)
    for name, one, other in zip(graph.outputs, found, expected, strict=True):
        assert one.dtype == other.dtype, name
        error = np.abs(one - other).max()
        assert error <= FLOAT_ERROR * np.abs(other).max(), f"{graph.name}: {name}: {error}"


def single(op: ops.Op, *operands: TensorType | Array, outputs: int = 1) -> Graph:
    """A graph of one operator: types are inputs, arrays constants."""
    b = GraphBuilder(op.name)
    values = [
        b.input(f"x{i}", operand) if isinstance(operand, TensorType) else b.constant(operand)
        for i, operand in enumerate(operands)
    ]
    return b.finish([b.add(op, values, "y")])


def kind(text: str) -> TensorType:
    """A tensor type from its text."""
    return TensorType.parse(text)


def integers(dtype: str, *shape: int, seed: int = 0) -> Array:
    """Random integers over the whole format, both ends among them where they fit."""
    d = DType.parse(dtype)
    rng = np.random.default_rng([seed, *shape])
    values = rng.integers(d.min, d.max, shape, endpoint=True).astype(d.numpy)
    flat = values.reshape(-1)
    flat[:1] = d.max
    flat[1:2] = d.min
    return values
