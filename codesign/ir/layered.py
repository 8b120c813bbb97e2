# SPDX-License-Identifier: Apache-2.0
"""Layered placement of a directed acyclic graph, top to bottom, without outside tools.

The method of Sugiyama, Tagawa and Toda (1981): rows by longest path, places on the way for
edges that skip rows, orders by barycentre, then positions that keep chains straight.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Edge = tuple[str, str]
Point = tuple[float, float]
_SWEEPS = 16


@dataclass(frozen=True)
class Placement:
    """Where boxes and edges go, in the units of the box sizes."""

    width: float
    height: float
    boxes: Mapping[str, tuple[float, float, float, float]]
    """Left, top, width and height of each node."""
    edges: Mapping[Edge, tuple[Point, ...]]
    """Points from the source's lower side to the target's upper side; between points 2k+1 and
    2k+2 the edge changes columns, between 2k and 2k+1 it runs straight down."""


def place(
    sizes: Mapping[str, tuple[float, float]],
    edges: Sequence[Edge],
    gap: tuple[float, float] = (28.0, 30.0),
) -> Placement:
    """Place boxes of the given (width, height), listed in topological order.

    ``gap``: least distance of boxes in a row and of rows.
    """
    edges = list(dict.fromkeys(edges))
    rank = _ranks(sizes, edges)
    rows: list[list[_Item]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    items = {name: _Item(size[0], True) for name, size in sizes.items()}
    for name in _spine(rank, edges):
        items[name].mass = 1e4
    for name, item in items.items():
        rows[rank[name]].append(item)
    chains: dict[Edge, list[_Item]] = {}
    for source, target in edges:
        chain = [items[source]]
        for row in range(rank[source] + 1, rank[target]):
            chain.append(_Item(8.0, False))
            rows[row].append(chain[-1])
        chain.append(items[target])
        chains[source, target] = chain
        for above, below in itertools.pairwise(chain):
            weight = _weight(above, below)
            above.below.append((below, weight))
            below.above.append((above, weight))
    _order(rows)
    _position(rows, gap[0])
    return _geometry(sizes, rank, rows, items, chains, gap[1])


@dataclass(eq=False)
class _Item:
    """A box, or the place of an edge in a row that it passes."""

    width: float
    real: bool
    mass: float = 1.0
    """How much the item insists on its place when a row is tight; large on the spine."""
    x: float = 0.0
    """Centre."""
    index: float = 0.0

    def __post_init__(self) -> None:
        self.above: list[tuple[_Item, int]] = []
        self.below: list[tuple[_Item, int]] = []


def _weight(above: _Item, below: _Item) -> int:
    """How much an edge wants to be straight."""
    if above.mass > 1 and below.mass > 1:
        return 100
    if above.real and below.real:
        return 4
    return 1 if above.real or below.real else 9


def _spine(rank: Mapping[str, int], edges: Sequence[Edge]) -> list[str]:
    """One longest path, which is drawn as a straight line."""
    sources: dict[str, list[str]] = {}
    for source, target in edges:
        sources.setdefault(target, []).append(source)
    path = [max(rank, key=lambda name: rank[name])] if rank else []
    while path and path[-1] in sources:
        path.append(max(sources[path[-1]], key=lambda name: rank[name]))
    return path


def _ranks(sizes: Mapping[str, object], edges: Sequence[Edge]) -> dict[str, int]:
    """Row of each node: one below the lowest of its sources."""
    sources: dict[str, list[str]] = {name: [] for name in sizes}
    targets: dict[str, list[str]] = {name: [] for name in sizes}
    for source, target in edges:
        sources[target].append(source)
        targets[source].append(target)
    rank: dict[str, int] = {}
    for name in sizes:
        rank[name] = max((rank[source] + 1 for source in sources[name]), default=0)
    for name in reversed(list(sizes)):  # what has no source stands just above its first reader
        if not sources[name] and targets[name]:
            rank[name] = min(rank[target] for target in targets[name]) - 1
    return rank


def _order(rows: list[list[_Item]]) -> None:
    """Order each row by the mean place of its neighbours, downwards and upwards in turn."""
    for row in rows:
        _number(row)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            keys = {}
            for item in row:
                near = item.above if down else item.below
                total = sum(weight for _, weight in near)
                mean = sum(other.index * weight for other, weight in near) / total if near else None
                keys[id(item)] = item.index if mean is None else mean
            row.sort(key=lambda item: keys[id(item)])
            _number(row)


def _number(row: list[_Item]) -> None:
    for place, item in enumerate(row):
        item.index = place - (len(row) - 1) / 2


def _position(rows: list[list[_Item]], gap: float) -> None:
    """Move items towards the median of their neighbours, keeping order and distance."""
    for row in rows:
        _settle(row, [0.0] * len(row), gap)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wanted = [_median(item.above if down else item.below, item.x) for item in row]
            _settle(row, wanted, gap)


def _median(near: Sequence[tuple[_Item, int]], default: float) -> float:
    """Weighted median of the neighbours' centres."""
    total = sum(weight for _, weight in near)
    passed = 0
    for other, weight in sorted(near, key=lambda pair: pair[0].x):
        passed += weight
        if 2 * passed >= total:
            return other.x
    return default


