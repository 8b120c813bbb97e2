#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Networks on an ECP5-85: synthesised, placed and routed to a bitstream; met clock, use, run time.

The network's weights and activations stand in block RAM. By default a small accelerator (4 x 8 x 1
dense lanes, 8 depthwise) keeps the run short; ``--chosen`` takes the joint solver's, under
``--dsp``. Weights are random; w8a8.

    python benchmarks/ecp5.py --networks digits,resnet8 --seeds 3 --budget 3600
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from codesign.errors import CodesignError
from codesign.flow.hardware import hardware_of
from codesign.flow.joint import joint_problem, solve
from codesign.flow.options import DesignOptions
from codesign.flow.prepare import Prepared, prepare
from codesign.flow.progress import SILENT
from codesign.ir import Graph
from codesign.quant import quantize_graph
from codesign.quant.formats import parse_formats
from codesign.space.accelerator import Accelerator, Buffer, Engine
from codesign.space.device import load_device
from codesign.targets.fpga.build.ulx3s import build_ulx3s, facts, room_for_buffers
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.model.cycles import CycleModel
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.network import memory_bytes

BOARD = "ulx3s-85f"
SMALL = Accelerator(
    Engine("dense", 4, 8, 1, Buffer(512), Buffer(1024), Buffer(512), multiplier="mult18", post=4),
    Engine("depthwise", 1, 8, 1, Buffer(128), Buffer(512), multiplier="mult18", post=4),
    64,
)


def quantized(prepared: Prepared, choices: Mapping[str, str]) -> Graph:
    """The integer network of a choice; activation ranges from random inputs."""
    formats = {layer: parse_formats(name)[0] for layer, name in choices.items()}
    calibration = prepared.calibrate(SILENT)
    return quantize_graph(prepared.graph, calibration, formats, prepared.quant_options).graph


def program_of(network: str, chosen: bool, dsp: int) -> Program:
    """The network compiled for the small accelerator, or for the solver's."""
    device = load_device(BOARD)
    prepared = prepare(DesignOptions(f"zoo:{network}", formats=("w8a8",)), SILENT)
    if not chosen:
        layers = [layer.name for layer in prepared.graph.layers()]
        graph = quantized(prepared, dict.fromkeys(layers, "w8a8"))
        return compile_network(graph, SMALL, device)
    limits = {"ramb18": room_for_buffers(prepared.graph, device), "dsp": dsp}
    result = solve(joint_problem(prepared.graph, device, formats=["w8a8"], limits=limits))
    hardware = hardware_of(result, device)
    return compile_network(
        quantized(prepared, result.formats), hardware.accelerator, device, dict(hardware.tiles),
        hardware.chains,
    )  # fmt: skip


def measure(network: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    program = program_of(network, asked.chosen, asked.dsp)
    model = CycleModel(program.accelerator, Dram.of(load_device(BOARD)))
    runs = [s for s in program.segments if s.kind == "accelerator"]
    cycles = sum(model.run(s.commands).total for s in runs)
    size = memory_bytes(program)

    def say(line: str) -> None:
        print(f"  {line}", file=sys.stderr, flush=True)

    made = build_ulx3s(
        program.accelerator, program.image, size, asked.mhz,
        seeds=tuple(range(asked.first, asked.first + asked.seeds)), budget=asked.budget,
        line=say, allow_slow=True,
    )  # fmt: skip
    return {
        "network": network, "accelerator": program.accelerator.name, "cycles_modelled": cycles,
        "memory_bytes": size, **facts(made), "slowest_path": made.placed.path[:8],
        "bitstream_bytes": made.placed.bitstream.stat().st_size,
    }  # fmt: skip


def main() -> int:
    """The command line; 1 if a network could not be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="digits,resnet8")
    parser.add_argument("--mhz", type=float, default=100)
    parser.add_argument("--seeds", type=int, default=3, help="placements to try at most")
    parser.add_argument("--first", type=int, default=1, help="seed of the first one")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds of placing")
    parser.add_argument("--chosen", action="store_true", help="the solver's accelerator")
    parser.add_argument("--dsp", type=int, default=156)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    failed = False
    for network in asked.networks.split(","):
        try:
            row = measure(network, asked)
        except CodesignError as error:
            print(f"{network}: {error}", file=sys.stderr)
            failed = True
            continue
        rows.append(row)
        if not asked.json:
            used = ", ".join(f"{name} {use[0]}/{use[1]}" for name, use in row["placed"].items())
            seconds = row["seconds"]
            print(
                f"{network}: {row['met_mhz']} MHz of {row['clock_mhz']:g} "
                f"({'met' if row['met'] else 'missed'}, seed {row['seed']}), {used}; "
                f"{row['cycles_modelled']:,} cycles modelled; synthesis {seconds['synthesis']} s, "
                f"place and route {seconds['place_and_route']} s",
                flush=True,
            )
    if asked.json:
        print(json.dumps(rows, indent=1, default=str))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
