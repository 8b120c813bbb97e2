# SPDX-License-Identifier: Apache-2.0
"""The threads that compiled networks share their loops with (``runner/threads.cc``).

A library on disk has them linked in; a process that compiles in memory loads them once.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from codesign.data.root import cache_dir
from codesign.errors import InputError
from codesign.targets.deploy.compile import SOURCES, run_compiler
from codesign.targets.tools import require_tool

SOURCE = "threads.cc"
LINKED = ("-shared", "-fPIC", "-pthread")
"""Options of a library that holds the object."""
_OURS = ("-fno-exceptions",)
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden")


def threads_object(compiler: str) -> str:
    """Path of the object file for the compiler's architecture, compiled once and kept.

    Raises InputError if the cache folder cannot be written.
    """
    return str(compiled(compiler, SOURCES / SOURCE, "threads.o", (*_OURS, "-c")))


@functools.cache
def load_threads() -> Callable[[int], None]:
    """Load the threads into this process; the function that says how many (0: one a core)."""
    library = ctypes.CDLL(
        str(compiled(require_tool("c++"), SOURCES / SOURCE, "libcodesign_threads.so",
                     (*_OURS, *LINKED))),
        mode=ctypes.RTLD_GLOBAL,
    )
    function = library.codesign_threads
    function.argtypes, function.restype = (ctypes.c_int,), None

    def use(threads: int) -> None:
        function(threads)

    return use


@functools.cache
def compiled(compiler: str, source: Path, name: str, flags: tuple[str, ...]) -> Path:
    """The file ``name`` that ``compiler`` makes of a source, in the cache folder.

    Raises InputError if that cannot be written, CodesignError with what the compiler says.
    """
    said = subprocess.run(
        [compiler, "-v"], capture_output=True, text=True, check=False
    ).stderr  # target and version
    parts = (source.read_text(encoding="utf-8"), said, name, *_FLAGS, *flags)
    key = sha256("\0".join(parts).encode()).hexdigest()[:16]
    out = cache_dir() / "threads" / key / name
    if out.is_file():
        return out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(prefix=f".{name}.", dir=out.parent)
        os.close(descriptor)
    except OSError as error:
        raise InputError(
            f"cannot write compiled {source.name} to the cache folder {out.parent}: "
            f"{error.strerror}; free it or set XDG_CACHE_HOME"
        ) from error
    try:
        run_compiler([compiler, *_FLAGS, *flags, str(source), "-o", aside])
        os.replace(aside, out)
    finally:
        Path(aside).unlink(missing_ok=True)
    return out
