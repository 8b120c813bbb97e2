# SPDX-License-Identifier: Apache-2.0
"""The accelerator as an IP-XACT component (IEEE 1685-2009, the form that Vivado reads)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codesign.errors import CodesignError
from codesign.targets.fpga.hw.registers import Register

SPIRIT = "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"
XILINX = "http://www.xilinx.com"
CHILDREN: dict[str, tuple[str, ...]] = {
    # order of child elements in the schema, as far as they are used here
    "component": ("vendor", "library", "name", "version", "busInterfaces", "addressSpaces",
                  "memoryMaps", "model", "fileSets", "description", "parameters",
                  "vendorExtensions"),
    "busInterface": ("name", "busType", "abstractionType", "master", "slave", "portMaps",
                     "parameters"),
    "addressSpace": ("name", "range", "width"),
    "memoryMap": ("name", "addressBlock"),
    "addressBlock": ("name", "baseAddress", "range", "width", "usage", "access", "register"),
    "register": ("name", "addressOffset", "size", "access"),
    "model": ("views", "ports"),
    "view": ("name", "envIdentifier", "language", "modelName", "fileSetRef"),
    "port": ("name", "wire"),
    "wire": ("direction", "vector", "wireTypeDefs"),
    "portMap": ("logicalPort", "physicalPort"),
    "fileSet": ("name", "file"),
    "file": ("name", "fileType"),
    "parameter": ("name", "value"),
}  # fmt: skip


@dataclass(frozen=True)
class VerilogPort:
    """One port of the top module."""

    name: str
    direction: str
    """"in" or "out"."""
    width: int


def verilog_ports(verilog: str, module: str) -> tuple[VerilogPort, ...]:
    """Ports of a module, in order. Raises CodesignError if it is not there."""
    found = re.search(rf"^module {re.escape(module)}\s*\((.*?)\);(.*?)^endmodule", verilog,
                      re.S | re.M)  # fmt: skip
    if found is None:
        raise CodesignError(f"the Verilog holds no module {module!r}")
    order = [word.strip() for word in found.group(1).split(",")]
    kinds = {}
    declared = r"^\s*(input|output)\s+(?:wire\s+|reg\s+)?(?:\[(\d+):0\]\s*)?(\w+)\s*;"
    for direction, high, name in re.findall(declared, found.group(2), re.M):
        kinds[name] = VerilogPort(name, direction[:-3], int(high or 0) + 1)
    missing = [name for name in order if name not in kinds]
    if missing:
        raise CodesignError(f"module {module!r}: ports without a declaration: {missing[:5]}")
    return tuple(kinds[name] for name in order)


def component(name: str, ports: Sequence[VerilogPort], files: Iterable[str], data_bits: int) -> str:
    """The text of ``component.xml``; ``files`` are paths relative to it. ``name`` is the module's.

    Raises CodesignError if the ports do not have what the buses need.
    """
    ET.register_namespace("spirit", SPIRIT)
    ET.register_namespace("xilinx", XILINX)
    root = ET.Element(f"{{{SPIRIT}}}component")
    for tag, text in (("vendor", "codesign"), ("library", "accelerator"), ("name", name),
                      ("version", "1.0")):  # fmt: skip
        _add(root, tag, text)
    buses = _add(root, "busInterfaces")
    names = {port.name for port in ports}
    lite_bits = next((p.width for p in ports if p.name == "s_axi_awaddr"), 8)
    for bus, role in (("m_axi", "master"), ("s_axi", "slave")):
        mapped = sorted(n for n in names if n.startswith(f"{bus}_"))
        if not mapped:
            raise CodesignError(f"module {name!r} has no ports {bus}_...")
        interface = _bus(buses, bus, "interface", "aximm")
        _add(_add(interface, role), "addressSpaceRef" if role == "master" else "memoryMapRef").set(
            f"{{{SPIRIT}}}{'addressSpaceRef' if role == 'master' else 'memoryMapRef'}", bus
        )
        _map(interface, [(n[len(bus) + 1 :].upper(), n) for n in mapped])
        protocol = "AXI4" if role == "master" else "AXI4LITE"
        _parameters(interface, bus, [("PROTOCOL", protocol), *(
            [("DATA_WIDTH", str(data_bits)), ("SUPPORTS_NARROW_BURST", "0"),
             ("HAS_BURST", "1"), ("MAX_BURST_LENGTH", "16")] if role == "master" else []
        )])  # fmt: skip
    clock = _bus(buses, "clk", "signal", "clock")
    _add(clock, "slave")
    _map(clock, [("CLK", "clk")])
    _parameters(clock, "clk", [("ASSOCIATED_BUSIF", "m_axi:s_axi"), ("ASSOCIATED_RESET", "rst")])
    reset = _bus(buses, "rst", "signal", "reset")
    _add(reset, "slave")
    _map(reset, [("RST", "rst")])
    _parameters(reset, "rst", [("POLARITY", "ACTIVE_HIGH")])
    interrupt = _bus(buses, "irq", "signal", "interrupt")
    _add(interrupt, "master")
    _map(interrupt, [("INTERRUPT", "irq")])
    _parameters(interrupt, "irq", [("SENSITIVITY", "LEVEL_HIGH")])

    space = _add(_add(root, "addressSpaces"), "addressSpace")
    address_bits = next((p.width for p in ports if p.name == "m_axi_araddr"), 32)
    for tag, text in (("name", "m_axi"), ("range", str(1 << address_bits)),
                      ("width", str(data_bits))):  # fmt: skip
        _add(space, tag, text)
    memory_map = _add(_add(root, "memoryMaps"), "memoryMap")
    _add(memory_map, "name", "s_axi")
    block = _add(memory_map, "addressBlock")
    for tag, text in (("name", "registers"), ("baseAddress", "0"),
                      ("range", str(max(4096, 1 << lite_bits))), ("width", "32"),
                      ("usage", "register"), ("access", "read-write")):  # fmt: skip
        _add(block, tag, text)
    for place in Register:
        register = _add(block, "register")
        for tag, text in (("name", place.name), ("addressOffset", f"{int(place):#x}"),
                          ("size", "32"), ("access", "read-write")):  # fmt: skip
            _add(register, tag, text)

    model = _add(root, "model")
    views = _add(model, "views")
    for view, purpose in (("xilinx_anylanguagesynthesis", "synthesis"),
                          ("xilinx_anylanguagebehavioralsimulation", "simulation")):  # fmt: skip
        one = _add(views, "view")
        for tag, text in (("name", view), ("envIdentifier", f":vivado.xilinx.com:{purpose}"),
                          ("language", "Verilog"), ("modelName", name)):  # fmt: skip
            _add(one, tag, text)
        _add(_add(one, "fileSetRef"), "localName", "sources")
    listed = _add(model, "ports")
    for port in ports:
        one = _add(listed, "port")
        _add(one, "name", port.name)
        wire = _add(one, "wire")
        _add(wire, "direction", port.direction)
        if port.width > 1:
            vector = _add(wire, "vector")
            _add(vector, "left", str(port.width - 1))
            _add(vector, "right", "0")
    sources = _add(_add(root, "fileSets"), "fileSet")
    _add(sources, "name", "sources")
    for file in files:
        one = _add(sources, "file")
        _add(one, "name", file)
        _add(one, "fileType", "verilogSource")
    _add(root, "description", "Neural network accelerator made by codesign")
    _parameter(_add(root, "parameters"), "Component_Name", f"{name}_v1_0", "PARAM_VALUE")
    core = ET.SubElement(_add(root, "vendorExtensions"), f"{{{XILINX}}}coreExtensions")
    families = ET.SubElement(core, f"{{{XILINX}}}supportedFamilies")
    for family in ("zynq", "zynquplus", "artix7"):
        one = ET.SubElement(families, f"{{{XILINX}}}family")
        one.set(f"{{{XILINX}}}lifeCycle", "Production")
        one.text = family
    ET.SubElement(ET.SubElement(core, f"{{{XILINX}}}taxonomies"), f"{{{XILINX}}}taxonomy").text = (
        "/UserIP"
    )
    ET.SubElement(core, f"{{{XILINX}}}displayName").text = name
    ET.SubElement(core, f"{{{XILINX}}}coreRevision").text = "1"
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add(parent: ET.Element, tag: str, text: str | None = None) -> ET.Element:
    child = ET.SubElement(parent, f"{{{SPIRIT}}}{tag}")
    child.text = text
    return child


def _bus(parent: ET.Element, name: str, library: str, kind: str) -> ET.Element:
    interface = _add(parent, "busInterface")
    _add(interface, "name", name)
    for tag, type_ in (("busType", kind), ("abstractionType", f"{kind}_rtl")):
        one = _add(interface, tag)
        for attribute, value in (("vendor", "xilinx.com"), ("library", library), ("name", type_),
                                 ("version", "1.0")):  # fmt: skip
            one.set(f"{{{SPIRIT}}}{attribute}", value)
    return interface


def _map(interface: ET.Element, pairs: Iterable[tuple[str, str]]) -> None:
    maps = _add(interface, "portMaps")
    for logical, physical in pairs:
        one = _add(maps, "portMap")
        _add(_add(one, "logicalPort"), "name", logical)
        _add(_add(one, "physicalPort"), "name", physical)


def _parameters(interface: ET.Element, bus: str, values: Iterable[tuple[str, str]]) -> None:
    listed = _add(interface, "parameters")
    for name, value in values:
        _parameter(listed, name, value, f"BUSIFPARAM_VALUE.{bus.upper()}")


def _parameter(parent: ET.Element, name: str, value: str, prefix: str) -> None:
    one = _add(parent, "parameter")
    _add(one, "name", name)
    held = _add(one, "value", value)
    held.set(f"{{{SPIRIT}}}id", f"{prefix}.{name.upper()}")


def check_component(text: str, ports: Sequence[VerilogPort]) -> None:
    """Check what of the schema and of the design can be checked without Vivado: order and names of
    elements, identifiers, that every port is listed with its width and maps and references lead
    somewhere. Raises CodesignError with the first that does not hold."""
    root = ET.fromstring(text)
    wanted = {port.name: port for port in ports}
    for element in root.iter():
        tag = element.tag.removeprefix(f"{{{SPIRIT}}}")
        order = CHILDREN.get(tag)
        if order is None:
            continue
        tags = [child.tag.removeprefix(f"{{{SPIRIT}}}") for child in element]
        unknown = [child for child in tags if child not in order]
        if unknown:
            raise CodesignError(f"component.xml: {tag} has an unknown child {unknown[0]!r}")
        if tags != sorted(tags, key=order.index):
            raise CodesignError(f"component.xml: children of {tag} are out of order: {tags}")
    spirit = {"s": SPIRIT}
    for found in root.iterfind(".//s:portMap/s:physicalPort/s:name", spirit):
        if found.text not in wanted:
            raise CodesignError(f"component.xml: maps port {found.text!r}, which is not there")
    listed = {}
    for port in root.iterfind(".//s:ports/s:port", spirit):
        left = port.findtext("s:wire/s:vector/s:left", "0", spirit)
        name = port.findtext("s:name", "", spirit)
        listed[name] = (port.findtext("s:wire/s:direction", "", spirit), int(left) + 1)
    if listed != {name: (p.direction, p.width) for name, p in wanted.items()}:
        raise CodesignError("component.xml: ports differ from the module's")
    spaces = {e.text for e in root.iterfind(".//s:addressSpace/s:name", spirit)}
    maps = {e.text for e in root.iterfind(".//s:memoryMap/s:name", spirit)}
    for kind, known in (("addressSpaceRef", spaces), ("memoryMapRef", maps)):
        for reference in root.iterfind(f".//s:{kind}", spirit):
            if reference.get(f"{{{SPIRIT}}}{kind}") not in known:
                raise CodesignError(f"component.xml: {kind} leads nowhere")
