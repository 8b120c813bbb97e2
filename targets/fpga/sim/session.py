# SPDX-License-Identifier: Apache-2.0
"""A simulated accelerator with its memory: load data, run command lists, read data back.

``open_session`` starts the verilated design, or Amaranth's own simulator where asked for; many
images and many command lists run in one session without a rebuild.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from codesign.space.accelerator import Accelerator
from codesign.targets.fpga.isa import Command, Dest, Unit
from codesign.targets.fpga.machine import depthwise_engine
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.result import (
    UNITS,
    WAITS,
    Difference,
    Region,
    RunError,
    SimResult,
    layers_of,
)

CLIENTS = ("fetch", "drain", "depthwise", "load")


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    cycles: int
    finished: Mapping[Unit, int]


@dataclass(frozen=True)
class Raw:
    """What a simulator says of one run, before it is put in words."""

    over: bool
    status: int
    waiting: int
    cycles: int
    seconds: float
    read_bytes: tuple[int, ...]
    write_bytes: int
    read_beats: int
    write_beats: int
    stalls: tuple[tuple[int, ...], ...]
    starts: tuple[tuple[int, ...], ...]
    ends: tuple[tuple[int, ...], ...]
    differences: tuple[Difference, ...]
    since: int


class Session(ABC):
    """Memory, and an accelerator that runs on it. A context manager."""

    def __init__(self, accelerator: Accelerator, memory_bytes: int) -> None:
        self.accelerator = accelerator
        self.memory_bytes = memory_bytes
        dense, depthwise = accelerator.dense, depthwise_engine(accelerator)
        self._weights = {
            Dest.DENSE_WEIGHT: dense.pi * dense.po, Dest.DEPTHWISE_WEIGHT: depthwise.po,
        }  # fmt: skip

    @abstractmethod
    def load(self, address: int, content: bytes) -> None:
        """Put bytes into memory."""

    @abstractmethod
    def read(self, address: int, size: int) -> bytes:
        """Bytes of memory."""

    @abstractmethod
    def close(self) -> None:
        """End the simulator."""

    @abstractmethod
    def _run(
        self, address: int, base: int, regions: Sequence[Region], limit: int, watchdog: int,
        progress: Callable[[Progress], None] | None,
    ) -> Raw: ...  # fmt: skip

    def run(
        self, address: int, commands: Sequence[Command] = (), regions: Sequence[Region] = (),
        *, base: int = 0, limit: int = 1 << 40, watchdog: int = 1 << 22,
        progress: Callable[[Progress], None] | None = None,
    ) -> SimResult:  # fmt: skip
        """Run the command list at ``address`` (relative to ``base``) until it is done.

        ``commands`` is the same list, for the names of layers. ``regions`` are compared as soon as
        their commands are finished; the run stops at the first difference, which the result
        holds. Raises RunError when the accelerator gives up (bus error, unknown command, watchdog)
        or ``limit`` cycles have passed, and names who waits for what.
        """
        raw = self._run(address, base, regions, limit, watchdog, progress)
        if not raw.differences and (not raw.over or raw.status & 0x1C):
            raise RunError(_trouble(raw, commands, limit))
        starts = {u: raw.starts[k] for k, u in enumerate(UNITS)}
        ends = {u: raw.ends[k] for k, u in enumerate(UNITS)}
        return SimResult(
            raw.cycles,
            starts,
            ends,
            {u: dict(zip(WAITS, raw.stalls[k])) for k, u in enumerate(UNITS)},
            dict(zip(CLIENTS, raw.read_bytes)),
            raw.write_bytes,
            raw.read_beats,
            raw.write_beats,
            raw.seconds,
            layers_of(commands, starts, ends, self.accelerator.port_bits, self._weights),
            raw.differences,
            raw.since,
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def _trouble(raw: Raw, commands: Sequence[Command], limit: int) -> str:
    reasons = {4: "a bus error", 8: "an unknown command", 16: "the watchdog"}
    why = next((text for bit, text in reasons.items() if raw.status & bit), None)
    head = (
        f"the simulated run was stopped by {why} after {raw.cycles} cycles"
        if why
        else f"the simulated run is not done after {limit} cycles"
    )
    lists = {u: [c for c in commands if c.unit == u] for u in (*UNITS, Unit.END)}
    done = ", ".join(f"{u.name.lower()} {len(raw.ends[k])}" for k, u in enumerate(UNITS))
    lines = [f"{head}; finished commands: {done}"]
    names = [u.name.lower() for u in UNITS]
    for k, unit in enumerate((*UNITS, Unit.END)):
        name = unit.name.lower()
        if unit != Unit.END and len(raw.starts[k]) > len(raw.ends[k]):
            lines.append(f"{name} is at work on command {len(raw.ends[k])}")
        if not raw.waiting >> (20 + k) & 1:
            continue
        unmet = [names[j] for j in range(4) if raw.waiting >> (4 * k + j) & 1]
        at = len(raw.starts[k]) if unit != Unit.END else 0
        command = lists.get(unit, [])[at : at + 1]
        needs = [
            f"{n} (has finished {len(raw.ends[names.index(n)])}"
            + (f", {command[0].values.get(f'wait_{n}', 0)} needed)" if command else ")")
            for n in unmet
        ]
        layer = f" of layer {command[0].layer!r}" if command and command[0].layer else ""
        if needs:
            lines.append(f"{name} command {at}{layer} waits for {', '.join(needs)}")
    return "; ".join(lines)


class VerilatorSession(Session):
    """The compiled design as a process of its own; data go through files of a temporary folder."""

    def __init__(
        self, program: Path, accelerator: Accelerator, memory_bytes: int, dram: Dram,
        waves: tuple[Path, int, int] | None = None,
    ) -> None:  # fmt: skip
        """``waves``: a file and the first and last cycle; needs a build with waves."""
        super().__init__(accelerator, memory_bytes)
        self._folder = tempfile.TemporaryDirectory(prefix="codesign-sim-")
        self._process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._files = 0
        self._say(f"memory {memory_bytes}")
        self._say(dram.directive())
        if waves is not None:
            self._say(f"waves {waves[0]} {waves[1]} {waves[2]}")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._hear("")

    def _hear(
        self, kind: str, progress: Callable[[Progress], None] | None = None
    ) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.startswith("{"):
                continue
            said: dict[str, Any] = json.loads(line)
            if said["kind"] == "error":
                raise RunError(f"the simulator stopped: {said['what']}")
            if said["kind"] == "progress" and progress is not None:
                progress(Progress(said["cycles"], dict(zip(UNITS, said["finished"]))))
            if said["kind"] == kind:
                return said
        code = self._process.wait()
        raise RunError(f"the simulator ended without an answer (exit status {code})")

    def _file(self) -> Path:
        self._files += 1
        return Path(self._folder.name) / f"{self._files}"

    def load(self, address: int, content: bytes) -> None:
        path = self._file()
        path.write_bytes(content)
        self._say(f"load {address} {path}")
        self._hear("loaded")
        path.unlink()

    def read(self, address: int, size: int) -> bytes:
        path = self._file()
        self._say(f"save {address} {size} {path}")
        self._hear("saved")
        content = path.read_bytes()
        path.unlink()
        return content

    def write_register(self, address: int, value: int) -> None:
        """Write a register, as a driver does."""
        self._say(f"poke {address} {value & 0xFFFFFFFF}")
        self._hear("poked")

    def read_register(self, address: int, cycles: int = 0) -> int:
        """Read a register after so many cycles."""
        self._say(f"peek {address} {cycles}")
        return int(self._hear("peeked")["value"])

    def _run(
        self, address: int, base: int, regions: Sequence[Region], limit: int, watchdog: int,
        progress: Callable[[Progress], None] | None,
    ) -> Raw:  # fmt: skip
        self._say("forget")
        order = sorted(range(len(regions)), key=lambda k: regions[k].count)
        paths = []
        for k in order:
            region, path = regions[k], self._file()
            path.write_bytes(region.expected)
            paths.append(path)
            unit = UNITS.index(region.unit)
            tail, lanes = region.tail
            self._say(
                f"check {unit} {region.count} {region.address} {tail} {lanes} "
                f"{1 + region.wide} {path} {k}"
            )
        self._say(f"run {address} {base} {limit} {watchdog}")
        said = self._hear("run", progress)
        for path in paths:
            path.unlink()
        starts, ends, stalls = (tuple(map(tuple, said[n])) for n in ("starts", "ends", "stalls"))
        differences = tuple(
            Difference(
                regions[int(d["label"])], d["offset"], d["expected"], d["got"], d["cycle"],
                d["bytes"],
            )
            for d in said["mismatches"]
        )  # fmt: skip
        return Raw(
            said["over"], said["status"], said["waiting"], said["cycles"], said["seconds"],
            tuple(said["read_bytes"]), said["write_bytes"], said["read_beats"],
            said["write_beats"], stalls, starts, ends, differences,
            said["since"],
        )  # fmt: skip

    def close(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()
