# SPDX-License-Identifier: Apache-2.0
"""The hand-over's drivers, C and PYNQ, run a network on the simulated accelerator."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.ir import Graph, run_values
from codesign.space.device import load_device
from codesign.targets.fpga.build.handover import (
    Handover,
    network_header,
    room,
    template,
    write_handover,
)
from codesign.targets.fpga.build.names import identifiers
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.sim.build import open_session
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.session import VerilatorSession
from codesign.targets.fpga.target import layout_of
from codesign.targets.tools import require_tool
from tests.fpga.build.networks import small_network
from tests.support.fpga import accelerator, random_inputs

HERE = Path(__file__).parent
MACHINE = accelerator(8, 8, 1, (64, 128, 64), (8, 1), (64, 128), 4, 4)


@pytest.fixture(scope="module")
def program() -> Program:
    made = compile_network(small_network(), MACHINE)
    assert [s.kind for s in made.segments] == ["accelerator"]
    return made


@pytest.fixture
def session(program: Program) -> Iterator[VerilatorSession]:
    dram = Dram.of(load_device("ultra96"))
    opened = open_session(MACHINE, room(layout_of(program)), dram)
    assert isinstance(opened, VerilatorSession)
    with opened:
        yield opened


def case(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    inputs = random_inputs(graph, np.random.default_rng(5))
    values = run_values(graph, inputs, keep="all")
    return inputs[graph.inputs[0]], values[graph.outputs[0]]


def write_folder(folder: Path, program: Program) -> dict[str, Any]:
    layout = layout_of(program)
    (folder / "image.bin").write_bytes(program.image)
    (folder / "layout.json").write_text(json.dumps(layout))
    return layout


class Registers:
    """What ``pynq.MMIO`` does, on the simulation."""

    def __init__(self, session: VerilatorSession) -> None:
        self.session = session

    def read(self, offset: int) -> int:
        return self.session.read_register(offset, 50)

    def write(self, offset: int, value: int) -> None:
        self.session.write_register(offset, int(value))


def shared_memory(session: VerilatorSession) -> Any:
    """What ``pynq.allocate`` does: the simulation sees memory after flush, we after invalidate."""

    class Shared(np.ndarray):
        device_address = 0

        def flush(self) -> None:
            session.load(0, self.tobytes())

        def invalidate(self) -> None:
            self[:] = np.frombuffer(session.read(0, self.size), np.uint8)

    def allocate(shape: tuple[int, ...], dtype: Any) -> Any:
        return np.zeros(shape, dtype).view(Shared)

    return allocate


def pynq_driver(folder: Path) -> Any:
    path = folder / "codesign_accelerator.py"
    path.write_text(template("codesign_accelerator.py.in"))
    loader = SourceFileLoader("codesign_accelerator", str(path))
    spec = importlib.util.spec_from_loader("codesign_accelerator", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_pynq_driver(tmp_path: Path, program: Program, session: VerilatorSession) -> None:
    write_folder(tmp_path, program)
    module = pynq_driver(tmp_path)
    driver = module.CodesignAccelerator(Registers(session), shared_memory(session), tmp_path)
    value, wanted = case(program.graph)
    (found,) = driver(value)
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
    assert driver.cycles > 100
    # a second image without a reload, and what goes wrong
    (again,) = driver(np.zeros_like(value))
    zero = run_values(program.graph, {program.graph.inputs[0]: np.zeros_like(value)}, keep="all")
    np.testing.assert_array_equal(again.reshape(wanted.shape), zero[program.graph.outputs[0]])
    with pytest.raises(module.AcceleratorError, match="the network takes 1 inputs: "):
        driver()
    driver.layout["segments"][0]["address"] = program.memory_bytes + 16384
    with pytest.raises(module.AcceleratorError, match="given up: a bus error; finished commands"):
        driver(value)


def test_c_driver(tmp_path: Path, program: Program, session: VerilatorSession) -> None:
    layout = write_folder(tmp_path, program)
    for name in ("codesign_accelerator.h", "codesign_accelerator.c"):
        (tmp_path / name).write_text(template(name))
    (tmp_path / "network.h").write_text(network_header(layout))
    value, wanted = case(program.graph)
    (tmp_path / "input.bin").write_bytes(np.ascontiguousarray(value).tobytes())
    names = identifiers(layout["values"], "t")
    graph = program.graph
    binary = tmp_path / "application"
    subprocess.run(
        [require_tool("c++"), "-x", "c", "-std=c99", "-O1", "-Wall", "-Werror", "-Wno-unused",
         f'-DCSA_PLATFORM="{HERE / "shim.h"}"', f"-DTENSOR_IN=&tensor_{names[graph.inputs[0]]}",
         f"-DTENSOR_OUT=&tensor_{names[graph.outputs[0]]}", f"-I{tmp_path}",
         str(HERE / "application.c"), "-o", str(binary)],
        check=True,
    )  # fmt: skip
    said = serve(binary, tmp_path, session)
    assert said.startswith("done ")
    assert int(said.split()[1]) > 100
    found = np.frombuffer((tmp_path / "output.bin").read_bytes(), wanted.dtype)
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)


def serve(binary: Path, folder: Path, session: VerilatorSession) -> str:
    """Forward the program's accesses to the simulation; its last line."""
    process = subprocess.Popen(
        [str(binary)], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        words = line.split()
        answer = "0"
        if words[0] == "read":
            answer = str(session.read_register(int(words[1]), 50))
        elif words[0] == "write":
            session.write_register(int(words[1]), int(words[2]))
        elif words[0] == "load":
            session.load(int(words[1]), bytes.fromhex(words[2]))
        elif words[0] == "save":
            answer = session.read(int(words[1]), int(words[2])).hex()
        else:
            last = line.strip()
            continue
        process.stdin.write(answer + "\n")
        process.stdin.flush()
    assert process.wait() == 0, last
    return last


@pytest.mark.parametrize("board", ["ultra96", "kv260", "zcu102", "pynq-z2", "zedboard"])
def test_zynq_folder(tmp_path: Path, program: Program, board: str) -> None:
    from codesign.targets.fpga.build.ipxact import verilog_ports

    layout = write_folder(tmp_path, program)
    verilog = (
        "module acc(clk, rst, irq, m_axi_araddr, s_axi_awaddr);\n  input clk;\n  wire clk;\n"
        "  input rst;\n  output irq;\n  output [39:0] m_axi_araddr;\n  input [7:0] s_axi_awaddr;\n"
        "endmodule\n"
    )
    (tmp_path / "accelerator.v").write_text(verilog)
    device = load_device(board)
    what = Handover(device, device.clock_hz, 64, "accelerator.v", "acc", layout)
    files = write_handover(tmp_path, what)
    assert {"ip/component.xml", "vivado/design.tcl", "bare/network.h", "constraints/timing.xdc",
            "pynq/codesign_accelerator.py"} <= set(files)  # fmt: skip
    tcl = (tmp_path / "vivado/design.tcl").read_text()
    assert device.part in tcl
    assert ("processing_system7" in tcl) == (device.family == "xc7")
    assert not any(f"@{word}@" in (tmp_path / name).read_text()
                   for name in files for word in ("NAME", "PART", "MHZ", "REGISTERS", "BOARD"))
    assert tcl.count("{") == tcl.count("}")
    assert tcl.count("[") == tcl.count("]")
    assert verilog_ports(verilog, "acc")[3].width == 40
    arty = replace(what, device=load_device("arty-a7-100"))
    assert write_handover(tmp_path / "arty", arty) == ("README.md", "constraints/timing.xdc")
