# SPDX-License-Identifier: Apache-2.0
"""One layer's mapping onto a spatial accelerator with a memory hierarchy, exactly.

The machine is Simba-like, as CoSA's published default: processing elements (PEs) with an input
buffer each, clusters in a PE with a weight buffer and accumulators each, lanes in a cluster; a
global buffer of inputs and outputs; DRAM. Every loop bound is split exactly, bound = dram · global
· pe · cluster · lane · inner:

- ``dram`` and ``glob`` loops run in time over tiles of the global buffer and of the PEs,
- ``pe``, ``cluster`` and ``lane`` run in space,
- ``inner`` runs in time inside a PE, input channels innermost, so that sums leave a PE once.

Model (bytes; e = pe · cluster · lane · inner, b = e / pe, g = glob · e):

    compute = product of all loops in time
    noc     = Σ_v tile_v(e) · T_v · Π dram        dram = Σ_IA,OA tile_v(g) · Π dram + noc_W
    latency = max(compute, noc / noc bandwidth, dram / dram bandwidth)

T_v multiplies the ``glob`` loops that make tensor v be fetched again: all loops outside the
innermost one that v depends on. What stays is decided by the innermost loops: output channels
(inputs stay), output pixels (weights stay) or input channels (sums stay); kernel loops are
innermost where they do no harm. This is CoSA's traffic (D + L + T, its DRAM term) in numbers
instead of logarithms, with multicast to PEs and the exact size of input tiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.errors import InfeasibleError, InputError
from codesign.space.workload import LayerShape

Array: TypeAlias = npt.NDArray[np.int64]
Six: TypeAlias = tuple[int, int, int, int, int, int]
"""One number for each of R, S, P, Q, C, K."""
R, S, P, Q, C, K = range(6)
Stay = Literal["inputs", "weights", "outputs"]
STAYS: tuple[Stay, ...] = ("inputs", "weights", "outputs")
ONES: Six = (1, 1, 1, 1, 1, 1)

_REFETCH: dict[Stay, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "inputs": ((R, S, P, Q, C, K), (P, Q, C), (P, Q, C, K)),
    "weights": ((R, S, C, K), (R, S, P, Q, C, K), (R, S, P, Q, C, K)),
    "outputs": ((R, S, P, Q, C, K), (P, Q, C, K), (P, Q, K)),
}
"""Innermost loops to the loops in T of weights, inputs, outputs."""


@dataclass(frozen=True)
class Machine:
    """Simba-like defaults: CoSA's architecture file (1,024 MACs; bandwidth of DRAM 20).

    The network's bandwidth is this project's assumption (the source gives none).
    """

    pes: int = 16
    clusters: int = 8
    lanes: int = 8
    input_bytes: int = 4096
    """Input buffer of a PE."""
    weight_bytes: int = 16384
    """Weight buffer of a cluster."""
    global_bytes: int = 65536
    """Half for inputs, half for outputs."""
    dram_bandwidth: int = 20
    """Bytes a cycle."""
    noc_bandwidth: int = 64
    """Bytes a cycle between global buffer and PEs."""


@dataclass(frozen=True)
class MapLayer:
    """A convolution by its loop bounds."""

    bounds: Six
    stride: int = 1

    @staticmethod
    def of(shape: LayerShape) -> MapLayer:
        """Of a dense layer (one group, the same stride both ways); raises InputError."""
        if shape.groups != 1 or shape.stride[0] != shape.stride[1]:
            raise InputError(f"the mapper takes dense layers of one group and stride, got {shape}")
        return MapLayer(
            (*shape.kernel, *shape.out_size, shape.inputs, shape.outputs), shape.stride[0]
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return math.prod(self.bounds)


@dataclass(frozen=True)
class Mapping:
    """Every loop bound split over the levels."""

    dram: Six
    glob: Six
    pe: Six
    cluster: Six
    lane: Six
    inner: Six
    stay: Stay


@dataclass(frozen=True)
class MapCost:
    """What a mapping takes."""

    latency: int
    compute: int
    noc_bytes: int
    dram_bytes: int


def _times(*parts: Sequence[int]) -> Six:
    r, s, p, q, c, k = (math.prod(values) for values in zip(*parts))
    return r, s, p, q, c, k


def _tiles(tile: Sequence[int], stride: int) -> tuple[int, int, int]:
    """Bytes of weights, inputs and outputs of a tile."""
    r, s, p, q, c, k = tile
    inputs = c * ((p - 1) * stride + r) * ((q - 1) * stride + s)
    return r * s * c * k, inputs, p * q * k


def map_cost(layer: MapLayer, machine: Machine, mapping: Mapping) -> MapCost:
    """The model of this module; raises InfeasibleError naming what does not fit."""
    m = mapping
    split = _times(m.dram, m.glob, m.pe, m.cluster, m.lane, m.inner)
    if split != layer.bounds:
        raise InfeasibleError(f"the loops multiply to {split}, the layer has {layer.bounds}")
    for name, loops, most in (
        ("PEs", m.pe, machine.pes),
        ("clusters", m.cluster, machine.clusters),
        ("lanes", m.lane, machine.lanes),
    ):
        if math.prod(loops) > most:
            raise InfeasibleError(f"{math.prod(loops)} {name} used, the machine has {most}")
    b = _times(m.cluster, m.lane, m.inner)
    e = _times(b, m.pe)
    g = _times(e, m.glob)
    weights_b, inputs_b, _ = _tiles(b, layer.stride)
    _, inputs_g, outputs_g = _tiles(g, layer.stride)
    half = machine.global_bytes // 2
    for name, held, room in (
        ("input buffer", inputs_b, machine.input_bytes),
        ("weight buffers of a PE", weights_b, machine.weight_bytes * machine.clusters),
        ("global buffer's inputs", inputs_g, half),
        ("global buffer's outputs", outputs_g, half),
    ):
        if held > room:
            raise InfeasibleError(f"{name}: {held} bytes needed, {room} there")
    again = math.prod(m.dram)
    moved = [
        tile * math.prod(m.glob[j] for j in loops) * again
        for tile, loops in zip(_tiles(e, layer.stride), _REFETCH[m.stay])
    ]
    compute = math.prod(_times(m.dram, m.glob, m.inner))
    noc = sum(moved)
    dram = (inputs_g + outputs_g) * again + moved[0]
    latency = max(compute, -(-noc // machine.noc_bandwidth), -(-dram // machine.dram_bandwidth))
    return MapCost(latency, compute, noc, dram)


def divisors(n: int) -> list[int]:
    """All divisors of n, ascending.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


