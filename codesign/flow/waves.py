# SPDX-License-Identifier: Apache-2.0
"""``codesign verify DIR --waves FILE``: one image's simulation of an FPGA design as a waveform."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codesign.errors import InputError
from codesign.flow.artifact import Design
from codesign.flow.building import load_integer
from codesign.flow.prepare import load_target, noise_inputs
from codesign.flow.progress import SILENT, Progress
from codesign.ir.text import parse_graph

CYCLES = (0, 100_000)
"""Recorded where nothing else is asked for; a cycle of a small accelerator takes some 200 bytes."""


def parse_cycles(text: str) -> tuple[int, int]:
    """``FIRST:LAST`` as numbers; raises InputError."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise InputError(
            f"--wave-cycles {text}: expected FIRST:LAST, two cycles of the simulation, for "
            "instance 0:20000"
        )
    return int(first), int(last)


def record(
    folder: Path, file: Path, cycles: tuple[int, int] = CYCLES, seed: int = 0,
    progress: Progress = SILENT,
) -> Path:  # fmt: skip
    """Run the built design in ``folder`` on one random image and write ``file`` (FST, as GTKWave
    and Surfer read it), cycles ``cycles[0]`` to ``cycles[1]``; every layer is compared meanwhile.

    A simulation with waveforms is compiled for itself the first time. Raises InputError for other
    targets and for a folder that is not there, RunError where a layer differs.
    """
    from codesign.targets.fpga.runner import FpgaRunner, rtl_session
    from codesign.targets.fpga.target import NETWORK, FpgaTarget

    target = load_target(Design.load(folder).options.target)
    if not isinstance(target, FpgaTarget):
        raise InputError(f"--waves: target {target.name} is not simulated; leave out --waves")
    file = Path(file).absolute()
    if not file.parent.is_dir():
        raise InputError(f"--waves {file}: there is no folder {file.parent}")
    directory = folder / "build" / target.name
    if not (directory / NETWORK).is_file():
        raise InputError(f"{directory}: not built; make it with `codesign build {folder}`")
    target = target.with_design(directory)
    assert target.hardware is not None
    graph = parse_graph((directory / NETWORK).read_text(encoding="utf-8"), str(directory))
    image = np.ascontiguousarray(noise_inputs(load_integer(folder), 1, seed))
    start = rtl_session(target.hardware, (file, *cycles))
    with progress.task(f"Simulating one image of {graph.name} into {file.name}"):
        runner = FpgaRunner(target.compile(graph), start)
        try:
            runner.run(image)
        finally:
            runner.close()
    return file
