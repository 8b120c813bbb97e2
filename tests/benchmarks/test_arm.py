# SPDX-License-Identifier: Apache-2.0
"""Whole networks on real images, built for ARM boards and run under QEMU, bit for bit."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from codesign.targets import TARGETS

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "arm.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_arm", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_images_are_real_and_enlarged(bench: ModuleType) -> None:
    small, large = bench.images(2, (1, 3, 32, 32)), bench.images(2, (1, 3, 224, 224))
    assert small.shape == (2, 1, 3, 32, 32)
    assert 0 <= small.min() < small.max() <= 255
    assert large.shape == (2, 1, 3, 224, 224)
    assert large[0, 0, 0, 0, 0] == large[0, 0, 0, 6, 6] != large[0, 0, 0, 100, 100]


@pytest.mark.soak
@pytest.mark.parametrize("board", ["rpi3", "rpi4", "rpi5"])
@pytest.mark.parametrize("network", ["resnet8", "mobilenetv2", "resnet18"])
def test_networks_are_exact(bench: ModuleType, network: str, board: str, tmp_path: Path) -> None:
    graph = bench.integer_network(network, "w8a8")
    row = bench.check(graph, TARGETS.load(board)(), tmp_path / board, 4)
    assert row["mismatches"] == 0
    assert row["outputs"] == 4 * graph.type(graph.outputs[0]).size
