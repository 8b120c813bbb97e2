# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of a network: memory image, command lists, layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from codesign.ir.graph import Graph
from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.compile.places import Place
from codesign.targets.fpga.isa import Command, Unit


@dataclass(frozen=True)
class Made:
    """A value stands in memory as soon as a unit has finished so many commands of its list."""

    value: str
    layer: str
    unit: Unit
    count: int


@dataclass(frozen=True, eq=False)
class Segment:
    """A run of the accelerator (one command list) or of the ARM cores (nodes of the graph)."""

    kind: Literal["accelerator", "arm"]
    address: int = 0
    """Of the command list."""
    commands: tuple[Command, ...] = ()
    nodes: tuple[str, ...] = ()
    made: tuple[Made, ...] = ()
    """What an accelerator's run makes, in order."""


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled network."""

    graph: Graph
    accelerator: Accelerator
    segments: tuple[Segment, ...]
    image: bytes
    """Weights, parameters, taps and command lists, from address 0."""
    memory_bytes: int
    """Memory in use, image and tensors together."""
    places: Mapping[str, Place]
    """Value to where it stands."""
    jobs: tuple[Job, ...]
    """In the order they run in."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Node on the ARM cores to the reason."""

    @property
    def commands(self) -> tuple[Command, ...]:
        """All command lists behind one another."""
        return tuple(c for s in self.segments for c in s.commands)
