# SPDX-License-Identifier: Apache-2.0
"""A network on a ULX3S board: from the compiled program to the bitstream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codesign.errors import InfeasibleError
from codesign.space.accelerator import Accelerator
from codesign.space.device import load_device
from codesign.targets.fpga.build.ecp5 import Placed, place
from codesign.targets.fpga.build.synth import Synthesis, synthesise

MODULE = "ulx3s"


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


def build_ulx3s(
    accelerator: Accelerator, image: bytes, memory_bytes: int, mhz: int, *,
    seeds: tuple[int, ...] = (1, 2, 3), line: Callable[[str], None] | None = None,
    allow_slow: bool = False,
) -> Ulx3sBuild:  # fmt: skip
    """Synthesise, place, route and pack; minutes the first time, kept by content afterwards.

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
    text = ulx3s_rtlil(accelerator, image, memory_bytes, mhz * 1_000_000)
    synthesis = synthesise(text, MODULE, "ecp5", line=line)
    over = {
        name: getattr(synthesis, name) - getattr(device, name)
        for name in ("dsp", "lut", "ff", "ramb18")
    }
    if any(count > 0 for count in over.values()):
        what = ", ".join(f"{name} by {count}" for name, count in over.items() if count > 0)
        raise InfeasibleError(f"the design is too large for {device.part}: {what}")
    placed = place(
        synthesis, device.part, constraints(), float(mhz), seeds=seeds, line=line,
        allow_slow=allow_slow,
    )
    return Ulx3sBuild(synthesis, placed)
