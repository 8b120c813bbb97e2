# SPDX-License-Identifier: Apache-2.0
"""The main path for an ARM board: design, cross build, verification under QEMU, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.errors import InputError, ToolNotFoundError
from codesign.flow.everything import run
from codesign.flow.ladder import verify
from codesign.flow.options import DesignOptions
from tests.flow.conftest import Files


@pytest.fixture(scope="module")
def folder(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A design for the Raspberry Pi 4, chosen under its modelled latency."""
    out = tmp_path_factory.mktemp("arm") / "design"
    options = DesignOptions(
        "zoo:digits", "rpi4", calib=files.calib, eval=files.eval, formats=("w8a8", "w4a8"),
        objective="size", max_latency_ms=1.0, max_drop=5.0,
    )  # fmt: skip
    outcome = run(options, out)
    assert outcome.measured.kind == "modelled"
    assert outcome.measured.network_ms is None
    assert outcome.measured.model_error is None
    assert outcome.measured.table_share == 0
    assert outcome.measured.counts["total"] > 100_000
    assert 0 < outcome.measured.modelled_ms < 1.0
    return out


def test_verified_under_qemu(folder: Path) -> None:
    rungs = {r["rung"]: r for r in json.loads((folder / "ladder.json").read_text())["ladder"]}
    assert rungs["tvm-aarch64"]["status"] == "exact"
    assert "16 real and 4 random inputs" in rungs["tvm-aarch64"]["why"]
    assert rungs["tvm-host"]["status"] == "skipped"


def test_report_says_modelled(folder: Path) -> None:
    data = json.loads((folder / "report.json").read_text())
    assert data["latency_kind"] == "modelled"
    assert data["latency_ms"]["measured"] is None
    assert data["latency_ms"]["modelled"] > 0
    page = (folder / "report.html").read_text()
    assert "modelled, the layers and what else it does" in page
    assert "not measured: Raspberry Pi 4" in page


def test_verify_needs_the_emulator(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing tool says nothing of the network: exit code 4, not a failed rung."""
    monkeypatch.setenv("CODESIGN_QEMU_AARCH64", "/nowhere/qemu")
    with pytest.raises(ToolNotFoundError, match="CODESIGN_QEMU_AARCH64='/nowhere/qemu' is not"):
        verify(folder)


def test_unknown_board() -> None:
    with pytest.raises(InputError, match="unknown target 'rpi6'; did you mean 'rpi"):
        run(DesignOptions("zoo:digits", "rpi6"), Path("never"))
