#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The solver's closed-form cycles against the event model of compiled commands, layer by layer.

For every network: accelerators drawn by seed from the space of a board (the best of a few by the
formulas, so that they are like those that a solve ends with), one format for all layers, tilings
and fused chains as the solver chooses them. Each is compiled and timed by the event model, which is
within 0.8 % of simulation (docs/evidence.md). Weights are 0: cycles do not depend on them.

    python benchmarks/formulas.py --networks resnet8 --draws 24       errors
    python benchmarks/formulas.py --networks resnet8 --draws 24 --fit constants of ``Timing`` fitted
                                                                      on even seeds, errors on odd
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

import numpy as np

from codesign.cost.best import map_chain, map_layer
from codesign.cost.chain import ChainFormat, ChainShape, ChainTile, chain_cost
from codesign.cost.fill import chain_shape
from codesign.cost.memory import DEFAULT_TIMING, Memory, Timing
from codesign.cost.tables import Machine
from codesign.cost.timing import Mapped, dense_cost, depthwise_cost, vector_cycles
from codesign.errors import InfeasibleError
from codesign.flow.options import DesignOptions
from codesign.flow.prepare import noise_inputs, prepare
from codesign.flow.progress import SILENT
from codesign.ir import Graph
from codesign.quant import calibrate, quantize_graph
from codesign.quant.formats import parse_formats
from codesign.space.accelerator import Accelerator
from codesign.space.device import Device, load_device
from codesign.space.generate import Space, generate
from codesign.space.workload import LayerShape, VectorOp, Workload, workload_of
from codesign.targets.fpga.compile import compile_network
from codesign.targets.fpga.model.cycles import CycleModel
from codesign.targets.fpga.sim.dram import Dram

FORMATS = {"w8a8": (8, 8), "w4a8": (4, 8), "w4a4": (4, 4)}
SHORT = 1000
"""Layers of fewer cycles are left out of the layers' quantiles: they overlap with neighbours."""


@dataclass(frozen=True)
class Network:
    """A network and its integer graphs."""

    name: str

    @cached_property
    def _prepared(self) -> Any:
        options = DesignOptions(f"zoo:{self.name}", formats=tuple(FORMATS))
        prepared = prepare(options, SILENT)
        return prepared, calibrate(prepared.graph, [noise_inputs(prepared.graph, 1, 0)])

    @cached_property
    def workload(self) -> Workload:
        """Layers, chains, operators."""
        return workload_of(self._prepared[0].graph, self.name)

    def graph(self, fmt: str) -> Graph:
        """All layers in one format."""
        prepared, calibration = self._prepared
        wanted = {layer.name: parse_formats(fmt)[0] for layer in self.workload.layers}
        return quantize_graph(prepared.graph, calibration, wanted, prepared.quant_options).graph


@dataclass(frozen=True)
class Priced:
    """A layer, a fused chain or an operator on an accelerator, as the event model times it."""

    what: LayerShape | ChainShape | VectorOp
    tile: Mapped | ChainTile | None
    event: float
    """Cycles from the end of what is before it to its own end."""


@dataclass(frozen=True)
class Row:
    """A network on an accelerator."""

    network: str
    seed: int
    device: Device
    accelerator: Accelerator
    bits: tuple[int, int]
    parts: tuple[Priced, ...]
    event: int

    def cycles(self, part: Priced, timing: Timing) -> int:
        """By the formulas."""
        a, memory = self.accelerator, Memory.of(self.device, self.accelerator.port_bits)
        if isinstance(part.what, VectorOp):
            return vector_cycles(part.what, a.dense, memory, timing)
        if isinstance(part.what, ChainShape):
            assert isinstance(part.tile, ChainTile)
            assert a.depthwise is not None
            formats = chain_formats(part.what, self.bits)
            return chain_cost(
                part.what, formats, a.dense, a.depthwise, memory, part.tile, timing
            ).cycles
        assert isinstance(part.tile, Mapped)
        if part.tile.engine == "depthwise":
            assert a.depthwise is not None
            return depthwise_cost(
                part.what, self.bits[0], a.depthwise, memory, part.tile.tile, timing
            ).cycles
        return dense_cost(part.what, self.bits[0], a.dense, memory, part.tile.tile, timing).cycles

    def error(self, timing: Timing) -> float:
        """Of the whole network, relative to the event model."""
        return sum(self.cycles(part, timing) for part in self.parts) / self.event - 1

    def layer_errors(self, timing: Timing) -> list[float]:
        """Of layers and chains that are not short."""
        return [self.cycles(p, timing) / p.event - 1 for p in self.parts
                if p.event >= SHORT and not isinstance(p.what, VectorOp)]  # fmt: skip


def chain_formats(chain: ChainShape, bits: tuple[int, int]) -> ChainFormat:
    """The same format for all layers of a chain."""
    expand, project = (None if s is None else bits for s in (chain.expand, chain.project))
    return ChainFormat(expand, bits, project)


