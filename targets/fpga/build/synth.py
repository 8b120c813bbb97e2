# SPDX-License-Identifier: Apache-2.0
"""Synthesis by yosys, and what it says the design takes.

Flattened, without wide multiplexers (they inflate LUTs) and without inferred multipliers: the
generator instantiates every DSP itself. Xilinx designs come without pads and clock buffers.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from codesign.errors import CodesignError, InputError
from codesign.targets.fpga.build.cache import kept, key
from codesign.targets.fpga.build.ecp5_netlist import improve
from codesign.targets.fpga.programs import require_program, run_program

Family = Literal["xcup", "xc7", "ecp5"]
SCRIPTS: Mapping[str, str] = {
    "xcup": "synth_xilinx -family xcup -flatten -noiopad -noclkbuf -nowidelut -nodsp -top {top}",
    "xc7": "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -nowidelut -nodsp -top {top}",
    # the steps of synth_ecp5 without `share`, which puts multiplexers before adders to save some
    # of them: half of the slowest paths of a whole accelerator
    # first: a word that is read while it is written may be anything (no unit does that, see
    # hw/buffers.py), else block RAM gets a multiplexer and a register a bit for the old value
    "ecp5": (
        "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i; "
        "synth_ecp5 -nowidelut -nodsp -top {top} -run begin:coarse; "
        "proc; flatten; tribuf -logic; deminout; opt_expr; opt_clean; check; opt -nodffe -nosdff; "
        "fsm; opt; wreduce; peepopt; opt_clean; techmap -map +/cmp2lut.v -D LUT_WIDTH=4; opt_expr; "
        "opt_clean; alumacc; opt; memory -nomap; opt_clean; "
        "synth_ecp5 -nowidelut -nodsp -top {top} -run map_ram:"
    ),
}

AFTER: Mapping[str, str] = {"ecp5": "block RAM registers, global resets: 1"}
"""What is done to the netlist afterwards (``ecp5_netlist``), with its version."""

LUTS: Mapping[str, int] = {
    **{f"LUT{inputs}": 1 for inputs in range(1, 7)},
    # memories of LUTs: the LUTs of their SLICEM (UG474, UG574)
    "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8, "RAM32X1S": 1, "RAM64X1S": 1,
    "RAM128X1S": 2, "RAM256X1S": 4, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8,
    "SRL16E": 1, "SRLC32E": 1,
    # ECP5: a carry cell is a slice of two LUT4; a 16 x 4 memory takes two slices and a write slice
    "CCU2C": 2, "TRELLIS_DPR16X4": 6,
}  # fmt: skip
"""LUTs of each cell. Inverters count 0: they go into LUTs or registers. Carry chains of Xilinx
parts are beside the LUTs."""
FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "TRELLIS_FF")
DSPS = ("DSP48E1", "DSP48E2", "MULT18X18D")
RAMB18: Mapping[str, int] = {
    "RAMB18E1": 1, "RAMB18E2": 1, "RAMB36E1": 2, "RAMB36E2": 2, "DP16KD": 1, "PDPW16KD": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Synthesis:
    """What a design takes after synthesis; yosys's counts, before placement."""

    top: str
    family: Family
    dsp: int
    lut: int
    ff: int
    ramb18: int
    """Block RAMs of 18 Kbit; a RAMB36 counts 2, an EBR of the ECP5 1."""
    uram: int
    cells: Mapping[str, int] = field(hash=False)
    """Count of each primitive."""
    tool: str
    seconds: float
    netlist: Path
    """The netlist as JSON; ``netlist.v`` beside it."""

    @property
    def verilog(self) -> Path:
        """The netlist as Verilog."""
        return self.netlist.with_suffix(".v")


@cache
def yosys_version() -> str:
    """First line of ``yosys -V``. The first start of YoWASP's takes two minutes."""
    return run_program([require_program("yosys"), "-V"], "yosys -V").strip().splitlines()[-1]


