# SPDX-License-Identifier: Apache-2.0
"""``codesign pareto`` for FPGA boards: accelerator, formats and mappings along the frontier."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codesign.errors import InputError
from codesign.flow.choose import Session
from codesign.flow.frontier import Explorer
from codesign.flow.hardware import joint_limits
from codesign.flow.joint import Certificate, JointProblem, JointResult, joint_problem
from codesign.flow.joint.frontier import JointPoint, JointPointFile, JointQuestion
from codesign.flow.joint.problem import INTERVAL
from codesign.flow.options import DesignOptions
from codesign.solvers.decimals import to_decimal
from codesign.space.device import Device

if TYPE_CHECKING:
    from codesign.flow.pareto import Design

UNITS = {
    "latency": "ms (modelled cycles of one image at the board's clock)",
    "throughput": "images a second, one after the other through the engines (modelled)",
    "energy": "µJ of one image (modelled)",
    "traffic": "KiB to and from DRAM (modelled)",
    "size": "bytes (packed weights and biases)",
    "loss": "loss of the sensitivity method",
    "dsp": "DSP blocks (modelled)",
    "lut": "LUTs (modelled)",
    "ff": "flip-flops (modelled)",
    "ramb18": "half block RAMs (modelled)",
}
"""Metrics of a board's frontier."""
_METRICS = {"throughput": INTERVAL}
"""Axes that the joint problem has under another name."""
_NAMES = {metric: name for name, metric in _METRICS.items()}


def board_question(
    session: Session, device: Device, x: str, y: str, asked: Mapping[str, Decimal]
) -> JointQuestion:
    """The joint problem of a session as a question for the explorer."""
    options, tables = session.options, session.tables
    problem = joint_problem(
        session.prepared.graph, device, formats=list(tables.formats), loss=tables.loss,
        objective=y, limits=joint_limits(options, device, asked), stream="throughput" in (x, y),
        also=tuple(_METRICS.get(name, name) for name in (x, y)),
    )  # fmt: skip
    first, second = (_METRICS.get(name, name) for name in (y, x))
    return JointQuestion(problem, first, second, options.time_limit, session.prepared.input_digest)


def explore(
    session: Session, question: JointQuestion, out: Path, points: int
) -> tuple[tuple[Design, ...], bool, bool]:
    """The designs found, whether they are all, and whether time ended for some."""
    file = JointPointFile(out / "pareto.points", question)
    x, y = (_NAMES.get(m, m) for m in (question.second, question.first))
    with session.progress.task(f"Frontier of {y} against {x}") as step:
        explorer: Explorer[JointPoint] = Explorer(
            question, points, session.options.jobs, file.add,
            lambda count: step(count, points or count + 1),
        )  # fmt: skip
        complete = explorer.run(file.load())
    ordered = [explorer.points[low] for low in sorted(explorer.points)]
    return (
        tuple(_design(question, point) for point in ordered), complete, bool(explorer.given_up)
    )  # fmt: skip


def shown(problem: JointProblem, metric: str, value: int) -> Decimal:
    """A total in the unit of ``UNITS``."""
    if metric == "latency":
        return Decimal(value) * 1000 / problem.device.clock_hz
    if metric == INTERVAL:
        return round(Decimal(problem.device.clock_hz) / value, 6)
    if metric == "energy":
        return Decimal(value).scaleb(-9)
    if metric == "traffic":
        return Decimal(value) / 1024
    return to_decimal(value, problem.digits[metric])


def _design(question: JointQuestion, point: JointPoint) -> Design:
    from codesign.flow.pareto import Design

    problem, found = question.problem, point.design
    totals = {
        name: shown(problem, name, found.totals[name])
        for name in UNITS
        if name != "throughput" and (name != "loss" or problem.tables.loss is not None)
    }
    if problem.stream:
        totals["throughput"] = shown(problem, INTERVAL, found.interval)
    first, second = (_NAMES.get(m, m) for m in (question.first, question.second))
    assert found.accelerator is not None
    bound = None
    if point.bound is not None:
        bound = shown(problem, question.second, question.units(point.bound))
    proof = _proof(problem, point.certificate, question.first)
    proof["under"] = {} if bound is None else {second: bound}
    proof["tie_break"] = _proof(problem, point.tie_break, question.second)
    proof["tie_break"]["under"] = {first: totals[first]}
    return Design(found.formats, totals, proof, hardware=hardware(found))


def hardware(found: JointResult) -> dict[str, Any]:
    """What a point says of its accelerator."""
    assert found.accelerator is not None
    data = found.to_data()
    keys = ("accelerator", "chains", "cycles_modelled", "resources_modelled")
    return {"name": found.accelerator.name, **{key: data[key] for key in keys}}


def _proof(problem: JointProblem, certificate: Certificate, metric: str) -> dict[str, Any]:
    data = certificate.to_data()
    digits = problem.digits[metric]
    for key in ("objective", "bound"):
        if data[key] is not None:
            data[key] = shown(problem, metric, int(Decimal(data[key]).scaleb(digits)))
    return {"metric": _NAMES.get(metric, metric), "solver": "joint", "proof": "integer", **data}


def check_metrics(x: str, y: str, options: DesignOptions) -> None:
    """Raise InputError for metrics that a board's frontier does not have."""
    for flag, metric in (("--x", x), ("--y", y)):
        if metric not in UNITS:
            raise InputError(
                f"{flag} {metric!r}: expected one of {', '.join(UNITS)} for board {options.target}"
            )
