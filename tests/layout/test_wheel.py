# SPDX-License-Identifier: Apache-2.0
"""What the wheel holds. It is built without isolation, so that no network is needed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("codesign", "passes", "solvers", "targets")
BUILD = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return zipfile.ZipFile(out / done.stdout.split()[-1])


def test_wheel_holds_only_codesign(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert [name for name in names if not name.startswith(("codesign/", "codesign-"))] == []
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
    assert len(names) == len(set(names))


def test_wheel_holds_every_file_of_the_four_folders(wheel: zipfile.ZipFile) -> None:
    """The links are followed: ``passes/fuse.py`` is in the wheel as ``codesign/passes/fuse.py``."""
    expected = set()
    for folder in FOLDERS:
        prefix = "codesign" if folder == "codesign" else f"codesign/{folder}"
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.resolve() == path:
                expected.add(f"{prefix}/{path.relative_to(ROOT / folder)}")
    packed = {name for name in wheel.namelist() if name.startswith("codesign/")}
    assert {"codesign/py.typed", "codesign/solvers/exact.py"} <= expected
    assert packed == expected


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = f"codesign-{project['version']}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: <3.12,>=3.11\n" in metadata
    for dependency in project["dependencies"]:
        assert f"\nRequires-Dist: {dependency.split('=')[0].split('>')[0]}" in metadata
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    scripts = wheel.read(f"{info}/entry_points.txt").decode()
    assert f"codesign = {project['scripts']['codesign']}\n" in scripts
