# SPDX-License-Identifier: Apache-2.0
"""The frontier as one interactive HTML file that needs no network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from codesign.solvers.decimals import plain

if TYPE_CHECKING:
    from codesign.flow.pareto import Design, Frontier

_LAYERS = 30
"""Most layers named in one label."""
_COLOURS = ("#1b6ca8", "#e08e45", "#3a9d6e", "#a4457a", "#7a6c5d", "#c8b631", "#56b4c9", "#555555")


def page(found: Frontier) -> str:
    """The whole file, plotly.js inside."""
    from plotly.graph_objects import Figure, Heatmap, Scatter
    from plotly.subplots import make_subplots

    points = found.points
    figure: Figure = make_subplots(
        rows=2,
        cols=1,
        row_heights=[0.6, 0.4],
        vertical_spacing=0.14,
        subplot_titles=("Exact frontier", "Formats along the frontier, layer by layer"),
    )

    def values(designs: list[Design], metric: str) -> list[float]:
        return [float(design.totals[metric]) for design in designs]

    measured = [p.accuracy for p in points if p.accuracy is not None]
    marker: dict[str, Any] = {"size": 8, "color": _COLOURS[0]}
    if measured:
        marker |= {
            "color": measured,
            "colorscale": "Viridis",
            "colorbar": {"title": "measured<br>accuracy, %", "len": 0.6, "y": 0.75},
        }
    figure.add_trace(
        Scatter(
            x=values(list(points), found.x),
            y=values(list(points), found.y),
            mode="lines+markers",
            # between two points the frontier is the worse of the two
            line={"shape": "hv", "color": "#9db8cc", "width": 1},
            marker=marker,
            name="proven frontier",
            text=[label(point, found) for point in points],
            hovertemplate="%{text}<extra></extra>",
        ),
        row=1,
        col=1,
    )
    uniform = list(found.uniform.items())
    figure.add_trace(
        Scatter(
            x=values([design for _, design in uniform], found.x),
            y=values([design for _, design in uniform], found.y),
            mode="markers+text",
            marker={"size": 11, "symbol": "diamond-open", "color": "#b03030"},
            name="all layers alike",
            text=[
                escape(name) + ("" if design.within_limits else " (breaks a limit)")
                for name, design in uniform
            ],
            textposition="top center",
            customdata=[label(design, found) for _, design in uniform],
            hovertemplate="%{customdata}<extra></extra>",
        ),
        row=1,
        col=1,
    )
    used = (name for p in points for name in p.choices.values())
    formats = list(found.uniform) or sorted(set(used), reverse=True)
    layers = list(points[0].choices)
    # sharp steps: one colour a format
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(formats))]
    scale = [
        (edge / len(formats), colour) for i, colour in enumerate(colours) for edge in (i, i + 1)
    ]
    figure.add_trace(
        Heatmap(
            z=[[formats.index(p.choices[layer]) for p in points] for layer in layers],
            x=list(range(1, len(points) + 1)),
            y=layers,
            zmin=-0.5,
            zmax=len(formats) - 0.5,
            colorscale=scale,
            colorbar={
                "tickvals": list(range(len(formats))),
                "ticktext": formats,
                "len": 0.4,
                "y": 0.17,
            },
            text=[[p.choices[layer] for p in points] for layer in layers],
            hovertemplate="point %{x}<br>%{y}: %{text}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    best = "greatest" if found.x == "throughput" else "least"
    figure.update_xaxes(title_text=f"{found.x}: {found.units[found.x]}", row=1, col=1)
    figure.update_yaxes(title_text=found.y, row=1, col=1)
    figure.update_xaxes(title_text=f"point, from the {best} {found.x}", row=2, col=1)
    figure.update_yaxes(autorange="reversed", row=2, col=1)
    state = "complete" if found.complete else f"not complete: {found.why}"
    accuracy = (
        f"; float network {found.float_accuracy:.2f} % (measured on {found.samples} inputs)"
        if found.float_accuracy is not None
        else ""
    )
    figure.update_layout(
        title=escape(
            f"{found.name} on {found.target}: {found.y} against {found.x}, "
            f"{len(points)} proven points ({state})"
        )
        + f"<br><sub>loss is {escape(found.loss_kind)}{accuracy}</sub>",
        template="plotly_white",
        height=500 + max(300, 14 * len(layers)),
        legend={"orientation": "h", "y": 1.0, "x": 1, "xanchor": "right", "yanchor": "bottom"},
        hoverlabel={"align": "left"},
    )
    text: str = figure.to_html(
        full_html=True, include_plotlyjs=True, div_id="pareto", config={"displaylogo": False}
    )
    return text


def label(design: Design, found: Frontier) -> str:
    """What shows when the mouse is over a point."""
    from codesign.flow.pareto import summary

    lines = [f"<b>{summary(design.choices)}</b>"]
    lines += [f"{name}: {plain(value)}" for name, value in design.totals.items()]
    if design.accuracy is not None:
        lines.append(f"accuracy: {design.accuracy:.2f} % (measured)")
    if design.hardware is not None:
        lines.append(f"accelerator: {escape(str(design.hardware['name']))} (modelled)")
    if design.certificate is not None:
        proof = design.certificate
        better = "more" if found.y == "throughput" else "less"
        lines.append(f"{proof['status']}: no design of this {found.x} has {better} {found.y}")
    counts = list(design.choices.values())
    common = max(set(counts), key=counts.count)
    named = list(design.choices.items())
    if len(named) > _LAYERS:
        named = [(layer, name) for layer, name in named if name != common]
        lines.append(f"all layers {common}" + (" but:" if named else ""))
    lines += [f"{escape(layer)}: {name}" for layer, name in named[:_LAYERS]]
    if len(named) > _LAYERS:
        lines.append(f"and {len(named) - _LAYERS} more")
    return "<br>".join(lines)
