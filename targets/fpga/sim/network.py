# SPDX-License-Identifier: Apache-2.0
"""A compiled network on a simulated accelerator, every layer checked when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.ir.graph import Array
from codesign.targets.fpga.compile.program import Program, Segment
from codesign.targets.fpga.isa import Unit
from codesign.targets.fpga.model.run import ArmRun, run_program
from codesign.targets.fpga.sim.result import UNITS, Region, RunError, SimResult
from codesign.targets.fpga.sim.session import Progress, Session

PAGE = 1 << 14


def regions_of(
    program: Program, segment: Segment, reference: Mapping[str, Array]
) -> tuple[Region, ...]:
    """What memory must hold after each layer of a segment.

    ``reference``: values of ``codesign.ir.run_values(…, keep="all")``. A layer is finished with
    its last command that stores; values that never reach memory are not among them.
    """
    last: dict[str, tuple[Unit, int]] = {}
    count = dict.fromkeys(UNITS, 0)
    for command in segment.commands:
        if command.unit not in count:
            continue
        count[command.unit] += 1
        stores = command.unit in (Unit.DRAIN, Unit.DEPTHWISE)
        if stores and not command.values.get("to_chip", 0):
            last[command.layer] = command.unit, count[command.unit]
    results = {job.name: job.result for job in program.jobs}
    found = []
    for layer, (unit, number) in last.items():
        value = results.get(layer)
        if value is None or value not in reference or value not in program.places:
            continue
        place = program.places[value]
        expected = place.pack(reference[value])
        shape = (place.blocks, place.rows, place.columns)
        found.append(
            Region(
                layer, unit, number, place.address, expected, shape, place.wide, place.channels
            )
        )
    return tuple(found)


@dataclass(eq=False)
class SimDevice:
    """What ``run_program`` runs command lists on: memory as an array, and the simulator."""

    session: Session
    program: Program
    memory: npt.NDArray[np.uint8]
    results: list[SimResult]
    """One for each command list that has run."""
    reference: Mapping[str, Array] | None = None
    limit: int = 1 << 40
    watchdog: int = 1 << 22
    progress: Callable[[Progress], None] | None = None
    _known: npt.NDArray[np.uint8] | None = None

    @staticmethod
    def of(session: Session, program: Program) -> SimDevice:
        """Memory with the program's image."""
        memory = np.zeros(session.memory_bytes, np.uint8)
        memory[: len(program.image)] = np.frombuffer(program.image, np.uint8)
        return SimDevice(session, program, memory, [])

    def run(self, address: int) -> int:
        """Execute the list at ``address``; returns its simulated cycles. Raises RunError."""
        self._push()
        segments = [s for s in self.program.segments if s.kind == "accelerator"]
        segment = next(s for s in segments if s.address == address)
        regions = (
            () if self.reference is None else regions_of(self.program, segment, self.reference)
        )
        result = self.session.run(
            address, segment.commands, regions, limit=self.limit, watchdog=self.watchdog,
            progress=self.progress,
        )  # fmt: skip
        self.results.append(result)
        result.require_equal()
        self.memory[:] = np.frombuffer(self.session.read(0, len(self.memory)), np.uint8)
        self._known = self.memory.copy()
        return result.cycles

    def _push(self) -> None:
        """Bring the simulator's memory up to date, changed pages alone."""
        if self._known is None:
            self.session.load(0, self.memory.tobytes())
            return
        for at in range(0, len(self.memory), PAGE):
            page = self.memory[at : at + PAGE]
            if not np.array_equal(page, self._known[at : at + PAGE]):
                self.session.load(at, page.tobytes())


def memory_bytes(program: Program) -> int:
    """Memory that a simulation of the program needs: a little more than it uses, since the fetcher
    reads a few commands ahead."""
    return -(-program.memory_bytes // 4096) * 4096 + 4096


def simulate(
    program: Program, inputs: Mapping[str, Array], session: Session,
    reference: Mapping[str, Array] | None = None,
    progress: Callable[[Progress], None] | None = None, watchdog: int = 1 << 22,
    arm: ArmRun | None = None,
) -> tuple[tuple[Array, ...], tuple[SimResult, ...]]:  # fmt: skip
    """Outputs of the network for one image, and each command list's run.

    ARM segments run by ``arm`` where it has them, else by the integer interpreter. With
    ``reference`` every layer is compared as soon as it is finished. Raises RunError naming the
    first difference, or who waits for what.
    """
    if session.memory_bytes < memory_bytes(program):
        raise RunError(
            f"the session has {session.memory_bytes} bytes of memory, the program needs "
            f"{memory_bytes(program)}"
        )
    device = SimDevice.of(session, program)
    device.reference, device.progress, device.watchdog = reference, progress, watchdog
    outputs = run_program(program, inputs, device, arm=arm)
    return outputs, tuple(device.results)
