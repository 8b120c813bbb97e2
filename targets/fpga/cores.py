# SPDX-License-Identifier: Apache-2.0
"""The ARM cores beside an accelerator: which board they are, and what passing tensors costs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from codesign.space.device import Device
from codesign.targets.arm.board import Board, builtin_boards, read_board
from codesign.targets.arm.target import ArmTarget, board_class

A53 = "zynq-ps-a53"
"""Board file (and target) of the processing system of Zynq UltraScale+."""
SWITCH_MS = 0.01
"""A tensor that changes sides, whatever its size: writing the start register or the wait for the
interrupt, and the call that cleans or invalidates its cache lines. An assumption."""
COPY_CYCLES_PER_BYTE = 1.0
"""Packing a tensor into blocks of 8 channels or back, with the cleaning of its cache lines, cycles
of one core. An assumption."""


def cores_of(device: Device) -> Board | None:
    """The board's processor cores; None for an FPGA without.

    Zynq-7000: two Cortex-A9 at 650 MHz (UG585; PYNQ-Z2 and ZedBoard), which this project has no
    compiler set up for: their figures serve the partition alone.
    """
    if device.family == "xcup":
        return _a53()
    if device.name == "xc7z020":
        return Board(
            "zynq-ps-a9", "processing system of Zynq-7000: 2 Cortex-A9", "armv7", "cortex-a9", (),
            2, 650.0, 512.0, device.dram_bytes_per_second / 1e9, "cortex-a9",
        )  # fmt: skip
    return None


@cache
def _a53() -> Board:
    return read_board(Path(builtin_boards()[A53]))


def arm_target(device: Device) -> ArmTarget | None:
    """The target that builds for the board's cores; None where there is none."""
    if device.family != "xcup":
        return None
    return board_class(Path(builtin_boards()[A53]))(_a53())


def transfer_ms(nbytes: int, cores: Board) -> float:
    """Handing a tensor of ``nbytes`` from one side to the other."""
    return SWITCH_MS + nbytes * COPY_CYCLES_PER_BYTE / (cores.clock_mhz * 1e3)
