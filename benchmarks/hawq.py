#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""HAWQ-V3's nine ResNet18 programs: seconds per solver, warm, in one process.

Minimise the Hessian-weighted quantization error of 4 or 8 bit weights per layer, with one limit
on model size, bit operations or latency, at 25, 50 or 75 % of the way from all 4 to all 8 bit;
both layers of a down-sampling pair share their bits. Data: shared/data/hawq (see its README),
found by $CODESIGN_DATA or beside the repository.

    python benchmarks/hawq.py --solvers exact,cp-sat,highs,cbc --repeat 9 --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from codesign.solvers import Problem, Status, registry, solve
from codesign.solvers.decimals import plain
from codesign.solvers.problem_file import problem_from_data

METRICS = ("size", "bops", "latency")
SHARES = (Decimal("0.25"), Decimal("0.5"), Decimal("0.75"))


def data_file() -> Path:
    """Where the published tables lie, whether they are there or not."""
    root = os.environ.get("CODESIGN_DATA")
    base = Path(root) if root else Path(__file__).resolve().parents[2] / "shared" / "data"
    return base / "hawq" / "resnet18.json"


def programs(path: Path) -> dict[str, Problem]:
    """The nine problems by name, such as "latency-0.50"; all numbers exact."""
    data = json.loads(path.read_text(), parse_float=Decimal)
    layers = [f"layer{i}" for i in range(len(data["parameters"]))]
    four, eight = "w4a4", "w8a8"

    def table(low: list[Decimal], high: list[Decimal]) -> dict[str, dict[str, Decimal]]:
        return {
            name: {four: Decimal(a), eight: Decimal(b)} for name, a, b in zip(layers, low, high)
        }

    trace = data["Hutchinson_trace"]
    bops = data["bops"]
    metrics = {
        "loss": table(
            [t * d for t, d in zip(trace, data["delta_weights_4bit_square"])],
            [t * d for t, d in zip(trace, data["delta_weights_8bit_square"])],
        ),
        # bytes; million bit operations (a b-bit layer costs bops / (32/b)^2); milliseconds
        "size": table([Decimal(p) / 2 for p in data["parameters"]], data["parameters"]),
        "bops": table([b / 64 for b in bops], [b / 16 for b in bops]),
        "latency": table(data["latency_int4"], data["latency_int8"]),
    }
    found: dict[str, Problem] = {}
    for metric in METRICS:
        low = sum(value[four] for value in metrics[metric].values())
        high = sum(value[eight] for value in metrics[metric].values())
        for share in SHARES:
            name = f"{metric}-{share:.2f}"
            found[name] = problem_from_data(
                {
                    "format": "codesign-problem/1",
                    "name": f"hawq-v3-resnet18-{name}",
                    "choices": {layer: [four, eight] for layer in layers},
                    "metrics": metrics,
                    "minimize": "loss",
                    "limits": {metric: low + share * (high - low)},
                    "ties": [[f"layer{i}" for i in tie] for tie in data["ties"]],
                },
                source=name,
            )
    return found


def measure(problem: Problem, names: list[str], repeat: int) -> dict[str, Any]:
    """Per solver the median and extreme seconds of ``repeat`` warm solves (the solvers take
    turns, so that other load hits all alike), with the answer."""
    answers = {name: solve(problem, name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeat):
        for name in names:
            start = time.perf_counter()
            answers[name] = solve(problem, name)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "status": str(solution.status),
            "objective": None if solution.objective is None else plain(solution.objective),
            "median_ms": 1e3 * statistics.median(seconds[name]),
            "min_ms": 1e3 * min(seconds[name]),
            "max_ms": 1e3 * max(seconds[name]),
        }
        for name, solution in answers.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solvers", default="exact,cp-sat,highs,cbc")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    path = data_file()
    if not path.exists():
        print(f"no data at {path}; set CODESIGN_DATA to the folder that holds hawq/")
        return 2
    names = options.solvers.split(",")
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
        "repeat": options.repeat,
        "programs": {},
        "skipped": {},
    }
    for name in list(names):
        found = registry.load(name).availability()
        if not found:
            report["skipped"][name] = found.why
            names.remove(name)
    agree = True
    for label, problem in programs(path).items():
        row = measure(problem, names, options.repeat)
        answers = {entry["objective"] for entry in row.values()}
        proven = all(entry["status"] == Status.OPTIMAL for entry in row.values())
        agree &= proven and len(answers) == 1
        report["programs"][label] = row
    report["all_optimal_and_agree"] = agree
    _ratios(report, names)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _show(report, names)
    return 0 if agree else 1


def _ratios(report: dict[str, Any], names: list[str]) -> None:
    """How many times faster than HiGHS in this run, by medians."""
    if "highs" not in names:
        return
    for row in report["programs"].values():
        for entry in row.values():
            entry["times_faster_than_highs"] = row["highs"]["median_ms"] / entry["median_ms"]


def _show(report: dict[str, Any], names: list[str]) -> None:
    print(f"{report['machine']}, {report['date']}; {report['repeat']} warm solves in turn")
    print("median ms (and how many times faster than highs)")
    print(f"{'program':14}" + "".join(f"{name:>20}" for name in names) + "   optimum")
    for label, row in report["programs"].items():
        cells = []
        for name in names:
            ratio = row[name].get("times_faster_than_highs")
            note = f" ({ratio:.1f}x)" if ratio is not None and name != "highs" else ""
            cells.append(f"{row[name]['median_ms']:.2f}{note}")
        line = "".join(f"{cell:>20}" for cell in cells)
        print(f"{label:14}{line}   {row[names[0]]['objective']}")
    for name, why in report["skipped"].items():
        print(f"{name} skipped: {why}")
    print("all proven optimal, all agree" if report["all_optimal_and_agree"] else "DISAGREE")


if __name__ == "__main__":
    sys.exit(main())