def _settle(row: list[_Item], wanted: list[float], gap: float) -> None:
    """The places nearest to ``wanted`` (least squares) that keep order and distance.

    Without the distances this is isotonic regression: pool adjacent violators.
    """
    offset, offsets = 0.0, []
    for i, item in enumerate(row):
        if i:
            offset += (row[i - 1].width + item.width) / 2 + gap
        offsets.append(offset)
    blocks: list[tuple[float, float, int]] = []  # weighted sum, weight and count of pooled targets
    for item, want, shift in zip(row, wanted, offsets):
        total, mass, count = (want - shift) * item.mass, item.mass, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / mass:
            last = blocks.pop()
            total, mass, count = total + last[0], mass + last[1], count + last[2]
        blocks.append((total, mass, count))
    places = [total / mass for total, mass, count in blocks for _ in range(count)]
    for item, place, shift in zip(row, places, offsets):
        item.x = place + shift


def _geometry(
    sizes: Mapping[str, tuple[float, float]],
    rank: Mapping[str, int],
    rows: list[list[_Item]],
    items: Mapping[str, _Item],
    chains: Mapping[Edge, list[_Item]],
    gap: float,
) -> Placement:
    left = min((item.x - item.width / 2 for row in rows for item in row), default=0.0)
    right = max((item.x + item.width / 2 for row in rows for item in row), default=0.0)
    heights = [0.0] * len(rows)
    for name, (_, height) in sizes.items():
        heights[rank[name]] = max(heights[rank[name]], height)
    tops = [sum(heights[:i]) + gap * i for i in range(len(rows))]
    boxes = {
        name: (
            items[name].x - width / 2 - left,
            tops[rank[name]] + (heights[rank[name]] - height) / 2,
            width,
            height,
        )
        for name, (width, height) in sizes.items()
    }
    enter = _ports(chains, boxes, left)
    edges: dict[Edge, tuple[Point, ...]] = {}
    for (source, target), chain in chains.items():
        box = boxes[source]
        points = [(box[0] + box[2] / 2, box[1] + box[3])]
        row = rank[source]
        points.append((points[0][0], tops[row] + heights[row]))
        for item in chain[1:-1]:
            row += 1
            points += [(item.x - left, tops[row]), (item.x - left, tops[row] + heights[row])]
        x = enter[source, target]
        points += [(x, tops[rank[target]]), (x, boxes[target][1])]
        edges[source, target] = tuple(points)
    height = tops[-1] + heights[-1] if rows else 0.0
    return Placement(right - left, height, boxes, edges)


def _ports(
    chains: Mapping[Edge, list[_Item]],
    boxes: Mapping[str, tuple[float, float, float, float]],
    left: float,
) -> dict[Edge, float]:
    """Where each edge enters the upper side of its target, in the order they come from."""
    entering: dict[str, list[Edge]] = {}
    for edge in chains:
        entering.setdefault(edge[1], []).append(edge)
    ports: dict[Edge, float] = {}
    for target, edges in entering.items():
        box = boxes[target]
        edges.sort(key=lambda edge: chains[edge][-2].x)
        near, far = box[0] + 10, box[0] + box[2] - 10
        gap = min(16.0, (far - near) / len(edges))
        ports_row = [_Item(0.0, False, chains[edge][-2].mass) for edge in edges]
        wanted = [min(max(chains[edge][-2].x - left, near), far) for edge in edges]
        _settle(ports_row, wanted, gap)
        for edge, port in zip(edges, ports_row):
            ports[edge] = min(max(port.x, box[0] + 4), box[0] + box[2] - 4)
    return ports
