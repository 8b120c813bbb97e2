# SPDX-License-Identifier: Apache-2.0
"""The way of a generated network, step by step; each step compares with the one before.

Everything a network goes through follows from its seed: the network itself, the calibration
data, the formats, the options, the inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from codesign.frontend import from_onnx, from_torch
from codesign.ir import Graph, ops
from codesign.ir.graph import Array
from codesign.ir.interpret import run_node
from codesign.ir.text import parse_graph, print_graph
from codesign.passes import PASSES, parse_pipeline, prepare
from codesign.quant import (
    LayerFormat,
    QuantOptions,
    accumulator_bits,
    calibrate,
    quantize_graph,
    shared_inputs,
)
from codesign.quant.formats import FLOAT
from codesign.quant.histogram import METHODS
from codesign.quant.torch_exec import GraphModule
from codesign.targets.host import HostTarget
from tests.frontend.compare import check, outputs, to_onnx
from tests.passes.checks import (
    FLOAT32_BOUND,
    FLOAT64_BOUND,
    check_same,
    error_in_single,
    in_double,
    worst_error,
)
from tests.support.graphs import random_graph
from tests.support.networks import random_network

FLOAT_ERROR = 1e-4
"""Of float values that two back ends sum in another order, relative to the greatest one."""
EXACT = (
    ops.Input, ops.Constant, ops.Dequantize, ops.Reshape, ops.Transpose, ops.Slice, ops.Concat,
    ops.Broadcast, ops.Pad,
)  # fmt: skip
"""Operators with float results that compute nothing, or one product."""
Inputs = Callable[[Graph, int], Iterator[Array]]
"""Inputs for the integer network of a seed."""
THREADS = 1
"""Of the compiled network: more would only make small networks slower."""


def is_integer(seed: int) -> bool:
    """Whether the network of this seed is generated to be integers from end to end."""
    return seed % 4 != 3


class Context(nn.Module):
    """Each pixel sees the whole image: sums over it, spread, concatenated, projected."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        sums = x.sum((2, 3), keepdim=True).expand(-1, -1, *x.shape[2:])
        y: Tensor = self.project(torch.cat((x, sums), 1))
        return y


def network(seed: int, undisputed: bool = False) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The torch network: three of four can be quantized whole, one of three has a batch of 2,
    one of five starts with a block that ``random_network`` does not have."""
    module, example = random_network(
        seed, quantizable_only=is_integer(seed), batch=1 + (seed % 3 == 2), undisputed=undisputed
    )
    if seed % 5 == 1:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            context = Context(example[0].shape[1]).requires_grad_(False)
        module = nn.Sequential(context, module).eval()
    return module, example


@lru_cache(maxsize=64)
def imported(seed: int) -> Graph:
    """The network as ``torch.export`` brings it."""
    return from_torch(*network(seed), name=f"generated{seed}")


@lru_cache(maxsize=64)
def prepared(seed: int) -> Graph:
    """What quantization takes."""
    return prepare().run(imported(seed)).graph


@lru_cache(maxsize=64)
def quantized(seed: int) -> Graph:
    """The integer network, with a random mix of formats."""
    return mixed(prepared(seed), seed, 0.0 if is_integer(seed) else 0.15)


def mixed(graph: Graph, seed: int, floats: float) -> Graph:
    """The integer form of a prepared network, formats and options by ``seed``."""
    rng = random.Random(seed)
    made = quantize_graph(
        graph,
        calibrate(graph, [samples(graph, seed, 8)]),
        random_formats(graph, rng, floats),
        QuantOptions(
            method=rng.choice(METHODS),
            bias_correction=rng.random() < 0.5,
            weight_clip=rng.choice(("auto", "max", "mse")),
            output_bits=rng.choice((8, 12, 16, 16)),
        ),
    )
    return made.graph


def random_formats(graph: Graph, rng: random.Random, floats: float) -> dict[str, LayerFormat]:
    """2 to 8 bits for each layer's weights and each tensor they read; ``floats``: the share of
    layers that stay float."""
    formats: dict[str, LayerFormat] = {}
    for group in shared_inputs(graph):
        bits = rng.randint(2, 8)
        for layer in group:
            form = LayerFormat(rng.randint(2, 8), bits)
            formats[layer] = FLOAT if rng.random() < floats else form
    return formats


def samples(graph: Graph, seed: int, count: int, spread: float = 1.0) -> dict[str, Array]:
    """Normal values for every input, ``count`` times the graph's batch."""
    rng = np.random.default_rng(seed)
    shapes = {name: graph.type(name).shape for name in graph.inputs}
    return {
        name: rng.normal(0, spread, (n * count, *rest)).astype(np.float32)
        for name, (n, *rest) in shapes.items()
    }


