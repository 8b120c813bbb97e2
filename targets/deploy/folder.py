# SPDX-License-Identifier: Apache-2.0
"""What a build folder of a CPU target holds beside the compiled network.

=====================  ==========================================================================
``network.so``         the compiled network (written by the target before)
``network.txt``        inputs and outputs, for the runner
``runner``, ``run.sh`` the program and a script that checks the files and starts it
``include/``, ``lib/`` C header, ``libcodesign.so`` behind it, TVM's runtime for the architecture
``src/``               sources of runner and library, to compile them anew on the device
``test/``              a test vector: inputs and the outputs of the reference interpreter
``codesign_load.py``   a loader for Python with TVM on the device; needs nothing else of ours
``SHA256SUMS``         checksums of all of these, for ``sha256sum -c`` on the device
=====================  ==========================================================================

``manifest.json`` has the same checksums for programs; the target writes it last.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codesign.ir.analysis import has_float_islands
from codesign.ir.graph import Graph
from codesign.ir.interpret import run
from codesign.targets.deploy.arch import Arch
from codesign.targets.deploy.compile import HEADER, LIBRARY, RUNNER, SOURCES, runner_files
from codesign.targets.deploy.runtime import runtime_libraries
from codesign.targets.files import sha256
from codesign.targets.layers import random_inputs

FLOAT_TOLERANCE = 1e-4
"""Of networks with float operators, relative to the greatest magnitude of an output."""
_HERE = Path(__file__).parent


def write_deployment(
    folder: Path, graph: Graph, arch: Arch, features: Sequence[str], seed: int = 0
) -> None:
    """Add everything but the manifest to ``folder``, which holds ``network.so``.

    ``features`` are CPU features that the code needs, as the runner checks them.
    """
    (folder / "network.txt").write_text(description(graph, arch, features), encoding="utf-8")
    for sub in ("include", "lib", "src", "test"):
        (folder / sub).mkdir()
    files = runner_files(arch)
    _copy(files[RUNNER], folder / RUNNER, 0o755)
    _copy(files[LIBRARY], folder / "lib" / LIBRARY, 0o755)
    for name, path in runtime_libraries(arch).items():
        _copy(path, folder / "lib" / name, 0o755)
    _copy(SOURCES / HEADER, folder / "include" / HEADER)
    for name in ("network.cc", "runner.cc", "threads.cc"):
        _copy(SOURCES / name, folder / "src" / name)
    _copy(_HERE / "run.sh", folder / "run.sh", 0o755)
    _copy(_HERE / "load.py", folder / "codesign_load.py")
    inputs = random_inputs(graph, seed)
    outputs = run(graph, *inputs)
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for index, array in enumerate(arrays):
            array.tofile(folder / "test" / f"{kind}{index}.bin")
    tolerance = FLOAT_TOLERANCE if has_float_islands(graph) else 0
    (folder / "test" / "tolerance").write_text(f"{tolerance:g}\n", encoding="utf-8")
    write_sums(folder)


def description(graph: Graph, arch: Arch, features: Sequence[str]) -> str:
    """``network.txt``: one line a tensor, ``input NAME TYPE STORAGE DIM...``."""
    lines = ["codesign-network/1", f"arch {arch.name}", " ".join(("features", *features))]
    for side, names in (("input", graph.inputs), ("output", graph.outputs)):
        for name in names:
            kind = graph.type(name)
            shape = " ".join(map(str, kind.shape))
            lines.append(f"{side} {name} {kind.dtype} {kind.dtype.numpy} {shape}".rstrip())
    return "\n".join(lines) + "\n"


def manifest(
    format: str, graph: Graph, target: str, arch: str, mcpu: str, features: Iterable[str]
) -> dict[str, Any]:
    """The manifest of a build, before the checksums."""

    def typed(names: Sequence[str]) -> list[dict[str, str]]:
        kinds = [(name, graph.type(name)) for name in names]
        return [{"name": n, "type": str(k), "storage": str(k.dtype.numpy)} for n, k in kinds]

    return {
        "format": format,
        "network": graph.name,
        "target": target,
        "inputs": typed(graph.inputs),
        "outputs": typed(graph.outputs),
        "tvm": version("apache-tvm"),
        "cpu": {"arch": arch, "mcpu": mcpu, "features": sorted(features)},
    }


def contents(folder: Path) -> tuple[tuple[str, ...], int]:
    """Names of all files, sorted, and their bytes together."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = tuple(path.relative_to(folder).as_posix() for path in files)
    return names, sum(path.stat().st_size for path in files)


def write_sums(folder: Path) -> None:
    """``SHA256SUMS`` of every file in ``folder``, in the format of ``sha256sum``."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _copy(source: Path, out: Path, mode: int = 0o644) -> None:
    shutil.copyfile(source, out)
    out.chmod(mode)
