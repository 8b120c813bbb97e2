# SPDX-License-Identifier: Apache-2.0
"""``codesign pareto``: the frontier of a design question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from codesign.cli import show
from codesign.cli.app import _design_options, _progress, app, design_options

_ROWS = 24
"""Most rows printed; the files hold all."""


@app.command()
@design_options
@click.option(
    "--x",
    default="size",
    show_default=True,
    help="Metric: latency, size, loss, bops; of an FPGA board latency, throughput, size, loss, "
    "energy, traffic, dsp, lut, ff, ramb18.",
)
@click.option("--y", default="loss", show_default=True, help="Metric, least for each x.")
@click.option(
    "--points",
    type=int,
    default=1000,
    show_default=True,
    help="Most points, spread over the whole range; 0: all there are.",
)
@click.option("--measure", is_flag=True, help="Measure the accuracy of each point (needs --eval).")
def pareto(out: Path, json: bool, x: str, y: str, points: int, measure: bool, **given: Any) -> None:
    """The whole exact frontier; writes OUT/pareto.json and OUT/pareto.html."""
    from codesign.flow.pareto import pareto as explore
    from codesign.flow.pareto import table
    from codesign.solvers.decimals import dump_json

    found = explore(
        _design_options(**given),
        out,
        x=x,
        y=y,
        points=points,
        measure=measure,
        progress=_progress(json),
    )
    if json:
        click.echo(dump_json(found.to_data()))
        return
    head, rows = table(found)
    step = max(1, -(-len(rows) // _ROWS))
    show._table(head, rows[:-1:step] + rows[-1:])
    state = "complete" if found.complete else f"not complete: {found.why}"
    shown = f", every {step}. shown" if step > 1 else ""
    click.echo(f"\n{len(rows)} proven points ({state}){shown}")
    click.echo(f"loss is {found.loss_kind}")
    click.echo(f"frontier: {out}/pareto.html, {out}/pareto.json")
