# SPDX-License-Identifier: Apache-2.0
"""The host target: this computer's CPU, through TVM.

Latencies are of single calls in this process, one after another on otherwise idle threads: first
``warmup`` calls that do not count, then ``repeats`` samples. A sample is the mean of as many
back-to-back calls as take about two milliseconds (at least one), so that the clock does not
show; the reported figure is the median of the samples.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.ir.types import TensorType
from codesign.targets.base import (
    Array,
    BuildResult,
    Runner,
    Target,
    TargetKind,
    Timing,
    Unsupported,
    check_arrays,
)
from codesign.targets.deploy.arch import ARCHES
from codesign.targets.files import build_folder, read_manifest, write_manifest
from codesign.targets.pool import calm_pool
from codesign.targets.tools import require_tool, why_missing
from codesign.targets.tuning.tuned import Tuned

if TYPE_CHECKING:
    from codesign.quant.formats import LayerFormat
    from codesign.targets.tuning.tune import Budget, Outcome
    from codesign.targets.tvm_lower.machine import Machine

FORMAT = "codesign-host-build/1"
LIBRARY = "network.so"
KERNELS_VERSION = 12
"""Counted up when kernels change so that older measurements no longer hold."""
_SAMPLE_SECONDS = 2e-3
_pool_threads = 0
"""Threads that TVM's pool in this process was set to; 0 if never set."""
_running = threading.Lock()
"""Networks of a process run one at a time: they share the pool, and a VM is not re-entrant."""


