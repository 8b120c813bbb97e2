#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The exact solver against searches without a proof: same problem, same wall time, same seeds.

Every instance is solved exactly; every baseline then gets as long as that took (at least
``--least`` seconds, one tick of a search), and ``--more`` times that, with the same seeds. The
table shows the mean ratio of what they found to the optimum (1 is the optimum; "-" is nothing
feasible) and in how many runs it was the optimum itself. Instances: HAWQ-V3's nine ResNet18
programs, and joint problems of an accelerator and formats, whose tables are filled beforehand and
charged to nobody. The plot shows the best found over time. Exits with 1 if a baseline beats the
optimum.

    python benchmarks/baselines.py --joint resnet8:ultra96 --plot out/baselines.html --json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from codesign.solvers import Metric, Problem, Status, solve
from codesign.solvers.baselines import BASELINES, Run, run

NAMES = "random,annealing,greedy,nsga2,nsga2-predicted,mnasnet"


def sibling(name: str) -> ModuleType:
    """Another benchmark, for the instances it builds."""
    path = Path(__file__).resolve().with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def joint_instance(name: str, board: str, share: float, most: int) -> Problem:
    """The joint problem of a zoo network with all tables filled, as one ``Problem``.

    ``most`` accelerators, evenly spaced among the undominated ones (0: all): a baseline needs the
    whole table, where the joint solver fills only what its bounds leave open.
    """
    from codesign.cost.fill import Filler
    from codesign.cost.option_tables import NEVER
    from codesign.flow.joint import joint_problem

    workload, loss = sibling("joint").load(name, "w8a8,w8a4,w4a8,w4a4")
    asked = joint_problem(
        workload, board, formats="w8a8,w8a4,w4a8,w4a4", loss=loss, loss_budget=share
    )
    count = len(asked.space)
    kept = np.arange(count)
    if 0 < most < count:
        kept = np.linspace(0, count - 1, most).astype(np.int64)
    tables = asked.tables
    space = asked.space.take(kept)
    priced = tables.price(Filler(space, asked.timing, tables.by, asked.pipelined))
    ends = np.ones((len(kept), 1), dtype=np.bool_)
    runs = np.concatenate([priced.cycles < NEVER, ends], axis=1)
    latency = np.concatenate([priced.cycles, priced.fixed_cycles[:, None]], axis=1)
    choices = {f"unit{i}": [",".join(o) for o in u.options] for i, u in enumerate(tables.units)}
    return Problem.build(
        name=f"{name}:{board}",
        choices=choices | {"other": ["-"]},
        metrics=[
            Metric.joint("latency", np.where(runs, latency, 0)),
            Metric.choice("loss", np.append(tables.choice_metric("loss"), 0)),
        ],
        minimize="latency",
        architectures=[f"h{place}" for place in kept],
        limits={"loss": asked.limits["loss"]},
        allowed=None if runs.all() else runs,
    )


def compare(problem: Problem, names: list[str], seeds: int, least: float, more: int) -> Any:
    """One instance: the exact answer, and every baseline at both budgets."""
    solve(problem, explain=False)  # warm
    start = time.perf_counter()
    exact = solve(problem, explain=False)
    seconds = time.perf_counter() - start
    assert exact.status is Status.OPTIMAL
    assert exact.objective is not None
    found: dict[str, Any] = {
        "optimum": float(exact.objective),
        "groups": len(problem.groups),
        "architectures": len(problem.architectures),
        "exact_ms": 1e3 * seconds,
        "budgets_ms": {},
        "baselines": {},
    }
    curves: dict[str, Run] = {}
    for label, times in (("equal", 1), (f"x{more}", more)):
        limit = max(least, seconds) * times
        found["budgets_ms"][label] = 1e3 * limit
        for name in names:
            runs = [run(problem, name, limit, seed) for seed in range(seeds)]
            curves[name] = runs[0]
            row = found["baselines"].setdefault(name, {})
            row[label] = summary(problem, exact.objective, runs)
    return found, curves, exact.objective, seconds


def summary(problem: Problem, optimum: Decimal, runs: list[Run]) -> dict[str, Any]:
    """Ratios to the optimum over the seeds."""
    values = [r.solution.objective for r in runs if r.solution.objective is not None]
    better = [v for v in values if (v > optimum if problem.maximize else v < optimum)]
    ratios = [float(v / optimum) for v in values] if optimum else []
    return {
        "runs": len(runs),
        "feasible": len(values),
        "optimal": sum(v == optimum for v in values),
        "better_than_exact": len(better),
        "mean_ratio": statistics.fmean(ratios) if ratios else None,
        "worst_ratio": max(ratios, default=None),
        "mean_seconds": statistics.fmean(r.solution.seconds for r in runs),
    }


