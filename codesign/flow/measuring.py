# SPDX-License-Identifier: Apache-2.0
"""``codesign measure``: latency of the built network and of its layers, on the target.

With ``refine`` the measured layers enter the tables and the design is chosen again, until the
chosen design is fully measured and still optimal (DESIGN, section 2).
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from codesign.flow.artifact import Design
from codesign.flow.building import build, load_integer
from codesign.flow.choose import Session, design
from codesign.flow.partition import accelerator_ms
from codesign.flow.prepare import device_target, noise_inputs, prepare
from codesign.flow.progress import SILENT, Progress
from codesign.flow.store import file_digest, make_folder, read_json, write_json
from codesign.ir.graph import Graph
from codesign.quant.formats import load_format
from codesign.targets.base import Target

REMOTE = "remote device"
"""How the name of a machine behind a tracker begins."""
MEASURED_FORMAT = "codesign-measured/1"


@dataclass(frozen=True)
class Measured:
    """Latencies in milliseconds: medians after warm-up, batch as designed."""

    target: str
    machine: str
    network_ms: float | None
    """The whole network, measured; None where the target cannot time it."""
    network_least_ms: float | None
    samples: int
    layers_ms: dict[str, float]
    """Each layer with weights: its share of the network's latency, or alone (docs/targets.md)."""
    reference_ms: dict[str, float]
    """The same in the reference format, for the layers that run the same code in it."""
    modelled_ms: float
    """What the tables say of the network: the sum over its layers; of an accelerator, what the
    event model says."""
    table_share: float
    """Share of the (layer, format) table that was measured."""
    design_digest: str
    kind: str = "measured"
    """What the layers' latencies are: measured, simulated or modelled."""
    counts: dict[str, int] = field(default_factory=dict)
    """What was counted of one call where it could not be timed: emulated instructions."""

    @property
    def model_error(self) -> float | None:
        """(modelled − measured) / measured; other operators and call overheads are not modelled."""
        if self.network_ms is None:
            return None
        return (self.modelled_ms - self.network_ms) / self.network_ms

    @classmethod
    def load(cls, folder: Path) -> Measured:
        """Read ``measured.json``; raises InputError."""
        data = read_json(folder / "measured.json", MEASURED_FORMAT, f"codesign measure {folder}")
        del data["format"]
        data.pop("model_error", None)
        return cls(**data)


def _whole(target: Target, graph: Graph, layers: dict[str, float]) -> float:
    """Milliseconds of the network by the model, with operators that have no weights.

    On a CPU these are part of the layers that they are fused into; an accelerator runs them as
    work of their own: its total is the event model's of what runs on it. What the ARM cores beside
    it and transfers take is told apart, in the report.
    """
    hardware, device = getattr(target, "hardware", None), target.device
    if hardware is None or device is None:
        return sum(layers.values())
    return accelerator_ms(graph, hardware, device)


def measure(
    folder: Path,
    refine: bool = False,
    progress: Progress = SILENT,
    *,
    rpc: str | None = None,
    rpc_key: str | None = None,
) -> Measured:
    """Time the design's build; writes ``measured.json``.

    With ``refine``, chooses again under measured layer latencies first; ``design.json``, the
    build and the measurements are those of the refined design. ``rpc`` and ``rpc_key`` name a
    device as in ``DesignOptions``, by default the one that the design was made for.
    """
    if refine:
        _refine(folder, progress, rpc, rpc_key)
    build(folder, progress, place=None, rpc=rpc, rpc_key=rpc_key)
    chosen = Design.load(folder)
    target = device_target(chosen.options.on_device(rpc, rpc_key)).with_design(folder)
    graph = load_integer(folder)
    verb = "Measuring" if target.latency_kind == "measured" else "Modelling"
    with progress.task(f"{verb} {len(chosen.choices)} layers on {target.name}"):
        timings = target.network_latency(graph)
    layers = {layer: timings[layer].median_ms for layer in chosen.choices}
    batch = graph.type(graph.inputs[0]).shape[0]
    timing = None
    if target.latency_kind == "measured":
        with progress.task(f"Measuring the network on {target.name}"):
            timing = target.load(folder / "build" / target.name).time(
                [noise_inputs(graph, batch, chosen.options.seed)]
            )
    counts: dict[str, int] = {}
    if target.latency_kind == "modelled":
        with progress.task(f"Counting instructions for {target.name}"):
            counts = target.modelled_counts(folder / "build" / target.name)
    known = {(layer, name) for layer, name in chosen.choices.items()} | {
        (facts.name, name)
        for facts in chosen.layers
        for name, value in facts.latency_ms.items()
        if value is not None
    }
    entries = sum(len(facts.latency_ms) for facts in chosen.layers)
    result = Measured(
        target=target.name,
        machine=_machine_of(target) if timing else target.description,
        network_ms=timing.median_ms if timing else None,
        network_least_ms=timing.min_ms if timing else None,
        samples=timing.samples if timing else 0,
        layers_ms=layers,
        reference_ms={
            layer: layers[layer]
            for layer, name in chosen.choices.items()
            if target.same_code(load_format(name), load_format(chosen.options.formats[0]))
        },
        modelled_ms=_whole(target, graph, layers),
        table_share=len(known) / entries if target.latency_kind == "measured" else 0.0,
        design_digest=file_digest(folder / "design.json"),
        kind=target.latency_kind,
        counts=counts,
    )
    write_json(
        folder / "measured.json",
        {"format": MEASURED_FORMAT, **asdict(result), "model_error": result.model_error},
    )
    return result


def _machine_of(target: Target) -> str:
    remote = getattr(target, "remote", None)
    return machine() if remote is None else f"{REMOTE} {remote.key!r} at {remote.address}"


def _refine(folder: Path, progress: Progress, rpc: str | None, rpc_key: str | None) -> None:
    """Choose again with measured latencies; keeps the folder's data and limits."""
    options = Design.load(folder).options.on_device(rpc, rpc_key)
    if options.wants_latency:
        progress.note("the design was chosen under measured layer latencies; checking it")
        design(options, folder, progress)
        return
    # latency plays no part in the choice: measure the chosen entries so that reports have them
    chosen = Design.load(folder)
    session = Session(prepare(options, progress), progress)
    found = session.measure_layers(chosen.choices, frozenset(chosen.choices))
    session.tables = session.tables.with_measured(found)
    facts = session.tables.facts(session.prepared.graph, session.prepared.macs)
    totals = {k: float(v) for k, v in session.tables.totals(chosen.choices).items()}
    replace(chosen, layers=facts, totals=totals).save(make_folder(folder))


def machine() -> str:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"
