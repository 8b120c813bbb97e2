# SPDX-License-Identifier: Apache-2.0
"""The README's Python example and its command line do what they say, on a network trained here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``examples/train_digits.py`` writes to ``out/data``."""
    folder = tmp_path_factory.mktemp("readme")
    run(folder, str(ROOT / "examples" / "train_digits.py"), "--out", "out/data", "--epochs", "3")
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_example(folder: Path) -> None:
    (example,) = re.findall(r"```python\n(.+?)```", README, re.S)
    printed = run(folder, "-c", example)
    assert " optimal " in printed
    report = json.loads((folder / "out" / "digits" / "report.json").read_text())
    assert {rung["rung"]: rung["status"] for rung in report["ladder"]}["tvm-host"] == "exact"
    assert (folder / "out" / "digits" / "report.html").stat().st_size > 10_000


def test_command_line_example(folder: Path) -> None:
    (example,) = re.findall(r"^codesign run (.+?)\n```", README, re.S | re.M)
    arguments = shlex.split(example.replace("\\\n", " ").replace("out/digits", "out/again"))
    run(folder, "-m", "codesign", "run", *arguments)
    design = json.loads((folder / "out" / "again" / "design.json").read_text())
    assert design["certificate"]["status"] == "optimal"
    assert design["accuracy"]["measured"] >= design["accuracy"]["float"] - 1.0
