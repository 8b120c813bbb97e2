# SPDX-License-Identifier: Apache-2.0
"""Tuning on a device behind a tracker, on loopback: where candidates fail, and where it does."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

import codesign
from codesign.cli import main
from codesign.errors import ToolNotFoundError
from codesign.flow.building import load_integer
from codesign.targets import TARGETS
from codesign.targets.host import HostTarget
from codesign.targets.layers import random_inputs
from codesign.targets.rpc import Device, RemoteTarget
from codesign.targets.rpc.bench import Bench
from codesign.targets.rpc.tuning import DeviceWorker
from codesign.targets.rpc.watch import watch_object
from codesign.targets.tools import require_tool
from codesign.targets.tuning import database
from codesign.targets.tuning.database import Best, TuningDatabase
from codesign.targets.tuning.protocol import Request
from codesign.targets.tuning.task import tasks_of
from codesign.targets.tuning.tune import Budget
from codesign.targets.tvm_lower.compile import codes
from codesign.targets.tvm_lower.tiles import DirectTile, tile_text
from codesign.targets.tvm_lower.trace import same_results
from tests.support.served import KEY, Served
from tests.targets.test_search import floating
from tests.targets.test_templates import convolution

FAULTY = """
import subprocess
from codesign.targets.rpc import bench
from codesign.targets.tvm_lower import compile
from codesign.targets.tvm_lower.tiles import DirectTile

EXPORT, KEEP = compile.export, bench.Bench._keep
FAULTS = {1: "*(volatile int*)0 = 1;", 2: "for (;;) {}"}

def keep(self, key, tile, executable, *rest):
    more = []
    if tile in (DirectTile(1, 1), DirectTile(2, 1)):
        source = self.folder / "fault.c"
        source.write_text("__attribute__((constructor)) static void fault(void) { %s }"
                          % FAULTS[tile.columns])
        subprocess.run([self.compiler, "-fPIC", "-c", "-xc", source, "-o", f"{source}.o"],
                       check=True)
        more = [f"{source}.o"]
    compile.export = lambda e, p, c: EXPORT(e, p, c, more)
    return KEEP(self, key, tile, executable, *rest)

bench.Bench._keep = keep
bench.main()
"""
"""Candidates whose library crashes or hangs where it is loaded: on the device."""


def trials_in(path: Path) -> dict[tuple[str, str, str], str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT machine, key, tile, status FROM trials").fetchall()
    return {(machine, key, tile): status for machine, key, tile, status in rows}


def test_candidates_that_crash_or_hang_there_end_nothing(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_bench.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    machine = HostTarget().machine()
    graph = convolution((1, 16, 14, 14), 32, 3)
    (task,) = tasks_of(graph, machine)
    good = Request(graph, machine, task.default, 2)
    with DeviceWorker(served.device, "c++", 10, "faulty_bench") as worker:
        for columns, said in (1, "crashed: the device's process ended"), (2, "hangs: no reply"):
            assert worker.measure(good).error == ""
            bad = Request(graph, machine, DirectTile(columns, 1), 2, task.default)
            assert worker.measure(bad).error.startswith(said)
        reply = worker.measure(good)
        assert reply.error == ""
        assert len(reply.samples_ms) == 2


def test_a_device_that_vanishes_loses_nothing_and_the_command_goes_on(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The candidate in hand is not blamed; the next run goes on where it stopped, and what is
    tuned is kept under the device's key, not this computer's."""
    path, out = tmp_path / "t.sqlite", tmp_path / "out"
    monkeypatch.setattr(database, "default_tuning", lambda: TuningDatabase(path))
    codesign.design("zoo:digits", out, formats=("w8a8",))
    there = RemoteTarget(HostTarget(), served.device)
    machine = there.inner.machine_key()  # type: ignore[attr-defined]

    def vanish(line: str, done: int, total: int) -> None:
        if done == 2:
            served.kill()

    with pytest.raises(ToolNotFoundError, match=r"device") as gone:
        there.tune(load_integer(out), Budget(trials=8), vanish)
    assert gone.value.exit_code == 4
    kept = trials_in(path)
    assert list(kept.values()) == ["measured"] * 2
    served.start()
    command = ["build", str(out), "--tune", "2", "--rpc", served.device.address, "--rpc-key"]
    assert main([*command, KEY]) == 0
    after = trials_in(path)
    assert kept.items() < after.items()
    assert {key for key, *_ in after} == {machine} != {HostTarget().machine_key()}
    assert main([*command, "nowhere"]) == 4
    assert "has no device 'nowhere' (registered: loopback)" in capsys.readouterr().err
    assert trials_in(path) == after


def test_boards_get_candidates_of_their_own(tmp_path: Path) -> None:
    """Cross-compiled here, and what is tuned is the board's, whatever its key at the tracker."""
    board = TARGETS.load("rpi4")(tuning=tmp_path / "t.sqlite")
    machine = board.machine()
    graph = convolution((1, 16, 14, 14), 32, 3)
    (task,) = tasks_of(graph, machine)
    compiler = require_tool(board.arch.compiler)
    bench = Bench(Device("127.0.0.1", 1, "rpi4"), compiler, tmp_path)
    library = bench._layer(Request(graph, machine, task.left[1], 2), task.left[1])
    found = subprocess.run(["file", "-b", library.path, watch_object(compiler)],
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert found.count("ARM aarch64") == 2, found
    key = board.machine_key()
    before = board.tiles()(task.key), codes(graph, machine, board.tiles())
    board.tuning_database().keep_best(task.key, key, Best(task.left[1], 0.5, 1.0, "conv"))
    assert before[0] is None
    assert board.tiles()(task.key) == task.left[1]
    assert codes(graph, machine, board.tiles()) != before[1]
    for name in ("rpi4", "other"):
        there = RemoteTarget(board, Device("127.0.0.1", 1, name))
        assert there.inner.machine_key() == key  # type: ignore[attr-defined]
        assert tile_text(task.left[1]) not in there.layer_key(graph)
        assert there.layer_key(graph) != TARGETS.load("rpi4")(tuned=False).layer_key(graph)


@pytest.mark.soak
def test_float_layers_are_searched_and_networks_compete_there(
    served: Served, tmp_path: Path
) -> None:
    graph = floating()
    target = RemoteTarget(
        HostTarget(tuning=tmp_path / "t.sqlite"), served.device, tmp_path / "m.sqlite"
    )
    before = target.network_latency(graph)
    done = target.tune(graph, Budget(seconds=60))
    assert done.kernels == 4
    assert done.trials > 12
    assert done.failed == 0
    x = random_inputs(graph)
    assert same_results(target.runner(graph).run(*x), HostTarget(tuned=False).runner(graph).run(*x))
    assert (target.network_latency(graph) == before) == (done.improved == 0)
