# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML page that needs no network: tables, bars, the drawn network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

from codesign.flow.report import hardware
from codesign.flow.report.style import CSS

Data = Mapping[str, Any]


def page(data: Data, drawing: str) -> str:
    """The whole page; ``drawing`` is the network as SVG text."""
    title = f"{data['name']} on {data['target']}"
    sections = [
        _summary(data),
        _missing(data),
        _certificate(data),
        _explanation(data),
        _layers(data),
        hardware.section(data),
        _accuracy(data),
        _ladder(data),
        _network(drawing),
        _labels(data),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} — codesign report</title><style>{CSS}</style></head>\n"
        f"<body><main>\n<header><p class=kicker>codesign report</p><h1>{escape(title)}</h1>"
        f"<p class=lead>{_verdict(data)}</p></header>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _verdict(data: Data) -> str:
    proof = data["certificate"]
    what = escape(data["objective"])
    if proof["status"] == "optimal":
        text = f"Proven optimal: no other choice of formats has a lower {what} within the limits."
    else:
        gap = "unknown" if proof["gap"] is None else f"{100 * proof['gap']:.2g} %"
        text = f"Best {what} found in time; it is at most {gap} from the optimum."
    return f"{text} {_mix(data)}"


def _explanation(data: Data) -> str:
    """What limits are worth and what other formats would cost; empty where it was not asked."""
    found = data.get("explanation")
    if not found:
        return ""

    def lines(items: Iterable[str]) -> str:
        return "".join(f"<li>{escape(item)}</li>" for item in items)

    unit = f" in {escape(found['unit'])}" if found["unit"] else ""
    return (
        "<section><h2>Why this design</h2>"
        f"<p>Each figure is a solve of its own, of {escape(data['objective'])}{unit}, "
        f"{escape(found['kind'])}.</p><ul>{lines(found['limits'])}</ul>"
        "<details><summary>What the next best format of each layer would cost</summary>"
        f"<ul>{lines(found['layers'])}</ul></details></section>"
    )


def _mix(data: Data) -> str:
    counts: dict[str, int] = {}
    for name in data["choices"].values():
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(
        f"{n} layer{'s' if n > 1 else ''} in {_chip(name)}" for name, n in sorted(counts.items())
    )


def _chip(format: str) -> str:
    """A format's name on its colour; the colour is that of the weights' width."""
    bits = "".join(c for c in format.partition("a")[0] if c.isdigit())
    return f'<span class="chip b{bits or "32"}">{escape(format)}</span>'


def _card(title: str, value: str, label: str, under: str = "") -> str:
    return (
        f"<div class=card><h3>{title}</h3><p class=value>{value}</p>"
        f"<p class=label>{label}</p><p class=under>{under}</p></div>"
    )


def _summary(data: Data) -> str:
    size, base = data["size_bytes"], data["baseline"]["size"]
    reference = data["options"]["formats"][0]
    cards = [
        _card(
            "Size",
            f"{size / 1000:,.1f} kB",
            "counted",
            f"{100 * size / base:.0f} % of all {escape(reference)} ({base / 1000:,.1f} kB)",
        )
    ]
    acc = data["accuracy"]
    if acc["measured"] is not None:
        under = f"float {acc['float']:.2f} % (measured)"
        if acc["predicted"] is not None:
            under += f"<br>predicted {acc['predicted']:.2f} %"
        cards.append(
            _card(
                "Accuracy",
                f"{acc['measured']:.2f} %",
                f"measured on {acc['samples']:,} inputs",
                under,
            )
        )
    latency = data["latency_ms"]
    if latency["measured"] is not None:
        under = (
            f"sum of layers {latency['modelled']:.3f} ms (modelled)"
            f"<br>model error {100 * data['latency_error']:+.1f} %"
        )
        cards.append(
            _card(
                "Latency",
                f"{latency['measured']:.3f} ms",
                f"measured, {escape(str(data['machine']))}",
                under,
            )
        )
    elif latency["modelled"] is not None:
        label = f"{data['latency_kind']}, the layers and what else it does"
        under = f"not measured: {escape(str(data['machine'] or data['target']))}"
        cards.append(_card("Latency", f"{latency['modelled']:.3f} ms", label, under))
    climbed = [r for r in data["ladder"] if r["status"] != "skipped"]
    if climbed:
        failed = [r for r in climbed if r["status"] == "failed"]
        value = "failed" if failed else f"{len(climbed)} rungs"
        exact = sum(r["status"] == "exact" for r in climbed)
        cards.append(_card("Verification", value, "measured", f"{exact} exact, bit for bit"))
    return f"<section class=cards>{''.join(cards)}</section>"


