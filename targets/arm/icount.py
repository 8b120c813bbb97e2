# SPDX-License-Identifier: Apache-2.0
"""Instructions of one call of a built network, counted under QEMU by a plugin of our own.

Counts are exact for the emulated CPU; what they say of time is *modelled*: an instruction is not
a cycle. They rank builds for one core, and were never checked on a board.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from codesign.data.root import cache_dir
from codesign.errors import CodesignError, InputError, ToolNotFoundError
from codesign.targets.arm.board import Board
from codesign.targets.arm.qemu import emulator, runner_environment
from codesign.targets.deploy.arch import get_arch
from codesign.targets.deploy.compile import run_compiler
from codesign.targets.tools import require_tool

SOURCE = Path(__file__).parent / "plugin" / "icount.c"
FLAGS = ("-x", "c", "-std=c11", "-O2", "-fPIC", "-shared", "-Wall")


@dataclass(frozen=True)
class Counts:
    """Executed instructions by class, and products of vector multiplications."""

    load: int
    store: int
    multiply: int
    """Vector multiplications: smull, smlal, sdot, fmla, ..."""
    simd: int
    """Other vector and floating-point instructions."""
    branch: int
    other: int
    products: int
    """Products that the multiplications made; not all are of use."""

    @property
    def total(self) -> int:
        """All instructions."""
        every: tuple[int, ...] = tuple(asdict(self).values())
        return sum(every) - self.products


def count_instructions(folder: Path, board: Board, calls: int = 2) -> Counts:
    """One call of the network in a build folder on its test vector, one thread.

    Two processes make ``1`` and ``1 + calls`` calls; the difference leaves loading out.
    Raises ToolNotFoundError without QEMU or a C compiler, InputError if the build fails its test.
    """
    if calls < 1:
        raise InputError(f"counting takes at least 1 call, got {calls}")
    once, more = (_run(Path(folder), board, n) for n in (1, 1 + calls))
    return Counts(**{name: (more[name] - once[name]) // calls for name in once})


def plugin() -> Path:
    """The compiled plugin, kept in the user's cache folder."""
    compiler = require_tool("c++")
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    path = cache_dir() / "qemu" / f"icount-{digest}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch) / path.name
            run_compiler([compiler, *FLAGS, str(SOURCE), "-o", str(made)])
            os.replace(made, path)
    return path


def _run(folder: Path, board: Board, calls: int) -> dict[str, int]:
    program = [str(folder / "runner"), "--threads", "1", "test", str(calls)]
    return count_program(program, board)


def count_program(program: Sequence[str], board: Board) -> dict[str, int]:
    """Counts of a whole program of the board's architecture by class, its start included."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "counts"
        start = emulator(get_arch(board.arch), board.qemu_cpu, f"{plugin()},out={out}")
        done = subprocess.run(
            [*start, *program], capture_output=True, text=True, env=runner_environment(1),
            check=False,
        )  # fmt: skip
        if done.returncode and "plugin" in done.stderr.lower():
            raise ToolNotFoundError(
                f"{start[0]} does not take the counting plugin ({done.stderr.strip()[:300]}); it "
                "is written for the plugin interface of QEMU 4.2 to 8.2 with plugins enabled: "
                "apt-get install qemu-user on Debian 12"
            )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[:500]
            raise InputError(f"{program[0]} failed under QEMU: {said}; build again")
        try:
            lines = (line.split() for line in out.read_text().splitlines())
            return {name: int(count) for name, count in lines}
        except (OSError, ValueError) as error:
            raise CodesignError(f"the counting plugin wrote no counts: {error}") from error
