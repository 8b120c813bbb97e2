# SPDX-License-Identifier: Apache-2.0
"""``codesign build --synthesise``: what yosys makes of a design's accelerator, for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.flow.artifact import Design
from codesign.flow.prepare import load_target
from codesign.flow.progress import SILENT, Progress
from codesign.flow.store import make_folder, read_json, write_json
from codesign.targets.fpga.design import Hardware

FORMAT = "codesign-synthesised/1"


def synthesise(folder: Path, progress: Progress = SILENT) -> Path:
    """Synthesise the accelerator of a design; minutes for small ones, the better part of an hour
    for large ones. Kept by content. Writes ``build/BOARD.synthesised.json``.

    Raises InputError for a design without an accelerator, ToolNotFoundError without yosys.
    """
    from amaranth.back import rtlil

    from codesign.targets.fpga.build.synth import synthesise as run
    from codesign.targets.fpga.hw.top import NAME, Top

    target = load_target(Design.load(folder).options.target)
    if target.device is None:
        raise InputError(
            f"--synthesise: target {target.name} has no accelerator; leave out --synthesise"
        )
    hardware = Hardware.load(folder)
    with progress.task(f"Synthesising {hardware.accelerator.name} for {target.device.part}"):
        top = Top(hardware.accelerator)
        text = rtlil.convert(top, name=NAME, ports=top.ports, emit_src=False)
        found = run(text, NAME, target.device.family)  # type: ignore[arg-type]
    path = _path(folder, hardware)
    make_folder(path.parent)
    write_json(path, {
        "format": FORMAT, "accelerator": hardware.accelerator.name, "dsp": found.dsp,
        "lut": found.lut, "ff": found.ff, "ramb18": found.ramb18, "tool": found.tool,
        "seconds": found.seconds,
    })  # fmt: skip
    return path


def synthesised(folder: Path, hardware: Hardware) -> dict[str, Any] | None:
    """What ``synthesise`` found for this very accelerator; None if it did not run."""
    path = _path(folder, hardware)
    if not path.is_file():
        return None
    data: dict[str, Any] = read_json(path, FORMAT, "codesign build DIR --synthesise")
    return data if data["accelerator"] == hardware.accelerator.name else None


def _path(folder: Path, hardware: Hardware) -> Path:
    return folder / "build" / f"{hardware.board}.synthesised.json"
