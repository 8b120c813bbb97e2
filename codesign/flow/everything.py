# SPDX-License-Identifier: Apache-2.0
"""``codesign run``: design, build, verify, measure, report: the main path on one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codesign.errors import VerifyError
from codesign.flow.artifact import Design
from codesign.flow.building import build
from codesign.flow.choose import design
from codesign.flow.ladder import Rung, verify
from codesign.flow.measuring import Measured, measure
from codesign.flow.options import DesignOptions
from codesign.flow.prepare import load_target
from codesign.flow.progress import SILENT, Progress
from codesign.flow.report import report


@dataclass(frozen=True)
class Outcome:
    """What a whole run leaves behind."""

    design: Design
    rungs: tuple[Rung, ...]
    measured: Measured
    report: Path
    placed: str | None = None
    """Clock and use after place and route, in a line; None for designs that have none."""


def run(
    options: DesignOptions, out: Path, progress: Progress = SILENT, synthesise: bool = False,
    place: bool = True, tune: str | None = None,
) -> Outcome:  # fmt: skip
    """A network and a budget in; a proven, built, verified and measured design in ``out``.

    ``synthesise``: an FPGA design's accelerator, too, for the report. ``place`` False: no place and
    route of an ECP5 design. ``tune``: a budget for finding faster tiles before the build.

    Raises VerifyError if a rung of the ladder fails, after writing the report that shows it.
    """
    design(options, out, progress)
    build(out, progress, tune, place)
    rungs = verify(out, progress)
    measured = measure(out, progress=progress)
    if synthesise:
        from codesign.flow.synthesis import synthesise as synthesise_it

        synthesise_it(out, progress)
    page = report(out, progress)
    require_exact(rungs, out)
    return Outcome(Design.load(out), rungs, measured, page, _placed(out))


def _placed(folder: Path) -> str | None:
    target = load_target(Design.load(folder).options.target)
    if target.device is None:
        return None
    from codesign.targets.fpga.build.ulx3s import placed_line

    return placed_line(folder / "build" / target.name)


def require_exact(rungs: tuple[Rung, ...], folder: Path) -> None:
    """Raise VerifyError that names the failed rungs."""
    failed = [f"  {rung.rung}: {rung.why}" for rung in rungs if rung.status == "failed"]
    if failed:
        raise VerifyError(f"{folder}: verification failed\n" + "\n".join(failed))
