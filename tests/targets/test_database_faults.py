# SPDX-License-Identifier: Apache-2.0
"""Full disks, killed tuners, two tuners: what was kept stays, the message says so, work resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codesign.targets.base import Timing
from codesign.targets.measured import MeasuredDatabase
from codesign.targets.tuning.database import TuningDatabase
from codesign.targets.tuning.protocol import Ask, Reply, Request
from codesign.targets.tuning.runner import IsolatedRunner
from codesign.targets.tuning.task import tasks_of
from codesign.targets.tuning.tune import Budget, tune
from codesign.targets.tvm_lower.machine import host_machine
from codesign.targets.tvm_lower.tiles import Tile
from tests.targets.test_templates import convolution

FULL = """
import resource, sys
from pathlib import Path
from codesign.errors import InputError
from codesign.targets.base import Timing
from codesign.targets.base import Timing
from codesign.targets.measured import MeasuredDatabase
from codesign.targets.tuning.database import Trial, TuningDatabase
from codesign.targets.tvm_lower.tiles import DirectTile

path = Path(sys.argv[2])
if sys.argv[1] == "tuning":
    database = TuningDatabase(path)
    put = lambda i: database.keep_trial(f"k{i}", "m", Trial(DirectTile(i + 1, 1), "x" * 900, 1.0))
else:
    database = MeasuredDatabase(path)
    put = lambda i: database.put(f"k{i}", "m", "y" * 900, Timing((1.0 + i,)))
put(0)
# no file may grow beyond this: writing fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
kept = 1
try:
    for i in range(1, 2000):
        put(i)
        kept += 1
except InputError as error:
    print(kept)
    print(error)
"""


@pytest.mark.parametrize("which", ["tuning", "measured"])
def test_a_full_disk_loses_nothing(which: str, tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    done = subprocess.run([sys.executable, "-c", FULL, which, str(path)], text=True,
                          capture_output=True, check=True)  # fmt: skip
    kept, message = done.stdout.strip().split("\n", 1)
    assert 10 < int(kept) < 2000
    assert str(path) in message
    assert ("cannot be used" in message and "what was kept before is not lost" in message) or (
        "free the folder" in message
    )
    # there is room again: everything that was kept is there, and more can be
    if which == "tuning":
        database = TuningDatabase(path)
        assert all(database.trials(f"k{i}", "m") for i in range(int(kept)))
        trial = next(iter(database.trials("k0", "m").values()))
        database.keep_trial("more", "m", trial)
        assert database.trials("more", "m") == {trial.tile: trial}
    else:
        measured = MeasuredDatabase(path)
        for i in range(int(kept)):
            timing = measured.get(f"k{i}", "m")
            assert timing is not None
            assert timing.samples_ms == (1.0 + i,)
        measured.put("more", "m", "layer", Timing((0.5,)))
        assert len(measured) >= int(kept) + 1


KILLED = """
import os, signal, sys
from pathlib import Path
from codesign.targets.tuning.database import TuningDatabase
from codesign.targets.tuning.tune import Budget, tune
from codesign.targets.tvm_lower.machine import host_machine
from tests.targets.test_database_faults import Counting
from tests.targets.test_templates import convolution

def notice(line, done, whole):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

tune(convolution((1, 16, 14, 14), 32, 3), host_machine(), "m", TuningDatabase(Path(sys.argv[1])),
     Budget(trials=6), notice, Counting())
"""


class Counting(IsolatedRunner):
    """Every tile takes a little less than the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = list[Tile]()

    def measure(self, request: Ask) -> Reply:
        assert isinstance(request, Request)
        assert request.tile is not None
        if request.tile not in self.asked:
            self.asked.append(request.tile)
        return Reply((2.0 - 0.1 * self.asked.index(request.tile),), "right")


def test_a_killed_tuner_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False,
                          env=os.environ | {"PYTHONPATH": os.getcwd()})  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    graph, machine = convolution((1, 16, 14, 14), 32, 3), host_machine()
    (task,) = tasks_of(graph, machine)
    database = TuningDatabase(path)
    before = database.trials(task.key, "m")
    assert set(before) == set(task.left[:3])
    worker = Counting()
    tune(graph, machine, "m", database, Budget(trials=3), runner=worker)
    # the default is measured again, it is what others are held against; the rest is new
    assert worker.asked[0] == task.left[0]
    assert worker.asked[1:3] == task.left[3:5]
    assert set(database.trials(task.key, "m")) == set(task.left[:5])


@pytest.mark.soak
def test_two_tuners_of_one_network_share_a_database(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    code = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")
    tuners = [
        subprocess.Popen([sys.executable, "-c", code, str(path)],
                         env=os.environ | {"PYTHONPATH": os.getcwd()})
        for _ in range(2)
    ]  # fmt: skip
    assert [tuner.wait() for tuner in tuners] == [0, 0]
    graph = convolution((1, 16, 14, 14), 32, 3)
    (task,) = tasks_of(graph, host_machine())
    database = TuningDatabase(path)
    assert set(database.trials(task.key, "m")) >= set(task.left[:6])
    assert database.best(task.key, "m") is not None
