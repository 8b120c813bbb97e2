# SPDX-License-Identifier: Apache-2.0
"""From a Relax module to an executable, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from codesign.ir.graph import Graph
from codesign.targets.deploy.threads import LINKED, load_threads, threads_object
from codesign.targets.tvm_lower.lower import kernel_codes, loose_kernels, lower
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.templates import write
from codesign.targets.tvm_lower.tiles import Tiles, TraceTile, no_tiles
from codesign.targets.tvm_lower.trace import Loose, traced


def tvm_target(machine: Machine) -> Any:
    """TVM's target for ``machine``."""
    options: dict[str, object] = {"kind": "llvm", "num-cores": machine.threads}
    if machine.mcpu:
        options["mcpu"] = machine.mcpu
    if machine.triple:
        options["mtriple"] = machine.triple
    if machine.mattr:
        options["mattr"] = list(machine.mattr)
    return tvm.target.Target(options)


def pipeline() -> Any:
    """Relax passes for a module whose kernels are written already: memory plan and VM calls."""
    return tvm.transform.Sequential(
        [
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            relax.transform.StaticPlanBlockMemory(),
            relax.transform.LowerAllocTensor(),
            relax.transform.KillAfterLastUse(),
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )


def compile_graph(
    graph: Graph, machine: Machine, tiles: Tiles = no_tiles, as_stored: bool = False,
    calls: dict[str, list[str]] | None = None,
) -> Any:  # fmt: skip
    """The executable of ``graph``; it has one function, ``main``. See ``lower`` for options.

    It needs our threads: ``export`` links them in, ``in_memory`` loads them.
    """
    with write.own_threads():
        module = lower(graph, machine, tiles, as_stored, calls)
    with _context(machine):
        return tvm.compile(module, tvm_target(machine), relax_pipeline=pipeline())


def _context(machine: Machine) -> Any:
    # Sums that TVM lets share memory with a larger array are not kept in registers.
    config = {"tirx.disable_storage_rewrite": machine.arch == "x86_64"}
    return tvm.transform.PassContext(config=config)


def loose(
    graph: Graph, machine: Machine, tiles: Tiles = no_tiles, as_stored: bool = False
) -> list[Loose]:
    """``loose_kernels`` of what ``compile_graph`` compiles."""
    with write.own_threads():
        return loose_kernels(graph, machine, tiles, as_stored)


def compile_function(one: Loose, machine: Machine, tile: TraceTile | None) -> Any:
    """The executable of a kernel that no template writes, alone: its function is ``main``.

    Loops are those of ``tile``, or by the fixed rules. Raises ValueError if it is no trace of this.
    """
    function = one.scheduled
    if tile is not None:
        with write.own_threads():
            function = traced(one.function, tile)
        if function is None:
            raise ValueError("the trace is not of this function")
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with _context(machine):
        return tvm.compile(module, tvm_target(machine))


def codes(graph: Graph, machine: Machine, tiles: Tiles = no_tiles) -> dict[str, str]:
    """``kernel_codes`` of what ``compile_graph`` compiles."""
    with write.own_threads():
        return kernel_codes(graph, machine, tiles)


def export(executable: Any, path: Path, compiler: str, more: Sequence[str] = ()) -> None:
    """Link ``executable``, the threads that it uses and ``more`` objects into the library ``path``.
    """
    executable.export_library(
        str(path), cc=compiler, addons=[threads_object(compiler), *more], options=list(LINKED),
    )


def in_memory(executable: Any) -> Any:
    """``executable`` as a module that runs in this process."""
    load_threads()
    return executable.jit()