def plot(path: Path, curves: dict[str, Any]) -> None:
    """Best so far over time, one panel an instance; one file that needs no network."""
    from plotly.colors import qualitative
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=list(curves))
    for place, (runs, optimum, seconds) in enumerate(curves.values()):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        for colour, (name, one) in zip(qualitative.Dark24, runs.items()):
            times = [step.seconds for step in one.trace]
            ratios = [float(step.objective / optimum) for step in one.trace]
            if not times:
                continue
            figure.add_trace(
                Scatter(
                    x=[*times, one.solution.seconds],
                    y=[*ratios, ratios[-1]],
                    line={"shape": "hv", "color": colour},
                    name=name,
                    legendgroup=name,
                    showlegend=place == 0,
                ),
                **at,
            )
        figure.add_trace(
            Scatter(
                x=[seconds],
                y=[1.0],
                mode="markers",
                marker={"symbol": "star", "size": 14, "color": "black"},
                name="exact, proven",
                legendgroup="exact",
                showlegend=place == 0,
            ),
            **at,
        )
    figure.update_xaxes(type="log", title_text="seconds")
    figure.update_yaxes(title_text="objective / optimum")
    figure.update_layout(
        template="plotly_white",
        height=330 * rows + 100,
        title="Best found so far (first seed); the star is the proven optimum",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(figure.to_html(full_html=True, include_plotlyjs=True))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baselines", default=NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--least", type=float, default=0.02, help="seconds of the shortest run")
    parser.add_argument("--more", type=int, default=10, help="factor of the longer budget")
    parser.add_argument("--joint", default="resnet8:ultra96", help="NETWORK:BOARD,... or empty")
    parser.add_argument("--share", type=float, default=0.3, help="loss limit of joint problems")
    parser.add_argument("--accelerators", type=int, default=2000, help="of a joint problem; 0: all")
    parser.add_argument("--plot", type=Path, help="write best-so-far curves to this HTML file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    hawq = sibling("hawq")
    instances: dict[str, Problem] = {}
    if hawq.data_file().exists():
        instances |= {f"hawq {name}": p for name, p in hawq.programs(hawq.data_file()).items()}
    else:
        print(f"no HAWQ tables at {hawq.data_file()}; set CODESIGN_DATA", file=sys.stderr)
    for pair in filter(None, options.joint.split(",")):
        name, _, board = pair.partition(":")
        instances[f"joint {pair}"] = joint_instance(
            name, board, options.share, options.accelerators
        )
    names = options.baselines.split(",")
    for name in names:
        BASELINES.load(name).require()
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
        "seeds": options.seeds,
        "instances": {},
    }
    curves: dict[str, Any] = {}
    for label, problem in instances.items():
        found, runs, optimum, seconds = compare(
            problem, names, options.seeds, options.least, options.more
        )
        report["instances"][label] = found
        curves[label] = (runs, optimum, seconds)
        if not options.json:
            show(label, found)
    beaten = [
        f"{label}: {name}"
        for label, found in report["instances"].items()
        for name, row in found["baselines"].items()
        if any(cell["better_than_exact"] for cell in row.values())
    ]
    report["exact_never_worse"] = not beaten
    if options.plot:
        plot(options.plot, curves)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print("exact is never worse" if not beaten else f"BEATEN: {', '.join(beaten)}")
    return 0 if not beaten else 1


def show(label: str, found: dict[str, Any]) -> None:
    """A few lines an instance."""
    size = f"{found['groups']} groups"
    size += f", {found['architectures']} accelerators" if found["architectures"] else ""
    print(f"{label} ({size}): optimum {found['optimum']:.6g}, proven in {found['exact_ms']:.1f} ms")
    for name, row in found["baselines"].items():
        cells = []
        for budget, cell in row.items():
            ratio = cell["mean_ratio"]
            value = "     -" if ratio is None else f"{ratio:6.3f}"
            limit = found["budgets_ms"][budget]
            cells.append(f"{value} at {limit:6.0f} ms ({cell['optimal']}/{cell['runs']} optimal)")
        print(f"  {name:16}" + "   ".join(cells))


if __name__ == "__main__":
    sys.exit(main())