def inputs(graph: Graph, seed: int) -> Iterator[Array]:
    """Inputs like the calibration data, then such that saturate: far, all ends, mixed ends."""
    rng = np.random.default_rng([seed, 1])
    shape = graph.type(graph.inputs[0]).shape
    reach = 3e38 if is_integer(seed) else 1e3  # float operators must stay finite
    yield rng.normal(size=shape).astype(np.float32)
    yield rng.normal(0, 4, shape).astype(np.float32)
    yield rng.normal(0, 1e3, shape).astype(np.float32)
    for value in (0.0, reach, -reach):
        yield np.full(shape, value, np.float32)
    yield np.where(rng.random(shape) < 0.5, reach, -reach).astype(np.float32)


def edges(graph: Graph, seed: int) -> Iterator[Array]:
    """Inputs where quantization rounds to the next integer, and the floats on both sides."""
    x = graph.inputs[0]
    rng = np.random.default_rng([seed, 2])
    for node in graph.nodes.values():
        if isinstance(node.op, ops.Quantize) and node.inputs[0] == x:
            lo, hi = node.op.dtype.min - 2, node.op.dtype.max + 2
            ties = rng.integers(lo, hi, graph.type(x).shape, endpoint=True) + np.float32(0.5)
            middle = (ties * graph.constants[node.inputs[1]]).astype(np.float32)
            yield from (np.nextafter(middle, middle + way) for way in (-1, 0, 1))


# Float steps


def check_torch(seed: int) -> None:
    """torch → IR gives what torch gives; the graph prints and reads back."""
    module, example = network(seed)
    graph = imported(seed)
    check(graph, [x.numpy() for x in example], outputs(module, example))
    assert parse_graph(print_graph(graph)) == graph


def check_onnx(seed: int) -> None:
    """torch → ONNX → IR gives what torch gives.

    Without what torch itself computes otherwise than the ONNX it exports (see random_network).
    """
    module, example = network(seed, undisputed=True)
    graph = from_onnx(to_onnx(module, example))
    check(graph, [x.numpy() for x in example], outputs(module, example))


def check_passes(seed: int) -> None:
    """Every pass alone, and one after the other as ``prepare`` runs them, changes no result.

    In double precision, where a wrong coefficient cannot hide behind rounding; what quantization
    takes in single precision too.
    """
    graph = imported(seed)
    exact = in_double(graph)
    for name in PASSES:
        check_same(exact, parse_pipeline(name), FLOAT64_BOUND)
    current = exact
    for step in prepare(equalise=True).passes:
        current = check_same(current, step, FLOAT64_BOUND)
    assert worst_error(exact, current) <= FLOAT64_BOUND
    # A folded layer rounds its weights once, as the separate operators round their results.
    single, own = (error_in_single(g, exact) for g in (prepared(seed), graph))
    assert single <= 10 * own + FLOAT32_BOUND
    assert parse_graph(print_graph(prepared(seed))) == prepared(seed)


# Integer steps


def check_integer(seed: int) -> None:
    """The integer graph is valid, its sums fit 32 bits, it prints and reads back."""
    graph = quantized(seed)
    graph.verify()
    assert {n.name for n in graph.layers()} == {n.name for n in prepared(seed).layers()}
    assert not (is_integer(seed) and rounded(graph))
    for node in graph.layers():
        assert node.type.dtype.is_float or accumulator_bits(graph, node) <= 32
    assert parse_graph(print_graph(graph)) == graph


