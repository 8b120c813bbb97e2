# SPDX-License-Identifier: Apache-2.0
"""Finding outside programs and heavy libraries, and saying how to get those that are missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass

from codesign.errors import ToolNotFoundError


@dataclass(frozen=True)
class Tool:
    """A program (or library) some target needs."""

    commands: tuple[str, ...]
    """Names it may have on PATH, best first; empty for a Python library."""
    variable: str
    """Environment variable that may hold the path of the program; empty if there is none."""
    needed_for: str
    get: str
    """How to get it."""
    module: str = ""
    """Import name of a Python library."""


TOOLS: dict[str, Tool] = {
    "c++": Tool(
        ("g++", "clang++", "c++"), "CXX", "linking a compiled network into a shared library",
        "apt-get install g++",
    ),
    "tvm": Tool(
        (), "", "compiling networks for this CPU",
        "pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1", "tvm",
    ),
}  # fmt: skip
"""Everything the built-in targets look for, by the name used in messages."""


def find_tool(name: str) -> str | None:
    """Path of the program, or import name of the library; None if it is not there.

    Imports nothing. Raises ToolNotFoundError if the tool's variable names a file that is not
    an executable: a wrong setting is never passed over in silence.
    """
    tool = TOOLS[name]
    if tool.module:
        return tool.module if importlib.util.find_spec(tool.module) else None
    wanted = os.environ.get(tool.variable, "") if tool.variable else ""
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise ToolNotFoundError(
                f"{name} not found: {tool.variable}={wanted!r} is not an executable file; "
                f"unset {tool.variable} or correct it"
            )
        return found
    return next((path for path in map(shutil.which, tool.commands) if path), None)


def require_tool(name: str) -> str:
    """Path of the program, or import name of the library; ToolNotFoundError if it is missing."""
    found = find_tool(name)
    if found is None:
        raise ToolNotFoundError(missing(name))
    return found


def missing(name: str) -> str:
    """What is missing, what it is for, where it was looked for, and how to get it."""
    tool = TOOLS[name]
    if tool.module:
        looked = f"no Python module {tool.module!r}"
    else:
        folders = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p]
        looked = f"no {' or '.join(tool.commands)} in {', '.join(folders) or 'an empty PATH'}"
    return f"{name} not found ({looked}), needed for {tool.needed_for}; get it with: {tool.get}"


def why_missing(*names: str) -> str | None:
    """What ``require_tool`` would say of the first of ``names`` that is not there; else None."""
    for name in names:
        try:
            require_tool(name)
        except ToolNotFoundError as error:
            return str(error)
    return None


def register_tool(name: str, tool: Tool) -> None:
    """Add a tool that a target of one's own needs; the same name twice must be the same tool."""
    if TOOLS.setdefault(name, tool) != tool:
        raise ValueError(f"tool {name!r} is defined twice, differently")
