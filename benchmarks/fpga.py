#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Networks on FPGA boards: the joint design, its commands, cycles modelled command by command.

With ``--simulate`` the generated RTL runs images under Verilator, every layer compared bit for
bit, and simulated cycles stand beside the modelled ones, of the network and of each layer (layers
of a fused chain are one). Images are CIFAR-10's test images where CODESIGN_DATA names the data,
enlarged to the network's size; ResNet8 takes MLPerf Tiny's published weights then, other weights
are random. Without data, images are noise. Activation ranges come from training images (noise
without data). The clock of Zynq parts is assumed (the board's file); DRAM is modelled. With more
than one format the loss of the formats is weight-only and limited to ``--budget`` of its range.

    python benchmarks/fpga.py --networks resnet8 --boards pynq-z2 --simulate --images 100 --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.data import cifar10, data_root
from codesign.errors import CodesignError
from codesign.flow.hardware import hardware_of
from codesign.flow.joint import JointResult, joint_problem, solve
from codesign.flow.options import DesignOptions
from codesign.flow.prepare import Prepared, noise_inputs, prepare
from codesign.flow.progress import SILENT
from codesign.ir import Graph
from codesign.ir.interpret import run_values
from codesign.quant import calibrate, quantize_graph
from codesign.quant.formats import parse_formats
from codesign.quant.sensitivity import sensitivity
from codesign.space.device import load_device
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.isa import Command, Unit
from codesign.targets.fpga.model.cycles import CycleModel, Cycles
from codesign.targets.fpga.model.layers import ends_of, layer_cycles, layer_spans, starts_of
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.result import SimResult

UNITS = (Unit.LOAD, Unit.DENSE, Unit.DEPTHWISE, Unit.DRAIN)


def real_images(prepared: Prepared, count: int, split: str) -> Any:
    """CIFAR-10 images [count, 3, H, W] at the network's size; None without the data.

    ResNet8 takes the bytes as they are; the ImageNet networks take them scaled to about -2 … 2.
    """
    if not os.environ.get("CODESIGN_DATA"):
        return None
    images = cifar10("test" if split == "test" else "train")[0][:count].astype(np.float32)
    side = prepared.graph.type(prepared.graph.inputs[0]).shape[-1]
    if side == images.shape[-1]:
        return images
    whole = images.repeat(-(-side // 32), axis=2).repeat(-(-side // 32), axis=3)
    return (whole[:, :, :side, :side] / 255 - 0.45) / 0.225


def quantized(prepared: Prepared, choices: Mapping[str, str], data: Any = None) -> Graph:
    """The integer network of a choice; activation ranges from ``data`` or random inputs."""
    formats = {layer: parse_formats(name)[0] for layer, name in choices.items()}
    if data is None:
        calibration = prepared.calibrate(SILENT)
    else:
        calibration = calibrate(prepared.graph, [data[n : n + 1] for n in range(len(data))])
    return quantize_graph(prepared.graph, calibration, formats, prepared.quant_options).graph


def chosen(
    prepared: Prepared, board: str, formats: Sequence[str], limits: Mapping[str, int],
    budget: float,
) -> JointResult:  # fmt: skip
    """The joint optimum: least latency, within the resources and a share of the loss."""
    more: dict[str, Any] = {}
    if len(formats) > 1:
        table = sensitivity(prepared.graph, None, parse_formats(",".join(formats)), "weight-only")
        more["loss"] = {n: {str(f): v for f, v in row.items()} for n, row in table.items()}
        more["loss_budget"] = budget
    return solve(
        joint_problem(
            prepared.graph, load_device(board), formats=list(formats), limits=dict(limits), **more
        )
    )


@dataclass(frozen=True)
class Simulated:
    """Images in RTL."""

    cycles: int
    """Of the last image."""
    seconds: float
    """Of Verilator, an image."""
    equal: int
    """Images whose layers and outputs were all equal."""
    answers: tuple[int, ...]
    results: tuple[SimResult, ...]


def simulated(
    program: Program, prepared: Prepared, dram: Dram, images: Any, count: int
) -> Simulated:
    """Run ``count`` images; raises RunError at the first layer that differs."""
    from codesign.targets.fpga.sim.build import open_session
    from codesign.targets.fpga.sim.network import memory_bytes, simulate

    if images is None:
        images = noise_inputs(prepared.graph, count, 0)
    answers, equal, seconds = [], 0, 0.0
    results: tuple[SimResult, ...] = ()
    with open_session(program.accelerator, memory_bytes(program), dram) as session:
        for n in range(count):
            inputs = {program.graph.inputs[0]: images[n : n + 1]}
            reference = run_values(program.graph, inputs, keep="all")
            began = time.perf_counter()
            outputs, results = simulate(program, inputs, session, reference)
            seconds += time.perf_counter() - began
            equal += all(
                bool((a == reference[o]).all()) for a, o in zip(outputs, program.graph.outputs)
            )
            answers.append(int(outputs[0].argmax()))
    cycles = sum(r.cycles for r in results)
    return Simulated(cycles, seconds / count, equal, tuple(answers), results)


def layer_errors(
    runs: Sequence[tuple[Sequence[Command], Cycles, SimResult]],
    chains: Sequence[tuple[Sequence[str], Any]],
) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:  # fmt: skip
    """Layer to its cycles (modelled, simulated): from the end of the layers before to its own, and
    from its first command's start to its end. ``runs``: commands, modelled and simulated run."""
    group = {name: names[0] for names, _ in chains for name in names}
    shares: dict[str, tuple[float, float]] = {}
    spans: dict[str, tuple[float, float]] = {}
    for commands, run, result in runs:
        starts, ends = starts_of(run), ends_of(run)
        truth = layer_cycles(commands, result.ends, group)
        guess = layer_cycles(commands, ends, group)
        shares |= {name: (guess[name], cycles) for name, cycles in truth.items()}
        truth = layer_spans(commands, result.starts, result.ends, group)
        guess = layer_spans(commands, starts, ends, group)
        spans |= {name: (guess[name], cycles) for name, cycles in truth.items()}
    return shares, spans


def measure(network: str, board: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    device = load_device(board)
    names = asked.formats.split(",")
    weights: Path | None = None
    if network == "resnet8" and os.environ.get("CODESIGN_DATA"):
        weights = data_root() / "mlperf_tiny" / "resnet8_cifar10.h5"
    options = DesignOptions(f"zoo:{network}", formats=tuple(names), weights=weights)
    prepared = prepare(options, SILENT)
    began = time.perf_counter()
    result = chosen(prepared, board, names, asked.limits, asked.budget)
    if result.accelerator is None:
        raise CodesignError(f"no accelerator: {result.why}")
    hardware = hardware_of(result, device)
    seconds = time.perf_counter() - began
    ranges = real_images(prepared, 16 if network == "resnet8" else 4, "train")
    graph = quantized(prepared, result.formats, ranges)
    program = compile_network(
        graph, hardware.accelerator, device, dict(hardware.tiles), hardware.chains
    )
    model = CycleModel(hardware.accelerator, Dram.of(device))
    runs = [s for s in program.segments if s.kind == "accelerator"]
    cycles = sum(model.run(s.commands).total for s in runs)
    lanes = sum(engine.lanes for engine in hardware.accelerator.engines)
    counts: dict[str, int] = {}
    for name in result.formats.values():
        counts[name] = counts.get(name, 0) + 1
    row: dict[str, Any] = {
        "network": network, "board": board, "formats": counts,
        "accelerator": hardware.accelerator.name, "clock_mhz_assumed": device.clock_hz / 1e6,
        "cycles_solver": hardware.network_cycles, "cycles_modelled": cycles,
        "fps_modelled": device.clock_hz / cycles,
        "share_of_peak": sum(job.macs for job in program.jobs) / (lanes * cycles),
        "commands": len(program.commands), "runs": len(runs),
        "chains": len(hardware.chains), "seconds_to_solve": seconds,
        "resources_modelled": dict(hardware.resources),
    }  # fmt: skip
    if asked.simulate:
        images = real_images(prepared, asked.images, "test")
        found = simulated(program, prepared, Dram.of(device), images, asked.images)
        # of the last image, at the memory's refresh phase of that run
        pairs = [
            (s.commands, model.run(s.commands, r.since, asked.images > 1 or place > 0), r)
            for place, (s, r) in enumerate(zip(runs, found.results))
        ]
        layers, spans = layer_errors(pairs, hardware.chains)
        then = sum(run.total for _, run, _ in pairs)
        errors = {n: m / s - 1 for n, (m, s) in layers.items() if s > 0}
        span_errors = {n: m / s - 1 for n, (m, s) in spans.items() if s > 0}
        stalls = {
            unit.name.lower(): {
                why: sum(r.stalls[unit][why] for r in found.results)
                for why in found.results[0].stalls[unit]
            }
            for unit in UNITS
        }
        row |= {
            "images": asked.images, "images_equal": found.equal,
            "inputs": "noise" if images is None else "CIFAR-10 test images",
            "weights": "random" if weights is None else weights.name,
            "cycles_simulated": found.cycles, "fps_simulated": device.clock_hz / found.cycles,
            "seconds_an_image": found.seconds, "model_error": then / found.cycles - 1,
            "solver_error": hardware.network_cycles / found.cycles - 1,
            "layer_errors": errors, "span_errors": span_errors, "stalls": stalls,
            "layers_within_5_percent": sum(abs(e) <= 0.05 for e in errors.values()),
            "spans_within_5_percent": sum(abs(e) <= 0.05 for e in span_errors.values()),
            "layers": {n: s for n, (_, s) in layers.items()},
            "answers": list(found.answers),
        }  # fmt: skip
        if network == "resnet8" and images is not None:
            labels = cifar10("test")[1][: asked.images]
            row["right"] = int((np.array(found.answers) == labels).sum())
    return row


def limits_of(text: str) -> dict[str, int]:
    """``dsp=211,ramb18=186`` as numbers."""
    found = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if not name or not value.isdecimal():
            raise argparse.ArgumentTypeError(f"{part!r}: expected NAME=NUMBER, such as dsp=211")
        found[name] = int(value)
    return found


def main() -> int:
    """The command line; 1 if a network could not be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="digits,resnet8,resnet18,mobilenetv2,mnasnet_a1")
    parser.add_argument("--boards", default="ultra96,pynq-z2")
    parser.add_argument("--formats", default="w8a8")
    parser.add_argument("--budget", type=float, default=0.5, help="share of the loss's range")
    parser.add_argument(
        "--limits", type=limits_of, default={}, help="of resources: dsp=211,ramb18=186"
    )
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    failed = False
    for network in asked.networks.split(","):
        for board in asked.boards.split(","):
            try:
                row = measure(network, board, asked)
            except CodesignError as error:
                print(f"{network} on {board}: {error}", file=sys.stderr)
                failed = True
                continue
            rows.append(row)
            if not asked.json:
                beside, rate = "", f"{row['fps_modelled']:.1f} fps modelled"
                if asked.simulate:
                    rate = f"{row['fps_simulated']:.1f} fps simulated"
                    beside = (
                        f", simulated {row['cycles_simulated']:,}, {row['images_equal']} of "
                        f"{row['images']} images equal, layers within 5 %: "
                        f"{row['layers_within_5_percent']} of {len(row['layer_errors'])} by their "
                        f"shares of the run, {row['spans_within_5_percent']} of "
                        f"{len(row['span_errors'])} from start to end"
                    )
                print(
                    f"{network} on {board} ({asked.formats}): {row['cycles_modelled']:,} cycles "
                    f"modelled{beside}, {rate} at "
                    f"{row['clock_mhz_assumed']:g} MHz (assumed), "
                    f"{100 * row['share_of_peak']:.0f} % of peak, {row['accelerator']}",
                    flush=True,
                )
    if asked.json:
        print(json.dumps(rows, indent=1, default=str))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
