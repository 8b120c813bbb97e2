# SPDX-License-Identifier: Apache-2.0
"""Generated and real integer networks, compiled, equal the interpreter bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from codesign import zoo
from codesign.frontend import load_network
from codesign.ir import Graph, interpret
from codesign.ir.analysis import has_float_islands
from codesign.ir.graph import Array
from codesign.passes import prepare
from codesign.quant import calibrate, load_format, quantize_graph
from tests.support.graphs import random_inputs, random_integer_graph
from tests.targets.checks import FLOAT_ERROR, assert_exact, compiled, extremes


def check(seed: int, blocks: int) -> None:
    graph = random_integer_graph(
        seed, blocks=blocks, float_ends=bool(seed % 2), batch=3 if seed % 5 == 0 else None
    )
    assert_exact(graph, [random_inputs(graph, seed), *extremes(graph)])


@pytest.mark.parametrize("seed", range(10))
def test_generated(seed: int) -> None:
    check(seed, 3)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1500))
def test_generated_soak(seed: int) -> None:
    check(seed, 5)


def quantized(network: str, formats: tuple[str, ...]) -> tuple[Graph, list[Array]]:
    """The integer form of a zoo network, layers in turn in ``formats``, and inputs for it."""
    graph = prepare().run(load_network(f"zoo:{network}").graph).graph
    shape = graph.type(graph.inputs[0]).shape
    rng = np.random.default_rng(0)
    images = [rng.standard_normal(shape).astype(np.float32) for _ in range(4)]
    layers = graph.layers()
    chosen = {
        layer.name: load_format(formats[i % len(formats)]) for i, layer in enumerate(layers)
    }
    return quantize_graph(graph, calibrate(graph, images), chosen).graph, images


@pytest.mark.parametrize(
    ("network", "formats"),
    [("digits", ("w8a8",)), ("digits", ("w4a8", "w2a8")), ("resnet8", ("w8a8",)),
     ("resnet8", ("w8a8", "float", "w3a8"))],
)  # fmt: skip
def test_network(network: str, formats: tuple[str, ...]) -> None:
    graph, images = quantized(network, formats)
    runner = compiled(graph)
    for x in [*images, images[0] * 1e3, np.zeros_like(images[0])]:
        found, expected = runner.run(x), interpret.run(graph, x)
        if "float" in formats:
            # The sums of a float layer are rounded in another order.
            assert np.abs(found[0] - expected[0]).max() <= FLOAT_ERROR * np.abs(expected[0]).max()
        else:
            np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.soak
@pytest.mark.parametrize("network", [name for name in zoo.names() if name != "deit_tiny"])
def test_zoo_soak(network: str) -> None:
    """The w8a8 form of every network that is integers throughout."""
    graph, images = quantized(network, ("w8a8",))
    assert not has_float_islands(graph)
    found, expected = compiled(graph).run(images[0]), interpret.run(graph, images[0])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
