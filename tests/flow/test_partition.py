# SPDX-License-Identifier: Apache-2.0
"""A network whose middle the accelerator cannot do: the cut, its proof, the ARM side's build."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from codesign.cli import main
from codesign.flow.building import load_integer
from codesign.flow.choose import design
from codesign.flow.options import DesignOptions
from codesign.flow.partition import partition, times
from codesign.flow.prepare import load_target, noise_inputs
from codesign.flow.report import report
from codesign.ir.graph import Graph
from codesign.ir.interpret import run_values
from codesign.space.device import load_device
from codesign.targets.fpga.arm_side import ArmSide, arm_graph, build_arm_side
from codesign.targets.fpga.compile import compile_network
from codesign.targets.fpga.compile.select import nodes_of_job, select
from codesign.targets.fpga.cores import cores_of
from codesign.targets.fpga.design import Hardware
from codesign.targets.fpga.model.run import Checked, compare_values, run_program
from codesign.targets.fpga.target import FpgaTarget

DEVICE = load_device("ultra96")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gated network designed for the Ultra96."""
    out = tmp_path_factory.mktemp("gated")
    network = "tests.support.gated:gated"
    design(DesignOptions(network, target="ultra96", formats=("w8a8",)), out)
    return out


@pytest.fixture(scope="module")
def graph(folder: Path) -> Graph:
    return load_integer(folder)


def test_a_gate_s_small_layers_go_to_the_cores_beside_it(folder: Path, graph: Graph) -> None:
    hardware = Hardware.load(folder)
    facts = dict(hardware.partition)
    assert facts["cut"] == "optimal"
    assert {"squeeze", "excite"} <= set(hardware.arm)
    assert float(facts["total_ms"]) < float(facts["without_ms"])
    assert Hardware.from_data(hardware.to_data()) == hardware
    page = report(folder).read_text()
    for text in ("Roofline", "Cycles that each layer adds", "tensors that change sides"):
        assert text in page


def test_no_other_cut_of_whole_jobs_is_faster(folder: Path, graph: Graph) -> None:
    """Every set of jobs on the cores, compiled and modelled."""
    hardware = Hardware.load(folder)
    cores = cores_of(DEVICE)
    assert cores is not None
    found = select(graph)
    jobs = list(found.jobs)
    best = float(dict(hardware.partition)["total_ms"])
    assert len(jobs) <= 6
    for count in range(len(jobs) + 1):
        for some in combinations(jobs, count):
            nodes = sorted({n for value in some for n in nodes_of_job(found, value)})
            program = compile_network(
                graph, hardware.accelerator, DEVICE, dict(hardware.tiles), hardware.chains, nodes
            )
            # the cut's costs are sums over operators; lists as a whole overlap a little more
            assert times(program, DEVICE, cores).total > 0.97 * best


def test_both_sides_together_equal_the_reference(
    folder: Path, graph: Graph, tmp_path: Path
) -> None:
    target = load_target("ultra96").with_design(folder)
    assert isinstance(target, FpgaTarget)
    program = target.compile(graph)
    inputs = {graph.inputs[0]: noise_inputs(graph, 1, 5)}
    reference = run_values(graph, inputs, keep="all")
    segments = [s for s in program.segments if s.kind == "arm"]
    for index, segment in enumerate(segments):
        part = arm_graph(program, segment, f"part{index}")
        values = run_values(part, {n: reference[n] for n in part.inputs}, keep="all")
        for name in part.outputs:
            np.testing.assert_array_equal(values[name], reference[name])
    notes: list[str] = []
    built = build_arm_side(program, DEVICE, tmp_path, notes.append)
    assert len(built) == len(segments), notes
    side = ArmSide.load(program, DEVICE, tmp_path)
    assert len(side.runners) == len(segments)
    device = Checked(program)
    outputs = run_program(program, inputs, device, arm=side.run)
    assert compare_values(program, device, reference) == []
    for name, value in zip(graph.outputs, outputs, strict=True):
        np.testing.assert_allclose(value, reference[name], rtol=1e-5, atol=1e-6)  # softmax


def test_boards_without_cores_have_no_cut(folder: Path, graph: Graph) -> None:
    hardware = replace(Hardware.load(folder), board="arty-a7-100", arm=(), partition=())
    assert partition(graph, hardware, load_device("arty-a7-100")) == hardware
    program = compile_network(graph, hardware.accelerator)
    notes: list[str] = []
    assert build_arm_side(program, load_device("pynq-z2"), Path("x"), notes.append) == {}
    assert "pynq-z2 has no cores that this project compiles for" in notes[0]


def test_what_does_not_fit_is_said_before_any_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which resource, by how much, and what would do; nothing is left behind."""
    out = tmp_path / "out"
    asked = ["design", "zoo:digits", "--target", "pynq-z2", "--limit", "ramb18=20"]
    assert main([*asked, "--out", str(out)]) == 3
    said = capsys.readouterr().err
    assert "no accelerator of the grid fits xc7z020: the smallest needs ramb18 85 of 20" in said
    assert "the part has enough: allow that much" in said
    assert not (out / "design.json").exists()
