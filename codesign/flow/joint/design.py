# SPDX-License-Identifier: Apache-2.0
"""From the solver's choice to a design: tilings, fused chains, totals by the reference model."""

from __future__ import annotations

from codesign.cost.best import map_chain, map_layer
from codesign.cost.chain import ChainFormat
from codesign.cost.fill import chain_shape
from codesign.cost.memory import Memory
from codesign.cost.option_tables import BUSY
from codesign.cost.resources import resources
from codesign.cost.tables import Machine
from codesign.cost.timing import vector_cycles
from codesign.flow.joint.problem import INTERVAL, JointProblem
from codesign.flow.joint.result import Certificate, ChainChoice, JointResult, LayerChoice
from codesign.solvers.decimals import to_decimal
from codesign.space.generate import RESOURCES
from codesign.space.workload import Chain


def design_of(
    problem: JointProblem, value: int, place: int, columns: tuple[int, ...],
    certificate: Certificate,
) -> JointResult:  # fmt: skip
    """The design of one accelerator and one column per unit. Everything is priced again by the
    reference in loops; a difference to the tables is a defect (AssertionError)."""
    tables = problem.tables
    device, workload = problem.device, tables.workload
    accelerator = problem.space.accelerator(place)
    machine = Machine(device.dram_rate, device.dram_latency_cycles, problem.timing)
    chosen: dict[int, str] = {}
    ways: dict[Chain, bool] = {}
    for unit, entries, column in zip(tables.units, tables.entries, columns):
        chosen.update(unit.chosen(entries[column].formats))
        ways.update(entries[column].fused)
    layers: dict[int, LayerChoice] = {}
    moved: dict[int, tuple[int, int]] = {}
    chains: list[ChainChoice] = []
    traffic = cycles = 0
    busy = dict.fromkeys(BUSY, 0)
    memory = Memory.of(device, accelerator.port_bits)
    for index, fmt in sorted(chosen.items()):
        layer = workload.layers[index]
        bits = tables.formats[fmt]
        found = map_layer(layer.shape, *bits, accelerator, device, machine, tables.by)
        taken = tables.measured.get((layer.name, fmt), found.cost.cycles)
        layers[index] = LayerChoice(
            layer.name, fmt, found.engine, found.tile, taken, found.cost.traffic
        )
        moved[index] = found.cost.load_bytes, found.cost.store_bytes
    for chain in workload.chains if tables.fusion else ():
        if chain.depthwise not in chosen:  # of a variant that was not chosen
            continue
        parts = [layers[p] for p in chain.layers]
        if any((part.name, part.format) in tables.measured for part in parts):
            continue

        def bits_of(index: int | None) -> tuple[int, int] | None:
            return None if index is None else tables.formats[chosen[index]]

        formats = ChainFormat(
            bits_of(chain.expand),
            tables.formats[chosen[chain.depthwise]],
            bits_of(chain.project),
        )
        fused = map_chain(
            chain_shape(workload, chain), formats, accelerator, device, machine,
            problem.pipelined, tables.by,
        )  # fmt: skip
        if fused is None:
            continue
        tile, cost = fused
        apart = (sum(p.cycles for p in parts), sum(p.traffic for p in parts))
        mine = (cost.cycles, cost.traffic)
        better = (mine[::-1] < apart[::-1]) if tables.by == "traffic" else (mine < apart)
        if ways[chain] if tables.split else better:
            chains.append(ChainChoice(tuple(p.name for p in parts), tile, *mine))
            for index, part in zip(chain.layers, parts):
                layers[index] = LayerChoice(part.name, part.format, "chain", None, 0, 0)
                del moved[index]
            for engine in BUSY[:2]:
                busy[engine] += cost.cycles
            busy["busy_memory"] += memory.cycles(cost.load_bytes, cost.store_bytes)
    for index, bytes_ in moved.items():
        apart_engine = layers[index].engine == "depthwise"
        busy["busy_depthwise" if apart_engine else "busy_dense"] += layers[index].cycles
        busy["busy_memory"] += memory.cycles(*bytes_)
    for op in workload.vector_ops:
        taken = vector_cycles(op, accelerator.dense, memory, problem.timing)
        cycles += taken
        busy["busy_dense"] += taken
        busy["busy_memory"] += memory.cycles(op.load_bytes, op.store_bytes)
        traffic += op.load_bytes + op.store_bytes
    cycles += sum(c.cycles for c in layers.values()) + sum(c.cycles for c in chains)
    traffic += sum(c.traffic for c in layers.values()) + sum(c.traffic for c in chains)
    energy = tables.energy.moved(traffic, cycles)
    loss = None if tables.loss is None else 0
    position = {fmt: i for i, fmt in enumerate(tables.formats)}
    size = 0
    for index, fmt in chosen.items():
        shape = workload.layers[index].shape
        energy += shape.macs * tables.energy.mac(*tables.formats[fmt])
        size += shape.weight_bytes(tables.formats[fmt][0])
        if tables.loss is not None and loss is not None:
            loss += int(tables.loss[index, position[fmt]])
    totals = {"latency": cycles, "traffic": traffic, "energy": energy, "size": size}
    totals["loss"] = loss or 0
    totals |= {name: int(problem.space.use[name][place]) for name in RESOURCES}
    totals |= busy
    interval = max(totals[part] for part in problem.parts(INTERVAL))
    found_value = max(totals[part] for part in problem.parts(problem.objective))
    broken = [row for row in problem.rows if row.sign * (totals[row.metric] - row.bound) > 0]
    if found_value != value or broken:
        raise AssertionError(
            f"tables say {problem.objective} {value}, the reference {totals}; broken: {broken}"
        )
    return JointResult(
        certificate, accelerator, tuple(layers.values()), tuple(chains),
        resources(accelerator, device), cycles, device.clock_hz, traffic,
        to_decimal(energy, 3), size,
        None if loss is None else to_decimal(loss, problem.digits["loss"]),
        interval=interval, busy=busy, stream=problem.stream, totals=totals,
        place=place, columns=columns,
    )  # fmt: skip