def primes(n: int) -> list[int]:
    """Prime factors of n, ascending, repeated.

    >>> primes(56)
    [2, 2, 2, 7]
    """
    found, d = [], 2
    while d * d <= n:
        while n % d == 0:
            found.append(d)
            n //= d
        d += 1
    return found + ([n] if n > 1 else [])


@cache
def _best_pair(n: int, first: int, second: int) -> tuple[int, int]:
    """(a, b) of the largest product with a·b | n, a ≤ first, b ≤ second."""
    pairs = ((a, b) for a in divisors(n) if a <= first for b in divisors(n // a) if b <= second)
    return max(pairs, key=lambda pair: pair[0] * pair[1])


def _spread(amount: int, over: Sequence[int]) -> Six:
    """A divisor ``amount`` of Π over, split over its entries."""
    parts = []
    for n in over:
        part = math.gcd(amount, n)
        parts.append(part)
        amount //= part
    r, s, p, q, c, k = parts
    return r, s, p, q, c, k


def _in_space(e: Six, layer: MapLayer, machine: Machine) -> tuple[int, Six, Six, Six] | None:
    """The most lanes that a PE-array tile can use, and how; None when no split fits the buffers."""
    best: tuple[int, Six, Six, Six] | None = None
    room = machine.weight_bytes * machine.clusters
    options = [[d for d in divisors(n) if d <= machine.pes] for n in e]
    top = min(machine.pes, math.prod(e)) * machine.clusters * machine.lanes
    for pe in _vectors(options, machine.pes):
        b = tuple(n // d for n, d in zip(e, pe))
        weights, inputs, _ = _tiles(b, layer.stride)
        if inputs > machine.input_bytes or weights > room:
            continue
        clusters, lanes = _best_pair(math.prod(b), machine.clusters, machine.lanes)
        used = math.prod(pe) * clusters * lanes
        if best is None or used > best[0]:
            cluster = _spread(clusters, b)
            rest = tuple(n // d for n, d in zip(b, cluster))
            r, s, p, q, c, k = pe
            best = used, (r, s, p, q, c, k), cluster, _spread(lanes, rest)
            if used == top:
                break
    return best


def _vectors(options: Sequence[Sequence[int]], most: int) -> list[tuple[int, ...]]:
    """One of each with a product of at most ``most``, largest products first."""
    found: list[tuple[int, tuple[int, ...]]] = [(1, ())]
    for values in options:
        found = [(n * d, (*v, d)) for n, v in found for d in values if n * d <= most]
    return [v for _, v in sorted(found, key=lambda item: -item[0])]


@dataclass(frozen=True)
class MapResult:
    """The best mapping; no mapping of the model has a smaller latency, and none of that latency
    moves fewer bytes (network and DRAM together)."""

    mapping: Mapping
    cost: MapCost
    tiles: int
    """Global-buffer tiles whose inner tiles were tried."""
    evaluated: int
    """Inner tiles priced."""


def map_layer_exact(layer: MapLayer, machine: Machine | None = None) -> MapResult:
    """The mapping of least latency, then of least bytes moved, over all splits and loop orders.

    Best-first over tiles of the global buffer by a lower bound (every tensor moves once for each
    tile, all lanes busy); inside, all tiles of the PEs at once in NumPy, then the spatial split of
    the most promising, until no bound is below the best. Raises InfeasibleError when nothing fits.
    """
    search = _Search(layer, machine or Machine())
    search.run(least_bytes=False)
    if search.best is None:
        raise InfeasibleError(f"no mapping of {layer} fits {search.machine}")
    search.run(least_bytes=True)
    return MapResult(search.best[1], search.best[0], search.tiles, search.evaluated)


class _Search:
    """Both passes over one layer's mappings."""

    def __init__(self, layer: MapLayer, machine: Machine) -> None:
        self.layer, self.machine = layer, machine
        self.grid = np.array(list(itertools.product(*map(divisors, layer.bounds))), dtype=np.int64)
        weights, inputs, outputs = _tile_arrays(self.grid, layer.stride)
        half = machine.global_bytes // 2
        self.lanes = machine.pes * machine.clusters * machine.lanes
        self.again = layer.macs // self.grid.prod(axis=1)
        self.held = inputs + outputs
        self.fits = np.flatnonzero((inputs <= half) & (outputs <= half))
        # every tensor crosses the network, and DRAM, at least once for each tile; small tiles may
        # skip the input positions between windows (a stride above the kernel), never those used
        used = self.grid[:, C] * self.grid[:, P] * self.grid[:, Q]
        dram = (weights + self.held) * self.again
        self.least_moved = dram + (weights + outputs + used) * self.again
        low = -(-dram // machine.dram_bandwidth)
        self.least = np.maximum(low, -(-layer.macs // self.lanes))
        # no PE has more than its share of a tile, whichever way it is split
        self.small = np.flatnonzero(
            (used <= machine.input_bytes * machine.pes)
            & (weights <= machine.weight_bytes * machine.clusters * machine.pes)
        )
        self.tiles_e = np.stack([weights, inputs, outputs])[:, self.small]
        size = self.grid[self.small].prod(axis=1)
        self.compute_e = -(-layer.macs // np.minimum(self.lanes, size))
        self.space: dict[int, tuple[int, Six, Six, Six] | None] = {}
        self.best: tuple[MapCost, Mapping] | None = None
        self.tiles = self.evaluated = 0

    def run(self, least_bytes: bool) -> None:
        """Minimise latency; or bytes, among mappings of the latency found."""
        bound = self.least_moved if least_bytes else self.least
        order = self.fits
        if least_bytes:
            assert self.best is not None
            order = order[self.least[order] <= self.best[0].latency]
        order = order[np.argsort(bound[order], kind="stable")]
        for place in order:
            if self.best is not None and bound[place] >= self._value(self.best[0], least_bytes):
                break
            self._inside(int(place), least_bytes)

    @staticmethod
    def _value(cost: MapCost, least_bytes: bool) -> int:
        return cost.noc_bytes + cost.dram_bytes if least_bytes else cost.latency

    def _inside(self, place: int, least_bytes: bool) -> None:
        """Try all tiles of the PEs in one tile of the global buffer."""
        g = self.grid[place]
        inside = np.flatnonzero((g % self.grid[self.small] == 0).all(axis=1))
        glob = g // self.grid[self.small[inside]]
        latency, moved = _bounds(
            self.tiles_e[:, inside], glob, int(self.again[place]), int(self.held[place]),
            self.compute_e[inside], self.machine,
        )  # fmt: skip
        self.tiles += 1
        self.evaluated += len(inside)
        bounds = moved if least_bytes else latency
        if least_bytes:
            assert self.best is not None
            bounds = np.where(latency <= self.best[0].latency, bounds, np.iinfo(np.int64).max)
        stays = bounds.argmin(axis=0)
        bound = bounds.min(axis=0)
        open_places = np.arange(len(bound))
        if self.best is not None:
            open_places = np.flatnonzero(bound < self._value(self.best[0], least_bytes))
        for at in open_places[np.argsort(bound[open_places], kind="stable")]:
            if self.best is not None and bound[at] >= self._value(self.best[0], least_bytes):
                break
            mapping = self._mapping(g, glob[at], int(self.small[inside[at]]), int(stays[at]))
            if mapping is None:
                continue
            cost = map_cost(self.layer, self.machine, mapping)
            if self.best is None or self._better(cost, least_bytes):
                self.best = cost, mapping

    def _better(self, cost: MapCost, least_bytes: bool) -> bool:
        assert self.best is not None
        best = self.best[0]
        if least_bytes and cost.latency > best.latency:
            return False
        return self._value(cost, least_bytes) < self._value(best, least_bytes)

    def _mapping(self, g: Array, glob: Array, where: int, stay: int) -> Mapping | None:
        """With the spatial split that uses most lanes; None when no split fits the buffers."""
        e = _six(self.grid[where])
        if where not in self.space:
            self.space[where] = _in_space(e, self.layer, self.machine)
        found = self.space[where]
        if found is None:
            return None
        _, pe, cluster, lane = found
        inner = _six(np.array(e) // np.array(_times(pe, cluster, lane)))
        dram = _six(np.array(self.layer.bounds) // g)
        return Mapping(dram, _six(glob), pe, cluster, lane, inner, STAYS[stay])


def _six(values: Array) -> Six:
    r, s, p, q, c, k = (int(v) for v in values)
    return r, s, p, q, c, k


def _tile_arrays(tile: Array, stride: int) -> tuple[Array, Array, Array]:
    r, s, p, q, c, k = tile.T
    inputs = c * ((p - 1) * stride + r) * ((q - 1) * stride + s)
    return r * s * c * k, inputs, p * q * k


def _bounds(
    tiles: Array, glob: Array, again: int, held: int, compute: Array, machine: Machine
) -> tuple[Array, Array]:
    """(loop orders, tiles): latency with as many lanes as the tile has products, and bytes."""
    latencies, bytes_moved = [], []
    for stay in STAYS:
        moved = [
            tile * glob[:, loops].prod(axis=1) * again
            for tile, loops in zip(tiles, (list(loops) for loops in _REFETCH[stay]))
        ]
        noc = moved[0] + moved[1] + moved[2]
        dram = held * again + moved[0]
        latencies.append(
            np.maximum(
                np.maximum(-(-noc // machine.noc_bandwidth), -(-dram // machine.dram_bandwidth)),
                compute,
            )
        )
        bytes_moved.append(noc + dram)
    return np.stack(latencies), np.stack(bytes_moved)
