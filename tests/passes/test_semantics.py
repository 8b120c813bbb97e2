# SPDX-License-Identifier: Apache-2.0
"""Every pass on generated graphs: same results, valid graphs, input untouched, idempotent."""

from __future__ import annotations

from collections import Counter

import pytest

from codesign.ir.text import parse_graph, print_graph
from codesign.passes import PASSES, parse_pipeline, prepare
from tests.passes.checks import (
    FLOAT32_BOUND,
    FLOAT64_BOUND,
    check_same,
    error_in_single,
    in_double,
)  # fmt: skip
from tests.passes.generated import pass_graph
from tests.support.graphs import random_graph, random_integer_graph

SPECS = (
    *PASSES, "reparameterise{grow=true}", "fuse{add=false}", "fuse{activations=false}",
    "legalise{depthwise=false}", "fold-batch-norm{standalone=false}", str(prepare(equalise=True)),
)  # fmt: skip
IDEMPOTENT = tuple(name for name in PASSES if name != "equalise")  # it converges by repetition


def check(seed: int) -> None:
    for graph in (in_double(pass_graph(seed)), in_double(random_graph(seed, single_output=False))):
        for spec in SPECS:
            after = check_same(graph, parse_pipeline(spec), FLOAT64_BOUND)
            if spec in IDEMPOTENT:
                assert parse_pipeline(spec).run(after).graph == after, f"{spec} twice, seed {seed}"


@pytest.mark.parametrize("seed", range(25))
def test_semantics(seed: int) -> None:
    check(seed)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_semantics_soak(block: int) -> None:
    for seed in range(1000 + 30 * block, 1030 + 30 * block):
        check(seed)


@pytest.mark.parametrize("seed", range(20))
def test_semantics_in_single_precision(seed: int) -> None:
    """Against float64, the result errs about as much as the network itself does.

    A folded layer rounds its weights once, as the separate operators round their results, so
    no more than a few such roundings are added to each that is there: less than a factor of 10.
    """
    graph = pass_graph(seed)
    exact = in_double(graph)
    after = prepare(equalise=True).run(graph).graph
    assert error_in_single(after, exact) <= 10 * error_in_single(graph, exact) + FLOAT32_BOUND


@pytest.mark.parametrize("seed", range(20))
def test_integer_graphs_stay_bit_exact(seed: int) -> None:
    graph = random_integer_graph(seed)
    for spec in SPECS:
        check_same(graph, parse_pipeline(spec), 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_results_print_and_read_back(seed: int) -> None:
    graph = prepare().run(pass_graph(seed)).graph
    assert parse_graph(print_graph(graph)) == graph


def test_the_generator_reaches_every_pass() -> None:
    """A pass that the generated graphs never change would be tested by nothing."""
    changed = Counter[str]()
    for seed in range(25):
        graph = pass_graph(seed)
        for name in PASSES:
            changed[name] += parse_pipeline(name).run(graph).graph != graph
    assert set(+changed) == set(PASSES), changed


@pytest.mark.parametrize("seed", range(25))
def test_prepared_networks_are_in_normal_form(seed: int) -> None:
    """After ``prepare`` another ``legalise`` finds nothing, and batch norms are gone."""
    prepared = prepare().run(pass_graph(seed)).graph
    assert parse_pipeline("legalise").run(prepared).graph == prepared
    assert not any(node.op.name == "batch_norm" for node in prepared.nodes.values())
