# SPDX-License-Identifier: Apache-2.0
"""The test suite's own switches: soak tests by request only, skips that count as failures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_pytest(folder: Path, *arguments: str, no_skip: str = "0") -> str:
    environment = os.environ | {"CODESIGN_NO_SKIP": no_skip}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A small suite under this repository's configuration and conftest."""
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "codesign").mkdir()
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (tests / "test_one.py").write_text(
        "import pytest\n"
        "def test_plain(): pass\n"
        "@pytest.mark.soak\n"
        "def test_long(): pass\n"
    )
    return tmp_path


def test_soak_tests_run_only_when_asked_for(suite: Path) -> None:
    usual, soak = run_pytest(suite), run_pytest(suite, "-m", "soak")
    assert "1 passed, 1 deselected" in usual
    assert "PASSED tests/test_one.py::test_plain" in usual
    assert "1 passed, 1 deselected" in soak
    assert "PASSED tests/test_one.py::test_long" in soak


def test_folders_of_any_name_are_collected(suite: Path) -> None:
    """``build`` is one that pytest leaves out unless told."""
    for folder in ("tests/fpga/build", "codesign/build"):
        (suite / folder).mkdir(parents=True)
    (suite / "tests" / "fpga" / "build" / "test_two.py").write_text("def test_deep(): pass\n")
    (suite / "codesign" / "build" / "part.py").write_text('"""\n>>> 1 + 1\n2\n"""\n')
    said = run_pytest(suite)
    assert "PASSED tests/fpga/build/test_two.py::test_deep" in said
    assert "PASSED codesign/build/part.py::" in said


def test_skips_fail_where_nothing_may_be_missing(suite: Path) -> None:
    (suite / "tests" / "test_two.py").write_text(
        "import pytest\n"
        "def test_skip(): pytest.skip('no data folder')\n"
        "@pytest.mark.xfail(strict=True)\n"
        "def test_known(): raise ValueError\n"
    )
    assert "1 passed, 1 skipped, 1 deselected, 1 xfailed" in run_pytest(suite)
    strict = run_pytest(suite, no_skip="1")
    assert "1 failed, 1 passed, 1 deselected, 1 xfailed" in strict
    assert "skipped, and CODESIGN_NO_SKIP forbids skips: Skipped: no data folder" in strict


def test_a_module_that_skips_itself_fails_too(suite: Path) -> None:
    (suite / "tests" / "test_two.py").write_text("import pytest\npytest.importorskip('no_such')\n")
    assert "1 passed, 1 skipped, 1 deselected" in run_pytest(suite)
    strict = run_pytest(suite, no_skip="1")
    assert "1 error" in strict
    assert "skipped, and CODESIGN_NO_SKIP forbids skips: Skipped: could not import" in strict
