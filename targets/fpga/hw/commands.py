# SPDX-License-Identifier: Apache-2.0
"""Commands as Amaranth layouts, made from ``codesign.targets.fpga.isa``."""

from __future__ import annotations

from functools import cache
from typing import Any

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, stream

from codesign.targets.fpga.isa import COMMAND_BYTES, FIELDS, Unit, bits

COMMAND_BITS = COMMAND_BYTES * 8
UNITS = (Unit.LOAD, Unit.DENSE, Unit.DEPTHWISE, Unit.DRAIN)
"""Units that work, each with a queue and a counter of finished commands."""


@cache
def command_layout(unit: Unit) -> Any:
    """The fields of a unit's commands as a ``data.StructLayout`` of ``isa.bits(unit)`` bits."""
    return data.StructLayout(
        {field.name: (signed if field.signed else unsigned)(field.bits) for field in FIELDS[unit]}
    )


def command_stream(unit: Unit) -> Any:
    """A stream of commands, seen from who sends them.

    The payload stays as it is until ``ready``; the unit copies what it needs later. A command is
    only offered when the commands it waits for have finished.
    """
    return stream.Signature(command_layout(unit))


def command_words(unit: Unit) -> int:
    """64-bit words that hold a unit's fields (of the 8 that a command has)."""
    return -(-bits(unit) // 64)
