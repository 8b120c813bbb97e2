# SPDX-License-Identifier: Apache-2.0
"""Compiled networks on the functional model: equal to the interpreter, and free of races."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codesign.errors import InfeasibleError, UnsupportedError, VerifyError
from codesign.flow.options import DesignOptions
from codesign.flow.prepare import noise_inputs, prepare
from codesign.flow.progress import SILENT
from codesign.ir import Graph
from codesign.quant import quantize_graph
from codesign.quant.formats import parse_formats
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.isa import COMMAND_BYTES, Command, Unit, decode
from codesign.targets.fpga.model.run import Checked, run_program
from tests.support.fpga import accelerator, check_network, random_accelerator, random_inputs
from tests.support.integer_graphs import random_integer_graph


def quantized(network: str, formats: str = "w8a8") -> Graph:
    """A zoo network in one format, ranges from noise."""
    prepared = prepare(DesignOptions(f"zoo:{network}", formats=(formats,)), SILENT)
    form = parse_formats(formats)[0]
    layers = {node.name: form for node in prepared.graph.layers()}
    calibration = prepared.calibrate(SILENT)
    return quantize_graph(prepared.graph, calibration, layers, prepared.quant_options).graph


@pytest.fixture(scope="module")
def digits() -> Graph:
    return quantized("digits")


def real(graph: Graph) -> dict[str, np.ndarray]:
    return {graph.inputs[0]: noise_inputs(graph, 1, 3)}


def test_digits_whole_on_the_accelerator(digits: Graph) -> None:
    program = check_network(digits, accelerator(), real(digits))
    assert [s.kind for s in program.segments] == ["arm", "accelerator", "arm"]
    assert set(program.why) == {"x.q", "fc2.dequantize"}
    assert len(program.segments[1].nodes) == 7


@pytest.mark.parametrize("network", ["digits", "resnet8"])
@pytest.mark.parametrize("formats", ["w4a8", "w4a4"])
def test_narrow_formats(network: str, formats: str) -> None:
    graph = quantized(network, formats)
    check_network(graph, accelerator(16, 16, 2), real(graph))


@pytest.mark.soak
@pytest.mark.parametrize("network", ["mobilenetv2", "mnasnet_a1", "resnet18"])
def test_imagenet_networks(network: str) -> None:
    graph = quantized(network)
    machine = accelerator(8, 16, 4, (1024, 2048, 512), (16, 2), (256, 1024))
    check_network(graph, machine, real(graph))


def check_seed(seed: int) -> tuple[int, int]:
    """One generated network on one generated accelerator: (jobs, ARM nodes)."""
    rng = np.random.default_rng([seed, 44])
    graph = random_integer_graph(seed, batch=1, float_ends=bool(seed % 2))
    try:
        program = compile_network(graph, random_accelerator(rng))
    except InfeasibleError:  # says what does not fit: see below
        return 0, 0
    check_network(graph, program.accelerator, random_inputs(graph, rng), program)
    return len(program.jobs), len(program.why)


def test_generated_networks() -> None:
    found = [check_seed(seed) for seed in range(40)]
    assert sum(jobs for jobs, _ in found) > 200
    assert sum(jobs > 0 for jobs, _ in found) > 35


@pytest.mark.soak
def test_300_generated_networks() -> None:
    found = [check_seed(seed) for seed in range(100, 420)]
    assert sum(jobs > 0 for jobs, _ in found) >= 300


def test_commands_are_what_stands_in_memory(digits: Graph) -> None:
    program = compile_network(digits, accelerator())
    segment = program.segments[1]
    for index, command in enumerate(segment.commands):
        at = segment.address + index * COMMAND_BYTES
        stored = decode(program.image[at : at + COMMAND_BYTES], command.layer)
        full = {name: command.values.get(name, 0) for name in stored.values}
        assert stored == Command(command.unit, full, command.layer)
    assert segment.commands[-1].unit is Unit.END


def without_wait(program: Program, index: int, wait: str) -> Program:
    """The program with one wait of one command left out."""
    segment = program.segments[1]
    command = segment.commands[index]
    weaker = Command(command.unit, {**command.values, wait: 0}, command.layer)
    image = bytearray(program.image)
    at = segment.address + index * COMMAND_BYTES
    image[at : at + COMMAND_BYTES] = weaker.encode()
    return replace(program, image=bytes(image))


def test_missing_waits_are_races(digits: Graph) -> None:
    """Nearly every wait is needed: without it the detector finds a race (some are implied by what
    another unit waits for)."""
    program = compile_network(digits, accelerator())
    waits = [
        (index, name)
        for index, command in enumerate(program.segments[1].commands)
        for name, value in command.values.items()
        if name.startswith("wait_") and value
    ]
    found = 0
    for index, name in waits:
        try:
            run_program(program, real(digits), Checked(without_wait(program, index, name)))
        except VerifyError:
            found += 1
    assert len(waits) > 40
    assert found > len(waits) / 2


def test_what_does_not_fit_says_so(digits: Graph) -> None:
    expected = (
        r"layer 'conv1' does not fit the dense weight buffer: its smallest tile .* needs 9 words, "
        "the buffer has 8; a depth of 5 words a bank would do"
    )
    with pytest.raises(InfeasibleError, match=expected):
        compile_network(digits, accelerator(depths=(4, 512, 256)))
    with pytest.raises(InfeasibleError, match="dense accumulator buffer"):
        compile_network(digits, accelerator(px=1, depths=(512, 512, 4)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pi": 12}, "pi is 12; expected 4 or a multiple of 8"),
        ({"po": 12}, "po is 12; expected a multiple of 8"),
        ({"post": 5}, "post is 5"),
        ({"depths": (10000, 512, 256)}, "20000 words"),
    ],
)
def test_accelerators_that_cannot_be_built(
    digits: Graph, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        compile_network(digits, accelerator(**changes))
