# SPDX-License-Identifier: Apache-2.0
"""Which operators of an integer network run on the accelerator, which on the ARM cores beside it.

Each operator is a group with the options ``accelerator`` and ``arm`` (one of them where there is
no choice), each tensor a group ``same`` or ``moved``; a tensor that is made on one side and read on
the other must be ``moved`` (forbidden combinations), and that costs. The time of all together is
minimised by the solver, so the cut is proven best under these costs, for the given accelerator:

- on the accelerator: what an operator adds to the command list's time in the event model;
- on the ARM cores: ``codesign.targets.arm.model.node_ms`` of the nodes that the job computes;
- moved: ``codesign.targets.fpga.cores.transfer_ms``.

The answer is compiled and modelled once more; the cut is only kept if the whole is faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from codesign.ir.graph import Graph
from codesign.solvers.problem import Metric, Problem
from codesign.solvers.solution import Status
from codesign.solvers.solve import solve
from codesign.space.device import Device
from codesign.targets.arm.board import Board
from codesign.targets.arm.model import node_ms
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.compile.select import needs_of, nodes_of_job, select
from codesign.targets.fpga.compile.selection import Selection
from codesign.targets.fpga.cores import cores_of, transfer_ms
from codesign.targets.fpga.design import Hardware
from codesign.targets.fpga.model.cycles import CycleModel
from codesign.targets.fpga.sim.dram import Dram

UNIT = 1_000_000
"""Costs are whole nanoseconds."""


@dataclass(frozen=True)
class Times:
    """Modelled milliseconds of one image."""

    accelerator: float
    arm: float
    transfer: float

    @property
    def total(self) -> float:
        """One after the other: the two sides do not overlap."""
        return self.accelerator + self.arm + self.transfer


def partition(graph: Graph, hardware: Hardware, device: Device) -> Hardware:
    """The hardware with the operators that are to run on the ARM cores, and what that was chosen
    by. Without cores (Arty, ULX3S), or where nothing else has to run there, the cut is empty."""
    cores = cores_of(device)
    if cores is None:
        return hardware
    found = select(graph)
    plain = _compiled(graph, hardware, device, ())
    before = times(plain, device, cores)
    facts: dict[str, float | str] = _facts(before, "all that the accelerator can do on it")
    status, chosen = _cut(found, plain, device, cores)
    if chosen:
        nodes = sorted({node for value in chosen for node in nodes_of_job(found, value)})
        after = times(_compiled(graph, hardware, device, nodes), device, cores)
        if after.total < before.total:
            facts = _facts(after, status.value) | {"without_ms": before.total}
            return replace(hardware, arm=tuple(nodes), partition=tuple(facts.items()))
    return replace(hardware, partition=tuple(facts.items()))


def accelerator_ms(graph: Graph, hardware: Hardware, device: Device) -> float:
    """Milliseconds of one image on the accelerator, by the event model."""
    known = dict(hardware.partition).get("accelerator_ms")
    if known is not None:
        return float(known)
    program = _compiled(graph, hardware, device, hardware.arm)
    return _accelerator_ms(program, device)


def _accelerator_ms(program: Program, device: Device) -> float:
    model = CycleModel(program.accelerator, Dram.of(device))
    cycles = sum(model.run(s.commands).total for s in program.segments if s.commands)
    return cycles / device.clock_hz * 1e3


def times(program: Program, device: Device, cores: Board) -> Times:
    """Of a compiled network: command lists by the event model, ARM nodes, tensors that change
    sides (the network's inputs and outputs among them)."""
    graph = program.graph
    on_arm = node_ms(graph, cores)
    arm = {n for s in program.segments if s.kind == "arm" for n in s.nodes}
    moved = {v for v in graph.inputs if v in program.places}
    moved |= {v for v in graph.outputs if v in program.places and v not in arm}
    for name in arm:
        moved |= {v for v in graph.nodes[name].inputs if v in program.places and v not in arm}
    read = {v for job in program.jobs for v in (job.source, job.finish.residual) if v in arm}
    return Times(
        _accelerator_ms(program, device),
        sum(on_arm.get(name, 0.0) for name in arm),
        sum(transfer_ms(graph.type(v).bytes, cores) for v in moved | read if v in graph.nodes),
    )


def _facts(found: Times, cut: str) -> dict[str, float | str]:
    return {
        "cut": cut, "accelerator_ms": found.accelerator, "arm_ms": found.arm,
        "transfer_ms": found.transfer, "total_ms": found.total,
    }  # fmt: skip


def _compiled(graph: Graph, hardware: Hardware, device: Device, arm: object) -> Program:
    assert isinstance(arm, list | tuple)
    return compile_network(
        graph, hardware.accelerator, device, dict(hardware.tiles), hardware.chains, arm
    )


def _cut(
    found: Selection, program: Program, device: Device, cores: Board
) -> tuple[Status, list[str]]:
    """Values that jobs make and that the ARM cores are to make, and how well that is proven."""
    graph, needs = found.graph, needs_of(found)
    on_accelerator = _job_ms(found, program, device)
    on_arm = node_ms(graph, cores)
    choices: dict[str, list[str]] = {}
    costs: list[int] = []

    def group(name: str, options: Mapping[str, float]) -> None:
        choices[name] = list(options)
        costs.extend(round(ms * UNIT) for ms in options.values())

    for value in needs:
        options = {}
        if value in found.jobs:
            options["accelerator"] = on_accelerator.get(value, 0.0)
            options["arm"] = sum(on_arm.get(n, 0.0) for n in nodes_of_job(found, value))
        else:
            options["arm"] = on_arm.get(value, 0.0)
        group(f"op {value}", options)
    readers: dict[str, list[str]] = {}
    for value, needed in needs.items():
        for source in needed:
            readers.setdefault(source, []).append(value)
    # inputs come from the cores and outputs go there
    for value in needs:
        reads_input = value in found.jobs and not needs[value]
        if reads_input:
            readers.setdefault("", []).append(value)
    group("op ", {"arm": 0.0})
    outputs = _behind(found, needs)
    forbid = []
    for source, users in readers.items():
        size = graph.type(source).bytes if source else 0
        group(f"tensor {source}", {"same": 0.0, "moved": transfer_ms(size, cores)})
        ends = users + ([""] if source in outputs else [])
        for user in ends:
            for one, other in (("accelerator", "arm"), ("arm", "accelerator")):
                if one in choices[f"op {source}"] and other in choices[f"op {user}"]:
                    forbid.append(
                        [(f"op {source}", one), (f"op {user}", other),
                         (f"tensor {source}", "same")]
                    )  # fmt: skip
    problem = Problem.build(
        choices=choices, metrics=[Metric.choice("time", costs)], minimize="time", forbid=forbid,
        name=f"partition of {graph.name}",
    )  # fmt: skip
    answer = solve(problem, time_limit=60.0)
    if answer.choices is None:
        return answer.status, []
    picked = answer.choices
    return answer.status, [v for v in needs if v in found.jobs and picked[f"op {v}"] == "arm"]


def _behind(found: Selection, needs: Mapping[str, set[str]]) -> set[str]:
    """Values that the network's outputs are or are views of."""
    behind: set[str] = set()
    waiting = list(found.graph.outputs)
    while waiting:
        value = waiting.pop()
        if value in needs:
            behind.add(value)
        elif value in found.free:
            waiting.extend(found.graph.nodes[value].inputs)
    return behind


def _job_ms(found: Selection, program: Program, device: Device) -> dict[str, float]:
    """What each value's jobs add to the time of their command list (event model)."""
    model = CycleModel(program.accelerator, Dram.of(device))
    to_ms = 1e3 / device.clock_hz
    result: dict[str, float] = {}
    for segment in program.segments:
        if segment.kind != "accelerator":
            continue
        layers = model.run(segment.commands).layers()
        before = 0.0
        for value in segment.nodes:
            ends = [layers[job.name][1] for job in found.jobs[value] if job.name in layers]
            end = max([before, *ends])
            result[value] = (end - before) * to_ms
            before = end
    return result
