# SPDX-License-Identifier: Apache-2.0
"""What yosys leaves undone for an ECP5, done on its JSON netlist.

- Registers behind a block RAM go into it (``REGMODE`` OUTREG): the memory gives its data 1 ns after
  the clock then, 5.8 ns without (nextpnr's timing of speed grade 6), and the registers and
  their wires are gone. FPGA-TN-02204 has the modes.
- Resets of many registers go through a global buffer (DCCA), which reaches set/reset inputs
  everywhere without the wires between the cells. FPGA-TN-02200, "primary clocks".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RESET_LOADS = 150
"""Registers of a reset that is worth a global buffer."""
BUFFERS = 7
"""Of nextpnr's 8 global nets that reach other inputs than clocks; the clock, too, is one."""


@dataclass(frozen=True)
class Changed:
    """Registers that went into block RAM, and resets that became global."""

    registers: int
    resets: int


@dataclass(frozen=True)
class _Side:
    """The registers behind one port of a block RAM: output to register, their enable ("1": none).
    Empty if nothing reads it; ``fits``: they can go into the RAM."""

    registers: Mapping[str, str]
    enable: Any
    fits: bool = True


_NOT = _Side({}, "1", fits=False)


def improve(netlist: Mapping[str, Any], top: str) -> Changed:
    """Change ``netlist`` (of yosys's ``write_json``, flattened) in place."""
    module = netlist["modules"][top]
    registers = _block_ram_registers(module)
    return Changed(registers, _global_resets(module))


def _readers(module: Mapping[str, Any]) -> dict[int, list[tuple[str, str]]]:
    """Net to (cell, port) of each input that reads it; the design's outputs have cell ""."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in module["cells"].items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] != "output":
                for bit in bits:
                    if isinstance(bit, int):
                        found[bit].append((name, port))
    for name, port in module["ports"].items():
        for bit in port["bits"]:
            if isinstance(bit, int) and port["direction"] != "input":
                found[bit].append(("", name))
    return found


def _parameter(cell: Mapping[str, Any], name: str, default: str) -> str:
    """A parameter's text; yosys writes a blank behind texts that look like numbers."""
    return str(cell["parameters"].get(name, default)).strip()


def _behind(module: Mapping[str, Any], ram: Mapping[str, Any], side: str, readers: Any) -> _Side:
    """What reads port ``side`` of a block RAM."""
    cells = module["cells"]
    if ram["connections"].get(f"RST{side}", ["0"])[0] != "0":
        return _NOT  # a reset is the register's then
    found: dict[str, str] = {}
    enables: set[Any] = set()
    for port, bits in ram["connections"].items():
        if not port.startswith(f"DO{side}") or not readers.get(bits[0]):
            continue
        users = readers[bits[0]]
        if len(users) != 1 or users[0][1] != "DI":
            return _NOT
        register = cells[users[0][0]]
        enable = _parameter(register, "CEMUX", "1")
        plain = (
            register["type"] == "TRELLIS_FF"
            and _parameter(register, "CLKMUX", "CLK") == "CLK"
            and register["connections"]["CLK"] == ram["connections"][f"CLK{side}"]
            and register["connections"].get("LSR", ["0"])[0] in ("0", "x")
            and _parameter(register, "REGSET", "RESET") == "RESET"
            and enable in ("1", "CE")
        )
        if not plain:
            return _NOT
        enables.add(register["connections"]["CE"][0] if enable == "CE" else "1")
        found[port] = users[0][0]
    if len(enables) > 1:
        return _NOT
    return _Side(found, next(iter(enables), "1"))


def _block_ram_registers(module: Mapping[str, Any]) -> int:
    """Put registers into block RAM where all of a port's outputs have one; how many."""
    readers = _readers(module)
    cells = module["cells"]
    gone: list[str] = []
    for ram in [cell for cell in cells.values() if cell["type"] == "DP16KD"]:
        both = {side: _behind(module, ram, side, readers) for side in "AB"}
        if int(ram["parameters"]["DATA_WIDTH_B"], 2) == 36:  # one port's word over both sides
            halves = [side for side in both.values() if side.registers or not side.fits]
            joint = all(h.fits for h in halves) and len({h.enable for h in halves}) == 1
            if not joint:
                continue
            both = {name: _Side(side.registers, halves[0].enable) for name, side in both.items()}
            taken = list(both)
        else:
            taken = [name for name, side in both.items() if side.fits and side.registers]
        for name in taken:
            ram["parameters"][f"REGMODE_{name}"] = "OUTREG"
            ram["connections"][f"OCE{name}"] = [both[name].enable]
            ram["port_directions"][f"OCE{name}"] = "input"
            for port, register in both[name].registers.items():
                ram["connections"][port] = cells[register]["connections"]["Q"]
                gone.append(register)
    for register in gone:
        del cells[register]
    return len(gone)


def _global_resets(module: Mapping[str, Any]) -> int:
    """Global buffers for the resets of most registers that come out of a register; how many."""
    cells = module["cells"]
    loads: dict[int, list[str]] = defaultdict(list)
    registered: set[int] = set()
    top = 0
    for name, cell in cells.items():
        top = max(top, *(b for bits in cell["connections"].values() for b in bits
                         if isinstance(b, int)))  # fmt: skip
        if cell["type"] != "TRELLIS_FF":
            continue
        registered.add(cell["connections"]["Q"][0])
        reset = cell["connections"].get("LSR", ["0"])[0]
        if isinstance(reset, int):
            loads[reset].append(name)
    worth = [net for net, users in loads.items() if len(users) >= RESET_LOADS and net in registered]
    worth.sort(key=lambda net: -len(loads[net]))
    for number, net in enumerate(worth[:BUFFERS]):
        top += 1
        name = f"global_reset_{number}"
        cells[name] = {
            "hide_name": 0, "type": "DCCA", "parameters": {}, "attributes": {},
            "port_directions": {"CLKI": "input", "CE": "input", "CLKO": "output"},
            "connections": {"CLKI": [net], "CE": ["1"], "CLKO": [top]},
        }  # fmt: skip
        module["netnames"][f"{name}_net"] = {"hide_name": 0, "bits": [top], "attributes": {}}
        for register in loads[net]:
            cells[register]["connections"]["LSR"] = [top]
    return len(worth[:BUFFERS])
