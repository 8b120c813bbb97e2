# SPDX-License-Identifier: Apache-2.0
"""Run a compiled network on the functional model, the ARM side by the integer interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from codesign.errors import VerifyError
from codesign.ir import ops
from codesign.ir.graph import Array
from codesign.ir.interpret import check_inputs, run_node
from codesign.targets.fpga.compile.program import Program, Segment
from codesign.targets.fpga.isa import BLOCK, PARAM_BLOCKS, TAPS, Command
from codesign.targets.fpga.machine import depthwise_engine
from codesign.targets.fpga.model.machine import Bytes, Machine
from codesign.targets.fpga.model.races import Races


class Device(Protocol):
    """What runs command lists on a memory: the functional model, a simulation, a board."""

    memory: Bytes

    def run(self, address: int) -> int:
        """Execute the list at an address of ``memory``, in place."""
        ...


ArmRun = Callable[[Segment, Callable[[str], Array]], "dict[str, Array] | None"]
"""A segment and what reads a value, to the values that the segment makes; None: not built."""


def run_program(
    program: Program, inputs: Mapping[str, Array], device: Device,
    observe: Callable[[Segment], None] | None = None, values: dict[str, Array] | None = None,
    arm: ArmRun | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """The network's outputs; ``device.memory`` must hold the program's image.

    ``values`` collects what the ARM cores computed and read. ``arm`` runs ARM segments (a built
    library); what it leaves out is interpreted.
    """
    graph, places = program.graph, program.places
    known: dict[str, Array] = {} if values is None else values
    known.update(check_inputs(graph, inputs))
    known.update(graph.constants)

    def read(name: str) -> Array:
        if name not in known:
            known[name] = places[name].unpack(device.memory, graph.type(name).shape)
        return known[name]

    def write(name: str) -> None:
        if name in places:
            place = places[name]
            data = place.pack(known[name])
            device.memory[place.address : place.address + len(data)] = np.frombuffer(
                data, np.uint8
            )

    for name in graph.inputs:
        write(name)
    for segment in program.segments:
        if segment.kind == "accelerator":
            device.run(segment.address)
        elif arm is not None and (made := arm(segment, read)) is not None:
            known.update(made)
            for name in made:
                write(name)
        else:
            for name in segment.nodes:
                node = graph.nodes[name]
                if isinstance(node.op, ops.Input | ops.Constant):
                    continue
                known[name] = run_node(graph, node, tuple(read(v) for v in node.inputs))
                write(name)
        if observe is not None:
            observe(segment)
    return tuple(read(name) for name in graph.outputs)


class Checked:
    """The functional model with the race detector."""

    def __init__(self, program: Program) -> None:
        self.program = program
        memory = np.zeros(program.memory_bytes, np.uint8)
        memory[: len(program.image)] = np.frombuffer(program.image, np.uint8)
        self.machine = Machine(program.accelerator, memory)
        self.memory = memory

    def run(self, address: int) -> int:
        """Execute one list under the detector."""
        races = Races(_sizes(self.program))
        self.machine.watch = races.access
        return self.machine.run(address, races.start)


class Plain(Checked):
    """The functional model alone."""

    def run(self, address: int) -> int:
        """Execute one list."""
        self.machine.watch = None
        return self.machine.run(address)


def _sizes(program: Program) -> dict[str, int]:
    found = {"memory": -(-program.memory_bytes // 8), "accumulator": 2}
    for engine in (program.accelerator.dense, depthwise_engine(program.accelerator)):
        found[f"{engine.kind} weight"] = engine.weight.depth * engine.weight.banks
        found[f"{engine.kind} act"] = engine.activation.depth * engine.activation.banks
        found[f"{engine.kind} param"] = PARAM_BLOCKS * BLOCK
        found[f"{engine.kind} tap"] = TAPS
    return found


def compare_values(
    program: Program, device: Device, reference: Mapping[str, Array]
) -> list[tuple[str, int]]:
    """(value, wrong elements) of the first job whose result in memory differs; empty if none.

    ``reference`` holds the values of ``codesign.ir.run_values(..., keep="all")``.
    """
    for job in program.jobs:
        if job.result not in reference:
            continue
        place = program.places[job.result]
        wanted = reference[job.result]
        found = place.unpack(device.memory, wanted.shape)
        wrong = int((found != wanted).sum())
        if wrong:
            return [(job.result, wrong)]
    return []


def describe(command: Command) -> str:
    """A command on one line, for traces."""
    values = ", ".join(f"{k}={v}" for k, v in command.values.items() if v)
    return f"{command.unit.name} {values}"


__all__ = ["Checked", "Plain", "VerifyError", "compare_values", "describe", "run_program"]
