# SPDX-License-Identifier: Apache-2.0
"""FPGA parts and boards, read from the TOML files in ``codesign/space/devices``.

A figure's source stands in its file. ``dram_efficiency_percent`` is the share of the peak
bandwidth that long bursts reach; it and the latency are assumptions until a board confirms them.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import gcd
from typing import Any, Literal

from codesign.errors import InputError

MultiplierKind = Literal["dsp48e2", "dsp48e1", "mult18", "lut"]
MULTIPLIERS: tuple[MultiplierKind, ...] = ("dsp48e2", "dsp48e1", "mult18", "lut")


@dataclass(frozen=True)
class Device:
    """One part on one board: what it holds and how fast its memory is."""

    name: str
    """Name of the part, e.g. ``"zu3eg"``."""
    board: str
    part: str
    """The vendor's full part number, for build scripts."""
    family: str
    """``"xc7"``, ``"xcup"`` or ``"ecp5"``: the synthesis flow."""
    lut: int
    ff: int
    dsp: int
    ramb18: int
    """Block RAMs of 18 Kbit (a BRAM36 is two of them; ECP5: EBR)."""
    uram: int
    multiplier: MultiplierKind
    """The hard multiplier of the family."""
    clock_hz: int
    """Clock of the accelerator, assumed for Zynq parts."""
    dram_bytes_per_second: int
    """Peak bandwidth of the board's memory."""
    dram_efficiency_percent: int
    dram_latency_cycles: int
    """Cycles from a read request to its first beat, at ``clock_hz``."""
    ports: tuple[int, ...]
    """Widths of AXI data ports that the part offers, in bits."""
    source: str = ""

    def with_clock(self, clock_hz: int) -> Device:
        """The same device at another clock; the DRAM latency in nanoseconds stays."""
        latency = -(-self.dram_latency_cycles * clock_hz // self.clock_hz)
        return replace(self, clock_hz=clock_hz, dram_latency_cycles=latency)

    @property
    def dram_rate(self) -> tuple[int, int]:
        """(n, d): one byte of DRAM traffic takes n/d cycles, in lowest terms.

        n/d = clock_hz / (bytes per second · efficiency).
        """
        n = self.clock_hz * 100
        d = self.dram_bytes_per_second * self.dram_efficiency_percent
        common = gcd(n, d)
        return n // common, d // common


_PART = {"name": str, "part": str, "family": str, "lut": int, "ff": int, "dsp": int,
         "ramb18": int, "uram": int, "multiplier": str, "clock_hz": int, "source": str}  # fmt: skip
_BOARD = {"dram_bytes_per_second": int, "dram_efficiency_percent": int,
          "dram_latency_cycles": int, "ports": list, "source": str}  # fmt: skip


def parse_devices(text: str, source: str) -> tuple[Device, ...]:
    """The boards of one TOML file. Raises InputError naming the file and the key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"device file {source}: not TOML: {error}") from None
    boards = data.pop("boards", None)
    _check(data, _PART, source, "")
    if not isinstance(boards, dict) or not boards:
        raise InputError(f"device file {source}: names no board; add a table [boards.NAME]")
    if data["multiplier"] not in MULTIPLIERS:
        raise InputError(
            f"device file {source}: multiplier {data['multiplier']!r}; "
            f"expected one of {', '.join(MULTIPLIERS)}"
        )
    found = []
    part_source = data.pop("source")
    for name, board in boards.items():
        _check(board, _BOARD, source, f"boards.{name}.")
        ports = board.pop("ports")
        both = f"{part_source}; {board.pop('source')}"
        found.append(Device(board=name, ports=tuple(ports), source=both, **data, **board))
    return tuple(found)


def _check(data: Mapping[str, Any], keys: Mapping[str, type], source: str, path: str) -> None:
    for key, kind in keys.items():
        if key not in data:
            raise InputError(f"device file {source}: {path}{key} is missing")
        value = data[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(
                f"device file {source}: {path}{key} is {value!r}; expected {kind.__name__}"
            )
        if isinstance(value, int) and (value < 0 or (value == 0 and key not in ("uram", "dsp"))):
            raise InputError(f"device file {source}: {path}{key} is {value}; expected more than 0")
    unknown = sorted(set(data) - set(keys))
    if unknown:
        raise InputError(
            f"device file {source}: unknown key {path}{unknown[0]} (known: {', '.join(keys)})"
        )


@cache
def devices() -> Mapping[str, Device]:
    """Every packaged device, by the name of its board."""
    found: dict[str, Device] = {}
    folder = resources.files("codesign.space") / "devices"
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            for device in parse_devices(file.read_text(), file.name):
                found[device.board] = device
    return found


def load_device(name: str) -> Device:
    """A device by its board's or part's name (the part's first board); raises InputError.

    >>> load_device("ultra96").dsp, load_device("xc7z020").board
    (360, 'pynq-z2')
    """
    boards = devices()
    wanted = name.lower()
    if wanted in boards:
        return boards[wanted]
    for device in boards.values():
        if device.name == wanted:
            return device
    known = sorted({*boards, *(device.name for device in boards.values())})
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"unknown device {name!r}{hint} (known: {', '.join(known)})")
