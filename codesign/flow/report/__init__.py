# SPDX-License-Identifier: Apache-2.0
"""``codesign report``: one HTML page for people, one JSON file for scripts."""

from __future__ import annotations

from pathlib import Path

from codesign.flow.building import load_float
from codesign.flow.progress import SILENT, Progress
from codesign.flow.report.data import gather
from codesign.flow.report.page import page
from codesign.flow.store import write_json, write_text
from codesign.ir.draw import NodeStyle, to_svg

COLOURS = {
    "2": "#f6c9dd",
    "3": "#f8d2c4",
    "4": "#fbdfb4",
    "5": "#f0ebb5",
    "6": "#d8ecc0",
    "7": "#c5e8e3",
    "8": "#cfdcfb",
}
FLOAT_COLOUR = "#e5e7eb"


def report(folder: Path, progress: Progress = SILENT) -> Path:
    """Write ``report.json`` and ``report.html`` into the design's folder; returns the page.

    Parts that were not done yet (verify, measure) are left null and said so. Raises InputError
    when the folder holds no design.
    """
    data = gather(folder)
    with progress.task("Writing the report"):
        styles = {
            layer: NodeStyle(fill=_colour(format), note=format)
            for layer, format in data["choices"].items()
        }
        html = page(data, to_svg(load_float(folder), styles=styles))
        write_json(folder / "report.json", data)
        write_text(folder / "report.html", html)
    return folder / "report.html"


def _colour(format: str) -> str:
    bits = "".join(c for c in format.partition("a")[0] if c.isdigit())
    return COLOURS.get(bits, FLOAT_COLOUR)
