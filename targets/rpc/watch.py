# SPDX-License-Identifier: Apache-2.0
"""What kernels do on a device: ``watch.cc``, compiled for it, and what that says."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from codesign.targets.deploy.runtime import include_folder
from codesign.targets.deploy.threads import compiled

if TYPE_CHECKING:
    from codesign.targets.in_network import Events

WATCH = "codesign_watch"
"""The function that calls a virtual machine and tells the events."""
_SOURCE = Path(__file__).with_name("watch.cc")


def watch_object(compiler: str) -> str:
    """Path of the object file for the compiler's architecture, compiled once and kept.

    Raises InputError if the cache folder cannot be written.
    """
    flags = (f"-isystem{include_folder()}", f"-DTVM_FFI={version('apache-tvm-ffi')}", "-c")
    return str(compiled(compiler, _SOURCE, "watch.o", flags))


def parse_events(text: str) -> list[Events]:
    """The events of each call, from what the function returns."""
    found: list[Events] = [[]]
    for line in text.splitlines():
        if line == "-":
            found.append([])
            continue
        name, start, when = line.rsplit(" ", 2)
        found[-1].append((name, start == "1", int(when)))
    return found[:-1]
