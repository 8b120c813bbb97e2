# SPDX-License-Identifier: Apache-2.0
"""Missing tools are named, with where they were looked for and how to get them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from codesign.errors import ToolNotFoundError
from codesign.targets.host import HostTarget
from codesign.targets.tools import TOOLS, Tool, find_tool, register_tool, require_tool


@pytest.fixture
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """PATH holds one empty folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path


def test_missing_program(empty_path: Path) -> None:
    message = (
        f"c++ not found (no g++ or clang++ or c++ in {empty_path}), needed for linking a compiled "
        "network into a shared library; get it with: apt-get install g++"
    )
    with pytest.raises(ToolNotFoundError, match=f"^{re.escape(message)}$"):
        require_tool("c++")
    assert HostTarget().unavailable() == message


def test_variable(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = empty_path / "my-c++"
    compiler.write_text("#!/bin/sh\n")
    monkeypatch.setenv("CXX", str(compiler))
    message = (
        f"c++ not found: CXX='{compiler}' is not an executable file; unset CXX or correct it"
    )
    with pytest.raises(ToolNotFoundError, match=f"^{re.escape(message)}$"):
        require_tool("c++")
    assert HostTarget().unavailable() == message
    compiler.chmod(0o755)
    assert require_tool("c++") == str(compiler)


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tvm" else find(name)
    )
    message = (
        "tvm not found (no Python module 'tvm'), needed for compiling networks for this CPU; "
        "get it with: pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1"
    )
    assert HostTarget().unavailable() == message


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codesign.targets.tools.TOOLS", dict(TOOLS))
    tool = Tool(("no-such-program",), "", "a test", "nothing")
    register_tool("mine", tool)
    register_tool("mine", tool)
    assert find_tool("mine") is None
    with pytest.raises(ValueError, match=r"^tool 'mine' is defined twice, differently$"):
        register_tool("mine", Tool((), "", "another", "nothing", "json"))