def check_torch_execution(seed: int, choose: Inputs = inputs) -> None:
    """Fake-quantized torch equals the interpreter in every value."""
    graph = quantized(seed)
    equals_in_torch(graph, ({graph.inputs[0]: x} for x in choose(graph, seed)))


def check_compiled(seed: int, choose: Inputs = inputs) -> None:
    """The network compiled by TVM equals the interpreter."""
    graph = quantized(seed)
    equals_compiled(graph, ({graph.inputs[0]: x} for x in choose(graph, seed)))


def equals_in_torch(graph: Graph, batches: Iterable[Mapping[str, Array]]) -> None:
    """Fake-quantized torch gives what the interpreter gives in every value."""
    module = GraphModule(graph)
    for arrays in batches:
        values: dict[str, Array] = {}

        def keep(name: str, value: Tensor, values: dict[str, Array] = values) -> None:
            if name in graph.nodes:
                values[name] = value.numpy().astype(graph.type(name).dtype.numpy)

        with torch.no_grad():
            module.run({name: torch.from_numpy(x) for name, x in arrays.items()}, observe=keep)
        compare(graph, arrays, values)


def equals_compiled(graph: Graph, batches: Iterable[Mapping[str, Array]]) -> None:
    """TVM gives what the interpreter gives."""
    if loose := rounded(graph):  # what enters integers there is looked at, too
        watched = [
            name for name in graph.nodes
            if name in loose and graph.type(name).dtype.is_integer and name not in graph.outputs
        ]  # fmt: skip
        graph = Graph(graph.name, graph.nodes, (*graph.outputs, *watched), graph.constants)
        graph.verify()
    runner = HostTarget(threads=THREADS).runner(graph)
    for arrays in batches:
        found = runner.run(*(arrays[name] for name in graph.inputs))
        compare(graph, arrays, dict(zip(graph.outputs, found, strict=True)))


def compare(graph: Graph, inputs: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    """``found``, results of some nodes for ``inputs``, are what the interpreter computes.

    Bit for bit, unless float operators stand inside: these may round another way, and where
    their result is quantized this may give the next integer. The interpreter then goes on with
    the integer found, so that what follows must be equal bit for bit again.
    """
    loose = rounded(graph)
    values: dict[str, Array] = {**inputs, **graph.constants}
    for node in graph.nodes.values():
        if node.name in values:
            continue
        value = run_node(graph, node, tuple(values[v] for v in node.inputs))
        if node.name in found:
            one = found[node.name]
            assert one.dtype == value.dtype, node.name
            if node.name not in loose:
                np.testing.assert_array_equal(one, value, err_msg=node.name)
            elif isinstance(node.op, ops.Quantize):
                off = int(np.abs(one.astype(np.int64) - value.astype(np.int64)).max())
                assert off <= 1, f"{node.name} is {off} units off"
                value = one
            else:
                error = float(np.abs(one - value).max())
                assert error <= FLOAT_ERROR * np.abs(value).max(), f"{node.name} is {error} off"
        values[node.name] = value


def check_graph(seed: int, compiled: bool = False) -> None:
    """A generated float graph, of several inputs and results, quantized: as for networks."""
    graph = prepare().run(random_graph(seed, single_output=False)).graph
    integer = mixed(graph, seed, 0.05)
    integer.verify()
    assert parse_graph(print_graph(integer)) == integer
    batches = [samples(integer, seed + i, 1, 10.0**i) for i in range(4)]
    equals_in_torch(integer, batches)
    if compiled:
        equals_compiled(integer, batches)


def rounded(graph: Graph) -> frozenset[str]:
    """Values that another order of float sums, or another ``exp``, may change: results of float
    operators, and what is quantized from them. Empty for networks of integers only."""
    made: set[str] = set()
    for node in graph.nodes.values():
        if not node.type.dtype.is_float and not isinstance(node.op, ops.Quantize):
            continue
        computes = node.type.dtype.is_float and not isinstance(node.op, EXACT)
        if computes or made.intersection(node.inputs):
            made.add(node.name)
    return frozenset(made)
