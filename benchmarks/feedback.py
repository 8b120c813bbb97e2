# SPDX-License-Identifier: Apache-2.0
"""The feedback loop on this computer: how good the latency model is, how little it measures.

    python benchmarks/feedback.py --networks resnet18,mobilenetv2 [--json]

For each network: latency is minimised under half the span of the loss, lazily: only what the
solver asks for is measured, inside the running network. Then every entry of the table is
measured, all formats in turns with networks of random formats, which nothing was fitted to:
their measured latency against the sum of their layers' entries is the error of the model, and
the optimum under the whole table is what the lazy loop must have found. All figures are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def examine(network: str, formats: tuple[str, ...], mixes: int, rounds: int) -> dict[str, Any]:
    """All figures of one network."""
    from codesign.flow.choose import Session
    from codesign.flow.latency import solve_lazily
    from codesign.flow.options import DesignOptions
    from codesign.flow.prepare import prepare
    from codesign.flow.progress import SILENT
    from codesign.targets.host import HostTarget
    from codesign.targets.in_network import Profiler

    options = DesignOptions(
        f"zoo:{network}", formats=formats, objective="latency", loss_budget=0.5
    )
    session = Session(prepare(options, SILENT), SILENT)
    target = session.prepared.target
    assert isinstance(target, HostTarget)
    start = time.perf_counter()
    lazily = session.solve(None)
    seconds = time.perf_counter() - start
    assert lazily.choices is not None
    layers, bounds = session.tables.layers, session.tables
    runs = {(a, f) for a in layers for f in formats if (a, f) in session.tables.measured}

    rng = random.Random(0)
    graphs: dict[str, Mapping[str, str]] = {f: dict.fromkeys(layers, f) for f in formats}
    graphs["optimum"] = lazily.choices
    for index in range(mixes):
        graphs[f"mix{index}"] = {layer: rng.choice(formats) for layer in layers}
    profilers = {}
    for name, choices in graphs.items():
        graph = session.quantize(choices)
        profilers[name] = Profiler(target.runner(graph), graph)
    for _ in range(rounds):
        for profiler in profilers.values():
            profiler.round()
    table = {
        (layer, f): timing.median_ms
        for f in formats
        for layer, timing in profilers[f].result().items()
    }
    predicted = {n: sum(table[item] for item in c.items()) for n, c in graphs.items()}
    measured = {n: statistics.median(p.samples) for n, p in profilers.items()}
    unseen = [name for name in graphs if name not in formats]
    errors = {n: (predicted[n] - measured[n]) / measured[n] for n in unseen}

    whole, _ = solve_lazily(bounds.with_measured(table), options, None, lambda *_: {})
    assert whole.choices is not None
    total = sum(Decimal(str(table[item])) for item in whole.choices.items())
    return {
        "network": network,
        "layers": len(layers),
        "table_entries": len(layers) * len(formats),
        "own_measurements": _own(session, runs, formats),
        "share_measured": _own(session, runs, formats) / (len(layers) * len(formats)),
        "lazy_seconds": round(seconds, 1),
        "measured_ms": {n: round(v, 3) for n, v in measured.items()},
        "predicted_ms": {n: round(predicted[n], 3) for n in unseen},
        "model_error": {n: round(e, 4) for n, e in errors.items()},
        "worst_model_error": round(max(abs(e) for e in errors.values()), 4),
        "lazy_optimum_ms": round(predicted["optimum"], 3),
        "whole_table_optimum_ms": round(float(total), 3),
        "excess_of_lazy_optimum": round(predicted["optimum"] / float(total) - 1, 4),
    }


def _own(session: Any, known: set[tuple[str, str]], formats: tuple[str, ...]) -> int:
    """Entries with a measurement of their own: formats that run the same code share one."""
    target, kinds = session.prepared.target, session.prepared.formats
    count = 0
    for layer in session.tables.layers:
        classes: list[str] = []
        for name in (f for f in formats if (layer, f) in known):
            if not any(target.same_code(kinds[name], kinds[other]) for other in classes):
                classes.append(name)
        count += len(classes)
    return count


def main() -> None:
    """Print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="resnet18,mobilenetv2")
    parser.add_argument("--formats", default="w8a8,w6a8,w4a8,w2a8")
    parser.add_argument("--mixes", type=int, default=1, help="networks of random formats")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    formats = tuple(given.formats.split(","))
    with tempfile.TemporaryDirectory(prefix="codesign-feedback-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # nothing was measured before
        found = [examine(n, formats, given.mixes, given.rounds) for n in given.networks.split(",")]
    if given.json:
        print(json.dumps({"results": found}, indent=1))
        return
    for row in found:
        print("\n".join(f"{key}: {value}" for key, value in row.items()), end="\n\n")


if __name__ == "__main__":
    main()
