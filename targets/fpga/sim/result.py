# SPDX-License-Identifier: Apache-2.0
"""What a simulated run gives, and how it is said when it goes wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codesign.errors import CodesignError
from codesign.targets.fpga.isa import Command, Dest, Unit

UNITS = (Unit.LOAD, Unit.DENSE, Unit.DEPTHWISE, Unit.DRAIN)
WAITS = ("load", "dense", "depthwise", "drain", "fetch", "busy")
"""Why a unit does nothing in a cycle: its next command waits for that unit's count, or there is no
next command; or it is busy."""


class RunError(CodesignError):
    """A simulated run stopped before its end."""


@dataclass(frozen=True)
class Region:
    """What memory must hold when a unit has finished ``count`` commands of a run."""

    label: str
    """Layer or tensor."""
    unit: Unit
    count: int
    address: int
    """Relative to memory, not to the base register."""
    expected: bytes
    shape: tuple[int, ...] = ()
    """[blocks, height, width] of the tensor, to name the place of a difference."""
    wide: bool = False
    channels: int = 0
    """Channels that mean something; 0: all of ``shape``. What stands in the last block's lanes
    behind them is never compared: it may be anything there (a residual out of a wider tensor, a
    clip whose range has no 0), and every reader gives those lanes weight 0 or leaves them out."""

    @property
    def tail(self) -> tuple[int, int]:
        """First byte of the last block, and how many of its lanes mean something."""
        if not self.channels:
            return len(self.expected), 8
        blocks, height, width = self.shape
        start = (blocks - 1) * height * width * 8 * (2 if self.wide else 1)
        return start, self.channels - 8 * (blocks - 1)

    def compared(self, byte: int) -> bool:
        """Whether a byte belongs to a channel that means something."""
        start, lanes = self.tail
        return byte < start or (byte - start) // (2 if self.wide else 1) % 8 < lanes

    def position(self, byte: int) -> str:
        """The tensor's element that a byte belongs to."""
        size = 2 if self.wide else 1
        element = byte // size
        if len(self.shape) != 3:
            return f"element {element}"
        _, height, width = self.shape
        pixel, lane = divmod(element, 8)
        block, rest = divmod(pixel, height * width)
        y, x = divmod(rest, width)
        return f"channel {8 * block + lane}, row {y}, column {x}"


@dataclass(frozen=True)
class Difference:
    """The first byte of a region that is not as expected."""

    region: Region
    offset: int
    expected: int
    got: int
    cycle: int
    wrong: int
    """Wrong bytes in the region."""

    def __str__(self) -> str:
        r = self.region
        return (
            f"layer {r.label!r}: {r.position(self.offset)}: expected {self.expected}, got "
            f"{self.got} (byte {self.offset} of {len(r.expected)} at address {r.address:#x}; "
            f"{self.wrong} bytes differ; cycle {self.cycle})"
        )


@dataclass(frozen=True)
class Layer:
    """What the commands of one layer did; cycles from the start of the run."""

    name: str
    start: int
    end: int
    """When its last command was finished."""
    busy: Mapping[str, int]
    """Cycles in which each unit had at least one of the layer's commands."""
    load_bytes: int
    commands: int


@dataclass(frozen=True)
class SimResult:
    """One simulated run of a command list. Every figure is simulated."""

    cycles: int
    """From start to done, as the cycle register counts."""
    starts: Mapping[Unit, tuple[int, ...]]
    """When each command was given to its unit."""
    ends: Mapping[Unit, tuple[int, ...]]
    stalls: Mapping[Unit, Mapping[str, int]]
    """Cycles of each unit by ``WAITS``."""
    read_bytes: Mapping[str, int]
    """By who read: fetch, drain, depthwise, load."""
    write_bytes: int
    read_beats: int
    write_beats: int
    seconds: float
    """Run time of the simulator."""
    layers: tuple[Layer, ...]
    differences: tuple[Difference, ...] = field(default=())
    since: int = 0
    """Cycles that the memory had run when the run started: refresh counts from there."""

    @property
    def total_bytes(self) -> int:
        """To and from memory."""
        return sum(self.read_bytes.values()) + self.write_bytes

    def require_equal(self) -> None:
        """Raises RunError naming the first difference."""
        if self.differences:
            first = min(self.differences, key=lambda d: d.cycle)
            raise RunError(f"the simulated accelerator differs from the reference: {first}")


def layers_of(
    commands: Sequence[Command], starts: Mapping[Unit, Sequence[int]],
    ends: Mapping[Unit, Sequence[int]], port_bits: int, weights: Mapping[Dest, int],
) -> tuple[Layer, ...]:  # fmt: skip
    """Lanes and bytes of each layer, in order of first appearance.

    ``weights``: weights in a word of each weight buffer.
    """
    count = dict.fromkeys(UNITS, 0)
    found: dict[str, dict[str, Any]] = {}
    for command in commands:
        unit = command.unit
        if unit not in count:
            continue
        index = count[unit]
        count[unit] += 1
        if index >= len(ends[unit]):
            continue
        start, end = starts[unit][index], ends[unit][index]
        entry = found.setdefault(
            command.layer,
            {"start": start, "end": end, "spans": {u: [] for u in UNITS}, "bytes": 0, "n": 0},
        )
        entry["start"] = min(entry["start"], start)
        entry["end"] = max(entry["end"], end)
        entry["spans"][unit].append((start, end))
        entry["n"] += 1
        if unit == Unit.LOAD:
            entry["bytes"] += load_bytes(command, weights)
    return tuple(
        Layer(
            name, e["start"], e["end"],
            {u.name.lower(): _covered(spans) for u, spans in e["spans"].items()},
            e["bytes"], e["n"],
        )
        for name, e in found.items()
    )  # fmt: skip


def load_bytes(command: Command, weights: Mapping[Dest, int]) -> int:
    """Bytes that a load command asks for."""
    v = command.values
    dest = Dest(v.get("dest", 0))
    if dest in (Dest.DENSE_ACT, Dest.DEPTHWISE_ACT):
        return 8 * v["blocks"] * v["rows"] * v["width"]
    if dest in weights:
        return -(-v["count"] * weights[dest] * v["bits"] // 64) * 8
    return 8 * v["count"]


def _covered(spans: list[tuple[int, int]]) -> int:
    total = last = 0
    for start, end in sorted(spans):
        start = max(start, last)
        if end > start:
            total += end - start
            last = end
    return total
