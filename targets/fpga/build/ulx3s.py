# SPDX-License-Identifier: Apache-2.0
"""A network on a ULX3S board: from the compiled program to the bitstream."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codesign.errors import InfeasibleError
from codesign.ir.analysis import layer_stats
from codesign.ir.graph import Graph
from codesign.space.accelerator import Accelerator
from codesign.space.device import Device, load_device
from codesign.targets.fpga.build.ecp5 import NotPlacedError, Placed, place
from codesign.targets.fpga.build.handover import template
from codesign.targets.fpga.build.synth import Synthesis, synthesise

MODULE = "ulx3s"
STEP_MHZ = 12.5
"""The board's PLL makes multiples of half its oscillator's clock."""
FOLDER = "ulx3s"
PLACED = f"{FOLDER}/placed.json"
"""What was synthesised and placed, in a target's build folder."""
SEEDS = (2, 1, 3)
"""Of placements, in the order they are tried. Any is as good as another before it is known what it
leads to; with 2 all three designs in docs/evidence.md met 100 MHz, with 1 two did not converge."""

CELLS = {
    "LUT": "TRELLIS_COMB", "FF": "TRELLIS_FF", "MULT18X18D": "MULT18X18D", "EBR": "DP16KD",
}  # fmt: skip
"""What people count, and nextpnr's name of it."""


@dataclass(frozen=True)
class Ulx3sBuild:
    """A design on the board's part."""

    synthesis: Synthesis
    placed: Placed


def ulx3s_rtlil(
    accelerator: Accelerator, image: bytes, memory_bytes: int, clock_hz: int,
    *, primitive: bool = True, with_pll: bool = True,
) -> str:  # fmt: skip
    """The board's whole design as RTLIL. Takes some ten seconds.

    ``image`` is the initial content of the memory of ``memory_bytes`` inside the FPGA.
    """
    from amaranth.back import rtlil

    from codesign.targets.fpga.hw.top import OnChip, Top
    from codesign.targets.fpga.hw.ulx3s import Ulx3s

    top = Top(accelerator, onchip=OnChip(memory_bytes, image), primitive=primitive)
    board = Ulx3s(top, clock_hz, with_pll=with_pll)
    text: str = rtlil.convert(board, name=MODULE, ports=board.ports, emit_src=False)
    return text


