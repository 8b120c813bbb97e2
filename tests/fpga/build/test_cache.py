# SPDX-License-Identifier: Apache-2.0
"""What slow tools made is kept whole or not at all, and a killed run leaves nothing for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codesign.targets.fpga.build.cache import kept, sweep

KILLED = """
import os, signal, sys
from pathlib import Path
from codesign.targets.fpga.build.cache import kept
def make(aside):
    (aside / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
kept("result", make, Path(sys.argv[1]))
"""


def asides(base: Path) -> list[str]:
    return sorted(path.name for path in base.glob(".*.*"))


def test_a_killed_run_is_cleared_away_and_made_anew(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(asides(tmp_path)) == 1
    assert not (tmp_path / "result").exists()

    def make(aside: Path) -> None:
        (aside / "whole").write_text("whole")

    place, was_there = kept("result", make, tmp_path)
    assert not was_there
    assert [path.name for path in place.iterdir()] == ["whole"]
    assert asides(tmp_path) == []
    assert kept("result", make, tmp_path) == (place, True)


def test_what_is_being_made_stays(tmp_path: Path) -> None:
    def make(aside: Path) -> None:
        os.utime(aside, (0, 0))  # old, but locked
        assert sweep(tmp_path) == 0
        assert aside.is_dir()
        (aside / "whole").touch()

    kept("slow", make, tmp_path)
    assert (tmp_path / "slow" / "whole").exists()


def test_folders_without_a_lock_go_after_a_day(tmp_path: Path) -> None:
    young, old = tmp_path / ".young.a", tmp_path / ".old.b"
    young.mkdir()
    old.mkdir()
    os.utime(old, (0, 0))
    assert sweep(tmp_path) == 1
    assert asides(tmp_path) == [".young.a"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def make(aside: Path) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        kept("failed", make, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
