# SPDX-License-Identifier: Apache-2.0
"""A CPU target whose networks run on a device behind a tracker."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from codesign.targets.host import KERNELS_VERSION, LIBRARY, HostTarget
from codesign.targets.rpc.device import Device, _first, lost
from codesign.targets.tools import require_tool

if TYPE_CHECKING:
    from codesign.quant.formats import LayerFormat
    from codesign.targets.tvm_lower.machine import Machine

T = TypeVar("T")
_SAMPLE_SECONDS = 2e-3
_TRIES = 2
"""A session may die with the device's process for it; a second failure is the device's."""


@dataclass(frozen=True)
class RemoteTarget(Target):
    """``inner`` builds as ever; running and measuring happen on ``remote``."""

    inner: Target
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
        self.check(graph)
        require_tool("tvm")
        from codesign.targets.tvm_lower.compile import compile_graph, export

        folder = tempfile.TemporaryDirectory(prefix="codesign-rpc-")
        library = Path(folder.name) / LIBRARY
        export(compile_graph(graph, self._machine()), library, require_tool(self._compiler()))
        inputs, outputs = (
            tuple((name, graph.type(name)) for name in names)
            for names in (graph.inputs, graph.outputs)
        )
        return RemoteRunner(self.remote, library, inputs, outputs, folder)

    def _machine(self) -> Machine:
        if isinstance(self.inner, ArmTarget):
            return self.inner.machine()
        from codesign.targets.tvm_lower.machine import host_machine

        return host_machine()

    def _compiler(self) -> str:
        return self.inner.arch.compiler if isinstance(self.inner, ArmTarget) else "c++"

    def layer_latency(self, graph: Graph) -> dict[str, Timing]:
        """Each layer measured on the device, or taken from the database.

        Each timing is kept at once: after a device vanished, the same call goes on behind it.
        """
        from codesign.targets.measured import measure_layers

        return measure_layers(self, graph, database=self.database)

    def machine_key(self) -> str:
        """What measured figures belong to: devices of one key count as the same machine."""
        from importlib.metadata import version

        machine = self._machine()
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
    ) -> None:
        self.device, self.library = device, library
        self.inputs, self.outputs = inputs, outputs
        self._folder = folder
        """Held while the library may have to be uploaded again."""
        self._open: tuple[Any, Any, Any] | None = None
        """Session, and in it the virtual machine and the device."""

    def _run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        def run(vm: Any, device: Any) -> tuple[Array, ...]:
            self._give(vm, device, arrays)
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

        def timed(vm: Any, device: Any) -> Timing:
            self._give(vm, device, checked)
            one = vm.time_evaluator("invoke_stateful", device, number=max(1, warmup))("main").mean
            calls = max(1, round(_SAMPLE_SECONDS / max(one, 1e-6))) if warmup else 1
            found = vm.time_evaluator("invoke_stateful", device, number=calls, repeat=repeats)
            return Timing(tuple(seconds * 1e3 for seconds in found("main").results))

        return self._attempt(timed, " while it was measured")

    @staticmethod
    def _give(vm: Any, device: Any, arrays: Sequence[Array]) -> None:
        import tvm

        vm.set_input("main", *(tvm.runtime.tensor(array, device) for array in arrays))

    def _attempt(self, work: Callable[[Any, Any], T], doing: str) -> T:
        last: Exception | None = None
        for _ in range(_TRIES):
            try:
                return work(*self._ready())
            except ToolNotFoundError:
                raise
            except Exception as error:  # TVM raises whatever its socket raised
                self._open, last = None, error
                self.device.forget()
        assert last is not None
        raise lost(self.device, _first(last), doing) from last

    def _ready(self) -> tuple[Any, Any]:
        """Virtual machine and device in this process's session."""
        from tvm import relax

        session = self.device.session()
        if self._open is None or self._open[0] is not session:
            name = f"{uuid.uuid4().hex}.so"  # a name of its own: loaders cache by name
            session.upload(str(self.library), target=name)
            device = session.cpu()
            vm = relax.VirtualMachine(session.load_module(name), device)
            self._open = (session, vm, device)
        return self._open[1:]
