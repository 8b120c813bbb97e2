# SPDX-License-Identifier: Apache-2.0
"""Hard blocks of a design without synthesising its logic: what it instantiates, and its memories.

The generator instantiates every multiplier itself, so they are counted in its RTLIL. Memories are
mapped by the same steps of yosys as in a whole synthesis, module by module and without the rest,
each different one once: seconds instead of minutes. ``benchmarks/resources.py --mapped`` holds the
model of DSPs and block RAMs against it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from codesign.errors import InputError
from codesign.targets.fpga.build.synth import DSPS, LUTS, RAMB18, Family, parse_stat
from codesign.targets.fpga.programs import require_program, run_program

STEPS: Mapping[str, str] = {
    "xcup": "synth_xilinx -family xcup -flatten -nowidelut -nodsp -run map_memory:map_ffram",
    "xc7": "synth_xilinx -family xc7 -flatten -nowidelut -nodsp -run map_memory:map_ffram",
    "ecp5": "synth_ecp5 -nowidelut -nodsp -run map_ram:map_ffram",
}
"""Mapping of memories in a whole synthesis (``synth.SCRIPTS``); what comes before is shortened."""
_MODULE = re.compile(r"^module (\\\S+)\n(.*?)^end$", re.M | re.S)
_CELL = re.compile(r"^  cell (\S+) \S+$", re.M)


@dataclass(frozen=True)
class Hard:
    """Hard blocks, and the LUTs that are memory."""

    dsp: int
    ramb18: int
    memory_lut: int


@dataclass(frozen=True)
class Parts:
    """What of a design matters here."""

    dsp: int
    memories: Mapping[str, int]
    """Text of each different module with memories to how often it is there."""


def parts_of(design: str, top: str) -> Parts:
    """Multipliers, and modules with memories, of a design in RTLIL below module ``top``.

    Raises InputError when the text has no such module.
    """
    bodies = dict(_MODULE.findall(design))
    if f"\\{top}" not in bodies:
        raise InputError(f"the RTLIL holds no module {top}")
    cells = {name: Counter(_CELL.findall(body)) for name, body in bodies.items()}
    times: Counter[str] = Counter()

    def count(name: str, n: int) -> None:
        times[name] += n
        for cell, several in cells.get(name, {}).items():
            if cell in bodies or cell.lstrip("\\") in DSPS:
                count(cell, n * several)

    count(f"\\{top}", 1)
    memories: Counter[str] = Counter()
    for name, body in bodies.items():
        if times[name] and re.search(r"^  (memory |cell \$mem)", body, re.M):
            memories[_alone(body)] += times[name]
    dsp = sum(n for name, n in times.items() if name.lstrip("\\") in DSPS)
    return Parts(dsp, memories)


def _alone(body: str) -> str:
    """A module's body without the modules that it instantiates: their results become inputs that
    nothing drives."""
    return re.sub(r"^  cell \\.*?^  end\n", "", body, flags=re.M | re.S)


def map_memories(texts: Sequence[str], family: Family) -> list[tuple[int, int]]:
    """(RAMB18, LUTs used as memory) of each module's text, all in one run of yosys.

    Raises ToolNotFoundError without yosys, CodesignError with yosys's words.
    """
    if not texts:
        return []
    with TemporaryDirectory() as name:
        folder = Path(name)
        modules = [f"m{n}" for n in range(len(texts))]
        design = "".join(f"module \\{m}\n{text}end\n" for m, text in zip(modules, texts))
        (folder / "memories.il").write_text(design, encoding="utf-8")
        commands = [
            "read_rtlil memories.il", "proc", "opt_expr", "opt_clean", "memory -nomap",
            "opt_clean", STEPS[family],
        ]  # fmt: skip
        commands += [f"tee -q -o {m}.txt stat {m}" for m in modules]
        run_program([require_program("yosys"), "-p", "; ".join(commands)],
                    f"mapping of {len(texts)} memories for {family}", cwd=folder)  # fmt: skip
        found = []
        for m in modules:
            cells = parse_stat((folder / f"{m}.txt").read_text(encoding="utf-8"))
            rams = sum(count * cells.get(cell, 0) for cell, count in RAMB18.items())
            luts = sum(n * LUTS.get(c, 0) for c, n in cells.items()
                       if c.startswith(("RAM32", "RAM64", "RAM128", "TRELLIS_DPR")))  # fmt: skip
            found.append((rams, luts))
        return found


def hard_blocks(parts: Sequence[Parts], family: Family) -> list[Hard]:
    """Of several designs at once: modules that they share are mapped once."""
    texts = list(dict.fromkeys(text for p in parts for text in p.memories))
    mapped = dict(zip(texts, map_memories(texts, family)))
    found = []
    for p in parts:
        rams = sum(n * mapped[text][0] for text, n in p.memories.items())
        luts = sum(n * mapped[text][1] for text, n in p.memories.items())
        found.append(Hard(p.dsp, rams, luts))
    return found


def content(design: str) -> str:
    """A short checksum of a design's text."""
    return hashlib.sha256(design.encode()).hexdigest()[:16]
