# SPDX-License-Identifier: Apache-2.0
"""Counts of zoo networks: parameters as torch has them, MACs as published."""

from __future__ import annotations

import pytest

from codesign import zoo
from codesign.frontend import load_network
from codesign.ir import graph_stats


@pytest.mark.parametrize(
    ("name", "million_macs"),
    [
        ("resnet8", 12.5),  # MLPerf Tiny: Banbury et al., 2021
        ("mobilenetv2", 300),  # Sandler et al., 2018, table 4
        pytest.param("resnet18", 1814, marks=pytest.mark.soak),  # He et al., 2016: 1.8e9
        pytest.param("deit_tiny", 1254, marks=pytest.mark.soak),  # Touvron et al., 2021: 1.3e9
    ],
)
def test_counts(name: str, million_macs: float) -> None:
    stats = graph_stats(load_network(f"zoo:{name}").graph)
    module = zoo.load(name).module
    assert stats.parameters == sum(p.numel() for p in module.parameters())
    assert stats.macs == pytest.approx(million_macs * 1e6, rel=5e-3)
