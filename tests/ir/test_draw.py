# SPDX-License-Identifier: Apache-2.0
"""Drawings: well-formed, complete, readable."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from codesign.ir import Graph, GraphBuilder, NodeStyle, TensorType, ops, to_dot, to_svg
from codesign.ir.layered import Placement, place
from tests.support.graphs import random_graph
from tests.support.integer_graphs import random_integer_graph

SVG = "{http://www.w3.org/2000/svg}"


def residual_net(depth: int) -> Graph:
    """Blocks of two convolutions with a shortcut, as in ResNet."""
    b = GraphBuilder('net <&> "quoted"')
    y = b.input("x", TensorType((1, 8, 16, 16)))
    for i in range(depth):
        w = b.constant(np.zeros((8, 8, 3, 3), np.float32), f"block{i}.w")
        first = ops.Conv2d(padding=(1, 1, 1, 1), bias=False, activation="relu")
        mid = b.add(first, [y, w], f"block{i}.a", f"blocks.{i}<a>")
        second = ops.Conv2d(padding=(1, 1, 1, 1), bias=False, residual=True)
        y = b.add(second, [mid, w, y], f"block{i}.b")
    return b.finish([y])


def boxes_of(svg: ET.Element) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, right and bottom of each node."""
    found = {}
    for group in svg.iter(f"{SVG}g"):
        if group.get("class") == "node":
            rect = group.find(f"{SVG}rect")
            assert rect is not None
            x, y, w, h = (float(rect.get(k, "")) for k in ("x", "y", "width", "height"))
            found[group.get("data-name", "")] = (x, y, x + w, y + h)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_svg_shows_every_node_once_and_apart(seed: int) -> None:
    for graph in (random_graph(seed), random_integer_graph(seed)):
        for constants in (False, True):
            svg = ET.fromstring(to_svg(graph, constants=constants))
            boxes = boxes_of(svg)
            drawn = {n for n in graph.nodes if constants or not graph.is_constant(n)}
            assert boxes.keys() == drawn
            width, height = float(svg.get("width", "")), float(svg.get("height", ""))
            for x0, y0, x1, y1 in boxes.values():
                assert 0 <= x0 < x1 <= width
                assert 0 <= y0 < y1 <= height
            for (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) in itertools.combinations(
                boxes.values(), 2
            ):
                assert ax1 < bx0 or bx1 < ax0 or ay1 < by0 or by1 < ay0
            for node in graph.nodes.values():
                for value in drawn & set(node.inputs):
                    assert boxes[value][3] < boxes[node.name][1], "edges point down"
            edges = [g for g in svg.iter(f"{SVG}g") if g.get("class") == "edge"]
            pairs = {(v, n.name) for n in graph.nodes.values() for v in n.inputs if v in drawn}
            assert len(edges) == len(pairs)


def placement(graph: Graph) -> Placement:
    edges = [(v, n.name) for n in graph.nodes.values() for v in n.inputs]
    return place(dict.fromkeys(graph.nodes, (90.0, 40.0)), edges)


def test_chain_is_straight_and_shortcuts_pass_beside_it() -> None:
    graph = residual_net(6)
    svg = ET.fromstring(to_svg(graph))
    boxes = boxes_of(svg)
    centres = [(box[0] + box[2]) / 2 for box in boxes.values()]
    assert max(centres) - min(centres) < 1
    paths = {}
    for group in svg.iter(f"{SVG}g"):
        if group.get("class") == "edge":
            title, path = group.find(f"{SVG}title"), group.find(f"{SVG}path")
            assert title is not None
            assert path is not None
            paths[title.text] = path.get("d", "")
    passed = boxes["block3.a"]
    shortcut = paths["block2.b → block3.b"]
    xs = [float(pair.split()[0]) for pair in re.findall(r"[\d.]+ [\d.]+(?=V)", shortcut)]
    assert any(x > passed[2] or x < passed[0] for x in xs)


@pytest.mark.parametrize("seed", range(12))
def test_edges_run_past_boxes_not_through_them(seed: int) -> None:
    placed = placement(random_graph(seed, blocks=8))
    for (source, target), points in placed.edges.items():
        assert points[0][1] == placed.boxes[source][1] + placed.boxes[source][3]
        assert points[-1][1] == placed.boxes[target][1]
        for (x0, y0), (x1, y1) in zip(points[0::2], points[1::2]):
            assert x0 == x1, "straight while it passes a row"
            for name, (left, top, width, height) in placed.boxes.items():
                if name not in (source, target):
                    assert not (left <= x0 <= left + width and y0 < top + height and y1 > top)


def test_layout_is_deterministic_and_takes_any_graph() -> None:
    graph = random_graph(3)
    assert to_svg(graph) == to_svg(graph)
    assert place({}, []).boxes == {}
    assert place({"a": (10, 10)}, []).width == 10
    lone = place({"a": (10, 10), "b": (10, 10)}, [])
    assert abs(lone.boxes["a"][0] - lone.boxes["b"][0]) >= 10


def test_svg_escapes_and_styles() -> None:
    style = NodeStyle("#102030", 'w4a8 <&> "q"', "3.2 ms & more\x00")
    text = to_svg(residual_net(1), {"block0.a": style})
    svg = ET.fromstring(text)
    title = svg.find(f"{SVG}title")
    assert title is not None
    assert title.text == 'net <&> "quoted"'
    group = next(g for g in svg.iter(f"{SVG}g") if g.get("data-name") == "block0.a")
    rect, tip = group.find(f"{SVG}rect"), group.find(f"{SVG}title")
    assert rect is not None
    assert rect.get("fill") == "#102030"
    assert tip is not None
    assert tip.text == "3.2 ms & more�"
    lines = group.findall(f"{SVG}text")
    assert [line.text for line in lines] == [
        "block0.a", "conv2d 3×3 relu", "f32[1,8,16,16]", 'w4a8 <&> "q"',
    ]  # fmt: skip
    assert {line.get("fill") for line in lines} == {"#ffffff"}  # readable on a dark box
    plain = next(g for g in svg.iter(f"{SVG}g") if g.get("data-name") == "block0.b")
    tip = plain.find(f"{SVG}title")
    assert tip is not None
    assert tip.text == "block0.b"
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_dot() -> None:
    text = to_dot(residual_net(1), {"block0.a": NodeStyle("#ff0000", 'say "hi"\\')})
    assert text.splitlines()[0] == 'digraph "net <&> \\"quoted\\"" {'
    assert (
        '  "block0.a" [label="block0.a\\nconv2d 3×3 relu\\nf32[1,8,16,16]\\nsay \\"hi\\"\\\\", '
        'fillcolor="#ff0000", tooltip="blocks.0<a>"];'
    ) in text
    edges = re.findall(r'^  "(\S+)" -> "(\S+)";$', text, re.MULTILINE)
    assert edges == [("x", "block0.a"), ("block0.a", "block0.b"), ("x", "block0.b")]
    assert "block0.w" not in text
    assert '"block0.w" -> "block0.a"' in to_dot(residual_net(1), constants=True)
