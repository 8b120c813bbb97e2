# SPDX-License-Identifier: Apache-2.0
"""A network's latency shared among its layers: who pays for what, and that it adds up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.frontend import load_network
from codesign.ir import GraphBuilder, TensorType, ops
from codesign.ir.graph import Graph
from codesign.ir.types import S8
from codesign.passes import prepare
from codesign.quant import calibrate, load_format, quantize_graph
from codesign.targets.host import HostTarget
from codesign.targets.in_network import Profiler, measure_in_network, shares
from codesign.targets.layers import random_inputs
from codesign.targets.owners import layer_of_kernels
from codesign.targets.tvm_lower.groups import kernel_name
from codesign.targets.tvm_lower.lower import lower
from codesign.targets.tvm_lower.machine import host_machine


def integer(name: str, format: str = "w8a8") -> Graph:
    graph = prepare().run(load_network(f"zoo:{name}").graph).graph
    ranges = calibrate(graph, [random_inputs(graph)[0]])
    formats = {node.name: load_format(format) for node in graph.layers()}
    return quantize_graph(graph, ranges, formats).graph


def test_shares_count_everything_once() -> None:
    owners = {"k_a": "a", "k_pool": "a", "k_b": "b"}
    events = [
        ("alloc", True, 0), ("alloc", False, 1), ("k_a", True, 1), ("k_a", False, 11),
        ("k_pool", True, 20), ("k_pool", False, 23), ("helper", True, 30), ("helper", False, 34),
        ("k_b", True, 34), ("k_b", False, 54), ("free", True, 60), ("free", False, 61),
    ]  # fmt: skip
    assert shares(events, owners) == {"a": 1 + 10 + 3, "b": 4 + 20 + 1}


def test_every_kernel_has_a_layer_that_pays() -> None:
    graph = integer("resnet8")
    owners = layer_of_kernels(graph)
    layers = {node.name for node in graph.layers()}
    assert set(owners.values()) == layers
    first = next(iter(layer for layer in (n.name for n in graph.layers())))
    quantize = next(n.name for n in graph.nodes.values() if n.op.name == "quantize")
    assert owners[kernel_name(quantize)] == first
    pool = next(n for n in graph.nodes.values() if n.op.name in ("pool2d", "reduce"))
    tail = next(k for k in owners if owners[k] not in (first, "fc") and "pool" in k)
    assert owners[tail] != "fc"
    assert pool.name in graph.nodes


def test_kernels_of_one_code_are_told_apart() -> None:
    graph = integer("mobilenetv2")
    calls: dict[str, list[str]] = {}
    lower(graph, host_machine(), calls=calls)
    names = [name for alike in calls.values() for name in alike]
    assert len(calls) < len(names) == len(set(names))
    assert set(names) <= set(layer_of_kernels(graph))


def test_watching_names_every_kernel() -> None:
    b = GraphBuilder("twice")
    x = b.input("x", TensorType((1, 16, 8, 8), S8))
    w = (np.arange(16 * 16) % 15 - 7).astype(np.int8).reshape(16, 16, 1, 1)
    for name in ("one", "two"):
        sums = b.add(ops.Conv2d(bias=False), [x, b.constant(w)], f"{name}.sums")
        ones, shift = np.full(16, 1 << 15, np.int32), np.full(16, 20, np.int32)
        scale = [b.constant(ones), b.constant(shift)]
        x = b.add(ops.Requantize(S8, -128, 127, axis=1), [sums, *scale], name)
    graph = b.finish([x])
    (events,) = HostTarget().runner(graph).watch(random_inputs(graph), 1)
    starts = [name for name, before, _ in events if before]
    assert [name for name in starts if name in ("k_one", "k_two")] == ["k_one", "k_two"]


def test_shares_add_up_to_the_network() -> None:
    graph = integer("digits")
    profiler = Profiler(HostTarget().runner(graph), graph)
    profiler.round()
    found = profiler.result()
    assert set(found) == {node.name for node in graph.layers()}
    assert all(timing.median_ms > 0 for timing in found.values())
    middle = sorted(profiler.samples)
    total = sum(timing.median_ms for timing in found.values())
    assert middle[0] <= total <= middle[-1]


def test_a_network_is_profiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = HostTarget(database=tmp_path / "measured.sqlite")
    first = target.network_latency(integer("digits"))
    monkeypatch.setattr(HostTarget, "runner", lambda *_: pytest.fail("built again"))
    assert target.network_latency(integer("digits")) == first
    with pytest.raises(pytest.fail.Exception, match="built again"):  # narrower data: other code
        measure_in_network(target, integer("digits", "w4a8"), target.database)


def test_figures_of_a_slower_day_are_brought_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the second day everything takes twice as long, the network of the first day, too."""
    from codesign.targets import in_network

    slow, drift = [1.0], [1.0]

    class Clock(Profiler):
        def round(self) -> None:
            layers = list(dict.fromkeys(self.owners.values()))
            self.samples.append(slow[0] * len(layers))
            self.totals.append(self.samples[-1])
            self.shares.append({layer: 1 / len(layers) for layer in layers})
            slow[0] *= drift[0]

    monkeypatch.setattr(in_network, "Profiler", Clock)
    target = HostTarget(database=tmp_path / "measured.sqlite")
    one, two = integer("digits"), integer("digits", "w4a8")
    first = target.network_latency(one)
    slow[0], drift[0] = 2.0, 1.001
    later = target.network_latency(two, beside=one)
    assert later.keys() == first.keys()
    for layer, timing in later.items():
        assert timing.median_ms == pytest.approx(first[layer].median_ms, rel=0.01)
    assert target.network_latency(two) == later  # and that is what is kept


def test_layers_of_one_code_are_known() -> None:
    target = HostTarget()
    graph = integer("mobilenetv2")
    codes = target.layer_codes(graph)
    assert set(codes) == {node.name for node in graph.layers()}
    assert len(set(codes.values())) < len(codes)  # repeated blocks
    assert target.layer_codes(integer("digits")) == target.layer_codes(integer("digits"))
