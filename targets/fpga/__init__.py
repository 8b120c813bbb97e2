# SPDX-License-Identifier: Apache-2.0
"""FPGA accelerators: commands, hardware, simulation, builds; one target a board."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """The target of a board: ``codesign.targets.fpga.board_ultra96``."""
    from codesign.space.device import devices
    from codesign.targets.fpga.target import board_class

    for board in devices():
        if "board_" + board.replace("-", "_") == name:
            return board_class(board)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