def drawn(
    space: Space, workload: Workload, bits: tuple[int, int], rng: random.Random, tried: int = 12
) -> Accelerator:
    """The fastest of some accelerators that take the format, by the formulas on some layers."""
    device = space.device
    machine = Machine(device.dram_rate, device.dram_latency_cycles)
    found: tuple[int, Accelerator] | None = None
    while found is None:
        for _ in range(tried):
            one = space.accelerator(rng.randrange(len(space)))
            if one.depthwise is None or not one.dense.takes(*bits):
                continue
            try:
                cycles = sum(map_layer(x.shape, *bits, one, device, machine).cost.cycles
                             for x in workload.layers[::3])  # fmt: skip
            except InfeasibleError:
                continue
            if found is None or cycles < found[0]:
                found = cycles, one
    return found[1]


def measure(network: Network, space: Space, fmt: str, seed: int) -> Row | None:
    """Draw, map, compile and time; None where a layer does not fit."""
    rng = random.Random(f"{network.name}/{space.device.board}/{fmt}/{seed}")
    bits, device, workload = FORMATS[fmt], space.device, network.workload
    accelerator = drawn(space, workload, bits, rng)
    machine = Machine(device.dram_rate, device.dram_latency_cycles)
    try:
        layers = {x.name: map_layer(x.shape, *bits, accelerator, device, machine)
                  for x in workload.layers}  # fmt: skip
    except InfeasibleError:
        return None
    shapes: dict[str, Any] = {x.name: x.shape for x in workload.layers}
    shapes |= {op.name: op for op in workload.vector_ops}
    chains, head = [], {}
    for chain in workload.chains:
        names = tuple(workload.layers[i].name for i in chain.layers)
        shape = chain_shape(workload, chain)
        fused = map_chain(shape, chain_formats(shape, bits), accelerator, device, machine)
        if fused is not None and fused[1].cycles < sum(layers[n].cost.cycles for n in names):
            chains.append((names, fused[0]))
            shapes[names[0]] = shape
            head.update(dict.fromkeys(names, names[0]))
    tiles: dict[str, Any] = dict(layers) | {names[0]: tile for names, tile in chains}
    program = compile_network(
        network.graph(fmt), accelerator, device, {n: m.tile for n, m in layers.items()}, chains
    )
    model, total, parts = CycleModel(accelerator, Dram.of(device)), 0, []
    for segment in program.segments:
        if segment.kind != "accelerator":
            continue
        ran = model.run(segment.commands)
        total += ran.total
        parts += _parts(ran.layers(), head, shapes, tiles)
    return Row(network.name, seed, device, accelerator, bits, tuple(parts), total)


def _parts(
    spans: Mapping[str, tuple[float, float]], head: Mapping[str, str], shapes: Mapping[str, Any],
    tiles: Mapping[str, Any],
) -> list[Priced]:  # fmt: skip
    ends: dict[str, float] = {}
    for layer, (_, end) in spans.items():
        name = head.get(layer, layer)
        ends[name] = max(ends.get(name, 0.0), end)
    found, last = [], 0.0
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        if name in shapes:
            found.append(Priced(shapes[name], tiles.get(name), end - last))
        last = end
    return found


def stated(rows: list[Row], timing: Timing) -> str:
    """Errors in words."""
    whole = np.abs([row.error(timing) for row in rows]) * 100
    layers = np.abs([e for row in rows for e in row.layer_errors(timing)]) * 100
    return (
        f"{len(rows)} networks: median {np.median(whole):.1f} %, worst {whole.max():.1f} %; "
        f"{len(layers)} layers of {SHORT} cycles and more: median {np.median(layers):.1f} %, "
        f"90 % within {np.quantile(layers, 0.9):.1f} %, {100 * np.mean(layers <= 5):.0f} % "
        "within 5 %"
    )


def fitted(rows: list[Row]) -> Timing:
    """The fixed times of least mean error of networks, of a grid."""
    trials = [Timing(layer, tile) for layer in range(0, 161, 20) for tile in range(0, 41, 5)]
    return min(trials, key=lambda t: float(np.mean(np.abs([row.error(t) for row in rows]))))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="resnet8,mobilenetv2")
    parser.add_argument("--boards", default="ultra96,pynq-z2")
    parser.add_argument("--draws", type=int, default=8, help="of each network")
    parser.add_argument("--fit", action="store_true")
    asked = parser.parse_args()
    boards = [generate(load_device(board)) for board in asked.boards.split(",")]
    rows: list[Row] = []
    # packing zeros takes most of the time of compiling
    zeros = mock.patch("codesign.targets.fpga.compile.dense.pack_weights", _zeros)
    with zeros:
        for name in asked.networks.split(","):
            network = Network(name)
            for seed in range(asked.draws):
                fmt = list(FORMATS)[seed % len(FORMATS)]
                row = measure(network, boards[seed // 2 % len(boards)], fmt, seed)
                if row is None:
                    continue
                rows.append(row)
                print(f"{name} {seed} {row.device.board} {fmt} {row.accelerator.name}: "
                      f"{row.event:,} cycles, formulas {100 * row.error(DEFAULT_TIMING):+.1f} %",
                      flush=True)  # fmt: skip
    print(f"present constants, {stated(rows, DEFAULT_TIMING)}")
    if asked.fit:
        timing = fitted([row for row in rows if row.seed % 2 == 0])
        print(f"fitted on even seeds: {timing}")
        print(f"odd seeds, {stated([row for row in rows if row.seed % 2], timing)}")


def _zeros(words: Any, bits: int) -> bytes:
    return bytes(len(words) * -(-words.shape[1] * bits // 8))


if __name__ == "__main__":
    main()
