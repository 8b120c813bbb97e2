# SPDX-License-Identifier: Apache-2.0
"""Whole tuner runs that meet a fault, with real searches and workers: nothing is lost.

The database alone is tested in ``test_database_faults``, a device that vanishes in ``test_rpc``.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codesign.targets.host import HostTarget
from codesign.targets.tuning.runner import IsolatedRunner
from codesign.targets.tuning.tune import Budget, tune
from tests.targets.test_search import floating

pytestmark = pytest.mark.soak

TUNE = """
import sys
from pathlib import Path
from codesign.errors import InputError
from codesign.targets.host import HostTarget
from codesign.targets.tuning.tune import Budget
from tests.targets.test_search import floating

target = HostTarget(tuning=Path(sys.argv[1]))
try:
    done = target.tune(floating(), Budget(trials=int(sys.argv[2])),
                       lambda line, spent, whole: print(line, flush=True))
except InputError as error:
    print("refused:", error)
    raise SystemExit(2)
print(done)
"""
CRASHING = """
import ctypes, zlib
from codesign.targets.tuning import worker
from codesign.targets.tvm_lower.tiles import TraceTile
compiled = worker._compiled

def crashing(request, tile):
    if isinstance(tile, TraceTile) and zlib.crc32(tile.trace.encode()) % 3 == 0:
        ctypes.string_at(0)
    return compiled(request, tile)

worker._compiled = crashing
worker.main()
"""


def start(path: Path, trials: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TUNE, str(path), str(trials)], text=True, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip


def trials_in(path: Path) -> dict[tuple[str, str], str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT key, tile, status FROM trials").fetchall()
    return {(key, tile): status for key, tile, status in rows}


def test_candidates_that_segfault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the traces end the worker, and what was compiled with them; the rest is measured.
    """
    (tmp_path / "crashing_worker.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    target = HostTarget(tuning=tmp_path / "t.sqlite")
    with IsolatedRunner(module="crashing_worker") as worker:
        done = tune(floating(), target.machine(), target.machine_key(), target.tuning_database(),
                    Budget(trials=16), runner=worker)  # fmt: skip
    kept = trials_in(tmp_path / "t.sqlite")
    assert done.trials == len(kept) == 16
    crashed = [status for status in kept.values() if status.startswith("crashed: exit -11")]
    assert 0 < len(crashed) == done.failed < 12
    assert sum(status == "measured" for status in kept.values()) == 16 - done.failed


def test_a_killed_tuner_resumes(tmp_path: Path) -> None:
    """Killed while it measures: each trial told of is there, none of them is tried again."""
    path = tmp_path / "t.sqlite"
    tuner = start(path, 40)
    assert tuner.stdout is not None
    told = 0
    for line in tuner.stdout:
        told += line.startswith("trial")
        if told == 10:
            break
    os.kill(tuner.pid, signal.SIGKILL)
    tuner.wait()
    before = trials_in(path)
    assert len(before) >= 10
    time.sleep(1)
    again = start(path, 20)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    after = trials_in(path)
    assert before.items() <= after.items()
    assert {key for key, _ in after} == {key for key, _ in before}  # the same in each process
    assert len(after) >= len(before) + 20 - 4  # the fixed rules' four are measured again


def test_two_tuners_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    tuners = [start(path, 16) for _ in range(2)]
    said = [tuner.communicate()[0] for tuner in tuners]
    assert [tuner.returncode for tuner in tuners] == [0, 0], said
    told = {line.split(": ", 1)[1] for text in said for line in text.splitlines()
            if line.startswith("trial")}  # fmt: skip
    assert told
    assert len(trials_in(path)) >= 16
    target = HostTarget(tuning=path)
    found = target.tuning_database().all_best(target.machine_key())
    said_improved = [int(text.rsplit("improved=", 1)[1].rstrip(")\n")) for text in said]
    assert max(said_improved) <= len(found) <= sum(said_improved)


def test_a_full_disk(tmp_path: Path) -> None:
    """No file may grow beyond 64 KiB: the tuner says what it cannot use and where, and ends."""
    path = tmp_path / "t.sqlite"
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (65536, -1))\n" + TUNE
    done = subprocess.run(
        [sys.executable, "-c", limited, str(path), "200"], text=True, capture_output=True,
        check=False, env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    message = done.stdout.strip().splitlines()[-1]
    assert message.startswith("refused:")
    assert "t.sqlite" in message or "free it" in message
    kept = trials_in(path) if path.exists() else {}
    again = start(path, 6)
    again.communicate()
    assert again.returncode == 0
    assert kept.items() <= trials_in(path).items()
