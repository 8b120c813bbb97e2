# SPDX-License-Identifier: Apache-2.0
"""What the tests of the passes share: equality of what two graphs compute, and double precision."""

from __future__ import annotations

import dataclasses

import numpy as np

from codesign.ir import DType, Graph, GraphBuilder, Op, TensorType, ops
from codesign.ir.graph import Array
from codesign.ir.interpret import run
from codesign.ir.text import parse_graph, print_graph
from codesign.passes import Pass, Pipeline
from tests.support.graphs import random_inputs

F64 = DType("float", 64)

FLOAT64_BOUND = 1e-9
"""Rounding in float64 is 1.1e-16 an operation; generated networks of some 50 layers, with steep
activations and sums of some hundred terms, amplify it less than a million times. A wrong
coefficient shows as 1e-3 or more."""

FLOAT32_BOUND = 1e-6
"""Two roundings of float32 (6e-8 relative each) a layer, for graphs of a few layers."""


def in_double(graph: Graph) -> Graph:
    """The same float network with inputs and constants in float64."""
    builder = GraphBuilder(graph.name)
    for node in graph.nodes.values():
        if node.name in graph.constants:
            value = graph.constants[node.name]
            wide = value.astype(np.float64) if value.dtype.kind == "f" else value
            if value.dtype.kind == "f":  # a sixth is recognised, and meant, as 1/6
                wide[value == np.float32(1 / 6)] = 1 / 6
            builder.constant(wide, node.name, source=node.source)
        elif isinstance(node.op, ops.Input):
            kind = dataclasses.replace(node.type, dtype=F64)
            builder.add(ops.Input(kind), [], node.name, node.source)
        else:
            builder.add(node.op, node.inputs, node.name, node.source)
    return builder.finish(graph.outputs)


def worst_error(before: Graph, after: Graph, seed: int = 0) -> float:
    """Largest difference of the results, relative to the largest magnitude of each."""
    arrays = random_inputs(before, seed)
    worst = 0.0
    for want, got in zip(run(before, *arrays), run(after, *arrays), strict=True):
        assert want.shape == got.shape
        assert np.isfinite(want).all()
        scale = max(float(np.abs(want).max()), 1e-3)
        worst = max(worst, float(np.abs(want - got).max()) / scale)
    return worst


def error_in_single(graph: Graph, exact: Graph, seed: int = 0) -> float:
    """Largest error of the float32 ``graph`` against ``exact`` computed in float64, relative."""
    arrays = random_inputs(graph, seed)
    worst = 0.0
    results = run(exact, *(array.astype(np.float64) for array in arrays))
    for want, got in zip(results, run(graph, *arrays), strict=True):
        scale = max(float(np.abs(want).max()), 1e-3)
        worst = max(worst, float(np.abs(want - got).max()) / scale)
    return worst


def check_same(before: Graph, item: Pass | Pipeline, bound: float = FLOAT32_BOUND) -> Graph:
    """Run the pass with all checks; the result must compute what the input graph computes.

    The input graph must be as it was, bit for bit.
    """
    copy = Graph(
        before.name, dict(before.nodes), before.outputs,
        {name: value.copy() for name, value in before.constants.items()},
    )  # fmt: skip
    pipeline = item if isinstance(item, Pipeline) else Pipeline([item])
    after = pipeline.run(before).graph
    assert before == copy, "the pass changed its input"
    error = worst_error(before, after)
    assert error <= bound, f"{item} changes results by {error:.2e} of {before.name}"
    return after


class Net:
    """A builder for small graphs with seeded random weights."""

    def __init__(self, name: str = "net", seed: int = 0) -> None:
        self.builder = GraphBuilder(name)
        self.rng = np.random.default_rng(seed)

    def input(self, *shape: int, name: str = "x") -> str:
        return self.builder.input(name, TensorType(shape))

    def constant(
        self, *values: float, shape: tuple[int, ...] | None = None, name: str = "c"
    ) -> str:
        array = np.array(values, np.float32)
        return self.builder.constant(array if shape is None else array.reshape(shape), name)

    def random(self, *shape: int, name: str = "w") -> str:
        return self.builder.constant(self.rng.standard_normal(shape).astype(np.float32), name)

    def add(self, op: Op, *inputs: str, name: str = "", source: str = "") -> str:
        return self.builder.add(op, inputs, name, source)

    def conv(
        self, x: str, outputs: int, kernel: int, name: str, *, bias: bool = False, groups: int = 1,
        stride: int = 1, padding: int | None = None, dilation: int = 1,
    ) -> str:  # fmt: skip
        channels = self.builder.type(x).shape[1]
        pad = kernel // 2 * dilation if padding is None else padding
        op = ops.Conv2d(
            (stride, stride), (pad, pad, pad, pad), (dilation, dilation), groups, bias=bias
        )
        inputs = [
            x,
            self.random(outputs, channels // groups, kernel, kernel, name=f"{name}.weight"),
        ]
        if bias:
            inputs.append(self.random(outputs, name=f"{name}.bias"))
        return self.add(op, *inputs, name=name, source=f"module.{name}")

    def linear(self, x: str, outputs: int, name: str, *, bias: bool = False) -> str:
        inputs = [x, self.random(outputs, self.builder.type(x).shape[-1], name=f"{name}.weight")]
        if bias:
            inputs.append(self.random(outputs, name=f"{name}.bias"))
        return self.add(ops.Linear(bias=bias), *inputs, name=name, source=f"module.{name}")

    def norm(self, x: str, name: str) -> str:
        c = self.builder.type(x).shape[1]
        values = [self.random(c, name=f"{name}.{part}") for part in ("gamma", "beta", "mean")]
        var = self.builder.constant(self.rng.uniform(0.5, 2, c).astype(np.float32), f"{name}.var")
        return self.add(ops.BatchNorm(), x, *values, var, name=name, source=f"module.{name}")

    def relu(self, x: str, name: str = "relu") -> str:
        return self.add(ops.Activation("relu"), x, name=name)

    def finish(self, *outputs: str) -> Graph:
        return self.builder.finish(outputs)


def op_counts(graph: Graph) -> dict[str, int]:
    """How often each operator occurs, inputs and constants aside."""
    counts: dict[str, int] = {}
    for node in graph.nodes.values():
        if node.op.name not in ("input", "constant"):
            counts[node.op.name] = counts.get(node.op.name, 0) + 1
    return counts


def value_of(graph: Graph, name: str) -> Array:
    """The value of a constant, in float64."""
    return graph.constants[name].astype(np.float64)


def graph_of(lines: str) -> Graph:
    """The graph whose nodes and return are given as text IR."""
    body = "\n".join(f"  {line.strip()}" for line in lines.strip().splitlines())
    return parse_graph(f'graph "g" {{\n{body}\n}}\n')


def check_golden(before: str, item: Pass, after: str) -> None:
    """The pass turns one text into the other, line by line, and preserves the results."""
    graph = graph_of(before)
    result = check_same(graph, item)
    got = print_graph(result, resources=False).splitlines()[1:-1]
    want = [line.strip() for line in after.strip().splitlines()]
    assert [line.strip() for line in got] == want
