# SPDX-License-Identifier: Apache-2.0
"""What Vivado, Vitis and PYNQ need beside the Verilog: IP, block design, constraints, drivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.space.device import Device
from codesign.targets.fpga.build.ipxact import check_component, component, verilog_ports
from codesign.targets.fpga.build.names import c_string, identifier, identifiers

BOARD_PARTS: Mapping[str, str] = {
    "ultra96": "avnet.com:ultra96v2:part0:*",
    "kv260": "xilinx.com:kv260_som:part0:*",
    "zcu102": "xilinx.com:zcu102:part0:*",
    "pynq-z2": "tul.com.tw:pynq-z2:part0:*",
    "zedboard": "avnet.com:zedboard:part0:*",
}
"""Names of the boards' files in Vivado's board store; not confirmed here."""
REGISTERS = {"xcup": 0xA0000000, "xc7": 0x43C00000}
"""Address of the registers: inside M_AXI_HPM0_FPD and M_AXI_GP0 (UG1085, UG585)."""


@dataclass(frozen=True)
class Handover:
    """What a hand-over folder is made from."""

    device: Device
    clock_hz: int
    port_bits: int
    verilog_file: str
    """Name of the Verilog file in the folder."""
    module: str
    layout: Mapping[str, Any]
    """``layout.json``: where everything stands in memory."""


def write_handover(folder: Path, what: Handover) -> tuple[str, ...]:
    """Add the hand-over to a build folder with the Verilog, ``image.bin`` and ``layout.json``.

    Zynq boards get the IP, the block design, constraints and both drivers; others (the Arty) the
    constraints alone. Returns the names of the files. Raises InputError for a family without a
    hand-over.
    """
    family = what.device.family
    if family not in REGISTERS:
        raise InputError(f"board {what.device.board!r} is a {family} part: Vivado does not take it")
    files: dict[str, str] = {"constraints/timing.xdc": timing(what.clock_hz)}
    if what.device.board in BOARD_PARTS:
        files |= _vivado(folder, what)
        files |= _drivers(what)
    files["README.md"] = _readme(what, what.device.board in BOARD_PARTS)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tuple(sorted(files))


def template(name: str, values: Mapping[str, str] | None = None) -> str:
    """A file of ``templates`` with ``@NAME@`` replaced."""
    place = resources.files("codesign.targets.fpga.build") / "templates" / name
    text = place.read_text(encoding="utf-8")
    for key, value in (values or {}).items():
        text = text.replace(f"@{key}@", value)
    return text


def timing(clock_hz: int) -> str:
    """Clock constraint of the accelerator on its own (out of context)."""
    return (
        "# SPDX-License-Identifier: Apache-2.0\n"
        f"# {clock_hz / 1e6:g} MHz; in the block design the processing system's clock already is\n"
        "# constrained, and this file adds nothing there.\n"
        "if {[llength [get_ports -quiet clk]]} {\n"
        f"    create_clock -name clk -period {1e9 / clock_hz:.3f} [get_ports clk]\n"
        "}\n"
    )


def _vivado(folder: Path, what: Handover) -> dict[str, str]:
    verilog = (folder / what.verilog_file).read_text(encoding="utf-8")
    ports = verilog_ports(verilog, what.module)
    xml = component(what.module, ports, [f"../{what.verilog_file}"], what.port_bits)
    check_component(xml, ports)
    values = {
        "PART": what.device.part, "BOARD": identifier(what.device.board),
        "NAME": identifier(what.module), "VERILOG": what.verilog_file,
        "BOARD_PART": BOARD_PARTS[what.device.board], "MHZ": f"{what.clock_hz / 1e6:g}",
        "PORT_BITS": str(what.port_bits),
        "REGISTERS": f"{REGISTERS[what.device.family]:#x}",
    }  # fmt: skip
    system = "zynq_ultra.tcl" if what.device.family == "xcup" else "zynq_7000.tcl"
    values["PROCESSING_SYSTEM"] = template(system, values)
    return {
        "ip/component.xml": xml,
        "ip/package_ip.tcl": template("package_ip.tcl", values),
        "vivado/design.tcl": template("design.tcl", values),
    }


def _drivers(what: Handover) -> dict[str, str]:
    address = f"{REGISTERS[what.device.family]:#x}u"
    return {
        "pynq/codesign_accelerator.py": template("codesign_accelerator.py.in"),
        "bare/codesign_accelerator.h": template("codesign_accelerator.h"),
        "bare/codesign_accelerator.c": template("codesign_accelerator.c"),
        "bare/image.S": template("image.S"),
        "bare/main.c": template("main.c", {"REGISTERS": address}),
        "bare/network.h": network_header(what.layout),
    }


def room(layout: Mapping[str, Any]) -> int:
    """Bytes of memory that a driver must own: whole pages and one more, since the accelerator
    reads commands ahead, beyond the end of a list."""
    used = int(max(layout["memory_bytes"], layout["image_bytes"]))
    return -(-used // 4096) * 4096 + 4096


def network_header(layout: Mapping[str, Any]) -> str:
    """``network.h``: sizes, tensors, command lists of the network for the C driver."""
    values = layout["values"]
    names = identifiers(values, "t")
    lines = [
        "/* SPDX-License-Identifier: Apache-2.0 */", "#ifndef NETWORK_H", "#define NETWORK_H",
        '#include "codesign_accelerator.h"',
        f"#define NETWORK_MEMORY_BYTES {room(layout)}u",
        f"#define NETWORK_IMAGE_BYTES {layout['image_bytes']}u",
    ]  # fmt: skip
    largest = 1
    for name, place in values.items():
        size = 2 if int("".join(filter(str.isdigit, place["type"]))) > 8 else 1
        largest = max(largest, size * place["channels"] * place["rows"] * place["columns"])
        fields = (place["address"], place["channels"], place["rows"], place["columns"], size,
                  int(place["type"].startswith("s")))  # fmt: skip
        lines.append(
            f"static const csa_tensor tensor_{names[name]} = "
            f"{{{c_string(name)}, {', '.join(map(str, fields))}}};"
        )
    lines.append(f"#define NETWORK_LARGEST_BYTES {largest}u")
    for kind in ("inputs", "outputs"):
        held = [f"&tensor_{names[name]}" for name in layout[kind] if name in names]
        lines.append(f"#define NETWORK_{kind.upper()} {len(held)}")
        lines.append(f"static const csa_tensor *const network_{kind}[] = {{{_row(held)}}};")
    steps = [str(s["address"]) for s in layout["segments"] if s["kind"] == "accelerator"]
    lines.append(f"#define NETWORK_SEGMENTS {len(steps)}")
    lines.append(f"static const uint32_t network_segments[] = {{{_row(steps)}}};")
    lines.append("#endif")
    return "\n".join(lines) + "\n"


def _row(items: Sequence[str]) -> str:
    return ", ".join(items) if items else "0"


def _readme(what: Handover, zynq: bool) -> str:
    board = what.device.board
    head = [
        f"# Accelerator for {board}", "",
        f"Part {what.device.part}, {what.clock_hz / 1e6:g} MHz, memory port of {what.port_bits} "
        "bits.", "",
    ]  # fmt: skip
    if not zynq:
        return "\n".join([
            *head, f"- `{what.verilog_file}`: module `{what.module}`; AXI4 master, AXI4-Lite slave",
            "- `constraints/timing.xdc`: its clock",
            "- `image.bin`, `layout.json`: the network in memory",
        ]) + "\n"  # fmt: skip
    return "\n".join([
        *head,
        "1. `vivado -mode batch -source vivado/design.tcl` makes `vivado/out/design.bit`, `.hwh`, "
        "`.xsa` and the utilisation and timing reports.",
        "2. PYNQ: copy `design.bit`, `design.hwh`, `image.bin`, `layout.json` and "
        "`pynq/codesign_accelerator.py` to the board; the driver's first lines show how to run.",
        "3. Bare metal: a Vitis application of `design.xsa` with `bare/` and `image.bin` in the "
        "assembler's search path; `main.c` is a start.", "",
        "Both drivers were run against the simulated accelerator. Vivado and the board were not "
        "at hand: that the block design validates, that the clock is met, the board's DDR and MIO "
        "settings, cache and interrupt behaviour are not confirmed.", "",
        "`ip/component.xml` is the packaged IP; `ip/package_ip.tcl` packages it anew with Vivado's "
        "own packager.",
    ]) + "\n"  # fmt: skip
