# SPDX-License-Identifier: Apache-2.0
"""The main path on real images: design, build, verify, measure, report; resumed when killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InfeasibleError, InputError
from codesign.flow.artifact import Design
from codesign.flow.building import build, load_integer
from codesign.flow.choose import design
from codesign.flow.everything import Outcome, run
from codesign.flow.ladder import verify
from codesign.flow.measuring import measure
from codesign.flow.options import DesignOptions
from codesign.flow.report import report
from codesign.quant import evaluate, load_eval
from codesign.quant.formats import load_format
from codesign.targets.host import HostTarget
from tests.flow.conftest import Files


def options(files: Files, **more: object) -> DesignOptions:
    given = {"calib": files.calib, "eval": files.eval, "formats": ("w8a8", "w4a8", "w2a8"), **more}
    return DesignOptions("zoo:digits", **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(files: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("whole")
    return out, run(options(files, max_size_kb=12), out)


def test_the_design_keeps_its_limits_and_is_proven(whole: tuple[Path, Outcome]) -> None:
    out, outcome = whole
    chosen = outcome.design
    assert chosen.certificate.status == "optimal"
    assert chosen.certificate.gap == 0
    assert chosen.size_bytes <= 12_000
    by_hand = sum(layer.size[chosen.choices[layer.name]] for layer in chosen.layers)
    assert chosen.size_bytes == by_hand
    assert Design.load(out) == chosen


def test_the_integer_network_has_the_chosen_weights(whole: tuple[Path, Outcome]) -> None:
    out, outcome = whole
    graph = load_integer(out)
    for layer in graph.layers():
        bits = graph.type(layer.inputs[1]).dtype.bits
        assert f"w{bits}a8" == outcome.design.choices[layer.name]


def test_the_measured_accuracy_is_that_of_the_written_network(
    whole: tuple[Path, Outcome], files: Files
) -> None:
    out, outcome = whole
    found = evaluate(load_integer(out), *load_eval(files.eval))
    assert outcome.design.accuracy.measured == found.top1
    assert outcome.design.accuracy.baseline == 100.0
    assert outcome.design.accuracy.samples == 256


def test_the_ladder_is_climbed_bit_for_bit(whole: tuple[Path, Outcome]) -> None:
    _, outcome = whole
    states = {rung.rung: rung.status for rung in outcome.rungs}
    assert states["reference"] == states["tvm-host"] == "exact"
    assert states["rtl"] == "skipped"
    assert all(rung.why for rung in outcome.rungs)


class Page(HTMLParser):
    """Collects what a report would fetch, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [
            v for k, v in attrs if k in ("src", "href") and v and not v.startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_whole_and_fetches_nothing(whole: tuple[Path, Outcome]) -> None:
    out, outcome = whole
    page = Page()
    page.feed((out / "report.html").read_text())
    assert page.fetched == []
    for word in ("Proven optimal", "conv1", "equal bit for bit", "modelled", "measured"):
        assert word in page.text
    data = json.loads((out / "report.json").read_text())
    assert data["format"] == "codesign-report/1"
    assert data["size_bytes"] == outcome.design.size_bytes
    assert data["latency_ms"]["measured"] == outcome.measured.network_ms
    assert data["latency_ms"]["simulated"] is None
    assert [rung["rung"] for rung in data["ladder"]][:3] == ["fake-quant", "reference", "tvm-host"]
    assert data["missing"] == []


def test_a_report_says_what_was_not_done(files: Files, tmp_path: Path) -> None:
    design(options(files, max_size_kb=12), tmp_path)
    report(tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["missing"] == [
        f"no latency was measured: codesign measure {tmp_path}",
        f"the network was not verified: codesign verify {tmp_path}",
    ]
    assert data["latency_ms"] == {"modelled": None, "simulated": None, "measured": None}


def test_an_accuracy_limit_is_met_by_measurement(files: Files, tmp_path: Path) -> None:
    chosen = design(options(files, max_drop=2.0), tmp_path)
    assert chosen.accuracy.measured is not None
    assert chosen.accuracy.measured >= 98.0
    assert chosen.size_bytes < chosen.baseline["size"]
    assert [r for r in chosen.accuracy.rounds if dict(r.choices) == dict(chosen.choices)]


def test_an_impossible_size_names_the_nearest(files: Files, tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError) as caught:
        design(options(files, max_size_kb=1), tmp_path)
    assert "size <= 1000 (feasible from " in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_latency_limits_are_solved_on_measured_layers(files: Files, tmp_path: Path) -> None:
    chosen = design(options(files, max_latency_ms=1000.0, objective="size"), tmp_path)
    assert chosen.totals["latency"] > 0
    assert all(layer.latency_ms[chosen.choices[layer.name]] for layer in chosen.layers)
    again = measure(tmp_path, refine=True)
    # A measured entry stands for every format of the same code; the CPU decides which those are.
    target = HostTarget()
    again_chosen = Design.load(tmp_path)
    alike = [
        target.same_code(load_format(again_chosen.choices[layer.name]), load_format(name))
        for layer in again_chosen.layers
        for name in layer.latency_ms
    ]
    assert len(alike) == 3 * len(again_chosen.layers)
    assert sum(alike) / len(alike) <= again.table_share <= 1.0
    for layer in again_chosen.layers:
        chosen_format = load_format(again_chosen.choices[layer.name])
        for name, value in layer.latency_ms.items():
            if target.same_code(chosen_format, load_format(name)):
                assert value == layer.latency_ms[again_chosen.choices[layer.name]]


def test_a_second_run_keeps_what_is_finished(whole: tuple[Path, Outcome], files: Files) -> None:
    out, _ = whole
    before = {p: p.stat().st_mtime_ns for p in (out / "design.json", out / "integer.ir")}
    design(options(files, max_size_kb=12), out)
    build(out)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_damaged_build_is_made_anew(files: Files, tmp_path: Path) -> None:
    design(options(files, max_size_kb=12), tmp_path)
    library = next(build(tmp_path).glob("*.so"))
    library.write_bytes(library.read_bytes()[:100])
    build(tmp_path)
    assert library.stat().st_size > 100
    assert {r.rung: r.status for r in verify(tmp_path)}["tvm-host"] == "exact"


def test_a_wrong_build_fails_its_rung(files: Files, tmp_path: Path) -> None:
    """The ladder must be able to fail: build one network, verify against another."""
    design(options(files, max_size_kb=12), tmp_path)
    build(tmp_path)
    other = tmp_path / "other"
    design(options(files, max_size_kb=9), other)
    (tmp_path / "integer.ir").write_bytes((other / "integer.ir").read_bytes())
    states = {r.rung: r for r in verify(tmp_path)}
    assert states["tvm-host"].status == "failed"
    assert "outputs differ" in states["tvm-host"].why


@pytest.mark.parametrize("after", [2.0, 5.0])
def test_a_killed_run_goes_on_and_ends_the_same(
    whole: tuple[Path, Outcome], files: Files, tmp_path: Path, after: float
) -> None:
    _, outcome = whole
    command = [
        sys.executable, "-m", "codesign", "design", "zoo:digits", "--calib", str(files.calib),
        "--eval", str(files.eval), "--formats", "w8a8,w4a8,w2a8", "--max-size-kb", "12",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (tmp_path / "out" / "design.json").exists():
        Design.load(tmp_path / "out")  # whole if it is there at all
    subprocess.run(command, env=env, check=True, capture_output=True)
    chosen = Design.load(tmp_path / "out")
    assert chosen.choices == outcome.design.choices
    assert chosen.accuracy == outcome.design.accuracy
    assert {p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")} == {
        "design.json", "explain.json", "integer.ir", "network.ir",
    }  # fmt: skip


def test_changed_options_make_a_new_design(files: Files, tmp_path: Path) -> None:
    first = design(options(files, max_size_kb=12), tmp_path)
    second = design(options(files, max_size_kb=9), tmp_path)
    assert second.size_bytes <= 9_000 < first.size_bytes


def test_a_wrong_calibration_shape_names_file_and_shapes(files: Files, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=np.zeros((4, 1, 9, 8), np.float32))
    with pytest.raises(InputError) as caught:
        design(replace(options(files), calib=wrong), tmp_path / "out")
    assert str(caught.value) == (
        f"calibration file {wrong}, batch 0: input 'x' of digits takes [N, 1, 8, 8], "
        "got float32[4, 1, 9, 8]"
    )


def test_scales_of_a_qdq_network_are_kept(files: Files, tmp_path: Path) -> None:
    """Quantized by onnxruntime, imported, and lowered to our integers with the same scales."""
    import onnx
    import torch
    from onnxruntime import quantization

    from codesign import zoo

    model = zoo.load("digits")
    plain, quantized = tmp_path / "plain.onnx", tmp_path / "qdq.onnx"
    torch.onnx.export(model.module, model.example_inputs, str(plain), dynamo=True, opset_version=18)
    data = np.load(files.calib)["x"]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        rows = iter([{onnx.load(plain).graph.input[0].name: row[None]} for row in data])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    quantization.quantize_static(
        str(plain), str(quantized), Reader(), per_channel=True,
        activation_type=quantization.QuantType.QInt8, weight_type=quantization.QuantType.QInt8,
        extra_options={"ActivationSymmetric": True},
    )  # fmt: skip
    given = {
        float(onnx.numpy_helper.to_array(item))
        for item in onnx.load(quantized).graph.initializer
        if item.name.endswith("_scale") and not item.dims
    }
    design(DesignOptions(str(quantized), calib=files.calib, eval=files.eval), tmp_path / "out")
    graph = load_integer(tmp_path / "out")
    first = next(n for n in graph.nodes.values() if n.op.name == "quantize")
    assert float(graph.constants[first.inputs[1]]) in given
