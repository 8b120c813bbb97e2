# SPDX-License-Identifier: Apache-2.0
"""A CPU target whose networks run on a device behind a tracker."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from codesign.errors import InputError, ToolNotFoundError
from codesign.ir.graph import Graph
from codesign.ir.types import TensorType
from codesign.targets.arm.target import FORMAT as ARM_FORMAT
from codesign.targets.arm.target import ArmTarget
from codesign.targets.base import (
    Array,
    BuildResult,
    Runner,
    Target,
    Timing,
    Unsupported,
    check_arrays,
)
from codesign.targets.files import read_manifest
from codesign.targets.host import FORMAT as HOST_FORMAT
from codesign.targets.host import KERNELS_VERSION, LIBRARY, HostTarget, stored_type
from codesign.targets.rpc.device import Device, Session, first_line, lost
from codesign.targets.tools import require_tool

if TYPE_CHECKING:
    from codesign.quant.formats import LayerFormat
    from codesign.targets.in_network import Events
    from codesign.targets.tuning.tune import Budget, Outcome
    from codesign.targets.tvm_lower.machine import Machine

T = TypeVar("T")
_SAMPLE_SECONDS = 2e-3
_TRIES = 2
"""A session may die with the device's process for it; a second failure is the device's."""


@dataclass(frozen=True)
class RemoteTarget(Target):
    """``inner`` builds as ever; running, measuring and tuning happen on ``remote``."""

    inner: Target
    """A CPU target. What is tuned belongs to its boards, or to devices of the same key if it is
    ``host``, and its builds take it."""
    remote: Device
    database: Path | None = None
    """Where measured layers are kept; None for the user's cache folder."""

    def __post_init__(self) -> None:
        if not isinstance(self.inner, HostTarget | ArmTarget):
            raise InputError(
                f"--rpc: target {self.inner.name!r} does not run through TVM; CPU targets do "
                "(codesign list targets)"
            )
        for name in ("name", "description", "kind", "formats"):
            object.__setattr__(self, name, getattr(self.inner, name))
        if isinstance(self.inner, HostTarget):
            inner = replace(self.inner, elsewhere=self.remote.key)
            object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "rung", "board")
        object.__setattr__(self, "latency_kind", "measured")

    def unavailable(self) -> str | None:
        """What the inner target lacks; whether the device is there shows when it is used."""
        return self.inner.unavailable()

    def unsupported(self, graph: Graph) -> tuple[Unsupported, ...]:
        """As the inner target."""
        return self.inner.unsupported(graph)

    def build(self, graph: Graph, out: Path) -> BuildResult:
        """As the inner target."""
        return self.inner.build(graph, out)

    def load(self, directory: Path) -> RemoteRunner:
        """The build in ``directory``, uploaded when it first runs."""
        directory = Path(directory)
        wanted = HOST_FORMAT if isinstance(self.inner, HostTarget) else ARM_FORMAT
        manifest = read_manifest(directory, wanted)
        try:
            inputs, outputs = (
                tuple((item["name"], TensorType.parse(item["type"])) for item in manifest[key])
                for key in ("inputs", "outputs")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{directory}: the manifest has no valid inputs and outputs "
                             f"({error}); build again") from error
        return RemoteRunner(self.remote, directory / LIBRARY, inputs, outputs)

    def runner(self, graph: Graph) -> RemoteRunner:
        """Compile ``graph`` and run it on the device, without a build folder."""
        return self._compiled(graph, as_stored=False)

    def layer_runner(self, graph: Graph) -> RemoteRunner:
        """As ``runner``, with images as they lie inside a network."""
        return self._compiled(graph, as_stored=True)

    def _compiled(self, graph: Graph, as_stored: bool) -> RemoteRunner:
        self.check(graph)
        require_tool("tvm")
        from codesign.targets.tvm_lower.compile import compile_graph

        calls: dict[str, list[str]] = {}
        executable = compile_graph(graph, self.machine(), self._cpu.tiles(), as_stored, calls)
        return self.placed(executable, graph, calls, as_stored)

    def placed(
        self, executable: Any, graph: Graph, calls: Mapping[str, Sequence[str]],
        as_stored: bool = False,
    ) -> RemoteRunner:  # fmt: skip
        """A compiled network linked for the device, with what it needs to be watched there."""
        from codesign.targets.rpc.watch import watch_object
        from codesign.targets.tvm_lower.compile import export

        folder = tempfile.TemporaryDirectory(prefix="codesign-rpc-")
        library = Path(folder.name) / LIBRARY
        compiler = require_tool(self.compiler)
        export(executable, library, compiler, (watch_object(compiler),))
        inputs, outputs = (
            tuple((n, stored_type(graph.type(n)) if as_stored else graph.type(n)) for n in names)
            for names in (graph.inputs, graph.outputs)
        )
        return RemoteRunner(self.remote, library, inputs, outputs, folder, calls)

    @property
    def _cpu(self) -> HostTarget | ArmTarget:
        assert isinstance(self.inner, HostTarget | ArmTarget)
        return self.inner

    def machine(self) -> Machine:
        """What is compiled for."""
        return self._cpu.machine()

    @property
    def compiler(self) -> str:
        """The name of the tool that links for the device."""
        return self.inner.arch.compiler if isinstance(self.inner, ArmTarget) else "c++"

    def tune(
        self, graph: Graph, budget: Budget,
        notice: Callable[[str, int, int], None] = lambda line, done, total: None,
    ) -> Outcome:  # fmt: skip
        """As ``HostTarget.tune``: candidates are compiled here, and run and timed on the device.

        Raises ToolNotFoundError if the device vanishes; what was tried is kept.
        """
        self.check(graph)
        require_tool("tvm")
        require_tool(self.compiler)
        from codesign.targets.rpc.tuning import DeviceContest, DeviceWorker
        from codesign.targets.tuning.tune import tune

        self.remote.forget()  # candidates run in another process's session
        contest = DeviceContest(graph, self.machine(), target=self)
        try:
            with DeviceWorker(self.remote, require_tool(self.compiler)) as worker:
                return tune(graph, self.machine(), self._cpu.machine_key(),
                            self._cpu.tuning_database(), budget, notice, worker, contest)
        finally:
            contest.release()

    def tuned_code(self, graph: Graph, as_stored: bool = False) -> str:
        """What the kernels of ``graph`` take from the tuning database."""
        return self._cpu.tuned_code(graph, as_stored)

    def layer_key(self, layer: Graph) -> str:
        """Structure, formats as far as they change the code, and what was tuned of it."""
        return self._cpu.layer_key(layer)

    def layer_latency(self, graph: Graph) -> dict[str, Timing]:
        """Each layer measured on the device, or taken from the database.

        Each timing is kept at once: after a device vanished, the same call goes on behind it.
        """
        from codesign.targets.measured import measure_layers

        return measure_layers(self, graph, database=self.database)

    def network_latency(self, graph: Graph, beside: Graph | None = None) -> dict[str, Timing]:
        """Each layer measured inside the network that runs on the device, or taken from the
        database."""
        from codesign.targets.in_network import measure_in_network

        return measure_in_network(self, graph, self.database, beside)

    def layer_codes(self, graph: Graph) -> dict[str, str]:
        """Hashes of the kernels that each layer pays for; lowers ``graph``, compiles nothing."""
        from codesign.targets.owners import codes_of_layers

        return codes_of_layers(graph, self.machine(), self._cpu.tiles())

    def machine_key(self) -> str:
        """What measured figures belong to: devices of one key count as the same machine."""
        from importlib.metadata import version

        machine = self.machine()
        facts = (
            "rpc", self.remote.key, self.name, machine.arch, machine.mcpu,
            version("apache-tvm"), str(KERNELS_VERSION),
        )  # fmt: skip
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]

    def latency_bound_ms(self, macs: int) -> float:
        """0: nothing is known of the device before it is asked."""
        del macs
        return 0.0

    def same_code(self, one: LayerFormat, other: LayerFormat) -> bool:
        """As the inner target."""
        return self.inner.same_code(one, other)


