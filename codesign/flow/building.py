# SPDX-License-Identifier: Apache-2.0
"""``codesign build``: the chosen integer network, compiled for the design's target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from codesign.errors import CodesignError, InputError, ParseError
from codesign.flow.artifact import Design
from codesign.flow.choose import FLOAT_IR, INTEGER_IR
from codesign.flow.prepare import device_target, load_target
from codesign.flow.progress import SILENT, Progress
from codesign.flow.store import digest, file_digest, make_folder, read_json, write_json
from codesign.ir.graph import Graph
from codesign.ir.text import parse_graph
from codesign.targets.base import Runner, Target

BUILD_FORMAT = "codesign-build/1"


def build(
    folder: Path, progress: Progress = SILENT, tune: str | None = None,
    place: bool | None = True, *, rpc: str | None = None, rpc_key: str | None = None,
) -> Path:  # fmt: skip
    """Compile the design in ``folder``; returns ``folder/build/<target>``.

    A build of the same integer network for the same target is kept. ``tune`` is a budget of
    trials ("200") or time ("60s", "5m") for finding faster tiles first; what is found is kept in
    the tuning database, which later builds take tiles from. ``place`` False: a build for an ECP5
    ends before place and route; a later one with it goes on. None: as the last build here.
    ``rpc`` and ``rpc_key`` name a device to tune on, by default the one of the design.
    """
    chosen = Design.load(folder)
    options = chosen.options.on_device(rpc, rpc_key)
    target = device_target(options).with_design(folder)
    out = folder / "build" / target.name
    stamp = folder / "build" / f"{target.name}.json"
    there = stamp.is_file() and out.is_dir()
    kept = read_json(stamp, BUILD_FORMAT, "codesign build DIR") if there else {}
    if not (kept.get("place", True) if place is None else place):
        target = _unplaced(target)
    target = _told(target, progress)
    # a build is the same wherever the device's tracker is
    key = digest(file_digest(_require(folder / INTEGER_IR)), getattr(target, "inner", target))
    if tune is not None:
        _tune(target, load_integer(folder), tune, progress)
        stamp.unlink(missing_ok=True)
    if stamp.is_file() and kept.get("key") == key and _loads(chosen, out):
        progress.note(f"{out} is up to date")
        return out
    make_folder(out.parent)
    with progress.task(f"Compiling for {target.name}"):
        target.build(load_integer(folder), out)
    made = {"format": BUILD_FORMAT, "key": key, "target": target.name}
    write_json(stamp, {**made, "place": getattr(target, "place", True)})
    return out


def _told(target: Target, progress: Progress) -> Target:
    """The target, telling what a long build is at."""
    from codesign.targets.fpga.target import FpgaTarget

    return replace(target, say=progress.note) if isinstance(target, FpgaTarget) else target


def _unplaced(target: Target) -> Target:
    from codesign.targets.fpga.target import FpgaTarget

    if not isinstance(target, FpgaTarget):
        raise InputError(f"--no-place: nothing is placed for {target.name}; leave out --no-place")
    return replace(target, place=False)


def _tune(target: Target, graph: Graph, budget: str, progress: Progress) -> None:
    """Find faster tiles, if the target has a tuner."""
    from codesign.targets.tuning.tune import Budget

    limit = Budget.parse(budget)
    tuner = getattr(target, "tune", None)
    if tuner is None:
        raise InputError(f"target {target.name} has no tuner; leave out --tune")
    with progress.task(f"Tuning for {target.name}, {budget}") as step:
        done = tuner(graph, limit, lambda line, spent, whole: step(spent, whole))
    progress.note(
        f"tuned {done.kernels} kernels: {done.trials} trials in {done.seconds:.0f} s, "
        f"{done.failed} failed, {done.improved} kernels faster than by the fixed rules (measured)"
    )


def is_built(folder: Path) -> bool:
    """Whether ``folder`` holds a build for its design's target."""
    return (folder / "build" / load_target(Design.load(folder).options.target).name).is_dir()


def load_runner(folder: Path) -> Runner:
    """The built network, ready to run; raises InputError if it was not built."""
    chosen = Design.load(folder)
    target = load_target(chosen.options.target)
    out = folder / "build" / target.name
    target = target.with_design(folder)
    if not out.is_dir():
        raise InputError(f"{out}: no such folder; make it with `codesign build {folder}`")
    return target.load(out)


def load_float(folder: Path) -> Graph:
    """The prepared float network of a design."""
    return _load(folder / FLOAT_IR)


def load_integer(folder: Path) -> Graph:
    """The integer network of a design."""
    return _load(folder / INTEGER_IR)


def _load(path: Path) -> Graph:
    text = _require(path).read_text(encoding="utf-8")
    try:
        return parse_graph(text, str(path))
    except ParseError as error:
        raise InputError(f"{error}; make it anew with `codesign design`") from None


def _require(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `codesign design`")
    return path


def _loads(chosen: Design, out: Path) -> bool:
    try:
        load_target(chosen.options.target).load(out)
    except CodesignError:
        return False  # damaged: built anew
    return True
