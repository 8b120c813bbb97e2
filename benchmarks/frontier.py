#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The frontier of the joint problem: seconds a point, warm against cold, processes, a dask cluster.

Loss against modelled latency of a zoo network on a board, ``--points`` points. ``warm`` is one
process whose questions share tables, designs and multipliers; ``cold`` asks the same bounds each on
its own; ``loky`` and ``dask`` hand them to two processes, the latter of a local dask cluster.
Exits with 1 when two ways disagree on a point.

    python benchmarks/frontier.py --network resnet8 --board ultra96 --points 24 --json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib

from codesign.flow.frontier import Explorer
from codesign.flow.joint import joint_problem
from codesign.flow.joint.frontier import JointPoint, JointQuestion
from codesign.flow.joint.problem import PriceStore


def sibling(name: str) -> ModuleType:
    """Another benchmark, for the networks it reads."""
    path = Path(__file__).resolve().with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def question(network: str, board: str, way: str) -> JointQuestion:
    """A frontier that nothing is known of yet."""
    joint = sibling("joint")
    workload, loss = joint.load(network, joint.FORMATS)
    problem = joint_problem(
        workload, board, formats=joint.FORMATS, loss=loss, objective="loss", also=("latency",)
    )
    return JointQuestion(problem, "loss", "latency", name=f"{network} {board} {way}")


def explore(asked: JointQuestion, points: int, jobs: int) -> tuple[dict[int, JointPoint], float]:
    """The points by latency in cycles, and the seconds they took."""
    explorer: Explorer[JointPoint] = Explorer(asked, points, jobs)
    start = time.perf_counter()
    explorer.run()
    return explorer.points, time.perf_counter() - start


def cold(asked: JointQuestion, points: dict[int, JointPoint]) -> tuple[list[Any], float]:
    """The same bounds, each without anything known."""
    found, start = [], time.perf_counter()
    for place, point in enumerate(points.values()):
        fresh = replace(asked.problem, store=PriceStore())
        found.append(replace(asked, problem=fresh, name=f"cold {place}").ask(point.bound))
    return found, time.perf_counter() - start


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--board", default="ultra96")
    parser.add_argument("--points", type=int, default=24)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--ways", default="warm,cold,loky,dask")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    ways = options.ways.split(",")
    warm, seconds = explore(
        question(options.network, options.board, "warm"), options.points, jobs=1
    )
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
        "network": options.network,
        "board": options.board,
        "points": len(warm),
        "seconds": {"warm": seconds},
        "warm_starts": sum(point.certificate.warm for point in warm.values()),
        "certified": all(point.certificate.gap == 0 for point in warm.values()),
        "loss": [float(warm[low].first) for low in sorted(warm)],
        "latency_cycles_modelled": sorted(warm),
    }
    agree = True
    if "cold" in ways:
        alone, report["seconds"]["cold"] = cold(
            question(options.network, options.board, "cold"), warm
        )
        agree &= [(p.first, p.second) for p in alone] == [
            (p.first, p.second) for p in warm.values()
        ]
    for way in [way for way in ways if way in ("loky", "dask")]:
        asked = question(options.network, options.board, way)
        if way == "dask":
            from dask.distributed import Client, LocalCluster

            with (
                LocalCluster(n_workers=options.jobs, threads_per_worker=1,
                             dashboard_address=None) as cluster,
                Client(cluster) as client, joblib.parallel_config("dask"),
            ):  # fmt: skip
                report["dask_workers"] = len(client.scheduler_info()["workers"])
                points, report["seconds"][way] = explore(asked, options.points, options.jobs)
        else:
            with joblib.parallel_config(way):
                points, report["seconds"][way] = explore(asked, options.points, options.jobs)
        report.setdefault("points_of", {})[way] = len(points)
        agree &= all(points[low].first == warm[low].first for low in points if low in warm)
    report["agree"] = agree
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for way, taken in report["seconds"].items():
            print(f"{way:5} {taken:7.2f} s for {report['points']} points")
        print("all ways agree" if agree else "THEY DISAGREE")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
