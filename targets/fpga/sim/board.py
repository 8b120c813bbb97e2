# SPDX-License-Identifier: Apache-2.0
"""A whole board's design under Verilator: memory on the chip, registers behind the serial line."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.sim.build import converted
from codesign.targets.fpga.sim.verilate import Options, SimulationError, built

BENCH = Path(__file__).with_name("serial_bench.cpp")
BIT = 8
"""Clock cycles of a bit; on the board they are 100, which only takes longer."""


def board_verilog(accelerator: Accelerator, image: bytes, memory_bytes: int) -> str:
    """The ULX3S design without its PLL (module ``top``), multipliers as plain products."""
    from codesign.targets.fpga.hw.top import OnChip, Top
    from codesign.targets.fpga.hw.ulx3s import BAUD, Ulx3s

    top = Top(accelerator, onchip=OnChip(memory_bytes, image), primitive=False)
    return converted(Ulx3s(top, BIT * BAUD, with_pll=False))


class SimulatedBoard:
    """The board's serial port, as pyserial's ``Serial``: ``write``, ``read``. A context manager.

    Raises SimulationError when the simulation ends by itself, ToolNotFoundError without Verilator.
    """

    def __init__(
        self, accelerator: Accelerator, image: bytes, memory_bytes: int,
        options: Options | None = None,
    ) -> None:  # fmt: skip
        text = board_verilog(accelerator, image, memory_bytes)
        program = built(text, 64, options, bench=BENCH, defines=(f"-DBIT={BIT}",))
        self._process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _say(self, directive: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(directive + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SimulationError("the board's simulation has ended") from None

    def _answer(self) -> str:
        assert self._process.stdout is not None
        text = self._process.stdout.readline().strip()
        if not text or text.startswith("bad"):
            raise SimulationError(f"the board's simulation has ended: {text or 'no answer'}")
        return text

    def write(self, data: bytes) -> None:
        """Send bytes to the board."""
        self._say(f"s {data.hex()}")

    def read(self, count: int) -> bytes:
        """Wait for bytes from the board; none after 50 million cycles."""
        self._say(f"r {count}")
        text = self._answer()
        return b"" if text == "timeout" else bytes.fromhex(text)

    def press(self, cycles: int = 10) -> None:
        """Hold button FIRE 1 down."""
        self._say(f"g {cycles}")

    @property
    def cycles(self) -> int:
        """Clock cycles since power-on."""
        self._say("c")
        return int(self._answer())

    def close(self) -> None:
        """End the simulation."""
        if self._process.poll() is None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(10)

    def __enter__(self) -> SimulatedBoard:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
