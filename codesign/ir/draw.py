# SPDX-License-Identifier: Apache-2.0
"""Drawings of a graph: DOT for graphviz, and SVG that needs no outside tool."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from codesign.ir import layered, ops
from codesign.ir.graph import Graph, Node


@dataclass(frozen=True)
class NodeStyle:
    """How one node is drawn; empty fields keep the default."""

    fill: str = ""
    """Colour of the box, ``#rrggbb``."""
    note: str = ""
    """One more line in the box, in bold (a number format, a latency)."""
    title: str = ""
    """Text that shows when the pointer rests on the box."""


Styles = Mapping[str, NodeStyle]
_NO_STYLES: Styles = MappingProxyType({})
_PLAIN = NodeStyle()

_FILL = {
    "input": "#d9dde3", "constant": "#f4f4f4",
    **dict.fromkeys(("conv2d", "linear", "matmul"), "#cfe2f7"),
    **dict.fromkeys(("batch_norm", "layer_norm", "softmax"), "#e4d8f3"),
    **dict.fromkeys(("activation", "lookup"), "#fbdcc4"),
    **dict.fromkeys(("pool2d", "reduce", "resize"), "#d3ecd6"),
    **dict.fromkeys(("add", "mul", "concat"), "#fbf0bd"),
    **dict.fromkeys(("quantize", "dequantize", "requantize", "clip"), "#cdebe9"),
}  # fmt: skip
_OTHER_FILL = "#eceef1"
_LINE = 15.0
_CHAR = 6.7
_MARGIN = 16.0


def describe(graph: Graph, node: Node) -> str:
    """The operator in a few words: ``conv2d 3×3 /2 relu``."""
    op = node.op
    match op:
        case ops.Conv2d():
            channels = graph.type(node.inputs[0]).shape[1]
            height, width = graph.type(node.inputs[1]).shape[2:]
            words = [f"conv2d {height}×{width}"]
            if op.groups > 1:
                words.append("depthwise" if op.groups == channels else f"groups {op.groups}")
            words += [f"/{_pair(op.stride)}"] if op.stride != (1, 1) else []
            words += [f"dilated {_pair(op.dilation)}"] if op.dilation != (1, 1) else []
            words += _layer_words(op)
            return " ".join(words)
        case ops.Linear():
            return " ".join(["linear", *_layer_words(op)])
        case ops.Activation():
            return op.kind
        case ops.Pool2d():
            height, width = op.kernel
            text = f"{op.kind} pool {height}×{width}"
            return text + (f" /{_pair(op.stride)}" if op.stride != (1, 1) else "")
        case ops.Reduce():
            pool = op.axes == (2, 3) and graph.type(node.inputs[0]).rank == 4
            return f"global {op.kind} pool" if pool else f"{op.kind} of axes {_list(op.axes)}"
        case ops.Slice():
            step = f":{op.step}" if op.step != 1 else ""
            return f"slice axis {op.axis} [{op.start}:{op.stop}{step}]"
        case ops.Transpose():
            return f"transpose {_list(op.perm)}"
        case ops.Concat() | ops.Softmax():
            return f"{op.name} axis {op.axis}"
        case ops.Resize():
            return f"{op.kind} resize"
    return op.name.replace("_", " ")


def _layer_words(op: ops.Conv2d | ops.Linear) -> list[str]:
    words = ["+ residual"] if op.residual else []
    return words if op.activation == "none" else [*words, op.activation]


def _pair(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"


def _list(items: tuple[int, ...]) -> str:
    return ",".join(map(str, items))


def _lines(graph: Graph, node: Node, style: NodeStyle) -> list[str]:
    """The text in a box: name, operator, type, note."""
    lines = [_short(node.name), describe(graph, node), str(node.type)]
    if isinstance(node.op, (ops.Input, ops.Constant)):
        lines = [_short(node.name), f"{node.op.name} {node.type}"]
    return [*lines, _clean(style.note)] if style.note else lines


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:14]}…{name[-19:]}"


