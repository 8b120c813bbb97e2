#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Per-layer mapping on the Simba-like machine: the exact search against CoSA's program on HiGHS.

Every different dense layer of a network (ResNet50 when not told otherwise): seconds and modelled
latency of both, under the same model (``codesign.space.mapping``). CoSA's poster has 4.2 s a layer
with Gurobi on its authors' machine; that is no figure of this run.

    python benchmarks/cosa.py --network resnet50 --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from typing import Any

from codesign.flow.joint.cosa import map_layer_cosa
from codesign.frontend import load_network
from codesign.passes import prepare
from codesign.space.mapping import MapLayer, map_layer_exact
from codesign.space.workload import workload_of


def layers_of(network: str) -> dict[str, MapLayer]:
    """The different layers of a zoo network by the name of the first of each."""
    graph = prepare().run(load_network(f"zoo:{network}").graph).graph
    found: dict[MapLayer, str] = {}
    for layer in workload_of(graph).layers:
        if layer.shape.kind == "dense" and layer.shape.groups == 1:
            found.setdefault(MapLayer.of(layer.shape), layer.name)
    return {name: layer for layer, name in found.items()}


def measure(layer: MapLayer, time_limit: float) -> dict[str, Any]:
    """Both mappers on one layer."""
    start = time.perf_counter()
    exact = map_layer_exact(layer)
    middle = time.perf_counter()
    program = map_layer_cosa(layer, time_limit=time_limit)
    end = time.perf_counter()
    return {
        "loops_rspqck": layer.bounds,
        "stride": layer.stride,
        "exact_seconds": middle - start,
        "cosa_seconds": end - middle,
        "exact_cycles_modelled": exact.cost.latency,
        "cosa_cycles_modelled": program.cost.latency,
        "exact_bytes_modelled": exact.cost.noc_bytes + exact.cost.dram_bytes,
        "cosa_bytes_modelled": program.cost.noc_bytes + program.cost.dram_bytes,
        "cosa_optimal": program.optimal,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds a layer for HiGHS")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
        "network": options.network,
        "layers": {},
    }
    for name, layer in layers_of(options.network).items():
        report["layers"][name] = measure(layer, options.time_limit)
    rows = report["layers"].values()
    report["never_above_cosa"] = all(
        r["exact_cycles_modelled"] <= r["cosa_cycles_modelled"] for r in rows
    )
    report["exact_seconds_max"] = max(r["exact_seconds"] for r in rows)
    report["cosa_seconds_max"] = max(r["cosa_seconds"] for r in rows)
    for what in ("exact", "cosa"):
        report[f"{what}_cycles_modelled"] = sum(r[f"{what}_cycles_modelled"] for r in rows)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print(f"{report['machine']}, {report['date']}; cycles and bytes modelled")
        for name, r in report["layers"].items():
            print(
                f"{name:28} exact {r['exact_seconds']:7.4f} s {r['exact_cycles_modelled']:>8}   "
                f"CoSA {r['cosa_seconds']:7.3f} s {r['cosa_cycles_modelled']:>8}"
            )
        print(
            f"slowest layer {report['exact_seconds_max']:.4f} s against "
            f"{report['cosa_seconds_max']:.2f} s; cycles of all different layers "
            f"{report['exact_cycles_modelled']} against {report['cosa_cycles_modelled']}; "
            f"{'never above' if report['never_above_cosa'] else 'ABOVE'} the program's"
        )
    return 0 if report["never_above_cosa"] else 1


if __name__ == "__main__":
    sys.exit(main())
