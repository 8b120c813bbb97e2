# SPDX-License-Identifier: Apache-2.0
"""An ARM board as a target: cross-compiled by TVM, verified under QEMU, latency modelled."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.ir.types import TensorType
from codesign.targets.arm.board import Board, read_board
from codesign.targets.arm.qemu import ProcessRunner, emulator
from codesign.targets.base import (
    BuildResult,
    LatencyKind,
    Target,
    TargetKind,
    Timing,
    Unsupported,
)
from codesign.targets.deploy.arch import Arch, get_arch
from codesign.targets.files import build_folder, read_manifest, write_manifest
from codesign.targets.host import KERNELS_VERSION, HostTarget
from codesign.targets.tools import Tool, register_tool, require_tool, why_missing
from codesign.targets.tuning.tuned import Tuned

if TYPE_CHECKING:
    from codesign.quant.formats import LayerFormat
    from codesign.targets.tvm_lower.machine import Machine

FORMAT = "codesign-arm-build/1"
LIBRARY = "network.so"

register_tool("aarch64-c++", Tool(
    ("aarch64-linux-gnu-g++", "aarch64-linux-gnu-g++-12"), "CODESIGN_AARCH64_CXX",
    "linking networks and the runner for aarch64", "apt-get install g++-aarch64-linux-gnu",
))  # fmt: skip
register_tool("x86_64-c++", Tool(
    ("x86_64-linux-gnu-g++",), "CODESIGN_X86_64_CXX",
    "linking networks and the runner for x86-64", "apt-get install g++-x86-64-linux-gnu",
))  # fmt: skip
register_tool("qemu-aarch64", Tool(
    ("qemu-aarch64", "qemu-aarch64-static"), "CODESIGN_QEMU_AARCH64",
    "running aarch64 builds on this computer", "apt-get install qemu-user",
))  # fmt: skip


@dataclass(frozen=True)
class ArmTarget(Tuned, Target):
    """A board with ARM cores; ``board_class`` makes the class of one board."""

    kind: ClassVar[TargetKind] = "cpu"
    formats: ClassVar[tuple[str, ...]] = HostTarget.formats
    rung: ClassVar[str] = "tvm-aarch64"
    latency_kind: ClassVar[LatencyKind] = "modelled"

    board: Board
    threads: int = 1
    """Threads that a network runs on under QEMU; on the device one a core."""
    tuned: bool = True
    """Whether builds take what was tuned on a device of this kind (docs/rpc.md)."""
    tuning: Path | None = None
    """The tuning database; None for the user's cache folder."""

    @property
    def arch(self) -> Arch:
        """The board's instruction set."""
        return get_arch(self.board.arch)

    def machine(self) -> Machine:
        """The board as the lowering sees it."""
        from codesign.targets.tvm_lower.machine import Machine

        board = self.board
        return Machine(
            board.arch, board.mcpu, frozenset(board.features), board.cores,
            "neon-dot" if "dotprod" in board.features else "neon",
            triple=self.arch.triple, mattr=tuple(f"+{name}" for name in board.features),
        )  # fmt: skip

    def machine_key(self) -> str:
        """What tuned tiles belong to: all devices of this board, TVM, and our kernels."""
        import hashlib
        from importlib.metadata import version

        machine = self.machine()
        facts = (
            self.name, machine.arch, machine.mcpu, *sorted(machine.features), str(machine.threads),
            version("apache-tvm"), str(KERNELS_VERSION),
        )  # fmt: skip
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]

    def unavailable(self) -> str | None:
        """Missing TVM, cross compiler or emulator; TVM's runtime is downloaded when needed."""
        emulated = () if self.arch.native else (f"qemu-{self.arch.name}",)
        return why_missing("tvm", self.arch.compiler, *emulated)

    def unsupported(self, graph: Graph) -> tuple[Unsupported, ...]:
        """Operators without a kernel."""
        from codesign.targets.tvm_lower.support import unsupported

        return unsupported(graph)

    def build(self, graph: Graph, out: Path) -> BuildResult:
        """Cross-compile into ``out``: all that the board needs (``codesign.targets.deploy``)."""
        self.check(graph)
        require_tool("tvm")
        compiler = require_tool(self.arch.compiler)
        start = time.perf_counter()
        with build_folder(out) as folder:
            from codesign.targets.deploy.compile import compiling
            from codesign.targets.deploy.folder import contents, manifest, write_deployment
            from codesign.targets.tvm_lower.compile import compile_graph, export

            with compiling(self.arch):
                executable = compile_graph(graph, self.machine(), self.tiles())
            export(executable, folder / LIBRARY, compiler)
            write_deployment(folder, graph, self.arch, self.board.features)
            board = self.board
            write_manifest(folder, manifest(
                FORMAT, graph, self.name, board.arch, board.mcpu, board.features))
            names, size = contents(folder)
        return BuildResult(Path(out), names, time.perf_counter() - start, size)

    def load(self, directory: Path) -> ProcessRunner:
        """The build under QEMU (natively on aarch64), once checksums and board are checked."""
        directory = Path(directory).absolute()
        manifest = read_manifest(directory, FORMAT)
        cpu = manifest.get("cpu", {})
        mine = self.board
        lacking = sorted(set(cpu.get("features", ())) - set(mine.features))
        if cpu.get("arch") != mine.arch or lacking:
            why = f"with {', '.join(lacking)}, which {self.name} lacks" if lacking else (
                f"while {self.name} is {mine.arch}")
            raise InputError(
                f"{directory} was built for {cpu.get('mcpu')} ({cpu.get('arch')}), {why}; "
                f"build again for {self.name}"
            )
        inputs, outputs = (_tensors(directory, manifest, key) for key in ("inputs", "outputs"))
        command = emulator(self.arch, mine.qemu_cpu)
        return ProcessRunner(directory, command, inputs, outputs, self.threads)

    def layer_latency(self, graph: Graph) -> dict[str, Timing]:
        """Modelled latency of each layer on the board (``codesign.targets.arm.model``)."""
        from codesign.targets.arm.model import layer_ms

        return {name: Timing((ms,)) for name, ms in layer_ms(graph, self.board).items()}

    def modelled_counts(self, directory: Path) -> dict[str, int]:
        """Instructions of one call, by class; empty without an emulator or a C compiler."""
        if why_missing(f"qemu-{self.board.arch}", "c++"):
            return {}
        from codesign.targets.arm.icount import count_instructions

        counts = count_instructions(directory, self.board)
        return {**asdict(counts), "total": counts.total}

    def latency_bound_ms(self, macs: int) -> float:
        """No layer is modelled faster than at the board's peak rate."""
        from codesign.targets.arm.model import peak_macs_per_s

        return macs / peak_macs_per_s(self.board) * 1e3

    def same_code(self, one: LayerFormat, other: LayerFormat) -> bool:
        """All integer formats are kept in bytes; plain NEON widens sums of narrow ones later."""
        if one == other or one.is_float or other.is_float:
            return one == other
        return "dotprod" in self.board.features


def board_class(path: Path) -> type[ArmTarget]:
    """The class of the board in a TOML file; InputError if the file is wrong."""
    board = read_board(Path(path))
    content = {
        "name": board.name,
        "description": board.description,
        "board": board,
        "__annotations__": {"board": Board},
        "__doc__": board.description,
        "__module__": __name__,
    }
    made: type[ArmTarget] = type("ArmTarget", (ArmTarget,), content)
    return dataclass(frozen=True)(made)


def _tensors(
    directory: Path, manifest: dict[str, Any], key: str
) -> tuple[tuple[str, TensorType], ...]:
    try:
        return tuple((item["name"], TensorType.parse(item["type"])) for item in manifest[key])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{directory}: the manifest has no valid {key} ({error}); build again"
                         ) from error
