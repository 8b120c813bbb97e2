# SPDX-License-Identifier: Apache-2.0
"""What an FPGA design may minimise, and the units in which its certificate says so."""

from __future__ import annotations

from pathlib import Path

import pytest

import codesign
from codesign.errors import InputError


def objective(
    tmp_path: Path, name: str, limits: tuple[tuple[str, float, str], ...] = ()
) -> float:
    """The proven optimum for a board."""
    design = codesign.design(
        "zoo:digits", tmp_path / name, target="ultra96", formats=("w8a8", "w4a4"),
        objective=name, explain=0, limits=limits,
    )  # fmt: skip
    assert design.certificate.status == "optimal"
    found = design.certificate.objective
    assert found is not None
    assert found == design.certificate.bound
    return found


def test_units_agree(tmp_path: Path) -> None:
    """One image after another: images/s are one over the latency. Limits take the same units."""
    latency = objective(tmp_path, "latency")
    assert objective(tmp_path, "throughput") == pytest.approx(1000 / latency)
    energy = objective(tmp_path, "energy")
    limit = (("energy", 0.99 * energy, ""),)
    with pytest.raises(codesign.CodesignError, match="energy"):
        objective(tmp_path, "traffic", limits=limit)
    limit = (("energy", 1.01 * energy, ""),)
    assert objective(tmp_path, "traffic", limits=limit) > 22_954 / 2  # all weights, 4 bits each


def test_only_boards_have_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--objective 'energy': expected one of auto, latency"):
        codesign.design("zoo:digits", tmp_path / "host", objective="energy")
