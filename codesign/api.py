# SPDX-License-Identifier: Apache-2.0
"""The Python API: the command line's verbs as functions.

>>> import tempfile, codesign
>>> out = tempfile.mkdtemp()
>>> chosen = codesign.design("zoo:digits", out, max_size_kb=30)
>>> chosen.certificate.status, chosen.totals["size"] <= 30_000
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
    from codesign.flow.measuring import Measured
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


def verify(out: str | Path, *, progress: Progress = SILENT) -> tuple[Rung, ...]:
    """Climb the verification ladder; failed rungs are in the result, not raised."""
    from codesign.flow.ladder import verify as climb

    return climb(Path(out), progress)


def measure(out: str | Path, *, refine: bool = False, progress: Progress = SILENT) -> Measured:
    """Time the build and its layers on the target."""
    from codesign.flow.measuring import measure as time_it

    return time_it(Path(out), refine, progress)


def report(out: str | Path, *, progress: Progress = SILENT) -> Path:
    """Write ``report.html`` and ``report.json``; returns the page's path."""
    from codesign.flow.report import report as write

    return write(Path(out), progress)


def run(network: str, out: str | Path, *, progress: Progress = SILENT, **options: Any) -> Outcome:
    """All verbs in order: design, build, verify, measure, report."""
    from codesign.flow.everything import run as run_all

    return run_all(DesignOptions(network, **options), Path(out), progress)


def inspect(network: str, **options: Any) -> Inspection:
    """IR, layers and MACs of a network, and what a target cannot take of it."""
    from codesign.flow.inspecting import inspect as look

    return look(network, **options)


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
