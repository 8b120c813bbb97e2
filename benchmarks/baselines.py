#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The exact solver against searches without a proof: same problem, same wall time, same seeds.

Every instance is solved exactly; every baseline then gets as long as that took, with the same
seeds. Instances: HAWQ-V3's nine ResNet18 programs (at least ``--least`` seconds, one tick of a
search, and ``--more`` times that), and the joint problem of networks and boards, all accelerators
that are not dominated, formats, tilings and chains. There the exact solver's time includes
accelerators and tables; a baseline fills the tables of the accelerators that it visits in its own
time, and gets at least ``--least-joint`` seconds; what it finds later does not count. The table
shows the mean ratio of what they found to the optimum (1 is the optimum; "-" is nothing feasible)
and in how many runs it was the optimum itself. The plot shows the best found over time. Exits with
1 if a baseline beats the optimum.

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
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

from codesign.solvers import Problem, Status, solve
from codesign.solvers.baselines import BASELINES, Improvement, run

JOINT = ",".join(
    f"{name}:{board}"
    for name in ("resnet8", "resnet18", "mobilenetv2", "mnasnet_a1", "fbnet_c")
    for board in ("ultra96", "pynq-z2")
)
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


@dataclass(frozen=True)
class Found:
    """What a search found, in the instance's units."""

    value: Decimal | None
    """Within the time limit."""
    trace: tuple[Improvement, ...]
    seconds: float
    tabled: int = 0
    """Accelerators whose tables were filled."""

    @staticmethod
    def of(trace: tuple[Improvement, ...], seconds: float, limit: float, tabled: int = 0) -> Found:
        """What was found later than ``limit`` is left out."""
        kept = tuple(step for step in trace if step.seconds <= limit)
        return Found(kept[-1].objective if kept else None, kept, min(seconds, limit), tabled)


@dataclass(frozen=True)
class Instance:
    """One question for all searches."""

    size: str
    exact: Callable[[], tuple[Decimal, float]]
    """Optimum and seconds."""
    search: Callable[[str, float, int], Found]
    """Name, time limit, seed."""
    least: float
    factors: tuple[int, ...]
    """Budgets in multiples of the exact solver's time."""
    maximize: bool = False


def program(problem: Problem, least: float, more: int) -> Instance:
    """A problem file's question, tables given."""

    def exact() -> tuple[Decimal, float]:
        solve(problem, explain=False)  # warm
        start = time.perf_counter()
        found = solve(problem, explain=False)
        seconds = time.perf_counter() - start
        assert found.status is Status.OPTIMAL
        assert found.objective is not None
        return found.objective, seconds

    def search(name: str, limit: float, seed: int) -> Found:
        found = run(problem, name, limit, seed)
        return Found.of(found.trace, found.solution.seconds, limit)

    size = f"{len(problem.groups)} groups"
    return Instance(size, exact, search, least, (1, more), problem.maximize)


def joint(name: str, board: str, share: float, least: float, tables: dict[str, Any]) -> Instance:
    """The joint problem of a zoo network on a board, weight-only loss limited to ``share``."""
    from codesign.flow.joint import joint_problem
    from codesign.flow.joint import solve as solve_joint
    from codesign.flow.joint.baselines import baseline

    benchmark = sibling("joint")
    if name not in tables:
        tables[name] = benchmark.load(name, benchmark.FORMATS)
    workload, loss = tables[name]

    def problem() -> Any:
        return joint_problem(
            workload, board, formats=benchmark.FORMATS, loss=loss, loss_budget=share
        )

    asked = problem()

    def exact() -> tuple[Decimal, float]:
        start = time.perf_counter()
        proof = solve_joint(problem()).certificate
        seconds = time.perf_counter() - start
        assert proof.status is Status.OPTIMAL
        assert proof.objective is not None
        return proof.objective, seconds

    def search(name: str, limit: float, seed: int) -> Found:
        found = baseline(asked, name, limit, seed)
        return Found.of(found.trace, found.result.certificate.seconds, limit, found.tabled)

    size = f"{len(asked.tables.units)} units, {len(asked.space)} accelerators"
    return Instance(size, exact, search, least, (1,))


