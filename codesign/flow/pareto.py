# SPDX-License-Identifier: Apache-2.0
"""``codesign pareto``: the whole exact frontier of a design question, as JSON and as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.flow.choose import LOSS_KINDS, Session
from codesign.flow.frontier import Explorer, PointFile, Question
from codesign.flow.hardware import board_limits
from codesign.flow.options import METRIC_UNITS, OBJECTIVES, DesignOptions
from codesign.flow.prepare import load_target, prepare
from codesign.flow.progress import SILENT, Progress
from codesign.flow.store import digest, file_digest, make_folder, read_json, write_json, write_text
from codesign.flow.tables import Tables, limits, to_problem
from codesign.solvers.decimals import dump_json, plain
from codesign.solvers.pareto import ParetoPoint
from codesign.solvers.solution import Solution

FORMAT = "codesign-pareto/1"
MADE_BY = "codesign pareto"
POINTS = 1000
"""Most points where the user names no number; 0 is no limit."""


@dataclass(frozen=True)
class Design:
    """One design of the frontier, or a uniform one beside it."""

    choices: Mapping[str, str]
    totals: Mapping[str, Decimal]
    certificate: Mapping[str, Any] | None = None
    """None for a design that was not solved for."""
    accuracy: float | None = None
    """Percent, measured."""
    within_limits: bool = True
    """Whether it keeps the user's limits; a uniform design need not."""
    hardware: Mapping[str, Any] | None = None
    """On an FPGA board: the accelerator, fused chains and modelled resources."""

    def to_data(self, x: str, y: str) -> dict[str, Any]:
        """For JSON."""
        data = {"x": self.totals[x], "y": self.totals[y], **vars(self)}
        if self.hardware is None:
            del data["hardware"]
        return {key: dict(v) if isinstance(v, Mapping) else v for key, v in data.items()}


@dataclass(frozen=True)
class Frontier:
    """What ``pareto.json`` holds."""

    name: str
    target: str
    x: str
    y: str
    points: tuple[Design, ...]
    """From the least x to the least y."""
    uniform: Mapping[str, Design]
    """Every layer in one format, by format: for reference."""
    complete: bool
    why: str
    """Why it is not complete; empty if it is."""
    limits: Mapping[str, Decimal]
    loss_kind: str
    float_accuracy: float | None = None
    samples: int | None = None
    """Inputs that accuracies were measured on."""
    input_digest: str = ""
    units: Mapping[str, str] = field(default_factory=lambda: METRIC_UNITS)

    def to_data(self) -> dict[str, Any]:
        """The file's content; totals are exact decimals."""
        return {
            "format": FORMAT,
            "name": self.name,
            "target": self.target,
            "x": {"metric": self.x, "unit": self.units[self.x]},
            "y": {"metric": self.y, "unit": self.units[self.y]},
            "complete": self.complete,
            "why": self.why,
            "limits": dict(self.limits),
            "loss_kind": self.loss_kind,
            "float_accuracy": self.float_accuracy,
            "samples": self.samples,
            "points": [point.to_data(self.x, self.y) for point in self.points],
            "uniform": {
                name: design.to_data(self.x, self.y) for name, design in self.uniform.items()
            },
            "input_digest": self.input_digest,
        }


def pareto(
    options: DesignOptions,
    out: Path,
    *,
    x: str = "size",
    y: str = "loss",
    points: int = POINTS,
    measure: bool = False,
    progress: Progress = SILENT,
) -> Frontier:
    """The frontier of two metrics under the user's limits; writes pareto.json and pareto.html.

    At most ``points`` points (0: all), spread over the range where there are more. ``measure``
    measures the accuracy of each on the eval data. What is finished is kept in ``out`` and taken
    up again by the next call for the same question. Raises InputError, UnsupportedError,
    InfeasibleError.
    """
    _check(options, x, y, points, measure)
    out = make_folder(out)
    prepared = prepare(options, progress)
    session = Session(prepared, progress)
    if prepared.target.device is not None:
        return _on_board(session, out, x, y, points, measure)
    if "latency" in (x, y) or options.wants_latency:
        _measure_latencies(session, out)
    tables = session.tables
    problem = to_problem(tables, replace(options, objective=y))
    question = Question(problem, y, x, options.solver, options.time_limit)
    file = PointFile(out / "pareto.points", question)
    with progress.task(f"Frontier of {y} against {x}") as step:
        explorer = Explorer(
            question,
            points,
            options.jobs,
            file.add,
            lambda count: step(count, points or count + 1),
        )
        complete = explorer.run(file.load())
    ordered = [explorer.points[low] for low in sorted(explorer.points)]
    asked = limits(tables, options, None)
    designs = tuple(_design(tables, point, question) for point in ordered)
    uniform = {name: _uniform(tables, name, asked) for name in prepared.formats}
    base = None
    if measure:
        base, designs, uniform = _accuracies(session, out, designs, uniform)
    why = _why_not(options, points, bool(explorer.given_up)) if not complete else ""
    found = Frontier(
        name=prepared.name,
        target=options.target,
        x=x,
        y=y,
        points=designs,
        uniform=uniform,
        complete=complete,
        why=why,
        limits=asked,
        loss_kind=LOSS_KINDS[session.method],
        float_accuracy=base,
        samples=None if prepared.eval is None or not measure else len(prepared.eval[0]),
        input_digest=prepared.input_digest,
    )
    return _written(found, out)


