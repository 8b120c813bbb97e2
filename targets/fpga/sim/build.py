# SPDX-License-Identifier: Apache-2.0
"""From an accelerator to a running simulation of it.

Verilog is kept in the cache by the accelerator and the content of the generator's files, programs
by their Verilog: the first use of a design takes tens of seconds, the next ones none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codesign.data import cache_dir
from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.programs import find_program
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.session import Session, VerilatorSession
from codesign.targets.fpga.sim.verilate import Options, SimulationError, built

_SCRIPT = """read_rtlil {0}.il
proc -nomux -norom
memory_collect
attrmap -remove generator -remove top -remove src -remove amaranth.hierarchy
attrmap -modattr -remove generator -remove top -remove src
write_verilog -norename {0}.v
"""

_BLANK = re.compile(r"^ *\S+ ?\[\d+\] = \d+'[hd]0+;\n", re.MULTILINE)
"""Content 0 of a memory's word, which Verilator starts with anyhow. It would make a statement of
each: of a large design's 15 MB, for which the C++ compiler takes minutes and 7 GB."""


@dataclass(frozen=True)
class SimOptions:
    """How a simulation is generated."""

    burst: int = 16
    """Beats of the longest burst."""
    queue: int = 8
    """Commands that wait for each unit."""
    primitive: bool = False
    """Vendors' multiplier primitives (their models), or plain products of the same latency."""
    compile: Options = field(default_factory=Options)


def _sources() -> str:
    """One digest of everything that makes the Verilog."""
    folder = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted([*(folder / "hw").glob("*.py"), folder / "isa.py", folder / "machine.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def simulation_verilog(
    accelerator: Accelerator, options: SimOptions | None = None,
    say: Callable[[str], None] | None = None,
) -> str:  # fmt: skip
    """Verilog of an accelerator as it is simulated (module ``top``)."""
    options = options or SimOptions()
    parts = (options.burst, options.queue, options.primitive, _sources(), _SCRIPT, _BLANK.pattern)
    data = [accelerator.to_data(), *parts]
    key = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:24]
    path = cache_dir() / "verilog" / f"{key}.v"
    if path.exists():
        return path.read_text()
    from codesign.targets.fpga.hw.top import Top

    if say is not None:
        say("generating the accelerator's Verilog")
    top = Top(accelerator, burst=options.burst, queue=options.queue, primitive=options.primitive)
    text = converted(top)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).replace(path)
    return text


def converted(top: Any) -> str:
    """Verilog (module ``top``) of an elaboratable with ``ports``; through a yosys of the machine
    where there is one: ten times as fast as Amaranth's own."""
    from amaranth.back import rtlil, verilog

    yosys = find_program("yosys")
    if yosys is None or Path(yosys).name != "yosys":  # the wasm one is no faster
        made: str = verilog.convert(
            top, name="top", ports=top.ports, emit_src=False, strip_internal_attrs=True
        )
        return made
    text = rtlil.convert(top, name="top", ports=top.ports, emit_src=False)
    with tempfile.TemporaryDirectory(prefix="codesign-yosys-") as name:
        stem = Path(name) / "top"
        stem.with_suffix(".il").write_text(text)
        script = Path(name) / "script.ys"
        script.write_text(_SCRIPT.format(stem))
        done = subprocess.run(
            [yosys, "-q", str(script)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SimulationError(
                f"{yosys} cannot write the accelerator's Verilog: {done.stderr[-500:]}"
            )
        return _BLANK.sub("", stem.with_suffix(".v").read_text())


def open_session(
    accelerator: Accelerator, memory_bytes: int, dram: Dram, options: SimOptions | None = None,
    waves: tuple[Path, int, int] | None = None, say: Callable[[str], None] | None = None,
) -> Session:  # fmt: skip
    """Generate, compile (or find in the cache) and start the simulation of an accelerator.

    ``waves``: an FST file to write and its first and last cycle; compiles a build of its own.
    Raises ToolNotFoundError where Verilator is missing; ``slow.open_slow_session`` does without.
    """
    options = options or SimOptions()
    compile_ = Options(options.compile.optimise, waves is not None, options.compile.jobs)
    text = simulation_verilog(accelerator, options, say)
    bits = 128 if accelerator.port_bits >= 128 else 64
    program = built(text, bits, compile_, say)
    return VerilatorSession(program, accelerator, memory_bytes, dram, waves)