def _missing(data: Data) -> str:
    lines = [*data["missing"], *data["notes"]]
    if not lines:
        return ""
    return "<section class=note>" + "".join(f"<p>{escape(x)}</p>" for x in lines) + "</section>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """A table of HTML cells; a cell that starts with ``#`` is a number, set to the right."""

    def cell(text: str) -> str:
        return f"<td class=n>{text[1:]}</td>" if text.startswith("#") else f"<td>{text}</td>"

    lines = [list(row) for row in rows]
    names = list(head)
    numbers = [any(line[i].startswith("#") for line in lines) for i in range(len(names))]
    top = "".join(
        f"<th class=n>{name}</th>" if number else f"<th>{name}</th>"
        for name, number in zip(names, numbers)
    )
    body = "".join(f"<tr>{''.join(map(cell, line))}</tr>" for line in lines)
    return f'<div class=scroll><table class="{kind}"><tr>{top}</tr>{body}</table></div>'


UNITS: dict[str, tuple[str, Callable[[float], str]]] = {
    "size": ("bytes, counted", lambda v: f"{v:,.0f}"),
    "bops": ("bit operations, counted", lambda v: f"{v:,.0f}"),
    "loss": ("modelled", lambda v: f"{v:.6g}"),
    "latency": ("ms, layers alone and summed", lambda v: f"{v:.4f}"),
}


def _certificate(data: Data) -> str:
    proof = data["certificate"]
    rows = []
    for name, value in data["totals"].items():
        unit, show = UNITS[name]
        limit = data["limits"].get(name)
        role = "minimised" if name == data["objective"] else ""
        slack = "" if limit is None else f"#{show(limit - value)} ({_share(limit - value, limit)})"
        rows.append(
            [
                escape(name),
                f"#{show(value)}",
                "" if limit is None else f"#{show(limit)}",
                slack,
                role,
                unit,
            ]
        )
    gap = "unknown" if proof["gap"] is None else f"{100 * proof['gap']:.3g} %"
    facts = (
        f"<p>Status <b>{escape(proof['status'])}</b>, gap <b>{gap}</b>, found by "
        f"{escape(proof['solver'])} in {1000 * proof['seconds']:.1f} ms (measured). "
        f"The loss is {escape(data['loss_kind'])}.</p>"
    )
    head = ["metric", "value", "upper limit", "slack", "", "what it is"]
    return f"<section><h2>Certificate</h2>{facts}{_table(head, rows)}</section>"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def _bars(before: float | None, after: float | None, top: float, text: str) -> str:
    """Two bars: the reference format above, the chosen one below."""

    def width(value: float | None) -> str:
        return f"{100 * (value or 0) / top:.1f}%" if top > 0 else "0"

    return (
        f'<div class=bars title="{escape(text)}"><i class=before style="width:{width(before)}"></i>'
        f'<i class=after style="width:{width(after)}"></i><span>{escape(text)}</span></div>'
    )


