# SPDX-License-Identifier: Apache-2.0
"""A built network on the simulated accelerator, every layer compared with the reference."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codesign.errors import UnsupportedError
from codesign.ir.interpret import run_values
from codesign.space.device import load_device
from codesign.targets.base import Array, Runner, Timing
from codesign.targets.fpga.arm_side import ArmSide
from codesign.targets.fpga.compile import Program
from codesign.targets.fpga.design import Hardware
from codesign.targets.fpga.sim.network import memory_bytes, simulate
from codesign.targets.fpga.sim.result import SimResult
from codesign.targets.fpga.sim.session import Session

SIMULATED = "simulated.json"
FORMAT = "codesign-simulated/1"


Open = Callable[[int], Session]
"""Starts a session with a memory of so many bytes."""


def rtl_session(hardware: Hardware, waves: tuple[Path, int, int] | None = None) -> Open:
    """Sessions of the design's Verilog with the memory model of its board; ``waves``: an FST file
    to write, its first and last cycle."""

    def start(memory_bytes: int) -> Session:
        from codesign.targets.fpga.sim.build import open_session
        from codesign.targets.fpga.sim.dram import Dram

        dram = Dram.of(load_device(hardware.board))
        return open_session(hardware.accelerator, memory_bytes, dram, waves=waves)

    return start


class FpgaRunner(Runner):
    """Runs images one after the other; every layer is compared with the integer interpreter."""

    def __init__(
        self, program: Program, start: Open, directory: Path | None = None,
        arm: ArmSide | None = None,
    ) -> None:  # fmt: skip
        """``arm``: built ARM segments; what it lacks is interpreted."""
        graph = program.graph
        self.arm = arm
        self.program, self.start, self.directory = program, start, directory
        self.inputs, self.outputs = (
            tuple((name, graph.type(name)) for name in names)
            for names in (graph.inputs, graph.outputs)
        )
        self.results: tuple[SimResult, ...] = ()
        """Of the last image, one a command list."""
        self._session: Session | None = None

    def _run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        program = self.program
        inputs = dict(zip(program.graph.inputs, arrays))
        reference = run_values(program.graph, inputs, keep="all")
        if self._session is None:
            self._session = self.start(memory_bytes(program))
        outputs, self.results = simulate(
            program, inputs, self._session, reference,
            arm=None if self.arm is None else self.arm.run,
        )  # fmt: skip
        if self.directory is not None:
            text = json.dumps(simulated_data(program, self.results), indent=1)
            (self.directory.parent / f"{self.directory.name}.{SIMULATED}").write_text(text + "\n")
        return outputs

    def close(self) -> None:
        """End the simulator."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def time(self, arrays: Sequence[Array], repeats: int = 10, warmup: int = 3) -> Timing:
        """Simulated cycles are no measurement."""
        raise UnsupportedError("an FPGA design is timed on a board only; see the simulated cycles")


def simulated_data(program: Program, results: Sequence[SimResult]) -> dict[str, Any]:
    """Cycles, stalls, traffic and the lanes of every layer, of one image."""
    layers = []
    start = 0
    for result in results:
        for layer in result.layers:
            if layer.name:
                layers.append({
                    "name": layer.name, "start": start + layer.start, "end": start + layer.end,
                    "busy": dict(layer.busy), "load_bytes": layer.load_bytes,
                })  # fmt: skip
        start += result.cycles
    return {
        "format": FORMAT,
        "network": program.graph.name,
        "cycles": sum(r.cycles for r in results),
        "runs": len(results),
        "read_bytes": sum(sum(r.read_bytes.values()) for r in results),
        "write_bytes": sum(r.write_bytes for r in results),
        "stalls": {
            unit.name.lower(): {
                why: sum(r.stalls[unit][why] for r in results) for why in results[0].stalls[unit]
            }
            for unit in (results[0].stalls if results else ())
        },
        "seconds": sum(r.seconds for r in results),
        "layers": layers,
    }
