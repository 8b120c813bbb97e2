# SPDX-License-Identifier: Apache-2.0
"""An accelerator unit by unit through synthesis: what the resource model is calibrated on.

Synthesising a whole accelerator takes minutes and tells one number. Its units (engines, drain,
buffers, memory side) are synthesised apart, several in one run of yosys, and each is the same for
all accelerators that share its parameters. What the sum of the units says of the whole is measured
on whole ones (``benchmarks/resources.py``): DSP and block RAM are equal; of LUTs the whole takes
some per cent less, since the mapper trades depth for area in every unit up to the depth of the
deepest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codesign.errors import CodesignError
from codesign.space.accelerator import Accelerator, Buffer, Engine
from codesign.targets.fpga.build.synth import SCRIPTS, Family, parse_stat, report
from codesign.targets.fpga.machine import depthwise_engine
from codesign.targets.fpga.programs import require_program, run_program

MEMORY_CELLS = ("RAM", "SRL", "TRELLIS_DPR")
"""Prefixes of cells that are LUTs used as memory."""
Use = Mapping[str, int]
"""``dsp``, ``lut``, ``ff``, ``ramb18``, and ``memory``: those of the LUTs that are memory."""


CANONICAL = Accelerator(
    Engine("dense", 8, 8, 1, Buffer(512), Buffer(512), Buffer(512)),
    Engine("depthwise", 1, 8, 1, Buffer(512), Buffer(1024), post=4),
    64,
)
"""What stands for the neighbours of a unit: their influence is below 2 % of the unit."""
SIDE = "system"
"""The memory side; the loader's part of it is taken out and priced for itself."""


def unit_parts(accelerator: Accelerator) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Name with parameters to how often the unit is there and what makes it.

    Equal names are equal hardware. The memory side is made for ``CANONICAL`` engines, without its
    loader (-1 times) and with the accelerator's own.
    """
    from codesign.targets.fpga.hw import buffers as b
    from codesign.targets.fpga.hw.dense import DenseEngine
    from codesign.targets.fpga.hw.depthwise import DepthwiseEngine
    from codesign.targets.fpga.hw.drain import Drain
    from codesign.targets.fpga.hw.loader import Loader
    from codesign.targets.fpga.hw.system import System
    from codesign.targets.fpga.hw.top import hard_multiplier, port_of

    dense, other = accelerator.dense, depthwise_engine(accelerator)
    port, hard = port_of(accelerator), hard_multiplier(accelerator)
    bits = port.bits
    base = CANONICAL.dense, depthwise_engine(CANONICAL)
    found: dict[str, tuple[int, Callable[[], Any]]] = {
        "param": (2, b.ParamBuffer), "tap": (2, b.TapBuffer),
        f"{SIDE} p{bits}": (1, lambda: System(*base, port)),
        f"loader {_loads(base[0])} {_loads(base[1])} p{bits}": (-1, lambda: Loader(*base, port)),
    }  # fmt: skip

    def add(name: str, make: Callable[[], Any]) -> None:
        found[name] = found.get(name, (0, make))[0] + 1, make

    add(f"loader {_loads(dense)} {_loads(other)} p{bits}", lambda: Loader(dense, other, port))
    for e in (dense, other):
        add(f"weight {e.pi * e.po}w{e.weight_bits} d{e.weight.depth} p{bits}",
            lambda e=e: b.WeightBuffer(e, bits))  # type: ignore[misc]
        add(f"activation {_activations(e)} p{bits}",
            lambda e=e: b.ActivationBuffer(e, bits))  # type: ignore[misc]
    out = f"po{dense.po} px{dense.px} c{dense.accumulator_bits} d{dense.accumulator.depth}"
    add(f"sums {out}", lambda: b.AccumulatorBuffer(dense))
    add(f"dense pi{dense.pi} w{dense.weight_bits}a{dense.activation_bits} {dense.multiplier}"
        f"{_twice(dense)} {out}", lambda: DenseEngine(dense))  # fmt: skip
    add(f"drain q{dense.post} {hard}{_twice(dense)} {out}",
        lambda: Drain(dense, base[1], 64, hard=hard))  # fmt: skip
    add(f"depthwise po{other.po} px{other.px} q{other.post} {other.multiplier} {hard}",
        lambda: DepthwiseEngine(other, base[0], 64, hard=hard))  # fmt: skip
    return found


def _twice(e: Engine) -> str:
    return " x2" if e.double else ""


def _activations(e: Engine) -> str:
    channels = e.pi if e.kind == "dense" else e.po
    return f"{channels}a{e.activation_bits} px{e.px} d{e.activation.depth}{_twice(e)}"


def _loads(e: Engine) -> str:
    return f"{e.pi * e.po}w{e.weight_bits} {_activations(e)}"


def synthesise_units(
    parts: Mapping[str, Callable[[], Any]], family: Family, *,
    line: Callable[[str], None] | None = None,
) -> dict[str, Use]:  # fmt: skip
    """Synthesise each part by itself, all in one run of yosys; takes a minute and more.

    Raises ToolNotFoundError without yosys, CodesignError with yosys's words.
    """
    from amaranth.back import rtlil

    modules = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        commands = []
        for place, (unit, make) in enumerate(parts.items()):
            module = f"unit{place}"
            modules[module] = unit
            text = rtlil.convert(make(), name=module, emit_src=False)
            (folder / f"{module}.il").write_text(text, encoding="utf-8")
            commands.append(f"read_rtlil {module}.il")
        cells = "".join(f"  attribute \\keep 1\n  cell \\{m} \\{m}_i\n  end\n" for m in modules)
        (folder / "all.il").write_text(f"module \\all_units\n{cells}end\n", encoding="utf-8")
        commands.append("read_rtlil all.il")
        commands += [f"setattr -mod -set keep_hierarchy 1 {module}" for module in modules]
        commands += [SCRIPTS[family].format(top="all_units")]
        commands += [f"tee -q -o {module}.txt stat {module}" for module in modules]
        run_program(
            [require_program("yosys"), "-p", "; ".join(commands)],
            f"synthesis of {len(parts)} units for {family}", cwd=folder, line=line,
        )  # fmt: skip
        return {
            unit: _use((folder / f"{module}.txt").read_text(encoding="utf-8"), module, family)
            for module, unit in modules.items()
        }


def _use(text: str, module: str, family: Family) -> Use:
    if not re.search(rf"{module}\b", text):
        raise CodesignError(f"yosys's statistics hold no {module}:\n{text[-300:]}")
    cells = parse_stat(text)
    found = report(module, family, cells, "", 0.0, Path())
    memory = {name: n for name, n in cells.items() if name.startswith(MEMORY_CELLS)}
    return {
        "dsp": found.dsp, "lut": found.lut, "ff": found.ff, "ramb18": found.ramb18,
        "memory": report(module, family, memory, "", 0.0, Path()).lut,
    }  # fmt: skip