def memory_rams(memory_bytes: int) -> int:
    """Block RAMs of 18 Kbit of the memory inside the FPGA: words of 64 bits, 4 bits of each RAM
    where it is deep (4096 x 4), and so on; see ``codesign.cost.resources.ramb18``."""
    from codesign.cost.resources import ramb18

    return int(ramb18(64, max(128, -(-memory_bytes // 8))))


def room_for_buffers(graph: Graph, device: Device) -> int:
    """Block RAMs that are left for the accelerator when weights and activations of ``graph`` have
    theirs: weights in 8 bits, every activation in blocks of 8 channels of its own.

    Raises InfeasibleError if nothing is left.
    """
    size = sum(stats.parameters for stats in layer_stats(graph))
    for name in (*graph.inputs, *(layer.name for layer in graph.layers())):
        shape = graph.type(name).shape
        size += -(-shape[1] // 8) * 8 * math.prod(shape[2:])
    size += size // 8 + 16_384  # parameters, taps, commands
    rams = memory_rams(size)
    if rams >= device.ramb18:
        raise InfeasibleError(
            f"weights and activations take about {size:,} bytes, {rams} block RAMs of "
            f"{device.name}'s {device.ramb18}; a network of half a million bytes at most fits"
        )
    return device.ramb18 - rams


def build_ulx3s(
    accelerator: Accelerator, image: bytes, memory_bytes: int, mhz: float, *,
    seeds: tuple[int, ...] = SEEDS, budget: float = 3600.0,
    line: Callable[[str], None] | None = None, allow_slow: bool = False,
) -> Ulx3sBuild:  # fmt: skip
    """Synthesise, place, route and pack; minutes the first time, kept by content afterwards.

    ``seeds``: placements that are tried until one meets the clock, as far as ``budget`` seconds go.

    Raises InfeasibleError if the memory alone has no room, CodesignError where the clock is missed
    (unless ``allow_slow``), ToolNotFoundError.
    """
    from codesign.targets.fpga.hw.ulx3s import constraints

    device = load_device("ulx3s-85f")
    rams = memory_rams(memory_bytes)
    if rams > device.ramb18:
        raise InfeasibleError(
            f"the network's {memory_bytes} bytes take {rams} block RAMs of {device.name}'s "
            f"{device.ramb18}; a network of {device.ramb18 * 2048 * 3 // 4} bytes or less, buffers "
            "counted, would fit"
        )
    if line is not None:
        line("generating the design")
    text = ulx3s_rtlil(accelerator, image, memory_bytes, round(mhz * 1_000_000))
    synthesis = synthesise(text, MODULE, "ecp5", line=line)
    over = {
        name: getattr(synthesis, name) - getattr(device, name)
        for name in ("dsp", "lut", "ff", "ramb18")
    }
    if any(count > 0 for count in over.values()):
        what = ", ".join(f"{name} by {count}" for name, count in over.items() if count > 0)
        raise InfeasibleError(f"the design is too large for {device.part}: {what}")
    placed = place(
        synthesis, device.part, constraints(), mhz, seeds=seeds, budget=budget, line=line,
        allow_slow=allow_slow,
    )
    return Ulx3sBuild(synthesis, placed)


def lower_clock(missed: float, reached: float) -> float:
    """The next clock in MHz to try when ``missed`` was asked for and ``reached`` came out.

    >>> lower_clock(100, 76.0), lower_clock(100, 74.9), lower_clock(75, 74.9), lower_clock(50, 9.0)
    (75.0, 62.5, 62.5, 12.5)
    """
    steps = min((missed - 1) // STEP_MHZ, reached // STEP_MHZ)
    return max(1.0, steps) * STEP_MHZ


def write_ulx3s(
    folder: Path, accelerator: Accelerator, image: bytes, memory_bytes: int, clock_hz: int,
    line: Callable[[str], None] | None = None,
) -> Ulx3sBuild:  # fmt: skip
    """Build the board's design into ``folder``: ``design.bit``, ``design.lpf``, nextpnr's report,
    ``placed.json`` (clock, use, run times) and the host's Python files.

    Where two placements miss the clock it is made again for the next multiple of ``STEP_MHZ`` that
    one of them reached, or for the next one at all if neither converges. Raises what
    ``build_ulx3s`` raises.
    """
    mhz = clock_hz / 1e6
    while True:
        slow = mhz > STEP_MHZ  # a lower clock is left to try
        try:
            made = build_ulx3s(
                accelerator, image, memory_bytes, mhz, seeds=SEEDS[:2] if slow else SEEDS,
                line=line, allow_slow=slow,
            )  # fmt: skip
            if made.placed.met:
                break
            reached, why = made.placed.fmax_mhz, f"{made.placed.fmax_mhz:.1f} MHz reached"
        except NotPlacedError as error:
            if not slow:
                raise
            reached, why = mhz, str(error)
        mhz = lower_clock(mhz, reached)
        if line is not None:
            line(f"{why}; again for {mhz:g} MHz")
    folder.mkdir()
    for name in ("design.bit", "design.lpf", "report.json"):
        shutil.copyfile(made.placed.folder / name, folder / name)
    for name in ("codesign_accelerator.py", "codesign_ulx3s.py"):
        (folder / name).write_text(template(f"{name}.in"), "utf-8")
    (folder / "placed.json").write_text(json.dumps(facts(made), indent=2) + "\n", "utf-8")
    return made


def placed_line(build: Path) -> str | None:
    """What place and route made of a build folder's design, in a line; None where it did not run.

    Figures are those of nextpnr after routing.
    """
    file = build / PLACED
    if not file.is_file():
        return None
    data = json.loads(file.read_text("utf-8"))
    used = ", ".join(
        f"{use[0]:,} of {use[1]:,} {name}"
        for name, cell in CELLS.items() if (use := data["placed"].get(cell))
    )  # fmt: skip
    return (
        f"{data['part']}: {data['met_mhz']:g} MHz, {'met' if data['met'] else 'missed'} of "
        f"{data['clock_mhz']:g} asked for (seed {data['seed']}); {used}; "
        f"{build / FOLDER / 'design.bit'}"
    )


def facts(made: Ulx3sBuild) -> dict[str, object]:
    """What was synthesised, and what placement and routing made of it."""
    synthesis, placed = made.synthesis, made.placed
    return {
        "format": "codesign-placed/1",
        "part": placed.part,
        "clock_mhz": placed.target_mhz,
        "met_mhz": round(placed.fmax_mhz, 2),
        "met": placed.met,
        "seed": placed.seed,
        "synthesised": {
            name: getattr(synthesis, name) for name in ("dsp", "lut", "ff", "ramb18")
        },
        "placed": {name: list(use) for name, use in placed.used.items()},
        "seconds": {
            "synthesis": round(synthesis.seconds, 1), "place_and_route": round(placed.seconds, 1),
        },
        "tools": [synthesis.tool, placed.tool],
    }  # fmt: skip
