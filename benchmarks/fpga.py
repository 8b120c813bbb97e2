#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Networks on FPGA boards: the joint design, its commands, cycles modelled command by command.

With ``--simulate`` the generated RTL runs one image under Verilator, every layer compared bit for
bit, and simulated cycles stand beside the modelled ones. The clock of Zynq parts is assumed (the
board's file); DRAM is modelled. Weights are random unless a network brings its own.

    python benchmarks/fpga.py --networks resnet8,mobilenetv2 --boards ultra96,pynq-z2 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from codesign.errors import CodesignError
from codesign.flow.hardware import hardware_of
from codesign.flow.joint import joint_problem, solve
from codesign.flow.options import DesignOptions
from codesign.flow.prepare import Prepared, noise_inputs, prepare
from codesign.flow.progress import SILENT
from codesign.ir import Graph
from codesign.ir.interpret import run_values
from codesign.quant import quantize_graph
from codesign.quant.formats import parse_formats
from codesign.space.device import load_device
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.model.cycles import CycleModel
from codesign.targets.fpga.sim.dram import Dram


def quantized(prepared: Prepared, choices: Mapping[str, str]) -> Graph:
    """The integer network of a choice; activation ranges from random inputs."""
    formats = {layer: parse_formats(name)[0] for layer, name in choices.items()}
    calibration = prepared.calibrate(SILENT)
    return quantize_graph(prepared.graph, calibration, formats, prepared.quant_options).graph


def simulated(program: Program, prepared: Prepared, dram: Dram) -> tuple[int, float, bool]:
    """(cycles, seconds, equal) of one image in RTL."""
    from codesign.targets.fpga.sim.build import open_session
    from codesign.targets.fpga.sim.network import memory_bytes, simulate

    inputs = {program.graph.inputs[0]: noise_inputs(prepared.graph, 1, 0)}
    reference = run_values(program.graph, inputs, keep="all")
    with open_session(program.accelerator, memory_bytes(program), dram) as session:
        began = time.perf_counter()
        outputs, results = simulate(program, inputs, session, reference)
        seconds = time.perf_counter() - began
    equal = all((a == reference[n]).all() for a, n in zip(outputs, program.graph.outputs))
    return sum(r.cycles for r in results), seconds, equal


def measure(network: str, board: str, formats: str, simulate: bool) -> dict[str, Any]:
    """One row of the table."""
    device = load_device(board)
    names = formats.split(",")
    prepared = prepare(DesignOptions(f"zoo:{network}", formats=tuple(names)), SILENT)
    began = time.perf_counter()
    result = solve(joint_problem(prepared.graph, device, formats=names))
    hardware = hardware_of(result, device)
    seconds = time.perf_counter() - began
    graph = quantized(prepared, result.formats)
    program = compile_network(
        graph, hardware.accelerator, device, dict(hardware.tiles), hardware.chains
    )
    model = CycleModel(hardware.accelerator, Dram.of(device))
    runs = [s for s in program.segments if s.kind == "accelerator"]
    cycles = sum(model.run(s.commands).total for s in runs)
    lanes = sum(engine.lanes for engine in hardware.accelerator.engines)
    row: dict[str, Any] = {
        "network": network, "board": board, "formats": formats,
        "accelerator": hardware.accelerator.name, "clock_mhz_assumed": device.clock_hz / 1e6,
        "cycles_solver": hardware.network_cycles, "cycles_modelled": cycles,
        "fps_modelled": device.clock_hz / cycles,
        "share_of_peak": sum(job.macs for job in program.jobs) / (lanes * cycles),
        "commands": len(program.commands), "runs": len(runs),
        "chains": len(hardware.chains), "seconds_to_solve": seconds,
        "resources_modelled": dict(hardware.resources),
    }  # fmt: skip
    if simulate:
        found, taken, equal = simulated(program, prepared, Dram.of(device))
        row |= {"cycles_simulated": found, "equal": equal, "seconds_to_simulate": taken,
                "model_error": cycles / found - 1}  # fmt: skip
    return row


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="digits,resnet8,resnet18,mobilenetv2,mnasnet_a1")
    parser.add_argument("--boards", default="ultra96,pynq-z2")
    parser.add_argument("--formats", default="w8a8")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = []
    for network in asked.networks.split(","):
        for board in asked.boards.split(","):
            try:
                row = measure(network, board, asked.formats, asked.simulate)
            except CodesignError as error:
                print(f"{network} on {board}: {error}", file=sys.stderr)
                continue
            rows.append(row)
            if not asked.json:
                beside = f", simulated {row['cycles_simulated']:,}" if asked.simulate else ""
                print(
                    f"{network} on {board} ({asked.formats}): {row['cycles_modelled']:,} cycles "
                    f"modelled{beside}, {row['fps_modelled']:.1f} fps at "
                    f"{row['clock_mhz_assumed']:g} MHz (assumed), "
                    f"{100 * row['share_of_peak']:.0f} % of peak, {row['accelerator']}",
                    flush=True,
                )
    if asked.json:
        print(json.dumps(rows, indent=1, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