@dataclass(frozen=True)
class HostTarget(Tuned, Target):
    """This computer's CPU: integer and float networks compiled by TVM."""

    name: ClassVar[str] = "host"
    description: ClassVar[str] = "this computer's CPU, compiled by TVM"
    kind: ClassVar[TargetKind] = "cpu"
    formats: ClassVar[tuple[str, ...]] = (
        "w8a8",
        *(f"w{n}a{m}" for n in range(2, 9) for m in range(2, 9) if (n, m) != (8, 8)),
        "float",
    )

    rung: ClassVar[str] = "tvm-host"

    threads: int = 0
    """Threads that a network runs on; 0 for one a core."""
    database: Path | None = None
    """Where measured layers are kept; None for the user's cache folder."""
    tuned: bool = True
    """Whether builds take tiles from the tuning database; else the fixed rules' tiles."""
    tuning: Path | None = None
    """The tuning database; None for the user's cache folder."""
    elsewhere: str = ""
    """The key of a device that is a computer like this one, behind a tracker; empty for this one.
    What was tuned there belongs to it."""

    def unavailable(self) -> str | None:
        """Missing Python library or linker."""
        return why_missing("tvm", "c++")

    def unsupported(self, graph: Graph) -> tuple[Unsupported, ...]:
        """Operators without a kernel (a plugin's own), and formats that have none."""
        from codesign.targets.tvm_lower.support import unsupported

        return unsupported(graph)

    def build(self, graph: Graph, out: Path) -> BuildResult:
        """Compile into ``out``: ``network.so``, ``manifest.json`` and what runs without Python."""
        self.check(graph)
        require_tool("tvm")
        compiler = require_tool("c++")
        start = time.perf_counter()
        with build_folder(out) as folder:
            from codesign.targets.deploy.compile import compiling
            from codesign.targets.deploy.folder import contents, manifest, write_deployment
            from codesign.targets.tvm_lower.compile import compile_graph, export

            machine = self.machine()
            with compiling(ARCHES[machine.arch]) if machine.arch in ARCHES else nullcontext():
                executable = compile_graph(graph, machine, self.tiles())
            export(executable, folder / LIBRARY, compiler)
            if machine.arch in ARCHES:
                write_deployment(folder, graph, ARCHES[machine.arch], sorted(machine.features))
            write_manifest(folder, manifest(
                FORMAT, graph, self.name, machine.arch, machine.mcpu, machine.features))
            names, size = contents(folder)
        return BuildResult(Path(out), names, time.perf_counter() - start, size)

    def load(self, directory: Path) -> HostRunner:
        """The network in ``directory``, after checksums, TVM version and CPU are checked."""
        require_tool("tvm")
        directory = Path(directory)
        manifest = read_manifest(directory, FORMAT)
        _check_machine(directory, manifest)
        try:
            inputs, outputs = (
                tuple((item["name"], TensorType.parse(item["type"])) for item in manifest[key])
                for key in ("inputs", "outputs")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{directory}: the manifest has no valid inputs and outputs "
                             f"({error}); build again") from error
        import tvm_ffi
        from tvm import relax as relax  # registers what loads its modules

        library = directory / LIBRARY
        try:
            # By a name of its own: the loader goes by names, and TVM unloads nothing, so that a
            # build in the place of an earlier one would not run.
            with tempfile.TemporaryDirectory(prefix="codesign-load-") as folder:
                alias = Path(folder) / LIBRARY
                alias.symlink_to(library.resolve())
                module = tvm_ffi.load_module(str(alias))  # TVM's own would resolve the link
        except Exception as error:  # TVM raises whatever the loader raised
            raise InputError(f"cannot load {library}: {error}; build again") from error
        use_threads = module.get_function("codesign_threads", query_imports=True)
        return HostRunner(module, inputs, outputs, self.threads, use_threads)

    def runner(self, graph: Graph) -> HostRunner:
        """Compile ``graph`` in memory, without files, and run it here."""
        self.check(graph)
        require_tool("tvm")
        from codesign.targets.tvm_lower.compile import compile_graph, in_memory

        inputs, outputs = (
            tuple((name, graph.type(name)) for name in names)
            for names in (graph.inputs, graph.outputs)
        )
        calls: dict[str, list[str]] = {}
        module = in_memory(compile_graph(graph, self.machine(), self.tiles(), calls=calls))
        return HostRunner(module, inputs, outputs, self.threads, calls=calls)

    def layer_runner(self, graph: Graph) -> HostRunner:
        """As ``runner``, with images as they lie inside a network (channels last).

        A layer alone is timed like this, else the change of order would count.
        """
        self.check(graph)
        require_tool("tvm")
        from codesign.targets.tvm_lower.compile import compile_graph, in_memory

        inputs, outputs = (
            tuple((name, stored_type(graph.type(name))) for name in names)
            for names in (graph.inputs, graph.outputs)
        )
        module = in_memory(compile_graph(graph, self.machine(), self.tiles(), as_stored=True))
        return HostRunner(module, inputs, outputs, self.threads)

    def machine(self) -> Machine:
        """This computer with the threads that are to be used."""
        from dataclasses import replace

        from codesign.targets.tvm_lower.machine import host_machine

        machine = host_machine()
        return replace(machine, threads=self.threads or machine.threads)

    def tune(
        self, graph: Graph, budget: Budget,
        notice: Callable[[str, int, int], None] = lambda line, done, total: None,
    ) -> Outcome:  # fmt: skip
        """Measure tiles of the layers of ``graph`` and loops of what has no template, and keep the
        best; builds take them."""
        self.check(graph)
        require_tool("tvm")
        from codesign.targets.tuning.tune import tune

        return tune(graph, self.machine(), self.machine_key(), self.tuning_database(), budget,
                    notice)

    def latency_bound_ms(self, macs: int) -> float:
        """Two dot products a cycle at 5 GHz on all threads, of 16-bit operands with the fourfold
        saving of Winograd's F(4x4), which is more than bytes give: 32 of them in 64 bytes (16 with
        AVX2), 16-bit sums in place of 32-bit ones included."""
        from codesign.targets.tvm_lower.machine import host_machine

        machine = host_machine()
        products = 16 if machine.isa == "avx2" else 32
        threads = self.threads or machine.threads
        return macs / (2 * products * 4 * 5e9 * threads) * 1e3

    def least_ratio(self, one: LayerFormat, other: LayerFormat) -> float:
        """No layer gains more by another format than its dot products do; the rest (loads,
        requantisation, calls) is the same code. Wider formats are never faster: where timings say
        so, the difference is their noise."""
        if one.is_float or other.is_float:
            return 1.0 if one == other else 0.0
        return min(1.0, _dot_cost(other) / _dot_cost(one))

    def relative_cost(self, form: LayerFormat) -> float:
        """Of the cheapest dot product; float32 multiplies half as many as 16-bit integers."""
        return 2.0 if form.is_float else _dot_cost(form)

    def same_code(self, one: LayerFormat, other: LayerFormat) -> bool:
        """Whether both formats use the same dot products, on unsigned and on signed inputs.

        With VNNI all integer formats share one kernel. AVX2 multiplies narrow weights twice as
        fast, so that formats differ.
        """
        if one == other or one.is_float or other.is_float:
            return one == other
        from codesign.targets.tvm_lower.isa import instruction_set
        from codesign.targets.tvm_lower.isa.base import Range

        isa = instruction_set(self.machine().isa)

        def code(form: LayerFormat) -> list[tuple[str, int]]:
            wide, bits = form.weight_bits or 8, form.act_bits or 8
            weights = Range(1 - 2 ** (wide - 1), 2 ** (wide - 1) - 1)
            ranges = Range(0, 2**bits - 1), Range(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            return [(dot.name, dot.steps) for data in ranges for dot in isa.dots(data, weights)]

        return code(one) == code(other)

    def machine_key(self) -> str:
        """What measured figures belong to besides the network."""
        import hashlib
        from importlib.metadata import version

        from codesign.targets.tvm_lower.machine import cpu_model, host_machine

        machine = host_machine()
        facts = (
            self.name, self.elsewhere or cpu_model(), machine.arch, machine.mcpu,
            str(self.threads or machine.threads), version("apache-tvm"), str(KERNELS_VERSION),
        )  # fmt: skip
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]

    def layer_latency(self, graph: Graph) -> dict[str, Timing]:
        """Each layer of ``graph`` compiled and measured alone, or taken from the database."""
        from codesign.targets.measured import measure_layers

        return measure_layers(self, graph, database=self.database)

    def network_latency(self, graph: Graph, beside: Graph | None = None) -> dict[str, Timing]:
        """Each layer measured inside the running network, or taken from the database."""
        from codesign.targets.in_network import measure_in_network

        return measure_in_network(self, graph, self.database, beside)

    def layer_codes(self, graph: Graph) -> dict[str, str]:
        """Hashes of the kernels that each layer pays for; lowers ``graph``, compiles nothing."""
        require_tool("tvm")
        from codesign.targets.owners import codes_of_layers

        return codes_of_layers(graph, self.machine(), self.tiles())