class RemoteRunner(Runner):
    """A library on a device. Sessions are opened when needed, and again after one was lost."""

    def __init__(
        self,
        device: Device,
        library: Path,
        inputs: tuple[tuple[str, TensorType], ...],
        outputs: tuple[tuple[str, TensorType], ...],
        folder: tempfile.TemporaryDirectory[str] | None = None,
        calls: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """``calls``: the kernels that functions of the library stand for, see ``lower``."""
        self.device, self.library = device, library
        self.inputs, self.outputs = inputs, outputs
        self._folder = folder
        """Held while the library may have to be uploaded again."""
        self._calls = calls or {}

    def _run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        def run(session: Session, vm: Any) -> tuple[Array, ...]:
            self._give(session, vm, arrays)
            vm.invoke_stateful("main")
            results = vm.get_outputs("main")
            parts = results if isinstance(results, tuple | list) else [results]
            return tuple(
                np.array(part.numpy()).reshape(kind.shape)
                for part, (_, kind) in zip(parts, self.outputs)
            )

        return self._attempt(run, " while it ran a network")

    def time(self, arrays: Sequence[Array], repeats: int = 10, warmup: int = 3) -> Timing:
        """Measured on the device itself: the network between it and here does not count."""
        if repeats < 1 or warmup < 0:
            raise InputError(f"timing takes repeats >= 1 and warmup >= 0, got {repeats}, {warmup}")
        checked = check_arrays(self.inputs, arrays)

        def timed(session: Session, vm: Any) -> Timing:
            device = session.rpc.cpu()
            self._give(session, vm, checked)
            one = vm.time_evaluator("invoke_stateful", device, number=max(1, warmup))("main").mean
            calls = max(1, round(_SAMPLE_SECONDS / max(one, 1e-6))) if warmup else 1
            found = vm.time_evaluator("invoke_stateful", device, number=calls, repeat=repeats)
            return Timing(tuple(seconds * 1e3 for seconds in found("main").results))

        return self._attempt(timed, " while it was measured")

    def watch(self, arrays: Sequence[Array], calls: int) -> list[Events]:
        """Starts and ends of every kernel in ``calls`` calls, by the device's clock; for networks
        that ``RemoteTarget.placed`` linked."""
        from tvm import relax

        from codesign.targets.in_network import named
        from codesign.targets.rpc.watch import WATCH, parse_events

        checked = check_arrays(self.inputs, arrays)

        def watched(session: Session, vm: Any) -> str:
            # a machine of its own: one that was watched stays slower
            module = session.load(self.library)
            other = relax.VirtualMachine(module, session.rpc.cpu())
            self._give(session, other, checked)
            return str(module.get_function(WATCH, query_imports=True)(other.module, calls))

        found = parse_events(self._attempt(watched, " while it was measured"))
        return [named(events, self._calls) for events in found]

    @staticmethod
    def _give(session: Session, vm: Any, arrays: Sequence[Array]) -> None:
        import tvm

        device = session.rpc.cpu()
        vm.set_input("main", *(tvm.runtime.tensor(array, device) for array in arrays))

    def _attempt(self, work: Callable[[Session, Any], T], doing: str) -> T:
        said = ""
        for _ in range(_TRIES):
            try:
                session = self.device.session()
                return work(session, self._machine_in(session))
            except ToolNotFoundError:
                raise
            except Exception as error:  # TVM raises whatever its socket raised
                said = first_line(error)  # the error itself holds what keeps the session open
            del session
            self.device.forget()
        raise lost(self.device, said, doing)

    def _machine_in(self, session: Session) -> Any:
        """The library's virtual machine in a session."""
        from tvm import relax

        key = "machine", self.library
        if key not in session.held:
            vm = relax.VirtualMachine(session.load(self.library), session.rpc.cpu())
            session.held[key] = vm
        return session.held[key]
