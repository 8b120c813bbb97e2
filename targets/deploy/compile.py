# SPDX-License-Identifier: Apache-2.0
"""The C++ runner, compiled once for an architecture and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from codesign.data.root import cache_dir
from codesign.errors import CodesignError, InputError
from codesign.targets.deploy.arch import Arch
from codesign.targets.deploy.runtime import include_folder, runtime_libraries
from codesign.targets.tools import require_tool

SOURCES = Path(__file__).parent / "runner"
HEADER = "codesign_network.h"
LIBRARY = "libcodesign.so"
RUNNER = "runner"
FLAGS = ("-std=c++17", "-O2", "-fno-tree-vectorize")
"""Without vectorisation: g++ 12 for aarch64 dies of an internal error on some reductions, and
nothing here is worth it: the network's own code is TVM's."""


def runner_files(arch: Arch) -> dict[str, Path]:
    """``runner`` and ``libcodesign.so`` for ``arch``.

    Raises ToolNotFoundError without a compiler or TVM's runtime for it.
    """
    compiler = require_tool(arch.compiler)
    libraries = runtime_libraries(arch)
    folder = cache_dir() / "runner" / f"{arch.name}-{_key(compiler)}"
    names = (RUNNER, LIBRARY)
    if not all((folder / name).is_file() for name in names):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        except OSError as error:
            raise InputError(
                f"cannot write the compiled runner to the cache folder {folder.parent}: "
                f"{error.strerror}; free it or set XDG_CACHE_HOME"
            ) from error
        try:
            _compile(compiler, libraries, aside)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)
        except OSError:
            if not all((folder / name).is_file() for name in names):
                raise  # else another process was faster
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return {name: folder / name for name in names}


@contextmanager
def compiling(arch: Arch) -> Iterator[None]:
    """Compile what a build needs of C++ beside the work inside, which then finds it in the cache.

    Raises what ``runner_files`` raises, at the end.
    """
    from codesign.targets.deploy.threads import threads_object

    compiler = require_tool(arch.compiler)
    with ThreadPoolExecutor(1) as beside:
        threads = beside.submit(threads_object, compiler)
        runner = beside.submit(runner_files, arch)
        yield
        threads.result()
        runner.result()


def _compile(compiler: str, libraries: dict[str, Path], out: Path) -> None:
    linked = [str(path) for path in libraries.values()]
    folders = {str(path.parent) for path in libraries.values()}
    search = [f"-Wl,-rpath-link,{folder}" for folder in sorted(folders)]
    run_compiler([
        compiler, *FLAGS, "-fPIC", "-shared", f"-isystem{include_folder()}",
        str(SOURCES / "network.cc"), "-o", str(out / LIBRARY), *linked, "-ldl", *search,
        f"-Wl,-soname,{LIBRARY}", "-Wl,-rpath,$ORIGIN", "-s",
    ])  # fmt: skip
    run_compiler([
        compiler, *FLAGS, str(SOURCES / "runner.cc"), "-o", str(out / RUNNER),
        str(out / LIBRARY), *search, "-Wl,-rpath,$ORIGIN/lib", "-s",
    ])  # fmt: skip


def run_compiler(command: list[str]) -> None:
    """Run a compiler; its messages are in the error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CodesignError(f"{' '.join(command)}\nfailed:\n{done.stderr.strip()[-2000:]}")


def _key(compiler: str) -> str:
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    parts = [said.stdout, version("apache-tvm"), version("apache-tvm-ffi"), *FLAGS]
    parts += [path.read_text(encoding="utf-8") for path in sorted(SOURCES.iterdir())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
