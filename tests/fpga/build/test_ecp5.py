# SPDX-License-Identifier: Apache-2.0
"""Synthesis, netlist and placement of a small part on an ECP5, with the real tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.errors import CodesignError, InputError
from codesign.flow import building
from codesign.flow.building import _told, build
from codesign.flow.choose import design
from codesign.flow.options import DesignOptions
from codesign.flow.prepare import load_target
from codesign.flow.progress import Progress
from codesign.flow.report.hardware import placed_section
from codesign.ir import Graph
from codesign.targets.fpga.build import ecp5, ulx3s
from codesign.targets.fpga.build.ecp5 import NotPlacedError, Placed, place
from codesign.targets.fpga.build.synth import Synthesis, _steps, parse_stat, synthesise
from codesign.targets.fpga.build.ulx3s import (
    PLACED,
    Ulx3sBuild,
    facts,
    lower_clock,
    placed_line,
    write_ulx3s,
)
from codesign.targets.fpga.hw.multiply import ScaleMultiplier
from codesign.targets.fpga.hw.primitives import MODEL_FILES
from codesign.targets.fpga.programs import require_program, run_program
from codesign.targets.fpga.target import FpgaTarget
from tests.support.fpga import accelerator


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    from amaranth.back import rtlil

    text = rtlil.convert(ScaleMultiplier("mult18"), name="scale", emit_src=False)
    return synthesise(text, "scale", "ecp5", folder=tmp_path_factory.mktemp("synth"))


def test_counts(scale: Synthesis) -> None:
    assert scale.dsp == 2
    assert scale.ramb18 == scale.uram == 0
    assert scale.lut == scale.cells.get("LUT4", 0) + 2 * scale.cells["CCU2C"]
    assert scale.ff == scale.cells["TRELLIS_FF"]


def test_the_netlist_is_exact(scale: Synthesis, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = [-(1 << 31), (1 << 31) - 1, 0, -1, *map(int, rng.integers(-(1 << 31), 1 << 31, 200))]
    factors = [65535, 65535, 1, 65535, *map(int, rng.integers(0, 1 << 16, 200))]
    drive = "\n".join(
        f"value = {v & 0xFFFFFFFF}; factor = {f}; repeat (4) tick; "
        f"if (product !== 48'h{v * f & (1 << 48) - 1:012x}) wrong = wrong + 1;"
        for v, f in zip(values, factors)
    )
    (tmp_path / "bench.v").write_text(
        "module bench;\nreg clk = 0; reg [31:0] value; reg [15:0] factor;\n"
        "wire [47:0] product; integer wrong = 0;\n"
        "scale dut(.clk(clk), .value(value), .factor(factor), .enable(1'b1), "
        ".product(product));\ntask tick; begin #1 clk = 1; #1 clk = 0; end endtask\n"
        f'initial begin\n{drive}\n$display("wrong %0d", wrong);\nend\nendmodule\n'
    )
    share = Path(require_program("yosys")).resolve().parents[1] / "share" / "yosys"
    cells = share / "ecp5" / "cells_sim.v"
    program = tmp_path / "bench"
    run_program(
        [require_program("iverilog"), "-g2012", "-s", "bench", "-o", program, "-I", cells.parent,
         tmp_path / "bench.v", scale.verilog, MODEL_FILES["mult18"], cells],
        "building the netlist's simulation",
    )  # fmt: skip
    said = run_program([require_program("vvp"), "-n", program], "the netlist's simulation")
    assert said.split() == ["wrong", "0"]


def test_place_and_route(scale: Synthesis, tmp_path: Path) -> None:
    said: list[str] = []
    found = place(scale, "LFE5U-25F-6BG381C", "", 50.0, folder=tmp_path, line=said.append)
    assert found.met
    assert found.used["MULT18X18D"][0] == 2
    assert found.bitstream.stat().st_size > 10_000
    assert any("placing" in text for text in said)
    with pytest.raises(InputError, match="nextpnr-ecp5 is called for LFE5U-85F"):
        place(scale, "xc7a100t", "", 50.0)
    log = (found.folder / "nextpnr.log").read_text()
    assert "Program finished normally" in log
    page = placed_section({"placed": facts(Ulx3sBuild(scale, found))})
    assert f"{found.fmax_mhz:.2f}".rstrip("0").rstrip(".") + " MHz, met of 50 asked for" in page
    assert "<code>MULT18X18D</code></td><td class=n>2</td><td class=n>28</td>" in page
    assert placed_section({"placed": None}) == ""


def test_a_placer_that_does_not_converge_is_stopped(
    scale: Synthesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(ecp5, "ROUNDS", 3)
    with pytest.raises(NotPlacedError, match="has not converged in 3 rounds with seed 8; another"):
        place(scale, "LFE5U-25F-6BG381C", "", 51.0, seeds=(7, 8), line=said.append)
    assert sum("with seed 7" in text for text in said) == 1


def test_a_router_that_finds_no_faster_way_is_stopped() -> None:
    """Lines as nextpnr 0.11 writes them."""
    step = ecp5._steps(None, 3)
    line = "Info:     iter=135 wires=564734 overused={} overuse={} tmgfail={} archfail=NA"
    for wires in [(0, 0, 2)] * ecp5.REROUTES + [(7, 9, 2)] + [(0, 0, 2)] * ecp5.REROUTES:
        step(line.format(*wires))
    with pytest.raises(NotPlacedError, match="no faster way for 2 wires in 40 rounds with seed 3"):
        step(line.format(0, 0, 2))


def test_a_missed_clock_is_followed_by_the_next_that_was_reached() -> None:
    assert lower_clock(100, 76.0) == 75
    assert lower_clock(75, 76.0) == 62.5  # met all but for what was asked: never the same again
    assert lower_clock(100, 30.0) == 25
    assert lower_clock(50, 20.0) == 12.5
    assert lower_clock(100, 3.0) == 12.5


def test_what_does_not_converge_is_followed_by_a_lower_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: Synthesis
) -> None:
    """Which clocks are asked for, by what came of the ones before; nothing is placed."""
    for name in ("design.bit", "design.lpf", "report.json"):
        (tmp_path / name).write_text(name)

    def placed(mhz: float, reached: float) -> Ulx3sBuild:
        part = "LFE5U-85F-6BG381C"
        return Ulx3sBuild(
            scale, Placed(part, mhz, reached, {}, {}, 2, 1.0, "nextpnr", tmp_path, ())
        )

    asked: list[tuple[float, tuple[int, ...]]] = []
    astray = NotPlacedError("the placer has not converged")
    outcomes: dict[float, Ulx3sBuild | NotPlacedError] = {
        100.0: astray, 87.5: placed(87.5, 77.0), 75.0: astray, 62.5: placed(62.5, 63.0),
    }  # fmt: skip

    def outcome(small: object, image: bytes, size: int, mhz: float, **options: Any) -> Ulx3sBuild:
        asked.append((mhz, options["seeds"]))
        found = outcomes[mhz]
        if isinstance(found, NotPlacedError):
            raise found
        return found

    monkeypatch.setattr(ulx3s, "build_ulx3s", outcome)
    said: list[str] = []
    small = accelerator(8, 8, 1, (128, 256, 64), (8, 1), (128, 128))
    made = write_ulx3s(tmp_path / "out", small, b"", 0, 100_000_000, said.append)
    assert asked == [(mhz, (2, 1)) for mhz in (100.0, 87.5, 75.0, 62.5)]
    assert made.placed.fmax_mhz == 63.0
    assert said == [
        "the placer has not converged; again for 87.5 MHz",
        "77.0 MHz reached; again for 75 MHz",
        "the placer has not converged; again for 62.5 MHz",
    ]
    assert json.loads((tmp_path / "out" / "placed.json").read_text())["met"] is True
    outcomes[100.0] = outcomes[12.5] = astray
    with pytest.raises(NotPlacedError):  # no lower clock is left
        write_ulx3s(tmp_path / "no", small, b"", 0, 12_500_000)
    assert not (tmp_path / "no").exists()


def test_nothing_is_placed_for_the_host(tmp_path: Path) -> None:
    design(DesignOptions("zoo:digits", sensitivity="weight-only", explain=0.0), tmp_path / "d")
    with pytest.raises(InputError, match="--no-place: nothing is placed for host"):
        build(tmp_path / "d", place=False)


def test_what_was_built_without_placing_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As measuring asks for it; only the decision is looked at, nothing is built."""
    made: list[bool] = []

    def noted(self: FpgaTarget, graph: Graph, directory: Path) -> None:
        made.append(self.place)
        directory.mkdir(exist_ok=True)

    monkeypatch.setattr(FpgaTarget, "build", noted)
    monkeypatch.setattr(building, "_loads", lambda chosen, out: True)
    options = DesignOptions(
        "zoo:digits", target="ulx3s-85f", formats=("w8a8",), sensitivity="weight-only", explain=0.0
    )
    design(options, tmp_path / "d")
    for asked in (False, None, True, None):
        build(tmp_path / "d", place=asked)
    assert made == [False, True]