def _on_board(
    session: Session, out: Path, x: str, y: str, points: int, measure: bool
) -> Frontier:  # fmt: skip
    """The frontier of an FPGA board: the joint problem at every point."""
    from codesign.flow import board_pareto as board

    prepared, options = session.prepared, session.options
    device = prepared.target.device
    assert device is not None
    asked = limits(session.tables, options, None)
    question = board.board_question(session, device, x, y, asked)
    designs, complete, late = board.explore(session, question, out, points)
    base = None
    if measure:
        base, designs, _ = _accuracies(session, out, designs, {})
    found = Frontier(
        name=prepared.name,
        target=options.target,
        x=x,
        y=y,
        points=designs,
        uniform={},
        complete=complete,
        why=_why_not(options, points, late) if not complete else "",
        limits=asked | board_limits(options, device),
        loss_kind=LOSS_KINDS[session.method],
        float_accuracy=base,
        samples=None if prepared.eval is None or not measure else len(prepared.eval[0]),
        input_digest=prepared.input_digest,
        units=board.UNITS,
    )
    return _written(found, out)


def _why_not(options: DesignOptions, points: int, late: bool) -> str:
    """Why a frontier is not complete."""
    if late:
        return f"--time-limit {options.time_limit:g} s ended before every point was proven"
    return f"--points {points} reached; give --points 0 for all there are"


def _written(found: Frontier, out: Path) -> Frontier:
    from codesign.flow.pareto_plot import page  # plotly takes a moment to import

    write_text(out / "pareto.json", dump_json(found.to_data()) + "\n")
    write_text(out / "pareto.html", page(found))
    return found


def _check(options: DesignOptions, x: str, y: str, points: int, measure: bool) -> None:
    if load_target(options.target).device is not None:
        from codesign.flow.board_pareto import check_metrics

        check_metrics(x, y, options)
    else:
        _check_metrics(x, y)
    if x == y:
        raise InputError(f"--x {x} --y {y}: a frontier needs two different metrics")
    if points < 0 or points == 1:
        raise InputError(f"--points {points}: expected at least 2, or 0 for all points")
    if options.objective != "auto":
        raise InputError(
            f"--objective {options.objective}: a frontier has two objectives; "
            "name them with --x and --y"
        )
    if options.accuracy_limited:
        flag = "--max-drop" if options.max_drop is not None else "--min-accuracy"
        raise InputError(
            f"{flag}: accuracy is measured, not limited, on a frontier; give --measure with "
            "--eval to see it at every point, or use `codesign design`"
        )
    if measure and options.eval is None:
        raise InputError("--measure: accuracy is measured on labelled data; give --eval X.npz")


def _check_metrics(x: str, y: str) -> None:
    for flag, metric in (("--x", x), ("--y", y)):
        if metric not in OBJECTIVES:
            raise InputError(f"{flag} {metric!r}: expected one of {', '.join(OBJECTIVES)}")


