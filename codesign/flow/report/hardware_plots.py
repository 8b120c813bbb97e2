# SPDX-License-Identifier: Apache-2.0
"""Drawings of the accelerator's report: timeline, roofline, modelled against simulated, bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

Data = Mapping[str, Any]
LANES = (("LOAD", "#6b7280"), ("DENSE", "#1d4ed8"), ("DEPTHWISE", "#0f766e"), ("DRAIN", "#b45309"))
NAMES = {"LOAD": "load", "DENSE": "dense", "DEPTHWISE": "depthwise", "DRAIN": "drain, store"}
KINDS = {"dense": "#1d4ed8", "depthwise": "#0f766e"}


def resource_bars(h: Data) -> str:
    """Use of the part: modelled, and synthesised where it was."""
    rows = []
    for name, values in h["resources"].items():
        used, made, there = (values[k] for k in ("modelled", "synthesised", "available"))
        bars = _bar("before", used, there, "modelled")
        error = ""
        if made is not None:
            bars += _bar("after", made, there, "synthesised")
            error = f"{100 * (used / made - 1):+.1f} %" if made else ("exact" if not used else "")
        rows.append(f"<tr><td>{escape(name.upper())}</td><td>{bars}</td>"
                    f"<td class=n>{error}</td></tr>")  # fmt: skip
    what = h["synthesis"]
    note = (
        f"<p><small>Synthesised: {escape(what['tool'])}, before placement, "
        f"{what['seconds']:,.0f} s.</small></p>" if what else
        "<p><small>Not synthesised: <code>codesign build DIR --synthesise</code>.</small></p>"
    )  # fmt: skip
    return (
        "<h3>Resources</h3><table><tr><th></th><th>used of the part</th>"
        f"<th class=n>modelled against synthesised</th></tr>{''.join(rows)}</table>{note}"
    )


def _bar(style: str, used: int, there: int, label: str) -> str:
    share = 100 * used / there if there else 0
    return (f'<div class=bars><i class={style} style="width:{min(share, 100):.1f}%"></i>'
            f"<span>{used:,} of {there:,} ({share:.0f} %), {label}</span></div>")  # fmt: skip


def timeline(layers: Sequence[Data], total: int) -> str:
    """Lanes of the units over time, one row a layer."""
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


def roofline(h: Data) -> str:
    """Multiplications a cycle over multiplications a byte of memory traffic, log-log: a dot a layer
    under its engine's peak and the memory's bandwidth."""
    dots = [x for x in h["layers"] if x["macs"] and x["bytes"] and x["busy"]]
    if not dots:
        return ""
    points = [(x["macs"] / x["bytes"], x["macs"] / x["busy"], x) for x in dots]
    peaks = {kind: n for kind, n in h["lanes"].items() if n}
    top = max([*peaks.values(), *(y for _, y, _ in points)])
    rate = h["bytes_per_cycle"]
    low_x, high_x = _decades([x for x, _, _ in points] + [p / rate for p in peaks.values()])
    low_y, high_y = _decades([y for _, y, _ in points] + [top])
    width, height, left, foot = 640, 320, 60, 34

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (log10(x) - low_x) / (high_x - low_x) * width,
            10 + (high_y - log10(y)) / (high_y - low_y) * height,
        )

    marks = []
    for decade in range(low_x, high_x + 1):
        x, _ = at(10.0**decade, 10.0**low_y)
        marks.append(f'<line x1="{x:.1f}" y1="10" x2="{x:.1f}" y2="{10 + height}" stroke="#8884"/>'
                     f'<text x="{x:.1f}" y="{24 + height}" text-anchor="middle">'
                     f"{10.0**decade:g}</text>")  # fmt: skip
    for decade in range(low_y, high_y + 1):
        _, y = at(10.0**low_x, 10.0**decade)
        marks.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" '
                     f'stroke="#8884"/><text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">'
                     f"{10.0**decade:g}</text>")  # fmt: skip
    for kind, peak in peaks.items():
        corner = max(peak / rate, 10.0**low_x)
        start = max(10.0**low_x, 10.0**low_y / rate)
        route = [
            at(start, max(start * rate, 10.0**low_y)), at(corner, peak), at(10.0**high_x, peak),
        ]  # fmt: skip
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in route)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{KINDS[kind]}"/>'
                     f'<text x="{left + width - 4}" y="{route[-1][1] - 4:.1f}" text-anchor="end" '
                     f'fill="{KINDS[kind]}">{kind}: {peak:,} a cycle</text>')  # fmt: skip
    for x, y, layer in points:
        cx, cy = at(x, y)
        colour = KINDS["dense" if "DENSE" in layer["lanes"] else "depthwise"]
        marks.append(
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="{colour}" fill-opacity="0.7">'
            f"<title>{escape(layer['name'])}: {x:,.2f} multiplications a byte, {y:,.1f} a cycle"
            "</title></circle>"
        )
    return (
        f"<h3>Roofline (modelled; memory {rate:.1f} bytes a cycle)</h3><div class=scroll>"
        f'<svg viewBox="0 0 {left + width + 10} {height + 20 + foot}" width="{left + width + 10}" '
        f'height="{height + 20 + foot}" font-size="10" fill="currentColor">{"".join(marks)}'
        f'<text x="{left + width / 2}" y="{height + 42}" text-anchor="middle">multiplications a '
        'byte of memory traffic</text><text x="12" y="8">multiplications a cycle</text></svg></div>'
    )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    return low, max(high, low + 1)


def layer_cycles(h: Data) -> str:
    """What each layer adds to the run: modelled, and simulated where it was."""
    layers = h["layers"]
    most = max([1.0, *(max(x["cycles"], x["simulated_cycles"] or 0) for x in layers)])
    rows = []
    for x in layers:
        bars = [_cycles("before", x["cycles"], most)]
        error = ""
        if x["simulated_cycles"] is not None:
            bars.append(_cycles("after", x["simulated_cycles"], most))
            if x["simulated_cycles"]:
                error = f"{100 * (x['cycles'] / x['simulated_cycles'] - 1):+.1f} %"
        rows.append(f"<tr><td>{escape(x['name'])}</td><td>{''.join(bars)}</td>"
                    f"<td class=n>{error}</td></tr>")  # fmt: skip
    return (
        "<h3>Cycles that each layer adds</h3><p class=legend><i class=before></i>modelled"
        "<i class=after></i>simulated (RTL)</p><table><tr><th>layer</th><th>cycles</th>"
        f"<th class=n>modelled against simulated</th></tr>{''.join(rows)}</table>"
    )


def _cycles(style: str, cycles: float, most: float) -> str:
    return (f'<div class=bars><i class={style} style="width:{100 * cycles / most:.1f}%"></i>'
            f"<span>{cycles:,.0f}</span></div>")  # fmt: skip
