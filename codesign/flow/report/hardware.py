# SPDX-License-Identifier: Apache-2.0
"""The FPGA part of the report: cycles, resources, a timeline of units, a roofline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from codesign.flow.artifact import Design
from codesign.flow.building import load_integer
from codesign.flow.prepare import load_target
from codesign.flow.report import hardware_plots as plots
from codesign.flow.synthesis import synthesised
from codesign.targets.fpga.build.ulx3s import PLACED
from codesign.targets.fpga.design import Hardware
from codesign.targets.fpga.isa import Unit
from codesign.targets.fpga.machine import depthwise_engine
from codesign.targets.fpga.model.cycles import CycleModel
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.target import FpgaTarget

Data = Mapping[str, Any]


def hardware_data(folder: Path) -> dict[str, Any] | None:
    """What is known of a design's accelerator; None for designs without one."""
    chosen = Design.load(folder)
    plain = load_target(chosen.options.target)
    if plain.device is None:
        return None
    target = plain.with_design(folder)
    assert isinstance(target, FpgaTarget)
    assert target.hardware is not None
    hardware, device = target.hardware, target.device
    program = target.compile(load_integer(folder))
    model = CycleModel(hardware.accelerator, Dram.of(device))
    cycles = 0
    layers: dict[str, dict[str, Any]] = {}
    for segment in program.segments:
        if segment.kind != "accelerator":
            continue
        run = model.run(segment.commands)
        for span in run.spans:
            entry = layers.setdefault(span.layer, _layer(span.layer))
            lane = entry["lanes"].setdefault(span.unit.name, [1e18, 0.0])
            lane[0] = min(lane[0], cycles + span.start)
            lane[1] = max(lane[1], cycles + span.end)
        for command in segment.commands:
            if command.layer in layers and command.unit is not Unit.END:
                work = model.works.of(command)
                layers[command.layer]["bytes"] += round(work.reads + work.writes)
        cycles += run.total
    simulated = _simulated(folder / "build" / f"{target.name}.simulated.json", program.graph.name)
    macs = sum(job.macs for job in program.jobs)
    for job in program.jobs:
        if job.name in layers:
            layers[job.name]["macs"] += job.macs
    _added(layers, simulated)
    synthesis = synthesised(folder, hardware)
    return {
        "board": hardware.board,
        "part": device.part,
        "clock_hz": hardware.clock_hz,
        "accelerator": hardware.accelerator.to_data(),
        "name": hardware.accelerator.name,
        "cycles": {
            "solver": hardware.network_cycles,
            "modelled": cycles,
            "simulated": None if simulated is None else simulated["cycles"],
        },
        "layers": list(layers.values()),
        "lanes": {
            engine.kind: engine.lanes * (2 if engine.double else 1)
            for engine in (hardware.accelerator.dense, depthwise_engine(hardware.accelerator))
        },
        "partition": dict(hardware.partition),
        "synthesis": synthesis,
        "placed": _placed(folder / "build" / target.name / PLACED),
        "simulated": simulated,
        "arm": dict(program.why),
        "runs": sum(s.kind == "accelerator" for s in program.segments),
        "macs": macs,
        "peak_share": macs / (_lanes(hardware) * cycles) if cycles else 0.0,
        "bytes_per_cycle": model.rate,
        "resources": {
            name: {
                "modelled": used, "synthesised": synthesis[name] if synthesis else None,
                "available": int(getattr(device, name)),
            }
            for name, used in hardware.resources
        },
    }  # fmt: skip


def _layer(name: str) -> dict[str, Any]:
    return {"name": name, "lanes": {}, "macs": 0, "bytes": 0, "simulated_cycles": None}


def _added(layers: Mapping[str, dict[str, Any]], simulated: Data | None) -> None:
    """What each layer adds to the run's time, as layers end one after the other; and for how long
    its engine was on it."""
    ran = {x["name"]: x["end"] for x in simulated["layers"]} if simulated else {}
    before = seen = 0.0
    for entry in sorted(layers.values(), key=_end):
        lanes, end = entry["lanes"], _end(entry)
        entry["cycles"], before = end - before, end
        engine = lanes.get("DENSE") or lanes.get("DEPTHWISE")
        entry["busy"] = engine[1] - engine[0] if engine else 0.0
        if entry["name"] in ran:
            entry["simulated_cycles"] = max(0.0, ran[entry["name"]] - seen)
            seen = max(seen, ran[entry["name"]])


