# SPDX-License-Identifier: Apache-2.0
"""ARM boards: integer networks cross-compiled by TVM, checked under QEMU.

Each board is a TOML file (``boards/``); ``target.board_class`` makes its class.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """The class of a board that comes with the package: ``codesign.targets.arm.rpi4``."""
    from codesign.targets.arm.board import builtin_boards
    from codesign.targets.arm.target import board_class

    for board, path in builtin_boards().items():
        if board.replace("-", "_") == name:
            return board_class(path)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
