# SPDX-License-Identifier: Apache-2.0
"""Place and route on an ECP5 with nextpnr, its timing, and the packed bitstream."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from codesign.errors import CodesignError, InputError
from codesign.targets.fpga.build.cache import kept, key
from codesign.targets.fpga.build.synth import Synthesis
from codesign.targets.fpga.programs import require_program, run_program

PARTS: Mapping[str, tuple[str, str, str]] = {
    "LFE5U-85F-6BG381C": ("--85k", "CABGA381", "6"),
    "LFE5U-45F-6BG381C": ("--45k", "CABGA381", "6"),
    "LFE5U-25F-6BG381C": ("--25k", "CABGA381", "6"),
}
"""Vendor part to nextpnr's device, package and speed grade."""
OPTIONS = (
    # the default placer leaves half as many wires again in the middle of the part, and the router
    # then does not get rid of its last thousand conflicts; the default router takes many times as
    # long where a third of the part is in use. Wires that make a path too slow are routed anew,
    # else the router's detours cost a seventh of the clock that the placement promised
    "--placer", "static", "--router", "router2", "--tmg-ripup",
    "--timing-allow-fail", "--lpf-allow-unconstrained",
)  # fmt: skip

MARGIN = 1.02
"""nextpnr is asked for so many times the clock: its router goes on until its own sums keep to what
is asked for, and the analysis after it has found paths 1.3 % slower than those."""
ROUNDS = 1000
"""The static placer's, at most: it ends after some 550, or moves on for hours with a seed for which
it does not converge."""
REROUTES = 40
"""Rounds of the router, at most, in which no wire is in conflict and some are too slow: it does not
end before it has found better ways for them, and there may be none."""


class NotPlacedError(CodesignError):
    """Placer or router do not converge."""


@dataclass(frozen=True)
class Placed:
    """A design placed and routed; the figures are nextpnr's after routing."""

    part: str
    target_mhz: float
    fmax_mhz: float
    """The slowest clock that was constrained or found."""
    clocks: Mapping[str, float] = field(hash=False)
    """MHz that each clock reaches."""
    used: Mapping[str, tuple[int, int]] = field(hash=False)
    """Kind of cell to (used, available)."""
    seed: int
    seconds: float
    """Placing, routing and packing, as long as it took when it was made."""
    tool: str
    """nextpnr and its version."""
    folder: Path
    path: tuple[str, ...]
    """Cells along the slowest path."""

    @property
    def met(self) -> bool:
        """Whether every clock reaches the target."""
        return self.fmax_mhz >= self.target_mhz

    @property
    def bitstream(self) -> Path:
        """The file that the board is programmed with."""
        return self.folder / "design.bit"


@cache
def nextpnr_version() -> str:
    """What ``nextpnr-ecp5 --version`` says. A native one on PATH comes before pip's."""
    said = run_program([require_program("nextpnr-ecp5"), "--version"], "nextpnr-ecp5 --version")
    return said.strip().splitlines()[-1].replace('"', "")


def place(
    synthesis: Synthesis, part: str, lpf: str, mhz: float, *, seeds: tuple[int, ...] = (1,),
    budget: float | None = None, folder: Path | None = None,
    line: Callable[[str], None] | None = None, allow_slow: bool = False,
) -> Placed:  # fmt: skip
    """Place, route and pack; takes minutes. Each seed is tried until one meets ``mhz``, none that
    would not end within ``budget`` seconds if it took as long as the one before (the first is
    always tried). A seed with which placer or router do not converge is given up.

    ``lpf``: constraints. Results are kept by content. Raises InputError for a part that nextpnr
    does not have, ToolNotFoundError, NotPlacedError where they converge with none of the seeds, and
    CodesignError when no seed meets the clock (unless ``allow_slow``: then the fastest one is
    returned).
    """
    if part not in PARTS:
        raise InputError(f"part {part!r}: nextpnr-ecp5 is called for {', '.join(PARTS)}")
    best: Placed | None = None
    astray: NotPlacedError | None = None
    began, tried = time.monotonic(), 0
    for seed in seeds:
        if best is not None and budget is not None:
            spent = time.monotonic() - began
            if spent + best.seconds > budget:
                break
        try:
            found = _place(synthesis, part, lpf, mhz, seed, folder, line)
        except NotPlacedError as error:
            astray = error
            if line is not None:
                line(str(error))
            continue
        tried += 1
        if best is None or found.fmax_mhz > best.fmax_mhz:
            best = found
        if best.met:
            return best
    if best is None:
        raise astray or InputError("no seed to place with; give at least one")
    if allow_slow:
        return best
    raise CodesignError(
        f"{synthesis.top} on {part} reaches {best.fmax_mhz:.1f} MHz of the {mhz:.1f} MHz asked for "
        f"(best of {tried} placements); lower the clock, or take fewer lanes. Slowest path: "
        + " > ".join(best.path[:6])
    )


