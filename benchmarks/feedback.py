# SPDX-License-Identifier: Apache-2.0
"""The feedback loop on this computer: how good the latency model is, how little it measures.

    python benchmarks/feedback.py --networks resnet18,mobilenetv2 [--json]

For each network latency is minimised under half the span of the loss, lazily: only what the solver
asks for is measured, inside the running network. Then the whole table is measured: every format
in every layer by itself, all in turns with the first network that the loop measured, which
brings them to the speed of the machine at that time. What the loop measured is kept, so that the
choice is judged and not the machine. Three questions:

* is the sum of shares the latency of a network? Of networks of random formats, which nothing was
  fitted to, the sum is compared with what they take.
* is the optimum under the whole table any better than the one found lazily? Under the table of
  entries that each ran by themselves, where noise between entries of the same code counts as a
  gain, and under the one in which one code has one time.
* is the whole table's optimum faster when both designs run in turns, on timings made after?

All figures are measured.
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

Entry = tuple[str, str]


def examine(
    network: str, formats: tuple[str, ...], mixes: int, rounds: int, budget: float
) -> dict[str, Any]:
    """All figures of one network."""
    from codesign.flow.choose import Session
    from codesign.flow.latency import solve_lazily
    from codesign.flow.options import DesignOptions
    from codesign.flow.prepare import prepare
    from codesign.flow.progress import SILENT
    from codesign.targets.host import HostTarget
    from codesign.targets.in_network import Profiler

    options = DesignOptions(
        f"zoo:{network}", formats=formats, objective="latency", loss_budget=budget
    )
    session = Session(prepare(options, SILENT), SILENT)
    target = session.prepared.target
    assert isinstance(target, HostTarget)
    bounds, layers = session.tables, session.tables.layers
    start = time.perf_counter()
    found = session.solve(None).choices
    seconds = time.perf_counter() - start
    assert found is not None
    lazily = dict(found)
    known = {item: float(session.tables.latency_ms[item[0]][item[1]])
             for item in session.tables.measured}  # fmt: skip
    ran, codes, reference = frozenset(session.owned), session.codes, session.first_measured

    rng = random.Random(0)
    designs: dict[str, Mapping[str, str]] = {f: dict.fromkeys(layers, f) for f in formats}
    designs |= {f"mix{i}": {layer: rng.choice(formats) for layer in layers} for i in range(mixes)}
    graphs = {name: session.quantize(choices) for name, choices in designs.items()}
    profilers = {n: Profiler(target.runner(graph), graph) for n, graph in graphs.items()}
    profilers["reference"] = Profiler(target.runner(reference), reference)
    for turn in range(rounds):
        names = list(profilers)
        for name in names if turn % 2 == 0 else reversed(names):
            profilers[name].round()
    beside = profilers["reference"], sum(known[item] for item in session.first_choices.items())
    each = {
        (layer, f): timing.median_ms
        for f in formats
        for layer, timing in profilers[f].result(*beside).items()
    } | {item: known[item] for item in ran}
    by_code = {item: known.get(item) or _mean(each, codes, item) for item in each}

    measured = {n: profiler.latency(*beside) for n, profiler in profilers.items()}
    unseen = [name for name in graphs if name not in formats]
    predicted = {n: sum(by_code[item] for item in designs[n].items()) for n in unseen}
    errors = {n: (predicted[n] - measured[n]) / measured[n] for n in unseen}

    def optimum(table: Mapping[Entry, float]) -> dict[str, str]:
        whole, _ = solve_lazily(bounds.with_measured(table), options, None, lambda *_: {})
        assert whole.choices is not None
        return dict(whole.choices)

    def excess(table: Mapping[Entry, float], best: Mapping[str, str]) -> float:
        lazy, full = (
            sum(Decimal(str(table[item])) for item in choices.items()) for choices in (lazily, best)
        )
        return round(float(lazy / full) - 1, 4)

    bests = {"each": optimum(each), "by_code": optimum(by_code)}
    entries = len(each)
    return {
        "network": network,
        "layers": len(layers),
        "entries": entries,
        "kernels": len(set(codes.values())),
        "entries_measured": len(ran),
        "kernels_measured": len({codes[item] for item in ran}),
        "share_measured": round(len(ran) / entries, 4),
        "share_of_kernels": round(len({codes[i] for i in ran}) / len(set(codes.values())), 4),
        "lazy_seconds": round(seconds, 1),
        "measured_ms": {n: round(v, 3) for n, v in measured.items()},
        "model_error": {n: round(e, 4) for n, e in errors.items()},
        "worst_model_error": round(max(abs(e) for e in errors.values()), 4),
        "spread_of_equal_code": round(_spread(each, codes, layers), 4),
        "lazy_optimum_ms": round(sum(by_code[item] for item in lazily.items()), 3),
        "excess_over_whole_table": {"by_code": excess(by_code, bests["by_code"]),
                                    "each": excess(each, bests["each"])},
        "layers_that_differ": {n: sum(b[a] != f for a, f in lazily.items())
                               for n, b in bests.items()},
        "lazy_over_whole_in_turns": {
            n: 1.0 if b == lazily else round(_in_turns(session, lazily, b, rounds), 4)
            for n, b in bests.items()
        },
    }  # fmt: skip


def _mean(each: Mapping[Entry, float], codes: Mapping[Entry, str], item: Entry) -> float:
    """Of all entries of the code of an entry in its layer."""
    alike = (v for other, v in each.items() if other[0] == item[0] and codes[other] == codes[item])
    return statistics.fmean(alike)


def _spread(
    each: Mapping[Entry, float], codes: Mapping[Entry, str], layers: tuple[str, ...]
) -> float:
    """Standard deviation of entries of the same code and layer, relative to their mean; the mean
    over layers with such, weighted with their time."""
    spreads, weights = [], []
    for layer in layers:
        alike: dict[str, list[float]] = {}
        for item, value in each.items():
            if item[0] == layer:
                alike.setdefault(codes[item], []).append(value)
        for values in (v for v in alike.values() if len(v) > 2):
            weights.append(statistics.fmean(values))
            spreads.append(statistics.stdev(values))
    return sum(spreads) / sum(weights) if weights else 0.0


def _in_turns(
    session: Any, one: Mapping[str, str], other: Mapping[str, str], rounds: int
) -> float:
    """Latency of a design over that of another, on fresh timings in turns."""
    from codesign.targets.layers import random_inputs

    graphs = [session.quantize(choices) for choices in (one, other)]
    runners = [session.prepared.target.runner(graph) for graph in graphs]
    inputs = random_inputs(graphs[0])
    ratios = []
    for turn in range(4 * rounds):
        first, second = (0, 1) if turn % 2 else (1, 0)
        times = {i: runners[i].time(inputs, repeats=6, warmup=2).median_ms for i in (first, second)}
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def main() -> None:
    """Print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="resnet18,mobilenetv2")
    parser.add_argument("--formats", default="w8a8,w7a8,w6a8,w5a8,w4a8,w3a8,w2a8")
    parser.add_argument("--loss-budget", type=float, default=0.5)
    parser.add_argument("--mixes", type=int, default=2, help="networks of random formats")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    formats = tuple(given.formats.split(","))
    with tempfile.TemporaryDirectory(prefix="codesign-feedback-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # nothing was measured before
        found = [
            examine(n, formats, given.mixes, given.rounds, given.loss_budget)
            for n in given.networks.split(",")
        ]
    if given.json:
        print(json.dumps({"results": found}, indent=1))
        return
    for row in found:
        print("\n".join(f"{key}: {value}" for key, value in row.items()), end="\n\n")


if __name__ == "__main__":
    main()
