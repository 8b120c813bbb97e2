# SPDX-License-Identifier: Apache-2.0
"""The ARM side of a compiled network: each run of ARM operators as a network of its own.

What stands between two runs of the accelerator (quantization, unsupported operators, what the
partition puts there) becomes a small graph, built by the ARM target of the board's cores into a
deployment folder beside the accelerator's files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from codesign.errors import CodesignError
from codesign.ir.graph import Array, Graph, GraphBuilder, copy_node
from codesign.space.device import Device
from codesign.targets.base import Runner
from codesign.targets.fpga.compile.program import Program, Segment
from codesign.targets.fpga.cores import arm_target

FOLDER = "arm"


def arm_graph(program: Program, segment: Segment, name: str) -> Graph:
    """The operators of an ARM segment; inputs are the values that it reads, outputs those that
    something behind it reads, each under its name in the network."""
    graph = program.graph
    mine = set(segment.nodes)
    builder = GraphBuilder(name)
    new: dict[str, str] = {}
    outputs = []
    for node in (graph.nodes[n] for n in graph.nodes if n in mine):
        for value in node.inputs:
            if value in new:
                continue
            if value in graph.constants:
                new[value] = copy_node(builder, graph, graph.nodes[value], ())
            else:
                new[value] = builder.input(value, graph.type(value))
        new[node.name] = copy_node(builder, graph, node, [new[v] for v in node.inputs])
        if node.name in graph.outputs or not set(graph.users[node.name]) <= mine:
            outputs.append(new[node.name])
    return builder.finish(outputs)


def build_arm_side(
    program: Program, device: Device, folder: Path, note: Callable[[str], None] | None = None
) -> dict[int, str]:
    """Build every ARM segment below ``folder``; segment to its folder's name.

    Empty for boards without cores or with cores that there is no compiler for here, and where a
    tool is missing; ``note`` is told why.
    """
    target = arm_target(device)
    say = note or (lambda _: None)
    if target is None:
        say(f"{device.board} has no cores that this project compiles for; its ARM operators are "
            "listed in layout.json")  # fmt: skip
        return {}
    reason = target.unavailable()
    if reason is not None:
        say(f"the ARM side was not compiled: {reason}")
        return {}
    found = {}
    for index, segment in enumerate(program.segments):
        if segment.kind != "arm":
            continue
        graph = arm_graph(program, segment, f"segment{index}")
        missing = target.unsupported(graph)
        if missing:
            say(f"segment {index} was not compiled: {missing[0].why}")
            continue
        place = f"{FOLDER}/{index}"
        (folder / FOLDER).mkdir(exist_ok=True)
        target.build(graph, folder / place)
        found[index] = place
    return found


@dataclass(frozen=True)
class ArmSide:
    """Built segments, ready to run (under QEMU where this computer is no ARM)."""

    runners: Mapping[tuple[str, ...], tuple[Graph, Runner]]
    """By the nodes of the segment."""

    @staticmethod
    def load(program: Program, device: Device, folder: Path) -> ArmSide:
        """What ``build_arm_side`` has built; nothing where it has not or cannot be run here."""
        found: dict[tuple[str, ...], tuple[Graph, Runner]] = {}
        target = arm_target(device)
        for index, segment in enumerate(program.segments):
            place = folder / FOLDER / str(index)
            if target is None or segment.kind != "arm" or not place.is_dir():
                continue
            try:
                runner = target.load(place)
            except CodesignError:
                continue
            found[segment.nodes] = arm_graph(program, segment, f"segment{index}"), runner
        return ArmSide(found)

    def run(self, segment: Segment, read: Callable[[str], Array]) -> dict[str, Array] | None:
        """What the segment makes, or None where it was not built."""
        held = self.runners.get(segment.nodes)
        if held is None:
            return None
        graph, runner = held
        outputs = runner.run(*(read(name) for name in graph.inputs))
        return dict(zip(graph.outputs, outputs, strict=True))
