# SPDX-License-Identifier: Apache-2.0
"""Options are refused with one clear message, and survive a round trip."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from codesign.errors import InputError
from codesign.flow.options import DesignOptions

CASES: list[tuple[dict[str, Any], str]] = [
    ({"objective": "speed"},
     "--objective 'speed': expected one of auto, latency, size, loss, bops"),
    ({"sensitivity": "guess"},
     "--sensitivity 'guess': expected one of auto, hessian, measured, noise, weight-only"),
    ({"limits": (("dsp", 10.0, ""),)},
     "--limit dsp: target 'host' has no such metric (it has latency, size, loss, bops)"),
    ({"max_size_kb": -1},
     "--max-size-kb -1: expected a number of at least 1e-09 (kilobytes of 1000 bytes)"),
    ({"max_size_kb": math.nan},
     "--max-size-kb nan: expected a number of at least 1e-09 (kilobytes of 1000 bytes)"),
    ({"loss_budget": 1.5}, "--loss-budget 1.5: expected a number from 0 to 1"),
    ({"min_accuracy": 90.0},
     "--min-accuracy: accuracy is measured, so it needs labelled data; give --eval X.npz "
     "(arrays x, y), or use --loss-budget, which needs none"),
    ({"sensitivity": "hessian"},
     "--sensitivity hessian: needs calibration data; give --calib X.npz (array x), or use "
     "--sensitivity weight-only"),
    ({"seed": -1}, "--seed -1: expected a number of at least 0"),
    ({"formats": ()}, "--formats: expected at least one number format, e.g. w8a8,w4a8"),
    ({"formats": ("w8a8", "w8a8")}, "--formats w8a8,w8a8: names a format twice"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), CASES, ids=[next(iter(c[0])) for c in CASES])
def test_bad_options_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        DesignOptions("zoo:digits", **given)
    assert str(caught.value) == message


@pytest.mark.parametrize("field", ["weights", "calib", "eval"])
def test_files_must_be_there_for_a_new_design(field: str) -> None:
    given: dict[str, Any] = {field: Path("nowhere.npz")}
    with pytest.raises(InputError) as caught:
        DesignOptions("zoo:digits", **given).require_files()
    assert str(caught.value) == f"--{field} nowhere.npz: no such file"


def test_a_network_file_is_found_again_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.onnx").touch()
    monkeypatch.chdir(tmp_path)
    assert DesignOptions("net.onnx").to_data()["network"] == str(tmp_path / "net.onnx")
    assert DesignOptions("zoo:digits").to_data()["network"] == "zoo:digits"


def test_options_survive_json(tmp_path: Path) -> None:
    data = tmp_path / "x.npz"
    data.write_bytes(b"")
    options = DesignOptions(
        "zoo:digits",
        calib=data,
        formats=("w8a8", "w2a4"),
        limits=(("bops", 5.0, "%"),),
        max_drop=None,
    )
    assert DesignOptions.from_data(options.to_data()) == options


@pytest.mark.parametrize(
    ("given", "goal"),
    [({}, "size"), ({"max_size_kb": 1.0}, "loss"), ({"max_latency_ms": 1.0}, "loss"),
     ({"loss_budget": 0.5}, "size"), ({"limits": (("bops", 1.0, ""),)}, "loss"),
     ({"objective": "bops", "max_size_kb": 1.0}, "bops")],
)  # fmt: skip
def test_objective_follows_from_the_limits(given: dict[str, Any], goal: str) -> None:
    assert DesignOptions("zoo:digits", **given).goal == goal