def _dot_cost(form: LayerFormat) -> float:
    """Cost of the cheapest exact dot product of a format, on unsigned inputs."""
    from codesign.targets.tvm_lower.isa import instruction_set
    from codesign.targets.tvm_lower.isa.base import Range
    from codesign.targets.tvm_lower.machine import host_machine

    wide, bits = form.weight_bits or 8, form.act_bits or 8
    weights = Range(1 - 2 ** (wide - 1), 2 ** (wide - 1) - 1)
    dots = instruction_set(host_machine().isa).dots(Range(0, 2**bits - 1), weights)
    return min((dot.cost for dot in dots), default=1.0)


class HostRunner(Runner):
    """A built network in this process."""

    def __init__(
        self,
        module: Any,
        inputs: tuple[tuple[str, TensorType], ...],
        outputs: tuple[tuple[str, TensorType], ...],
        threads: int = 0,
        use_threads: Callable[[int], None] | None = None,
        calls: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """``use_threads``: sets the number of threads of ``module``; None if it was compiled in
        memory. ``calls``: the kernels that its functions stand for, see ``lower``."""
        import tvm
        from tvm import relax

        from codesign.targets.deploy.threads import load_threads

        self.inputs, self.outputs = inputs, outputs
        self._tvm = tvm
        self._threads = threads
        self._calls = calls or {}
        self._own_threads = use_threads or load_threads()
        self._module = module
        self._vm = relax.VirtualMachine(module, tvm.cpu())

    def _tensors(self, arrays: Sequence[Array]) -> list[Any]:
        return [self._tvm.runtime.tensor(array) for array in arrays]

    def _use_threads(self) -> None:
        # One pool a process; another runner may have set another count.
        global _pool_threads
        from codesign.targets.tvm_lower.machine import host_machine

        wanted = self._threads or host_machine().threads
        if wanted != _pool_threads:
            calm_pool()
            # read when the pool starts; on x86 TVM counts only every second core otherwise
            most = max(wanted, host_machine().threads)
            os.environ.setdefault("TVM_NUM_THREADS", str(most))
            self._tvm.get_global_func("runtime.config_threadpool")(1, wanted)
            _pool_threads = wanted
        self._own_threads(wanted)

    def _run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        with _running:
            self._use_threads()
            results = self._vm["main"](*self._tensors(arrays))
            # Copied: the memory belongs to the virtual machine.
            return tuple(
                np.array(results[i].numpy()).reshape(kind.shape)
                for i, (_, kind) in enumerate(self.outputs)
            )

    def prepared(self, *arrays: Array) -> Callable[[], None]:
        """A call of the network on ``arrays``, already in the runtime's tensors; for timing.

        The results stay in the runtime.
        """
        tensors = self._tensors(check_arrays(self.inputs, arrays))
        main = self._vm["main"]

        def call() -> None:
            with _running:
                self._use_threads()
                main(*tensors)

        return call

    def watch(
        self, arrays: Sequence[Array], calls: int
    ) -> list[list[tuple[str, bool, int]]]:
        """Starts and ends of every kernel in ``calls`` calls (``codesign.targets.in_network``)."""
        from codesign.targets.in_network import watched

        tensors = self._tensors(check_arrays(self.inputs, arrays))
        with _running:
            self._use_threads()
            # a machine of its own: one that was watched stays slower
            vm = self._tvm.relax.VirtualMachine(self._module, self._tvm.cpu())
            return watched(vm, tensors, calls, self._calls)

    def time(self, arrays: Sequence[Array], repeats: int = 10, warmup: int = 3) -> Timing:
        """Latency of one call; see the module for what a sample is."""
        if repeats < 1 or warmup < 0:
            raise InputError(f"timing takes repeats >= 1 and warmup >= 0, got {repeats}, {warmup}")
        tensors = self._tensors(check_arrays(self.inputs, arrays))
        with _running:
            self._use_threads()
            return self._time(tensors, repeats, warmup)

    def _time(self, tensors: list[Any], repeats: int, warmup: int) -> Timing:
        main = self._vm["main"]
        start = time.perf_counter()
        for _ in range(warmup):
            main(*tensors)
        calls = 1
        if warmup:
            one = (time.perf_counter() - start) / warmup
            calls = max(1, round(_SAMPLE_SECONDS / max(one, 1e-6)))
        samples = []
        for _ in range(repeats):
            start = time.perf_counter()
            for _ in range(calls):
                main(*tensors)
            samples.append((time.perf_counter() - start) / calls * 1e3)
        return Timing(tuple(samples))


def _check_machine(directory: Path, manifest: dict[str, Any]) -> None:
    from importlib.metadata import version

    from codesign.targets.tvm_lower.machine import host_machine

    built = manifest.get("tvm")
    if built != version("apache-tvm"):
        raise InputError(f"{directory} was built with TVM {built}, this is TVM "
                         f"{version('apache-tvm')}; build again")
    cpu = manifest.get("cpu", {})
    machine = host_machine()
    lacking = machine.missing(frozenset(cpu.get("features", ())))
    if cpu.get("arch") != machine.arch or lacking:
        why = f"which this one lacks: {', '.join(sorted(lacking))}" if lacking else (
            f"this one is {machine.arch}")
        raise InputError(f"{directory} was built for another CPU ({cpu.get('arch')} "
                         f"{cpu.get('mcpu') or 'baseline'}), {why}; build again here")


def stored_type(kind: TensorType) -> TensorType:
    """An image type with its axes in the order in which it is stored inside a network."""
    if kind.rank != 4:
        return kind
    n, c, h, w = kind.shape
    return TensorType((n, h, w, c), kind.dtype)
