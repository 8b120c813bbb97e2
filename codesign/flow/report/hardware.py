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
from codesign.targets.fpga.design import Hardware
from codesign.targets.fpga.model.cycles import CycleModel
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.target import FpgaTarget

Data = Mapping[str, Any]
LANES = (("LOAD", "#6b7280"), ("DENSE", "#1d4ed8"), ("DEPTHWISE", "#0f766e"), ("DRAIN", "#b45309"))
NAMES = {"LOAD": "load", "DENSE": "dense", "DEPTHWISE": "depthwise", "DRAIN": "drain, store"}


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
            entry = layers.setdefault(span.layer, {"name": span.layer, "lanes": {}})
            lane = entry["lanes"].setdefault(span.unit.name, [1e18, 0.0])
            lane[0] = min(lane[0], cycles + span.start)
            lane[1] = max(lane[1], cycles + span.end)
        cycles += run.total
    simulated = _simulated(folder / "build" / f"{target.name}.simulated.json", program.graph.name)
    macs = sum(job.macs for job in program.jobs)
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
        "simulated": simulated,
        "arm": dict(program.why),
        "runs": sum(s.kind == "accelerator" for s in program.segments),
        "macs": macs,
        "peak_share": macs / (_lanes(hardware) * cycles) if cycles else 0.0,
        "bytes_per_cycle": model.rate,
        "resources": {
            name: {
                "modelled": used, "synthesised": None, "available": int(getattr(device, name)),
            }
            for name, used in hardware.resources
        },
    }  # fmt: skip


def _lanes(hardware: Hardware) -> int:
    return sum(engine.lanes for engine in hardware.accelerator.engines)


def _simulated(path: Path, network: str) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if data.get("network") == network else None


def section(data: Data) -> str:
    """The HTML of the accelerator; empty for designs without one."""
    hardware = data.get("hardware")
    if not hardware:
        return ""
    parts = [_facts(hardware), _resources(hardware), _timeline(hardware), _arm(hardware)]
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


def _resources(h: Data) -> str:
    rows = []
    for name, values in h["resources"].items():
        used, there = values["modelled"], values["available"]
        share = 100 * used / there if there else 0
        bar = (f'<div class=bars><i class=after style="width:{min(share, 100):.1f}%"></i>'
               f"<span>{used:,} of {there:,} ({share:.0f} %)</span></div>")
        rows.append(f"<tr><td>{escape(name.upper())}</td><td>{bar}</td></tr>")
    return ("<h3>Resources, modelled</h3><table><tr><th></th><th>used of the part</th></tr>"
            f"{''.join(rows)}</table>")  # fmt: skip


def _timeline(h: Data) -> str:
    """Lanes of the units over time, one row a layer."""
    layers, total = h["layers"], h["cycles"]["modelled"] or 1
    width, left, row = 800, 220, 18
    marks = []
    for index, layer in enumerate(layers):
        y = 20 + index * row
        marks.append(f'<text x="0" y="{y + 11}">{escape(layer["name"][-34:])}</text>')
        for place, (unit, colour) in enumerate(LANES):
            if unit not in layer["lanes"]:
                continue
            start, end = layer["lanes"][unit]
            x, w = left + start / total * width, max((end - start) / total * width, 0.7)
            marks.append(
                f'<rect x="{x:.1f}" y="{y + 3 * place + 2}" width="{w:.1f}" height="3" '
                f'fill="{colour}"><title>{NAMES[unit]}: {start:,.0f} to {end:,.0f}</title></rect>'
            )
    legend = "".join(
        f'<rect x="{left + 130 * k}" y="2" width="12" height="8" fill="{c}"/>'
        f'<text x="{left + 130 * k + 16}" y="10">{NAMES[u]}</text>'
        for k, (u, c) in enumerate(LANES)
    )
    height = 24 + row * len(layers)
    return (
        f"<h3>Timeline (modelled, {total:,} cycles)</h3><div class=scroll>"
        f'<svg viewBox="0 0 {left + width} {height}" width="{left + width}" height="{height}" '
        f'font-size="10" fill="currentColor">{legend}{"".join(marks)}</svg></div>'
    )


def _arm(h: Data) -> str:
    if not h["arm"]:
        return ""
    rows = "".join(
        f"<tr><td>{escape(node)}</td><td>{escape(why)}</td></tr>" for node, why in h["arm"].items()
    )
    return (
        f"<h3>On the ARM cores ({h['runs']} runs of the accelerator)</h3>"
        f"<table><tr><th>operator</th><th>why</th></tr>{rows}</table>"
    )
