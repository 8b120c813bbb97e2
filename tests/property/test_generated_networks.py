# SPDX-License-Identifier: Apache-2.0
"""Generated networks all the way: frontends, every pass, quantization, torch, TVM.

A failure names its seed, and ``CODESIGN_SEEDS=1234-1234 make soak PYTEST_ARGS=tests/property``
takes that network through everything again; the variable also cuts a long run into parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest

from codesign.ir import Graph, ops
from codesign.ir.graph import Array
from codesign.ir.interpret import run_values
from codesign.quant import shared_inputs
from codesign.quant.lower_ops import lower_op
from tests.property import steps

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")

FAST = range(30)
"""Networks that CI takes through everything but what is slow."""
SHARE = range(12)
"""Those of them that CI compiles."""


def soak_seeds() -> range:
    """``FIRST-LAST`` of ``CODESIGN_SEEDS``, else 1000-1499."""
    first, last = os.environ.get("CODESIGN_SEEDS", "1000-1499").split("-")
    return range(int(first), int(last) + 1)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads of torch cost small networks more than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", [*FAST, 1456])  # whose last relu leaves nothing but zeros
def test_torch_and_passes(seed: int) -> None:
    steps.check_torch(seed)
    steps.check_passes(seed)


@pytest.mark.parametrize("seed", FAST)
def test_integers_in_torch(seed: int) -> None:
    steps.check_integer(seed)
    steps.check_torch_execution(seed)


@pytest.mark.parametrize("seed", range(6))
def test_onnx(seed: int) -> None:
    steps.check_onnx(seed)


@pytest.mark.parametrize("seed", SHARE)
def test_compiled(seed: int) -> None:
    steps.check_compiled(seed)


@pytest.mark.parametrize("seed", FAST)
def test_rounding_edges_in_torch(seed: int) -> None:
    steps.check_torch_execution(seed, steps.edges)


@pytest.mark.parametrize("seed", range(1))
def test_rounding_edges_compiled(seed: int) -> None:
    steps.check_compiled(seed, steps.edges)


@pytest.mark.soak
@pytest.mark.parametrize("seed", soak_seeds())
def test_everything(seed: int) -> None:
    steps.check_torch(seed)
    steps.check_onnx(seed)
    steps.check_passes(seed)
    steps.check_integer(seed)
    steps.check_torch_execution(seed)
    steps.check_compiled(seed)


@pytest.mark.parametrize("seed", range(40))
def test_graphs_of_several_inputs_and_results(seed: int) -> None:
    """Every float operator of the IR, also such as no frontend brings."""
    steps.check_graph(seed, compiled=seed < 2)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(50))
def test_graphs_of_several_inputs_and_results_soak(block: int) -> None:
    for seed in range(1000 + 10 * block, 1010 + 10 * block):
        steps.check_graph(seed, compiled=seed % 5 == 0)


def interpreted(seed: int) -> tuple[Graph, dict[str, Array], dict[str, Array]]:
    """A quantized network, an input, and all its values."""
    graph = steps.quantized(seed)
    x = {graph.inputs[0]: next(steps.inputs(graph, seed))}
    return graph, x, run_values(graph, x, keep="all")


def test_one_unit_is_noticed() -> None:
    """The comparison fails on any wrong integer, whether float operators come before or not."""
    for seed in (0, 3):
        graph, x, values = interpreted(seed)
        steps.compare(graph, x, values)
        loose = steps.rounded(graph)
        assert bool(loose) == (seed == 3)
        wrong = next(n.name for n in reversed(graph.layers()) if n.type.dtype.is_integer)
        found = {**values, wrong: values[wrong] + values[wrong].dtype.type(1)}
        with pytest.raises(AssertionError, match=wrong):
            steps.compare(graph, x, found)


def test_behind_a_float_operator_one_unit_is_allowed() -> None:
    """And what follows must fit the integer that was found."""
    graph, x, values = interpreted(3)
    loose = steps.rounded(graph)
    name = next(n.name for n in graph.nodes.values() if n.op.name == "quantize" and n.name in loose)
    away = np.where(values[name] > 0, -1, 1).astype(values[name].dtype)
    steps.compare(graph, x, {name: values[name] + away})
    with pytest.raises(AssertionError, match=f"{name} is 2 units off"):
        steps.compare(graph, x, {name: values[name] + 2 * away})
    (output,) = graph.outputs
    with pytest.raises(AssertionError, match=output):
        steps.compare(graph, x, {name: values[name] + away, output: values[output]})


# What the networks of CI are made of


def operators(graph: Graph) -> set[str]:
    """Operators with their kind, and what layers carry besides."""
    found = set()
    for node in graph.nodes.values():
        found |= {node.op.name, f"{node.op.name} {getattr(node.op, 'kind', '')}".strip()}
        if isinstance(node.op, ops.Conv2d | ops.Linear):
            found.add(f"activation {node.op.activation}")
            found |= {f"{node.op.name} with residual"} if node.op.residual else set()
    return found


def windows(graph: Graph) -> set[str]:
    """Forms of convolutions and of the images they read."""
    found = set()
    for node in graph.nodes.values():
        if not isinstance(op := node.op, ops.Conv2d):
            continue
        n, channels, height, width = graph.type(node.inputs[0]).shape
        outputs, _, *kernel = graph.type(node.inputs[1]).shape
        top, left, bottom, right = op.padding
        symmetric = (top, left) == (bottom, right)
        found |= {
            f"batch {n}", f"kernel {kernel[0]}x{kernel[1]}", f"stride {op.stride}",
            f"dilation {op.dilation}",
            "no padding" if not any(op.padding) else "padding" if symmetric else "asymmetric",
            "dense" if op.groups == 1 < channels else "one channel" if channels == 1
            else "grouped" if op.groups < channels
            else "depthwise" if outputs == channels else "depthwise, more outputs",
            f"{'odd' if height % 2 else 'even'} height", f"{'odd' if width % 2 else 'even'} width",
        }  # fmt: skip
    return found


def test_every_quantizable_operator_is_generated() -> None:
    graphs = [steps.prepared(seed) for seed in FAST]
    found = set().union(*map(operators, graphs))
    quantizable = {"conv2d", "linear", *(op.name for op in lower_op.registry if op is not object)}
    assert quantizable <= found
    activations = {f"activation {kind}" for kind in get_args(ops.ActivationKind)}
    assert activations <= found
    assert {"pool2d max", "pool2d avg", "reduce max", "reduce mean", "reduce sum"} <= found
    assert {"resize nearest", "conv2d with residual"} <= found
    shared = [group for graph in graphs for group in shared_inputs(graph) if len(group) > 1]
    assert shared, "no two layers read one tensor"


def test_every_integer_operator_is_compiled() -> None:
    found = set().union(*(operators(steps.quantized(seed)) for seed in SHARE))
    assert {"quantize", "dequantize", "requantize", "clip", "lookup"} <= found
    assert {"conv2d", "linear", "matmul", "add", "mul", "concat", "slice", "pad"} <= found
    assert {"reshape", "transpose", "broadcast"} <= found
    assert {"pool2d max", "pool2d sum", "reduce max", "reduce sum", "resize nearest"} <= found
    assert any(steps.rounded(steps.quantized(seed)) for seed in SHARE), "no float islands"


def test_every_form_of_convolution_is_generated() -> None:
    found = set().union(*(windows(steps.quantized(seed)) for seed in FAST))
    assert {"stride (1, 1)", "stride (2, 2)", "stride (2, 1)", "stride (3, 2)"} <= found
    assert {"dilation (1, 1)", "dilation (1, 2)", "dilation (2, 2)"} <= found
    assert {"kernel 1x1", "kernel 2x2", "kernel 3x3", "kernel 4x3", "kernel 1x3"} <= found
    assert {"no padding", "padding", "asymmetric"} <= found
    assert {"dense", "grouped", "depthwise", "depthwise, more outputs", "one channel"} <= found
    assert {"odd height", "even height", "odd width", "even width"} <= found
    assert {"batch 1", "batch 2"} <= found


def test_every_number_format_is_generated() -> None:
    weights, tensors = set(), set()
    for seed in FAST:
        graph = steps.quantized(seed)
        for node in graph.layers():
            tensors.add(str(graph.type(node.inputs[0]).dtype))
            weights.add(str(graph.type(node.inputs[1]).dtype))
    assert weights == {"f32", *(f"s{bits}" for bits in range(2, 9))}
    assert tensors == {"f32", *(f"{sign}{bits}" for sign in "su" for bits in range(2, 9))}