def compare(instance: Instance, names: list[str], seeds: int) -> Any:
    """One instance: the exact answer, and every baseline at every budget."""
    optimum, seconds = instance.exact()
    found: dict[str, Any] = {
        "size": instance.size,
        "optimum": float(optimum),
        "exact_ms": 1e3 * seconds,
        "budgets_ms": {},
        "baselines": {},
    }
    curves: dict[str, Found] = {}
    for times in instance.factors:
        label = "equal" if times == 1 else f"x{times}"
        limit = max(instance.least, seconds) * times
        found["budgets_ms"][label] = 1e3 * limit
        for name in names:
            runs = [instance.search(name, limit, seed) for seed in range(seeds)]
            curves[name] = runs[0]
            row = found["baselines"].setdefault(name, {})
            row[label] = summary(instance, optimum, runs)
    return found, curves, optimum, seconds


def summary(instance: Instance, optimum: Decimal, runs: list[Found]) -> dict[str, Any]:
    """Ratios to the optimum over the seeds."""
    values = [r.value for r in runs if r.value is not None]
    better = [v for v in values if (v > optimum if instance.maximize else v < optimum)]
    ratios = [float(v / optimum) for v in values] if optimum else []
    return {
        "runs": len(runs),
        "feasible": len(values),
        "optimal": sum(v == optimum for v in values),
        "better_than_exact": len(better),
        "mean_ratio": statistics.fmean(ratios) if ratios else None,
        "worst_ratio": max(ratios, default=None),
        "mean_seconds": statistics.fmean(r.seconds for r in runs),
        "accelerators_visited": statistics.fmean(r.tabled for r in runs),
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
                    x=[*times, one.seconds],
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
    parser.add_argument("--joint", default=JOINT, help="NETWORK:BOARD,... or empty")
    parser.add_argument("--share", type=float, default=0.5, help="loss limit of joint problems")
    parser.add_argument("--least-joint", type=float, default=3.0, help="seconds, likewise")
    parser.add_argument("--no-hawq", action="store_true", help="joint problems only")
    parser.add_argument("--plot", type=Path, help="write best-so-far curves to this HTML file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    hawq = sibling("hawq")
    instances: dict[str, Instance] = {}
    if options.no_hawq:
        pass
    elif hawq.data_file().exists():
        for name, problem in hawq.programs(hawq.data_file()).items():
            instances[f"hawq {name}"] = program(problem, options.least, options.more)
    else:
        print(f"no HAWQ tables at {hawq.data_file()}; set CODESIGN_DATA", file=sys.stderr)
    tables: dict[str, Any] = {}
    for pair in filter(None, options.joint.split(",")):
        name, _, board = pair.partition(":")
        instances[f"joint {pair}"] = joint(name, board, options.share, options.least_joint, tables)
    names = options.baselines.split(",")
    for name in names:
        search = BASELINES.load(name)
        search.require()
        search().prepare()
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
        "seeds": options.seeds,
        "instances": {},
    }
    curves: dict[str, Any] = {}
    for label, instance in instances.items():
        found, runs, optimum, seconds = compare(instance, names, options.seeds)
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
    optimum, took = f"{found['optimum']:.6g}", f"{found['exact_ms']:.1f} ms"
    print(f"{label} ({found['size']}): optimum {optimum}, proven in {took}")
    for name, row in found["baselines"].items():
        cells = []
        for budget, cell in row.items():
            ratio = cell["mean_ratio"]
            value = "     -" if ratio is None else f"{ratio:6.3f}"
            limit = found["budgets_ms"][budget]
            cells.append(f"{value} at {limit:6.0f} ms ({cell['optimal']}/{cell['runs']} optimal)")
        print(f"  {name:16}" + "   ".join(cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
