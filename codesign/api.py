# SPDX-License-Identifier: Apache-2.0
"""The Python API: the command line's verbs as functions.

>>> import tempfile, codesign
>>> out = tempfile.mkdtemp()
>>> chosen = codesign.design("zoo:digits", out, max_size_kb=15)
>>> chosen.certificate.status, chosen.totals["size"] <= 15_000
('optimal', True)
>>> sorted(set(chosen.choices.values()))
['w4a8', 'w8a8']
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from codesign.flow.artifact import Design
from codesign.flow.options import DesignOptions
from codesign.flow.progress import SILENT, Progress

if TYPE_CHECKING:  # the verbs import what they need
    from codesign.flow.everything import Outcome
    from codesign.flow.inspecting import Inspection
    from codesign.flow.ladder import Rung
    from codesign.flow.listing import Entry
    from codesign.flow.measuring import Measured
    from codesign.flow.pareto import Frontier
    from codesign.solvers import Solution


def design(network: str, out: str | Path, *, progress: Progress = SILENT, **options: Any) -> Design:
    """Choose the best design of ``network`` and write it to ``out``.

    ``options`` are the fields of ``DesignOptions``. Raises InputError, UnsupportedError and
    InfeasibleError.
    """
    from codesign.flow.choose import design as choose

    return choose(DesignOptions(network, **options), Path(out), progress)


def build(out: str | Path, *, progress: Progress = SILENT) -> Path:
    """Compile the design in ``out`` for its target; returns the build's folder."""
    from codesign.flow.building import build as build_it

    return build_it(Path(out), progress)


def verify(
    out: str | Path, *, data: str | Path | None = None, seed: int = 0, progress: Progress = SILENT
) -> tuple[Rung, ...]:
    """Climb the verification ladder; failed rungs are in the result, not raised.

    ``data`` (.npz with array ``x``) replaces the design's own inputs.
    """
    from codesign.flow.ladder import verify as climb

    return climb(Path(out), progress, data=None if data is None else Path(data), seed=seed)


def measure(
    out: str | Path,
    *,
    refine: bool = False,
    rpc: str | None = None,
    rpc_key: str | None = None,
    progress: Progress = SILENT,
) -> Measured:
    """Time the build and its layers on the target, or on a device behind a tracker."""
    from codesign.flow.measuring import measure as time_it

    return time_it(Path(out), refine, progress, rpc=rpc, rpc_key=rpc_key)


def report(out: str | Path, *, progress: Progress = SILENT) -> Path:
    """Write ``report.html`` and ``report.json``; returns the page's path."""
    from codesign.flow.report import report as write

    return write(Path(out), progress)


def run(network: str, out: str | Path, *, progress: Progress = SILENT, **options: Any) -> Outcome:
    """All verbs in order: design, build, verify, measure, report."""
    from codesign.flow.everything import run as run_all

    return run_all(DesignOptions(network, **options), Path(out), progress)


def pareto(
    network: str,
    out: str | Path,
    *,
    x: str = "size",
    y: str = "loss",
    points: int = 1000,
    measure: bool = False,
    progress: Progress = SILENT,
    **options: Any,
) -> Frontier:
    """The exact frontier of two metrics; writes ``pareto.json`` and ``pareto.html``."""
    from codesign.flow.pareto import pareto as explore

    asked = DesignOptions(network, **options)
    return explore(asked, Path(out), x=x, y=y, points=points, measure=measure, progress=progress)


def inspect(
    network: str,
    *,
    target: str = "host",
    weights: str | Path | None = None,
    batch: int = 1,
    seed: int = 0,
    raw: bool = False,
) -> Inspection:
    """IR, layers and MACs of a network, and what a target cannot take of it.

    >>> facts = inspect("zoo:digits")
    >>> facts.macs, facts.parameters, facts.unsupported
    (460416, 22954, ())
    """
    from codesign.flow.inspecting import inspect as look

    path = None if weights is None else Path(weights)
    return look(network, target=target, weights=path, batch=batch, seed=seed, raw=raw)


def opt(file: str | Path, passes: str) -> str:
    """Run a pass pipeline on a text IR file; returns the new text.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "digits.ir"
    >>> from codesign.ir.text import print_graph
    >>> _ = file.write_text(print_graph(inspect("zoo:digits", raw=True).graph))
    >>> "batch_norm" in file.read_text(), "batch_norm" in opt(file, "fold-batch-norm")
    (True, False)
    """
    from codesign.flow.inspecting import optimise

    return optimise(Path(file), passes)[0]


def list_(kind: str) -> tuple[Entry, ...]:
    """``passes``, ``targets``, ``solvers`` or ``formats``: names, and whether each can be used.

    It is ``codesign.list``.

    >>> [entry.name for entry in list_("formats") if entry.available]
    ['float', 'w2a2', 'w2a8', 'w4a4', 'w4a8', 'w8a4', 'w8a8']
    """
    from codesign.flow.listing import listing

    return listing(kind)


def solve(
    problem: str | Path, *, solver: str = "auto", time_limit: float | None = None
) -> Solution:
    """Solve a problem file (``codesign-problem/1``).

    >>> import json, tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "problem.json"
    >>> _ = file.write_text(json.dumps({
    ...     "format": "codesign-problem/1", "name": "doc",
    ...     "choices": {"a": ["x", "y"], "b": ["x", "y"]},
    ...     "metrics": {"loss": {"a": {"x": 0.5, "y": 0.1}, "b": {"x": 0.2, "y": 0.1}},
    ...                 "size": {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}}},
    ...     "minimize": "loss", "limits": {"size": 3}}))
    >>> solution = solve(file)
    >>> solution.choices["a"], solution.choices["b"], float(solution.objective)
    ('y', 'x', 0.3)
    """
    from codesign.flow.solving import solve_file

    return solve_file(Path(problem), solver, time_limit)