def _measure_latencies(session: Session, out: Path) -> None:
    """Measure every layer in every format once; a frontier needs them nearly all."""
    path, key = out / "pareto.latency", session.prepared.input_digest
    form = "codesign-pareto-latency/1"
    kept: list[tuple[str, str, float]] = []
    if path.is_file():
        data = read_json(path, form, MADE_BY)
        kept = [tuple(item) for item in data["entries"]] if data["key"] == key else []
    session.tables = session.tables.with_measured({(a, f): ms for a, f, ms in kept})
    for name in session.prepared.formats:
        layers = session.tables.layers
        missing = frozenset(a for a in layers if (a, name) not in session.tables.measured)
        if not missing:
            continue
        found = session.measure_layers(dict.fromkeys(layers, name), missing)
        session.tables = session.tables.with_measured(found)
        kept += [(layer, format, ms) for (layer, format), ms in found.items()]
        write_json(path, {"format": form, "key": key, "entries": kept})


def _design(tables: Tables, point: ParetoPoint, question: Question) -> Design:
    solution = point.solution
    assert solution.choices is not None
    under = {} if point.bound is None else {question.second: point.bound}
    proof = _proof(point.certificate, question.first, under)
    proof["tie_break"] = _proof(solution, question.second, {question.first: point.first})
    return Design(dict(solution.choices), tables.totals(solution.choices), proof)


def _proof(solution: Solution, metric: str, under: Mapping[str, Decimal]) -> dict[str, Any]:
    """That ``metric`` is at its least under limits on the other one."""
    return {
        "status": str(solution.status),
        "metric": metric,
        "under": dict(under),
        "objective": solution.objective,
        "bound": solution.bound,
        "gap": solution.gap,
        "architectures_solved": solution.architectures_solved,
        "architectures_pruned": solution.architectures_pruned,
        "seconds": round(solution.seconds, 6),
        "solver": solution.solver,
        "proof": str(solution.proof),
    }


def _uniform(tables: Tables, name: str, asked: Mapping[str, Decimal]) -> Design:
    choices = dict.fromkeys(tables.layers, name)
    kept = all(tables.total(metric, choices) <= value for metric, value in asked.items())
    return Design(choices, tables.totals(choices), within_limits=kept)


def _accuracies(
    session: Session, out: Path, designs: tuple[Design, ...], uniform: Mapping[str, Design]
) -> tuple[float, tuple[Design, ...], dict[str, Design]]:
    """Accuracy of the float network and of every design; each is kept as soon as it is known."""
    path, form = out / "pareto.accuracy", "codesign-pareto-accuracy/1"
    # accuracy does not depend on the limits or on how many points are asked for
    options = session.prepared.options
    key = digest(
        session.prepared.network_hash,
        *(path and file_digest(path) for path in (options.calib, options.eval)),
        session.prepared.quant_options,
        options.equalise,
        options.samples,
        options.seed,
    )
    kept: dict[str, float] = {}
    if path.is_file():
        data = read_json(path, form, MADE_BY)
        kept = dict(data["percent"]) if data["key"] == key else {}
    count = len(designs) + len(uniform)

    def one(choices: Mapping[str, str] | None, place: int) -> float:
        name = "float" if choices is None else digest(*sorted(choices.items()))
        if name not in kept:
            graph = session.prepared.graph if choices is None else session.quantize(choices)
            title = "the float network" if choices is None else f"design {place} of {count}"
            kept[name] = session.accuracy(graph, title)
            write_json(path, {"format": form, "key": key, "percent": kept})
        return kept[name]

    base = one(None, 0)
    measured = tuple(replace(d, accuracy=one(d.choices, i + 1)) for i, d in enumerate(designs))
    reference = {
        name: replace(d, accuracy=one(d.choices, len(designs) + i + 1))
        for i, (name, d) in enumerate(uniform.items())
    }
    return base, measured, reference


def table(found: Frontier) -> tuple[list[str], list[list[str]]]:
    """Head and rows for people: metrics, formats, accuracy where measured."""
    measured = any(point.accuracy is not None for point in found.points)
    head = [found.x, found.y, "formats", *(["accuracy %"] if measured else [])]
    rows = []
    for point in found.points:
        row = [plain(point.totals[found.x]), plain(point.totals[found.y]), summary(point.choices)]
        rows.append(row + ([f"{point.accuracy:.2f}"] if point.accuracy is not None else []))
    return head, rows


def summary(choices: Mapping[str, str]) -> str:
    """How many layers have which format, such as ``"w8a8 x3, w4a8 x18"``."""
    counts: dict[str, int] = {}
    for name in choices.values():
        counts[name] = counts.get(name, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} x{count}" for name, count in ordered)
