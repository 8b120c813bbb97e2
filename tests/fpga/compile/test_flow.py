# SPDX-License-Identifier: Apache-2.0
"""FPGA boards through the flow: design, compile, report; and the cycle model's bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InfeasibleError, InputError, UnsupportedError
from codesign.flow import choose
from codesign.flow.artifact import Design
from codesign.flow.building import load_integer
from codesign.flow.choose import design
from codesign.flow.ladder import _some
from codesign.flow.measuring import measure
from codesign.flow.options import DesignOptions
from codesign.flow.partition import accelerator_ms
from codesign.flow.prepare import load_target, noise_inputs
from codesign.flow.progress import Progress
from codesign.flow.report import report
from codesign.space.device import devices
from codesign.targets import TARGETS
from codesign.targets.fpga.design import Hardware
from codesign.targets.fpga.isa import Unit
from codesign.targets.fpga.model.cycles import CycleModel
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.target import FpgaTarget
from tests.support.fpga import check_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits designed for the Ultra96."""
    out = tmp_path_factory.mktemp("digits")
    design(DesignOptions("zoo:digits", target="ultra96", formats=("w8a8", "w4a4")), out)
    return out


def target_of(folder: Path) -> FpgaTarget:
    found = load_target("ultra96").with_design(folder)
    assert isinstance(found, FpgaTarget)
    return found


def test_every_board_is_a_target() -> None:
    for board in devices():
        assert TARGETS.load(board)().name == board


def test_design_is_proven_and_runs_bit_exactly(folder: Path) -> None:
    data = json.loads((folder / "design.json").read_text())
    assert data["certificate"]["status"] == "optimal"
    assert data["objective"] == "latency"
    hardware = Hardware.load(folder)
    assert Hardware.from_data(hardware.to_data()) == hardware
    graph = load_integer(folder)
    program = target_of(folder).compile(graph)
    inputs = {graph.inputs[0]: noise_inputs(graph, 1, 5)}
    check_network(graph, hardware.accelerator, inputs, program)


def test_cycles_lie_between_work_and_everything_in_turn(folder: Path) -> None:
    target = target_of(folder)
    assert target.hardware is not None
    program = target.compile(load_integer(folder))
    commands = program.segments[1].commands
    model = CycleModel(target.hardware.accelerator, Dram.of(target.device))
    run = model.run(commands)
    work = dict.fromkeys(Unit, 0.0)
    turn = 0.0
    for command in commands:
        if command.unit in (Unit.LOAD, Unit.END):
            continue
        alone = model.works.of(command)
        work[command.unit] += alone.busy
        turn += alone.last + (alone.reads + alone.writes) / model.rate
    read = sum(model.works.of(c).reads for c in commands if c.unit is Unit.LOAD)
    loads = read / model.rate
    fixed = 150.0 * len(commands)
    assert max(*work.values(), loads) <= run.total <= turn + loads + fixed
    assert len(run.spans) == len(commands) - 1
    for span in run.spans:
        assert 0 < span.start < span.end <= run.total
    slower = CycleModel(
        target.hardware.accelerator, Dram(latency=400, bytes_per_cycle=Dram().bytes_per_cycle / 4)
    )
    assert slower.run(commands).total > run.total


def test_report_shows_the_accelerator(folder: Path) -> None:
    page = report(folder).read_text()
    data = json.loads((folder / "report.json").read_text())
    assert data["cycles"]["modelled"] > 1000
    assert data["cycles"]["simulated"] is None  # not before the RTL has run
    assert data["resources"]["dsp"]["available"] == 360
    for text in ("Accelerator", "Timeline", "xczu3eg", "On the ARM cores", "x.q"):
        assert text in page


def test_modelled_latency_counts_operators_without_weights(folder: Path) -> None:
    """Pools are work of their own on an accelerator: the network is more than its layers. What is
    told is the event model's time, as the report has it, not that of the solver's formulas."""
    found = measure(folder)
    report(folder)
    data = json.loads((folder / "report.json").read_text())
    cycles = data["cycles"]
    clock = json.loads((folder / "accelerator.json").read_text())["clock_hz"]
    on_chip = cycles["modelled"] / clock * 1e3
    assert found.modelled_ms == pytest.approx(on_chip)
    assert sum(found.layers_ms.values()) < on_chip
    assert found.modelled_ms != Design.load(folder).totals["latency"]
    assert found.network_ms is None


class Notes(Progress):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


LIMITED = DesignOptions("zoo:digits", target="ultra96", formats=("w8a8",), max_latency_ms=0.0279)


def test_limits_on_time_hold_by_the_event_model(tmp_path: Path) -> None:
    design(LIMITED, tmp_path)
    hardware = Hardware.load(tmp_path)
    device = target_of(tmp_path).device
    assert accelerator_ms(load_integer(tmp_path), hardware, device) <= 0.0279
    assert hardware.network_ms <= 0.0279


def test_a_design_that_takes_longer_than_the_formulas_say_is_chosen_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the event model always found a tenth more."""
    monkeypatch.setattr(
        choose, "accelerator_ms", lambda graph, hardware, device: 1.1 * hardware.network_ms
    )
    notes = Notes()
    chosen = design(LIMITED, tmp_path, notes)
    assert 1.1 * chosen.totals["latency"] <= 0.0279
    assert chosen.limits["latency"] == 0.0279  # as the user asked
    assert any("again with a limit that is" in line for line in notes.lines)
    monkeypatch.setattr(
        choose, "accelerator_ms", lambda graph, hardware, device: 5 * hardware.network_ms
    )
    with pytest.raises(InfeasibleError, match="% tighter there than asked for: by the event model"):
        design(replace(LIMITED, seed=1), tmp_path / "never", notes)
    assert not (tmp_path / "never" / "design.json").exists()


def test_what_fpga_designs_do_not_have(tmp_path: Path) -> None:
    for options, message in (
        ({"batch": 2}, "one image at a time"),
        ({"objective": "bops"}, "minimises one of"),
        ({"formats": ("float", "w8a8")}, "integers of 2 to 8 bits"),
    ):
        with pytest.raises(InputError, match=message):
            design(DesignOptions("zoo:digits", target="ultra96", **options), tmp_path)
    with pytest.raises(UnsupportedError, match="builds designs only"):
        TARGETS.load("ultra96")()._hardware()
    with pytest.raises(InputError, match=r"accelerator\.json: no such file"):
        load_target("kv260").with_design(tmp_path)


def test_an_accelerator_of_another_board_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="is for ultra96, not kv260"):
        load_target("kv260").with_design(folder)


def test_inputs_of_a_slow_rung() -> None:
    assert _some(20, 16, None) == list(range(20))
    assert _some(20, 16, 3) == [0, 1, 16]
    assert _some(20, 16, 1) == [0]
    assert _some(4, 0, 2) == [0, 1]
    assert np.array_equal(_some(3, 2, 9), [0, 1, 2])
