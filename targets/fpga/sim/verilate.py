# SPDX-License-Identifier: Apache-2.0
"""Verilog to a program that simulates it: Verilator, then the C++ compiler; kept in the cache.

The key of the cache is the content of all sources and the options, so a design is compiled once.
Half-made builds are never seen: a build appears under its name when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codesign.data import cache_dir
from codesign.errors import CodesignError
from codesign.targets.fpga.programs import require_program
from codesign.targets.tools import Tool, register_tool, require_tool

BENCH = Path(__file__).with_name("bench.cpp")
register_tool(
    "make",
    Tool(("make", "gmake"), "MAKE", "compiling a verilated accelerator", "apt-get install make"),
)

VERILATE = (
    "--cc", "--exe", "--top-module", "top", "--prefix", "Vtop", "-O3", "--x-assign", "fast",
    "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--threads", "1",
    "--output-split", "20000", "--output-split-cfuncs", "2000",
)  # fmt: skip
"""Split output keeps single files small, so that two cores compile at once."""


class SimulationError(CodesignError):
    """A simulator could not be built or broke down."""


@dataclass(frozen=True)
class Options:
    """How a design is compiled."""

    optimise: str = "-O2"
    """Of the code that runs each cycle. -O2 compiles twice as fast as -O3 and runs as fast."""
    waves: bool = False
    jobs: int = 2


def built(
    verilog: str, port_bits: int, options: Options | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """The program that simulates ``verilog`` (module ``top``); compiled unless it is in the cache.

    Raises ToolNotFoundError for a missing tool and SimulationError with the tools' last lines.
    """
    options = options or Options()
    verilator = require_program("verilator")
    version = subprocess.run([verilator, "--version"], capture_output=True, text=True, check=False)
    parts = [verilog, BENCH.read_text(), repr(options), str(port_bits), " ".join(VERILATE),
             version.stdout]  # fmt: skip
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    target = cache_dir() / "verilator" / key
    program = target / "bench"
    if program.exists():
        return program
    make, compiler = require_tool("make"), require_tool("c++")
    if say is not None:
        say(f"compiling the simulation of {len(verilog.splitlines())} lines of Verilog")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=target.parent))
    try:
        (folder / "top.v").write_text(verilog)
        shutil.copy(BENCH, folder / "bench.cpp")
        flags = f"-DPORT_BITS={port_bits} -std=c++17"
        waves = ["--trace-fst", "-CFLAGS", f"{flags} -DWAVES"] if options.waves else [
            "-CFLAGS", flags]  # fmt: skip
        _call(folder, verilator, *VERILATE, *waves, "--Mdir", "obj", "-o", "bench",
              "top.v", "bench.cpp")  # fmt: skip
        native = "-march=native" if _native(compiler) else ""
        _call(
            folder, make, "-C", "obj", "-f", "Vtop.mk", "-j", str(options.jobs), f"CXX={compiler}",
            f"LINK={compiler}", f"OPT_FAST={options.optimise} {native}", "OPT_SLOW=-O0",
            "OPT_GLOBAL=-O1",
        )  # fmt: skip
        done = folder / "done"
        done.mkdir()
        shutil.copy(folder / "obj" / "bench", done / "bench")
        (done / "top.v").write_text(verilog)
        try:
            done.rename(target)
        except OSError:  # another process was quicker
            if not program.exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return program


def _native(compiler: str) -> bool:
    done = subprocess.run(
        [compiler, "-march=native", "-E", "-x", "c++", os.devnull], capture_output=True, check=False
    )
    return done.returncode == 0


def _call(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise SimulationError(
            f"building the simulation failed: {Path(command[0]).name} returned {done.returncode}; "
            f"its last lines:\n{said}"
        )