def test_both_forms_of_yosys_statistics() -> None:
    old = "   Number of cells:   3\n     DSP48E2      1\n     LUT6         2\n"
    new = "        3 cells\n        1   DSP48E2\n        2   LUT6\n"
    assert parse_stat(old) == parse_stat(new) == {"DSP48E2": 1, "LUT6": 2}
    with pytest.raises(CodesignError, match="yosys's statistics hold no cells"):
        parse_stat("nothing")


def test_synthesis_tells_its_main_steps() -> None:
    said: list[str] = []
    step = _steps(said.append)
    for text in (
        "4. Executing FLATTEN pass (flatten design).", "3.1. Executing PROC_CLEAN pass (…).",
        "23.19.2. Executing OPT_EXPR pass.", "Warning: 4. Executing", "5. Executing OPT pass",
    ):  # fmt: skip
        step(text)
    assert said == ["yosys: FLATTEN pass (flatten design)", "yosys: OPT pass"]


def test_what_was_placed_stands_in_a_line(tmp_path: Path) -> None:
    assert placed_line(tmp_path) is None  # not placed
    use = {"TRELLIS_COMB": [26097, 83640], "DP16KD": [123, 208], "DCCA": [8, 56]}
    (tmp_path / "ulx3s").mkdir()
    (tmp_path / PLACED).write_text(
        json.dumps({
            "part": "LFE5U-85F-6BG381C", "clock_mhz": 100.0, "met_mhz": 102.27, "met": True,
            "seed": 2, "placed": use,
        })
    )  # fmt: skip
    assert placed_line(tmp_path) == (
        "LFE5U-85F-6BG381C: 102.27 MHz, met of 100 asked for (seed 2); 26,097 of 83,640 LUT, "
        f"123 of 208 EBR; {tmp_path / 'ulx3s' / 'design.bit'}"
    )


def test_builds_tell_what_they_are_at_and_are_kept_all_the_same() -> None:
    """A build's key is the target's text; who is told does not belong to it."""
    progress = Progress()
    plain, host = load_target("ulx3s-85f"), load_target("host")
    told = _told(plain, progress)
    assert isinstance(told, FpgaTarget)
    assert told.say == progress.note
    assert str(told) == str(plain)
    assert _told(host, progress) is host
