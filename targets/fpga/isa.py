# SPDX-License-Identifier: Apache-2.0
"""Commands of the accelerator: 64 bytes each, little endian, one list for a whole network.

``docs/accelerator.md`` says what each unit does with its fields. The compiler, the functional
model, the hardware and the drivers all take names, widths and places from here.

Each unit (load, dense, depthwise, drain) runs its own commands in list order. A command waits until
the units it depends on have finished a stated number of commands; the compiler only ever names
commands that stand earlier in the list, so the earliest unfinished command can always run and a
deadlock is impossible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from codesign.errors import InputError

COMMAND_BYTES = 64
BLOCK = 8
"""Channels that stand together in memory: a tensor is stored as [C / 8][H][W][8] bytes."""

PARAM_BLOCKS = 512
"""Blocks of 8 channels that each of the two parameter memories holds."""
TAPS = 128
"""Taps that each of the two tap memories holds."""


class Unit(IntEnum):
    """Who runs a command."""

    LOAD = 0
    DENSE = 1
    DEPTHWISE = 2
    DRAIN = 3
    """Requantises the dense engine's sums and stores them."""
    END = 7
    """Not a unit: waits like any command, then the whole run is done."""


class Dest(IntEnum):
    """Where a load goes."""

    DENSE_WEIGHT = 0
    DENSE_PARAM = 1
    """Bias and factors of the drain unit: 8 bytes a channel."""
    DENSE_TAP = 2
    DENSE_ACT = 3
    DEPTHWISE_WEIGHT = 4
    DEPTHWISE_PARAM = 5
    DEPTHWISE_TAP = 6
    DEPTHWISE_ACT = 7


@dataclass(frozen=True)
class Field:
    """One field of a command."""

    name: str
    bits: int
    signed: bool = False


def _fields(text: str) -> tuple[Field, ...]:
    found = []
    for item in text.split():
        name, bits = item.split(":")
        signed = bits.endswith("s")
        found.append(Field(name, int(bits.rstrip("s")), signed))
    return tuple(found)


# unit, then the counts of finished commands to wait for (modulo 2^16, 0: none before any)
_HEAD = "unit:3 wait_load:16 wait_dense:16 wait_depthwise:16 wait_drain:16 "
# reading an activation buffer: see docs/accelerator.md, "Taps"
_READ = (
    "act_base:14 act_row_step:14 act_group:8 act_rows:10 act_y0:10s act_y_step:4 "
    "act_signed:1 weight_base:14 tap_base:7 taps:7 rows:10 width:14 steps:14 groups:10 "
)
# where results go: memory (address, block step) or the other engine's activation buffer
_WRITE = (
    "to_chip:1 address:32 block_step:26 param_base:10 lo:16s hi:16s wide:1 "
    "place_base:14 place_row_words:14 place_residue_words:13 place_group:8 place_stride:3 "
    "place_block:9 place_nibbles:1 "
    "residual:1 res_address:32 res_m:16 res_e:6 res_signed:1 "
)
FIELDS: Mapping[Unit, tuple[Field, ...]] = {
    Unit.LOAD: _fields(
        _HEAD + "dest:3 address:32 "
        "base:14 count:20 bits:4 "  # weights, parameters, taps: words of the destination
        "blocks:9 block_step:26 rows:10 width:14 "  # activations
        "place_row_words:14 place_residue_words:13 place_group:8 place_stride:3 place_block:9 "
        "place_nibbles:1 repeat_x:3 repeat_y:3"
    ),
    Unit.DENSE: _fields(
        _HEAD + _READ + "inputs:8 weight_step:14 sum_base:14 accumulate:1 double:1 weight_bits:4"
    ),
    Unit.DRAIN: _fields(
        _HEAD + _WRITE + "sum_base:14 blocks:9 rows:10 width:14 steps:14 double:1"
    ),
    Unit.DEPTHWISE: _fields(_HEAD + _READ + _WRITE + "maximum:1 blocks:9"),
    Unit.END: _fields(_HEAD),
}


def offset(unit: Unit, name: str) -> int:
    """First bit of a field."""
    at = 0
    for field in FIELDS[unit]:
        if field.name == name:
            return at
        at += field.bits
    raise KeyError(f"{unit.name} commands have no field {name!r}")


def bits(unit: Unit) -> int:
    """Bits that a unit's commands use."""
    return sum(field.bits for field in FIELDS[unit])


@dataclass(frozen=True)
class Command:
    """One command; fields that are not named are 0."""

    unit: Unit
    values: Mapping[str, int]
    layer: str = ""
    """Whose work it is; not encoded."""

    def encode(self) -> bytes:
        """64 bytes. Raises InputError for an unknown field or a value that does not fit."""
        known = {field.name for field in FIELDS[self.unit]}
        for name in self.values:
            if name not in known:
                raise InputError(f"{self.unit.name} command has no field {name!r}")
        word = at = 0
        for field in FIELDS[self.unit]:
            value = int(self.unit) if field.name == "unit" else self.values.get(field.name, 0)
            least = -(1 << field.bits - 1) if field.signed else 0
            if not least <= value < least + (1 << field.bits):
                raise InputError(
                    f"layer {self.layer!r}: {self.unit.name} command field {field.name} is "
                    f"{value}; it holds {least}..{least + (1 << field.bits) - 1}"
                )
            word |= (value & (1 << field.bits) - 1) << at
            at += field.bits
        return word.to_bytes(COMMAND_BYTES, "little")


def decode(data: bytes, layer: str = "") -> Command:
    """The command in 64 bytes."""
    word = int.from_bytes(data[:COMMAND_BYTES], "little")
    unit = Unit(word & 7)
    values = {}
    at = 0
    for field in FIELDS[unit]:
        value = word >> at & (1 << field.bits) - 1
        if field.signed and value >> field.bits - 1:
            value -= 1 << field.bits
        values[field.name] = value
        at += field.bits
    values.pop("unit")
    return Command(unit, values, layer)


@dataclass(frozen=True)
class Tap:
    """One kernel position, 8 bytes in a tap memory."""

    offset: int
    """Words to add to the address; signed."""
    row: int
    """Input rows below the output row's first one (kernel row times dilation)."""
    rotate: int
    """Lane i reads memory (i + rotate) mod px; memories below ``rotate`` are read one pixel group
    further (``act_group`` words)."""
    least: int
    """Output columns below this read padding."""
    most: int
    """Output columns from this on read padding."""

    def encode(self) -> bytes:
        """8 bytes: offset 16, row 8, rotate 8, least 16, most 16."""
        if not (-(1 << 15) <= self.offset < 1 << 15 and 0 <= self.row < 256
                and 0 <= self.rotate < 256
                and 0 <= self.least < 1 << 16 and 0 <= self.most < 1 << 16):
            raise InputError(f"tap out of range: {self}")
        parts = (self.offset & 0xFFFF, self.row | self.rotate << 8, self.least, self.most)
        return b"".join(part.to_bytes(2, "little") for part in parts)


@dataclass(frozen=True)
class Param:
    """Bias and requantisation of one output channel, 8 bytes."""

    bias: int
    m: int
    e: int

    def encode(self) -> bytes:
        """8 bytes: bias s32, m u16, e u8, 0."""
        bias = (self.bias & 0xFFFFFFFF).to_bytes(4, "little")
        return bias + self.m.to_bytes(2, "little") + bytes((self.e, 0))