def _layers(data: Data) -> str:
    layers, reference = data["layers"], data["options"]["formats"][0]
    chosen = data["choices"]
    alone, reference_ms = data["layers_ms"] or {}, data["reference_ms"] or {}

    def value(layer: Data, metric: str, format: str) -> float | None:
        if metric == "latency_ms":
            known = alone if format == chosen[layer["name"]] else reference_ms
            found = known.get(layer["name"], layer[metric][format])
        else:
            found = layer[metric][format]
        return None if found is None else float(found)

    metrics: list[tuple[str, str, Callable[[float], str]]] = [
        ("size", "bytes", lambda v: f"{v:,.0f}"),
        ("loss", "loss", lambda v: f"{v:.3g}"),
        ("latency_ms", f"latency (ms, alone, {data['latency_kind']})", lambda v: f"{v:.4f}"),
    ]
    tops = {
        metric: max(
            (
                v
                for x in layers
                for f in (reference, chosen[x["name"]])
                if (v := value(x, metric, f)) is not None
            ),
            default=0.0,
        )
        for metric, _, _ in metrics
    }
    rows = []
    for layer in layers:
        row = [
            f"<b>{escape(layer['name'])}</b><br><small>{escape(layer['source'])}</small>",
            f"{escape(layer['op'])}<br><small>{'×'.join(map(str, layer['output_shape']))}</small>",
            _chip(chosen[layer["name"]]),
            f"#{layer['macs']:,}",
        ]
        for metric, _, show in metrics:
            before, after = (value(layer, metric, f) for f in (reference, chosen[layer["name"]]))
            if before is None and after is None:
                row.append("<small>not measured</small>")
                continue
            parts = [("?" if v is None else show(v)) for v in (before, after)]
            text = parts[1] if before == after else f"{parts[0]} → {parts[1]}"
            row.append(_bars(before, after, tops[metric], text))
        rows.append(row)
    head = ["layer", "operator", "format", "MACs", *(title for _, title, _ in metrics)]
    legend = (
        f"<p class=legend><i class=before></i> all {escape(reference)} "
        "<i class=after></i> chosen</p>"
    )
    return f"<section><h2>Layers</h2>{legend}{_table(head, rows, 'layers')}</section>"


def _accuracy(data: Data) -> str:
    acc = data["accuracy"]
    if acc["measured"] is None:
        return (
            "<section><h2>Accuracy</h2><p>Not measured: no labelled data was given (--eval).</p>"
            "</section>"
        )
    rows = [["float network", "", f"#{acc['float']:.2f} %"]]
    predicted = "" if acc["predicted"] is None else f"#{acc['predicted']:.2f} %"
    rows.append(["chosen integer network", predicted, f"#{acc['measured']:.2f} %"])
    html = _table(["network", "predicted", "measured"], rows)
    if acc["rounds"]:
        turns = [
            [
                str(i + 1),
                "" if r["loss_limit"] is None else f"#{r['loss_limit']:.4g}",
                f"#{r['loss']:.4g}",
                "" if r["predicted"] is None else f"#{r['predicted']:.2f} %",
                f"#{r['measured']:.2f} %",
                "met" if r["met"] else "missed",
            ]
            for i, r in enumerate(acc["rounds"])
        ]
        head = ["round", "loss limit", "loss", "predicted", "measured", "limit"]
        html += "<h3>Feedback rounds</h3>" + _table(head, turns)
    return f"<section><h2>Accuracy on {acc['samples']:,} inputs</h2>{html}</section>"


def _ladder(data: Data) -> str:
    rows = [
        [
            f"<b>{escape(r['rung'])}</b>",
            f'<span class="state {r["status"]}">{r["status"]}</span>',
            escape(r["why"]),
        ]
        for r in data["ladder"]
    ]
    return f"<section><h2>Ladder</h2>{_table(['rung', 'result', 'why'], rows)}</section>"


def _network(drawing: str) -> str:
    return (
        "<section><h2>Network</h2><p>Each box is an operator with its result; layers with "
        "weights carry their number format.</p>"
        f"<div class=drawing>{drawing}</div></section>"
    )


def _labels(data: Data) -> str:
    options = data["options"]
    rows = [
        ["counted", "exact arithmetic on the network's shapes and the chosen formats"],
        ["modelled", f"loss: {escape(data['loss_kind'])}; latency: sum of the layers' latencies"],
        ["measured", "run on real data or on the machine that is named; medians after warm-up"],
    ]
    given = {k: v for k, v in options.items() if v not in (None, [], False)}
    command = " ".join(f"{k}={escape(str(v))}" for k, v in given.items())
    return (
        f"<section><h2>Labels and options</h2>{_table(['label', 'meaning'], rows)}"
        f"<p><code>{command}</code></p></section>"
    )