def _place(
    synthesis: Synthesis, part: str, lpf: str, mhz: float, seed: int, folder: Path | None,
    line: Callable[[str], None] | None,
) -> Placed:  # fmt: skip
    device, package, speed = PARTS[part]
    nextpnr, ecppack = require_program("nextpnr-ecp5"), require_program("ecppack")
    netlist, version = synthesis.netlist.read_bytes(), nextpnr_version()

    def make(aside: Path) -> None:
        began = time.monotonic()
        (aside / "netlist.json").write_bytes(netlist)
        (aside / "design.lpf").write_text(lpf, encoding="utf-8")
        (aside / "asked.lpf").write_text(tightened(lpf), encoding="utf-8")
        run_program(
            [nextpnr, device, "--package", package, "--speed", speed, "--json", "netlist.json",
             "--lpf", "asked.lpf", "--textcfg", "design.config", "--report", "report.json",
             "--freq", f"{MARGIN * mhz:g}", "--seed", str(seed), *OPTIONS],
            f"placing {synthesis.top} on {part}", cwd=aside, log=aside / "nextpnr.log",
            line=_steps(line, seed),
        )  # fmt: skip
        run_program(
            [ecppack, "design.config", "design.bit", "--compress"],
            f"packing the bitstream of {synthesis.top}", cwd=aside,
        )
        (aside / "netlist.json").unlink()
        seconds = {"seconds": time.monotonic() - began, "tool": version}
        (aside / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")

    name = key(netlist, part, tightened(lpf), f"{mhz:g}", str(seed), version, *OPTIONS)
    home, _ = kept("place-" + name[:40], make, folder)
    report = json.loads((home / "report.json").read_text(encoding="utf-8"))
    made = json.loads((home / "seconds.json").read_text(encoding="utf-8"))
    return parse_report(report, part, mhz, seed, made["seconds"], home, made["tool"])


def tightened(lpf: str) -> str:
    """Constraints with clocks ``MARGIN`` times as fast.

    >>> tightened('FREQUENCY PORT "clk" 25 MHZ;')
    'FREQUENCY PORT "clk" 25.5 MHZ;'
    """
    return re.sub(
        r'(FREQUENCY (?:PORT|NET) "[^"]*" )([0-9.]+)',
        lambda found: f"{found[1]}{MARGIN * float(found[2]):g}", lpf,
    )  # fmt: skip


def parse_report(
    report: Mapping[str, object], part: str, mhz: float, seed: int, seconds: float, folder: Path,
    tool: str = "nextpnr-ecp5",
) -> Placed:  # fmt: skip
    """Read nextpnr's JSON report. Raises CodesignError if it holds no clock."""
    fmax, use, paths = (report.get(n, {}) for n in ("fmax", "utilization", "critical_paths"))
    assert isinstance(fmax, dict)
    assert isinstance(use, dict)
    clocks = {str(name): float(clock["achieved"]) for name, clock in fmax.items()}
    if not clocks:
        raise CodesignError("nextpnr's report names no clock; is the design's clock connected?")
    used = {
        str(name): (int(cell["used"]), int(cell["available"]))
        for name, cell in use.items() if cell["used"]
    }  # fmt: skip
    slowest = min(clocks, key=lambda name: clocks[name])
    return Placed(part, mhz, clocks[slowest], clocks, used, seed, seconds, tool, folder,
                  _slowest_path(paths, slowest))  # fmt: skip


def _slowest_path(paths: object, clock: str) -> tuple[str, ...]:
    for path in paths if isinstance(paths, list) else []:
        if path["from"].endswith(clock) and path["to"].endswith(clock):
            cells = [step["to"]["cell"] for step in path["path"] if step["type"] == "routing"]
            return tuple(dict.fromkeys(str(cell) for cell in cells))
    return ()


def _steps(line: Callable[[str], None] | None, seed: int) -> Callable[[str], None]:
    """Tell what nextpnr is at, not all it says; stop it where it does not converge."""
    said = {"stage": ""}
    slow = 0  # rounds of the router that only wires too slow were left in
    stages = (
        (r"Packing|Info: Packing", "packing"), (r"Running.*placer|Creating initial", "placing"),
        (r"Routing\.\.|Info: Routing|Running router", "routing"),
        (r"Max frequency for clock.*", "timing"), (r"Program finished", "done"),
    )  # fmt: skip

    def step(text: str) -> None:
        nonlocal slow
        if (at := re.match(r"Info: iter=(\d+) steplen=", text)) and int(at[1]) > ROUNDS:
            raise NotPlacedError(
                f"nextpnr's static placer has not converged in {ROUNDS:,} rounds with seed {seed}; "
                "another seed does, most often"
            )
        if at := re.match(r"Info: +iter=\d+ wires=\d+ overused=(\d+) .*tmgfail=(\d+)", text):
            slow = slow + 1 if int(at[1]) == 0 < int(at[2]) else 0
            if slow > REROUTES:
                raise NotPlacedError(
                    f"nextpnr's router has found no faster way for {at[2]} wires in {REROUTES:,} "
                    f"rounds with seed {seed}; another seed or a lower clock may do"
                )
        if line is None:
            return
        for pattern, stage in stages:
            if re.search(pattern, text) and said["stage"] != stage:
                said["stage"] = stage
                line(f"nextpnr (seed {seed}): {stage}")

    return step
