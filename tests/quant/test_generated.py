# SPDX-License-Identifier: Apache-2.0
"""Generated networks: the fake-quantized torch execution equals the reference bit for bit."""

from __future__ import annotations

import random

import numpy as np
import pytest

from codesign.frontend import from_torch
from codesign.ir.batch import with_batch
from codesign.ir.graph import Array, Graph
from codesign.ir.interpret import run
from codesign.passes.standard import prepare
from codesign.quant import LayerFormat, Quantized, QuantOptions, calibrate, quantize_graph
from codesign.quant.accumulator import accumulator_bits
from codesign.quant.formats import FLOAT
from codesign.quant.groups import shared_inputs
from codesign.quant.histogram import METHODS
from codesign.quant.torch_exec import GraphModule, run_torch
from tests.support.networks import random_network


def prepared(seed: int, quantizable_only: bool = True) -> tuple[Graph, Array]:
    """A prepared network and 8 samples of its input."""
    module, inputs = random_network(seed, quantizable_only=quantizable_only)
    graph = prepare().run(from_torch(module, inputs)).graph
    shape = graph.type(graph.inputs[0]).shape
    return graph, np.random.default_rng(seed).normal(size=(8, *shape[1:])).astype(np.float32)


def random_formats(graph: Graph, seed: int) -> dict[str, LayerFormat]:
    """Bits 2..8 of weights by layer, of activations by group; now and then a float layer."""
    rng = random.Random(seed)
    formats: dict[str, LayerFormat] = {}
    for group in shared_inputs(graph):
        bits = rng.randint(2, 8)
        for layer in group:
            formats[layer] = FLOAT if rng.random() < 0.05 else LayerFormat(rng.randint(2, 8), bits)
    return formats


def extreme(x: Array, seed: int, reach: float) -> Array:
    """The samples, far larger ones, and constants up to ``reach``."""
    rng = np.random.default_rng(seed)
    far = rng.normal(0, 1e4, size=x[:2].shape)
    ends = [np.full_like(x[:1], value) for value in (reach, -reach, 0)]
    return np.concatenate([x[:3], far, *ends]).astype(np.float32)


def is_integer_only(graph: Graph) -> bool:
    """Whether floats occur at the inputs and outputs only."""
    return all(
        not node.type.dtype.is_float
        or node.op.name in ("input", "constant")
        or (node.op.name == "dequantize" and node.name in graph.outputs)
        for node in graph.nodes.values()
    )


def check(graph: Graph, x: Array, quantized: Quantized, seed: int) -> None:
    integer = quantized.graph
    exact = is_integer_only(integer)
    images = extreme(x, seed, 3e38 if exact else 1e4)
    if GraphModule(integer).batch is None:
        (ours,) = run_torch(integer, [images])
        (reference,) = run(with_batch(integer, len(images)), images)
    else:
        ours = np.concatenate([run_torch(integer, [images[i : i + 1]])[0] for i in range(8)])
        reference = np.concatenate([run(integer, images[i : i + 1])[0] for i in range(8)])
    if exact:
        np.testing.assert_array_equal(ours, reference)
    else:
        np.testing.assert_allclose(ours, reference, rtol=0, atol=0.05 * np.abs(reference).max())
    for node in integer.layers():
        if node.type.dtype.is_integer:
            assert accumulator_bits(integer, node) <= 32


def quantized(seed: int) -> tuple[Graph, Array, Quantized]:
    graph, x = prepared(seed)
    rng = random.Random(seed)
    options = QuantOptions(
        method=METHODS[seed % 4],
        bias_correction=rng.random() < 0.5,
        weight_clip=rng.choice(("auto", "max", "mse")),
    )
    calibration = calibrate(graph, [x])
    return graph, x, quantize_graph(graph, calibration, random_formats(graph, seed), options)


@pytest.mark.parametrize("seed", range(24))
def test_fake_quantized_torch_equals_reference(seed: int) -> None:
    graph, x, made = quantized(seed)
    check(graph, x, made, seed)
    assert {n.name for n in graph.layers()} == {n.name for n in made.graph.layers()}


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(24, 524))
def test_fake_quantized_torch_equals_reference_soak(seed: int) -> None:
    graph, x, made = quantized(seed)
    check(graph, x, made, seed)


@pytest.mark.parametrize("weight_bits", range(2, 9))
def test_every_pair_of_bits(weight_bits: int) -> None:
    graph, x = prepared(100 + weight_bits)
    calibration = calibrate(graph, [x])
    for act_bits in range(2, 9):
        form = LayerFormat(weight_bits, act_bits)
        formats = {node.name: form for node in graph.layers()}
        made = quantize_graph(graph, calibration, formats, QuantOptions(bias_correction=False))
        check(graph, x, made, weight_bits)
        for node in made.graph.layers():
            assert made.graph.type(node.inputs[1]).dtype.bits == weight_bits
            assert made.graph.type(node.inputs[0]).dtype.bits == act_bits


@pytest.mark.parametrize("seed", range(10))
def test_eight_bits_are_close_to_float(seed: int) -> None:
    """Noise of w8a8 at the outputs stays 20 dB below the signal."""
    graph, x = prepared(seed)
    formats = {node.name: LayerFormat(8, 8) for node in graph.layers()}
    made = quantize_graph(graph, calibrate(graph, [x]), formats, QuantOptions(method="minmax"))
    want = np.concatenate([run(graph, x[i : i + 1])[0] for i in range(8)])
    got = np.concatenate([run(made.graph, x[i : i + 1])[0] for i in range(8)])
    assert np.square(got - want).mean() < 0.01 * np.square(want).mean()


@pytest.mark.parametrize("seed", range(8))
def test_networks_with_float_islands(seed: int) -> None:
    graph, x = prepared(seed, quantizable_only=False)
    formats = {node.name: LayerFormat(8, 8) for node in graph.layers()}
    made = quantize_graph(graph, calibrate(graph, [x]), formats, QuantOptions(method="minmax"))
    want = np.concatenate([run(graph, x[i : i + 1])[0] for i in range(8)])
    got = np.concatenate([run(made.graph, x[i : i + 1])[0] for i in range(8)])
    assert np.square(got - want).mean() < 0.02 * np.square(want).mean()


@pytest.mark.parametrize("seed", range(4))
def test_all_float_is_the_float_network(seed: int) -> None:
    graph, x = prepared(seed)
    formats = {node.name: FLOAT for node in graph.layers()}
    made = quantize_graph(graph, calibrate(graph, [x]), formats)
    (want,), (got,) = run(graph, x[:1]), run(made.graph, x[:1])
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3 * np.abs(want).max())


def test_straight_through_gradients_reach_the_input() -> None:
    import torch

    graph, x = prepared(0)
    formats = {node.name: LayerFormat(8, 8) for node in graph.layers()}
    made = quantize_graph(graph, calibrate(graph, [x]), formats)
    image = torch.from_numpy(x[:1]).requires_grad_()
    module = GraphModule(made.graph, straight_through=True)
    (y,) = module.run({graph.inputs[0]: image})
    (gradient,) = torch.autograd.grad(y.sum(), image)
    assert float(gradient.abs().max()) > 0
    plain = GraphModule(made.graph).run({graph.inputs[0]: image.detach()})[0]
    assert torch.equal(y.detach(), plain)
