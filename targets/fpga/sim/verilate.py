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
    "--cc", "--top-module", "top", "--prefix", "Vtop", "-O3", "--x-assign", "fast",
    "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--threads", "1",
    "--output-split", "20000", "--output-split-cfuncs", "2000",
)  # fmt: skip
"""Split output keeps single files small, so that two cores compile at once."""


class SimulationError(CodesignError):
    """A simulator could not be built or broke down."""


@dataclass(frozen=True)
class Options:
    """How a design is compiled."""

    optimise: str = "-O1"
    """Of the code that runs each cycle."""
    waves: bool = False
    jobs: int = 2


def built(
    verilog: str, port_bits: int, options: Options | None = None,
    say: Callable[[str], None] | None = None, bench: Path = BENCH, defines: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """The program that simulates ``verilog`` (module ``top``); compiled unless it is in the cache.

    The verilated design and the bench are kept apart, so that a change of one is cheap. Raises
    ToolNotFoundError for a missing tool and SimulationError with the tools' last lines.
    """
    options = options or Options()
    verilator = require_program("verilator")
    version = subprocess.run([verilator, "--version"], capture_output=True, text=True, check=False)
    model = _key(verilog, repr(options), *VERILATE, version.stdout)
    target = cache_dir() / "verilator" / model
    program = target / f"bench-{_key(bench.read_text(), str(port_bits), *defines)}"
    if program.exists():
        return program
    compiler = require_tool("c++")
    if not (target / "obj").exists():
        if say is not None:
            say(f"compiling the simulation of {len(verilog.splitlines())} lines of Verilog")
        _model(target, verilog, verilator, compiler, options)
    include = Path(
        subprocess.run(
            [verilator, "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True, check=False
        ).stdout.strip()
    ) / "include"  # fmt: skip
    objects = sorted(str(path) for path in (target / "obj").glob("verilated*.o"))
    part = target / f"{program.name}-{os.getpid()}"
    _call(
        target, compiler, "-std=c++17", "-O2", f"-DPORT_BITS={port_bits}", *defines,
        *(["-DWAVES"] if options.waves else []), "-DVM_TRACE=" + str(int(options.waves)),
        "-DVM_TRACE_FST=" + str(int(options.waves)), "-I", "obj", "-I", str(include),
        "-I", str(include / "vltstd"), str(bench), "obj/Vtop__ALL.a", *objects, "-o", str(part),
        "-pthread", *(["-lz"] if options.waves else []),
    )  # fmt: skip
    part.rename(program)
    return program


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _model(
    target: Path, verilog: str, verilator: str, compiler: str, options: Options
) -> None:  # fmt: skip
    """``target``/obj: the verilated design as a library with its headers."""
    make = require_tool("make")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    try:
        (folder / "top.v").write_text(verilog)
        waves = ["--trace-fst"] if options.waves else []
        _call(folder, verilator, *VERILATE, *waves, "--Mdir", "obj", "top.v")
        native = "-march=native" if _native(compiler) else ""
        runtime = ["verilated.o", "verilated_threads.o"]
        runtime += ["verilated_fst_c.o"] if options.waves else []
        _call(
            folder, make, "-C", "obj", "-f", "Vtop.mk", "-j", str(options.jobs), f"CXX={compiler}",
            f"OPT_FAST={options.optimise} {native}", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1",
            "Vtop__ALL.a", *runtime,
        )  # fmt: skip
        for path in (folder / "obj").iterdir():
            kept = path.suffix in (".h", ".a") or path.name.startswith("verilated")
            if not kept:
                path.unlink()
        try:
            folder.rename(target)
        except OSError:  # another process was quicker
            if not (target / "obj").exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