def _end(entry: Data) -> float:
    return float(max(lane[1] for lane in entry["lanes"].values()))


def _lanes(hardware: Hardware) -> int:
    return sum(engine.lanes for engine in hardware.accelerator.engines)


def _simulated(path: Path, network: str) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if data.get("network") == network else None


def _placed(path: Path) -> dict[str, Any] | None:
    """What place and route made of the board's design (ECP5); None where it did not run."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data


def section(data: Data) -> str:
    """The HTML of the accelerator; empty for designs without one."""
    hardware = data.get("hardware")
    if not hardware:
        return ""
    total = hardware["cycles"]["modelled"] or 1
    parts = [
        _facts(hardware), plots.resource_bars(hardware), placed_section(hardware),
        plots.roofline(hardware),
        plots.timeline(hardware["layers"], total), plots.layer_cycles(hardware), _arm(hardware),
    ]  # fmt: skip
    return f"<section><h2>Accelerator</h2>{''.join(parts)}</section>"


def _facts(h: Data) -> str:
    clock, cycles = h["clock_hz"], h["cycles"]
    rows = []
    for kind, label in (
        ("solver", "modelled by the solver's formulas"),
        ("modelled", "modelled, command by command"),
        ("simulated", "simulated (RTL, cycle by cycle)"),
    ):
        n = cycles[kind]
        if n:
            rows.append(f"<tr><td>{label}</td><td class=n>{n:,}</td><td class=n>"
                        f"{n / clock * 1e3:.3f} ms</td><td class=n>{clock / n:,.1f}</td></tr>")
    error = ""
    if cycles["simulated"]:
        share = 100 * (cycles["modelled"] / cycles["simulated"] - 1)
        error = f" Modelled against simulated: {share:+.2f} %."
    return (
        f"<p><code>{escape(h['name'])}</code> on {escape(h['part'])} ({escape(h['board'])}) at "
        f"{clock / 1e6:g} MHz (assumed for Zynq parts). {100 * h['peak_share']:.0f} % of the "
        f"multipliers' peak is used (modelled).{error}</p>"
        "<table><tr><th>one image</th><th class=n>cycles</th><th class=n>latency</th>"
        f"<th class=n>images a second</th></tr>{''.join(rows)}</table>"
    )


def placed_section(h: Data) -> str:
    """Clock, cells and times of place and route; empty where it did not run."""
    placed = h["placed"]
    if not placed:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(cell)}</code></td><td class=n>{used:,}</td><td class=n>{there:,}"
        f"</td><td class=n>{100 * used / there:.0f} %</td></tr>"
        for cell, (used, there) in placed["placed"].items()
    )
    seconds = placed["seconds"]
    return (
        f"<h3>Placed and routed</h3><p>The whole board design, memory and host included, on "
        f"{escape(placed['part'])}: {placed['met_mhz']:g} MHz, "
        f"{'met' if placed['met'] else 'missed'} of {placed['clock_mhz']:g} asked for (placement "
        f"{placed['seed']}). Synthesis {seconds['synthesis']:,.0f} s, placing, routing and packing "
        f"{seconds['place_and_route']:,.0f} s; {escape(', '.join(placed['tools']))}.</p>"
        "<table><tr><th>cell</th><th class=n>used</th><th class=n>available</th>"
        f"<th class=n>share</th></tr>{rows}</table>"
    )


def _arm(h: Data) -> str:
    if not h["arm"]:
        return ""
    rows = "".join(
        f"<tr><td>{escape(node)}</td><td>{escape(why)}</td></tr>" for node, why in h["arm"].items()
    )
    cut = h["partition"]
    text = ""
    if cut:
        text = (
            f"<p>Modelled: accelerator {cut['accelerator_ms']:.3f} ms, ARM cores "
            f"{cut['arm_ms']:.3f} ms, tensors that change sides {cut['transfer_ms']:.3f} ms; "
            f"together {cut['total_ms']:.3f} ms. Cut: {escape(str(cut['cut']))}"
            + (f" (all that can run on the accelerator there: {cut['without_ms']:.3f} ms)"
               if "without_ms" in cut else "") + ".</p>"
        )  # fmt: skip
    return (
        f"<h3>On the ARM cores ({h['runs']} runs of the accelerator)</h3>{text}"
        f"<table><tr><th>operator</th><th>why</th></tr>{rows}</table>"
    )
