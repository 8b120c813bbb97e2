# SPDX-License-Identifier: Apache-2.0
"""The content of ``report.json``: everything known of a design, each figure under its label."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.flow.artifact import Design
from codesign.flow.explaining import explanation
from codesign.flow.ladder import LADDER_FORMAT, RUNGS, networks_digest
from codesign.flow.measuring import REMOTE, Measured
from codesign.flow.prepare import load_target
from codesign.flow.report.hardware import hardware_data
from codesign.flow.store import file_digest, read_json

FORMAT = "codesign-report/1"


def gather(folder: Path) -> dict[str, Any]:
    """Read the design folder; what was not done yet is null and listed under ``missing``."""
    chosen = Design.load(folder)
    missing = []
    measured = _measured(folder)
    if measured is None:
        missing.append(f"no latency was measured: codesign measure {folder}")
    rungs = _ladder(folder)
    if rungs is None:
        missing.append(f"the network was not verified: codesign verify {folder}")
        rungs = [
            {"rung": name, "status": "skipped", "why": "codesign verify was not run"}
            for name in RUNGS
        ]
    facts = chosen.accuracy
    hardware = hardware_data(folder)
    simulated = None
    if hardware and hardware["cycles"]["simulated"]:
        simulated = hardware["cycles"]["simulated"] / hardware["clock_hz"] * 1e3
    return {
        "format": FORMAT,
        "name": chosen.name,
        "target": chosen.options.target,
        "certificate": asdict(chosen.certificate),
        "objective": chosen.objective,
        "limits": dict(chosen.limits),
        "totals": dict(chosen.totals),
        "baseline": dict(chosen.baseline),
        "loss_kind": chosen.loss_kind,
        "choices": dict(chosen.choices),
        "layers": [asdict(layer) for layer in chosen.layers],
        "ladder": rungs,
        "latency_ms": {
            "modelled": measured.modelled_ms if measured else chosen.totals.get("latency"),
            "simulated": simulated,
            "measured": measured.network_ms if measured else None,
        },
        "latency_kind": _latency_kind(chosen, measured),
        "counts": measured.counts if measured else None,
        "latency_error": measured.model_error if measured else None,
        "layers_ms": measured.layers_ms if measured else None,
        "reference_ms": measured.reference_ms if measured else None,
        "table_share": measured.table_share if measured else None,
        "machine": measured.machine if measured else None,
        "cycles": {
            "modelled": hardware["cycles"]["modelled"] if hardware else None,
            "simulated": hardware["cycles"]["simulated"] if hardware else None,
        },
        "resources": hardware["resources"] if hardware else {},
        "hardware": hardware,
        "accuracy": {
            "float": facts.baseline,
            "predicted": facts.predicted,
            "measured": facts.measured,
            "samples": facts.samples,
            "rounds": [asdict(item) for item in facts.rounds],
        },
        "size_bytes": chosen.size_bytes,
        "options": chosen.options.to_data(),
        "notes": list(chosen.notes),
        "missing": missing,
        "explanation": explanation(folder, chosen.input_digest),
    }


def _latency_kind(chosen: Design, measured: Measured | None) -> str:
    """What the layers' latencies are: of a board they are modelled, unless one was asked."""
    if chosen.options.rpc or (measured and measured.machine.startswith(REMOTE)):
        return "measured on a remote device"
    return load_target(chosen.options.target).latency_kind


def _measured(folder: Path) -> Measured | None:
    """Measurements of this very design; those of an older one would lie."""
    if not (folder / "measured.json").is_file():
        return None
    found = Measured.load(folder)
    return found if found.design_digest == file_digest(folder / "design.json") else None


def _ladder(folder: Path) -> list[dict[str, str]] | None:
    path = folder / "ladder.json"
    try:
        data = read_json(path, LADDER_FORMAT, f"codesign verify {folder}")
    except InputError:
        if path.is_file():
            raise
        return None
    if data.get("networks") != networks_digest(folder):
        return None  # rungs of another design
    rungs: list[dict[str, str]] = data["ladder"]
    return rungs