def synthesise(
    design: str, top: str, family: Family, *, folder: Path | None = None,
    line: Callable[[str], None] | None = None,
) -> Synthesis:  # fmt: skip
    """Synthesise a design; results are kept by content in ``folder`` (by default the user's cache).

    ``design`` is Verilog or RTLIL, as Amaranth writes both. RTLIL for whole accelerators: yosys
    0.23 takes many minutes to read the initial content of large memories from Verilog.

    ``line`` is told each step. Raises InputError for an unknown family or a top name that is no
    plain identifier, ToolNotFoundError without yosys, CodesignError with yosys's words.
    """
    if family not in SCRIPTS:
        raise InputError(f"family {family!r}; expected one of {', '.join(SCRIPTS)}")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", top):
        raise InputError(f"top module {top!r} is no plain Verilog identifier")
    yosys = require_program("yosys")
    script = SCRIPTS[family].format(top=top)
    version, verilog = yosys_version(), "write_verilog -noattr netlist.v"
    rtlil = re.match(r"\s*(#[^\n]*\n\s*)*(attribute|module|autoidx) ", design) is not None
    read, file = ("read_rtlil", "design.il") if rtlil else ("read_verilog", "design.v")
    if rtlil and re.search(r"^module \\(\S+)$", design, re.M) is None:
        raise InputError("the RTLIL holds no module")

    def make(aside: Path) -> None:
        began = time.monotonic()
        (aside / file).write_text(design, encoding="utf-8")
        commands = (
            f"{read} {file}; {script}; tee -q -o stat.txt stat; "
            "write_json netlist.json" + ("" if family in AFTER else f"; {verilog}")
        )
        step = _steps(line) if line is not None else None
        run_program([yosys, "-p", commands], f"synthesis of {top} for {family}",
                    cwd=aside, line=step, log=aside / "yosys.log")  # fmt: skip
        cells = parse_stat((aside / "stat.txt").read_text(encoding="utf-8"))
        if family in AFTER:
            netlist = json.loads((aside / "netlist.json").read_text(encoding="utf-8"))
            changed = improve(netlist, top)
            (aside / "netlist.json").write_text(json.dumps(netlist), encoding="utf-8")
            cells["TRELLIS_FF"] = cells.get("TRELLIS_FF", 0) - changed.registers
            run_program([yosys, "-p", f"read_json netlist.json; {verilog}"],
                        f"writing the netlist of {top}", cwd=aside)  # fmt: skip
        facts = {"cells": cells, "tool": version, "seconds": time.monotonic() - began}
        (aside / "facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        for name in ("yosys.log", file):  # long, and of use only when synthesis fails
            (aside / name).unlink()

    name = key(design, script, version, AFTER.get(family, ""))
    place, _ = kept("synth-" + name[:40], make, folder)
    facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
    return report(top, family, facts["cells"], facts["tool"], facts["seconds"],
                  place / "netlist.json")  # fmt: skip


def _steps(line: Callable[[str], None]) -> Callable[[str], None]:
    """Tell the script's steps, not the many that these are made of."""

    def step(text: str) -> None:
        if at := re.match(r"\d+\. Executing (.*?)\.?$", text):
            line(f"yosys: {at[1]}")

    return step


def report(
    top: str, family: Family, cells: Mapping[str, int], tool: str, seconds: float, netlist: Path
) -> Synthesis:
    """Count resources of primitives."""
    return Synthesis(
        top, family,
        dsp=sum(cells.get(name, 0) for name in DSPS),
        lut=sum(count * cells.get(name, 0) for name, count in LUTS.items()),
        ff=sum(cells.get(name, 0) for name in FLIP_FLOPS),
        ramb18=sum(count * cells.get(name, 0) for name, count in RAMB18.items()),
        uram=cells.get("URAM288", 0),
        cells=cells, tool=tool, seconds=seconds, netlist=netlist,
    )  # fmt: skip


def parse_stat(text: str) -> dict[str, int]:
    """Cells by type from yosys's ``stat`` of a flattened design.

    Takes both forms: "NAME count" (0.23) and "count NAME" (later). Raises CodesignError if there
    is no table of cells.
    """
    found: dict[str, int] = {}
    inside = False
    for raw in text.splitlines():
        row = raw.split()
        if any(item.rstrip(":") == "cells" for item in row):
            inside, found = True, {}  # the last module is the whole
            continue
        if not inside:
            continue
        numbers = [at for at, item in enumerate(row) if item.isdigit()]
        names = [item for item in row if re.fullmatch(r"[$A-Za-z_\\][\w$\\.]*", item)]
        if not row or len(names) != 1 or not numbers:
            inside = inside and not row and not found
            continue
        found[names[0]] = int(row[numbers[0]])
    if not found:
        raise CodesignError(f"yosys's statistics hold no cells:\n{text[-500:]}")
    return found


def facts(synthesis: Synthesis) -> dict[str, object]:
    """Plain data for a report."""
    data = asdict(synthesis)
    data["netlist"] = str(synthesis.netlist)
    return data