def _clean(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return re.sub("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)


def _drawn(graph: Graph, constants: bool) -> list[Node]:
    return [n for n in graph.nodes.values() if constants or not graph.is_constant(n.name)]


def to_dot(graph: Graph, styles: Styles = _NO_STYLES, constants: bool = False) -> str:
    """The graph in graphviz' DOT language; ``constants`` draws weights and other constants."""
    lines = [
        f"digraph {_quote(graph.name)} {{",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];',
        '  edge [color="#6b7480", arrowsize=0.7];',
    ]
    drawn = _drawn(graph, constants)
    for node in drawn:
        style = styles.get(node.name, _PLAIN)
        label = "\n".join(_lines(graph, node, style))
        fill = style.fill or _FILL.get(node.op.name, _OTHER_FILL)
        extra = ", penwidth=2.5" if node.name in graph.outputs else ""
        tooltip = style.title or node.source or node.name
        lines.append(
            f"  {_quote(node.name)} [label={_quote(label)}, fillcolor={_quote(fill)}, "
            f"tooltip={_quote(tooltip)}{extra}];"
        )
    names = {node.name for node in drawn}
    for node in drawn:
        for value in dict.fromkeys(node.inputs):
            if value in names:
                lines.append(f"  {_quote(value)} -> {_quote(node.name)};")
    return "\n".join([*lines, "}"]) + "\n"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def to_svg(graph: Graph, styles: Styles = _NO_STYLES, constants: bool = False) -> str:
    """The graph as one self-contained SVG element, flowing from top to bottom.

    Every node is a group with the class ``node`` and its name in ``data-name``, so that a page
    can find it. Results have a strong border.
    """
    drawn = _drawn(graph, constants)
    lines = {n.name: _lines(graph, n, styles.get(n.name, _PLAIN)) for n in drawn}
    sizes = {
        name: (max(map(len, text)) * _CHAR + 24, len(text) * _LINE + 12)
        for name, text in lines.items()
    }
    edges = [(v, n.name) for n in drawn for v in n.inputs if v in lines]
    placed = layered.place(sizes, edges)
    width, height = placed.width + 2 * _MARGIN, placed.height + 2 * _MARGIN
    svg = ET.Element("svg", {
        "xmlns": "http://www.w3.org/2000/svg", "width": _num(width), "height": _num(height),
        "viewBox": f"0 0 {_num(width)} {_num(height)}", "role": "img",
        "font-family": "Helvetica, Arial, sans-serif", "font-size": "12",
    })  # fmt: skip
    ET.SubElement(svg, "title").text = _clean(graph.name)
    ET.SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    shift = f"translate({_num(_MARGIN)} {_num(_MARGIN)})"
    canvas = ET.SubElement(svg, "g", {"transform": shift})
    for (source, target), points in placed.edges.items():
        _edge(canvas, source, target, points)
    for node in drawn:
        style = styles.get(node.name, _PLAIN)
        strong = node.name in graph.outputs
        _box(canvas, node, lines[node.name], style, placed.boxes[node.name], strong)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _num(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _edge(
    canvas: ET.Element, source: str, target: str, points: tuple[layered.Point, ...]
) -> None:
    path = f"M{_num(points[0][0])} {_num(points[0][1])}"
    for (_, y0), (x0, y1), (x1, y2) in zip(points[0::2], points[1::2], points[2::2]):
        path += f"V{_num(y1)}" if y1 > y0 else ""
        middle = _num((y1 + y2) / 2)
        path += (
            f"V{_num(y2)}" if x0 == x1
            else f"C{_num(x0)} {middle} {_num(x1)} {middle} {_num(x1)} {_num(y2)}"
        )  # fmt: skip
    x, y = points[-1]
    path += f"V{_num(y - 1)}"
    line = {"d": path, "fill": "none", "stroke": "#6b7480", "stroke-width": "1.4"}
    group = ET.SubElement(canvas, "g", {"class": "edge"})
    ET.SubElement(group, "title").text = f"{source} → {target}"
    ET.SubElement(group, "path", line)
    arrow = f"M{_num(x - 4)} {_num(y - 7)}L{_num(x)} {_num(y)}L{_num(x + 4)} {_num(y - 7)}Z"
    ET.SubElement(group, "path", {"d": arrow, "fill": "#6b7480"})


def _box(
    canvas: ET.Element,
    node: Node,
    lines: list[str],
    style: NodeStyle,
    box: tuple[float, float, float, float],
    strong: bool,
) -> None:
    left, top, width, height = box
    fill = style.fill or _FILL.get(node.op.name, _OTHER_FILL)
    ink = "#ffffff" if _is_dark(fill) else "#1c2430"
    group = ET.SubElement(canvas, "g", {"class": "node", "data-name": node.name})
    title = _clean(style.title or "\n".join(filter(None, [node.name, node.source])))
    ET.SubElement(group, "title").text = title
    ET.SubElement(group, "rect", {
        "x": _num(left), "y": _num(top), "width": _num(width), "height": _num(height), "rx": "6",
        "fill": _clean(fill), "stroke": "#1c2430" if strong else "#8a93a0",
        "stroke-width": "2.5" if strong else "1",
    })  # fmt: skip
    for i, line in enumerate(lines):
        attributes = {
            "x": _num(left + width / 2), "y": _num(top + 6 + (i + 0.75) * _LINE),
            "text-anchor": "middle", "fill": ink,
        }  # fmt: skip
        if i == 0 or (style.note and i == len(lines) - 1):
            attributes["font-weight"] = "bold"
        ET.SubElement(group, "text", attributes).text = line


def _is_dark(colour: str) -> bool:
    """Whether white text reads better on ``#rrggbb`` than black."""
    match = re.fullmatch("#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", colour)
    if match is None:
        return False
    red, green, blue = (int(part, 16) for part in match.groups())
    return 0.299 * red + 0.587 * green + 0.114 * blue < 130
