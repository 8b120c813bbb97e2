# SPDX-License-Identifier: Apache-2.0
"""A design folder outlives its data files, other versions, and interruptions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.flow.artifact import Design
from codesign.flow.building import build
from codesign.flow.choose import Session, design
from codesign.flow.ladder import verify
from codesign.flow.measuring import measure
from codesign.flow.options import DesignOptions
from codesign.flow.report import report
from tests.flow.conftest import Files


@pytest.fixture(scope="module")
def made(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built and verified design; tests work on copies of it."""
    out = tmp_path_factory.mktemp("made")
    calib = out / "calib.npz"
    shutil.copy(files.calib, calib)
    design(DesignOptions("zoo:digits", calib=calib, max_size_kb=15), out / "design")
    build(out / "design")
    verify(out / "design")
    return out / "design"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "design"))


def edit(folder: Path, **fields: object) -> None:
    data = json.loads((folder / "design.json").read_text())
    (folder / "design.json").write_text(json.dumps({**data, **fields}))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"certificate": {"status": "optimal"}}, "TypeError: Certificate.__init__() missing 7 "),
        ({"accuracy": {"baseline": 1.0}}, "KeyError: 'float'"),
        ({"flavour": "new"}, "TypeError: Design.__init__() got an unexpected keyword argument "),
        ({"layers": 3}, "TypeError: 'int' object is not iterable"),
    ],
    ids=["certificate", "accuracy", "unknown", "layers"],
)
def test_a_design_of_another_version_is_refused(
    folder: Path, fields: Mapping[str, object], problem: str
) -> None:
    edit(folder, **fields)
    with pytest.raises(InputError) as caught:
        Design.load(folder)
    assert str(caught.value).startswith(
        f"{folder}/design.json: a field is missing, unknown or of a wrong type ({problem}"
    )
    assert str(caught.value).endswith(
        "as in files of another version; make it anew with `codesign design NETWORK --out DIR`"
    )


def test_a_finished_design_needs_its_data_no_more(folder: Path) -> None:
    data = json.loads((folder / "design.json").read_text())
    edit(folder, options={**data["options"], "calib": str(folder / "gone.npz")})
    build(folder)
    report(folder)
    with pytest.raises(InputError) as caught:
        verify(folder)
    assert str(caught.value) == f"no such data file: {folder}/gone.npz"
    with pytest.raises(InputError) as caught:
        design(Design.load(folder).options, folder)
    assert str(caught.value) == f"--calib {folder}/gone.npz: no such file"


def test_refined_figures_leave_the_ladder_standing(folder: Path) -> None:
    measure(folder, refine=True)
    report(folder)
    data = json.loads((folder / "report.json").read_text())
    assert data["missing"] == []
    assert data["totals"]["latency"] > 0
    integer = folder / "integer.ir"
    integer.write_text(integer.read_text().replace("\n", "\n\n", 1))
    report(folder)
    data = json.loads((folder / "report.json").read_text())
    assert data["missing"] == [f"the network was not verified: codesign verify {folder}"]


def test_an_interrupted_accuracy_loop_measures_nothing_twice(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = DesignOptions(
        "zoo:digits", calib=files.calib, eval=files.eval, max_drop=2.0, formats=("w8a8", "w2a8")
    )
    counts: list[int] = []
    real = Session.quantize

    def dies(self: Session, choices: Mapping[str, str]) -> Any:
        if len(counts) == 2:
            raise KeyboardInterrupt
        counts.append(1)
        return real(self, choices)

    monkeypatch.setattr(Session, "quantize", dies)
    with pytest.raises(KeyboardInterrupt):
        design(asked, tmp_path / "out")
    assert not (tmp_path / "out" / "design.json").exists()
    kept = set((tmp_path / "cache" / "codesign" / "accuracy").iterdir())
    assert len(kept) == 3  # the float network and two rounds
    before = {path: path.stat().st_mtime_ns for path in kept}

    monkeypatch.setattr(Session, "quantize", real)
    resumed = design(asked, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    fresh = design(asked, tmp_path / "fresh_out")
    assert resumed.accuracy == fresh.accuracy
    assert resumed.choices == fresh.choices
    assert len(fresh.accuracy.rounds) > 2


def test_the_accuracy_on_other_data_is_measured_anew(files: Files, tmp_path: Path) -> None:
    first = design(DesignOptions("zoo:digits", calib=files.calib, eval=files.eval), tmp_path / "a")
    with np.load(files.eval) as data:
        wrong = tmp_path / "wrong.npz"
        np.savez(wrong, x=data["x"], y=(data["y"] + 1) % 10)
    second = design(DesignOptions("zoo:digits", calib=files.calib, eval=wrong), tmp_path / "b")
    assert (first.accuracy.baseline, second.accuracy.baseline) == (100.0, 0.0)


def test_a_batch_need_not_divide_the_data(files: Files, tmp_path: Path) -> None:
    """64 calibration images and 256 to evaluate, three at a time; the accuracy is the same."""
    with np.load(files.eval) as data:
        cut = tmp_path / "eval.npz"
        np.savez(cut, x=data["x"][:255], y=data["y"][:255])
    found = {
        batch: design(
            DesignOptions("zoo:digits", calib=files.calib, samples=63, eval=cut, batch=batch),
            tmp_path / str(batch),
        )
        for batch in (1, 3)
    }
    assert found[1].accuracy.measured == found[3].accuracy.measured
    assert found[1].accuracy.samples == found[3].accuracy.samples == 255
    build(tmp_path / "3")
    states = {rung.rung: rung.status for rung in verify(tmp_path / "3")}
    assert states["reference"] == states["tvm-host"] == "exact"
