# SPDX-License-Identifier: Apache-2.0
"""The tuner: its database, its worker that may crash or hang, its budget."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from codesign.errors import InputError
from codesign.targets.host import HostTarget
from codesign.targets.tuning.contest import Contest
from codesign.targets.tuning.database import Best, Trial, TuningDatabase
from codesign.targets.tuning.protocol import Ask, Reply, Request
from codesign.targets.tuning.runner import IsolatedRunner
from codesign.targets.tuning.settle import settle
from codesign.targets.tuning.task import tasks_of
from codesign.targets.tuning.tune import Budget, tune
from codesign.targets.tvm_lower.machine import host_machine
from codesign.targets.tvm_lower.tiles import (
    DepthwiseTile,
    DirectTile,
    Tile,
    WinogradTile,
    parse_tile,
    tile_text,
)
from tests.targets.test_templates import convolution

TILE = DirectTile(4, 2)
BEST = Best(TILE, 1.0, 2.0, "conv1")


@pytest.mark.parametrize("tile", [TILE, WinogradTile(4, 2, 1, True), DepthwiseTile(4, 3, 7)])
def test_tiles_as_text(tile: Tile) -> None:
    assert parse_tile(tile_text(tile)) == tile


@pytest.mark.parametrize("text", [
    "", "3", "{}", '{"template": "none"}', '{"template": "direct", "columns": 4}',
    '{"template": "direct", "columns": "4", "vectors": 2}',
    '{"template": "direct", "columns": 4, "vectors": 2, "more": 1}',
])  # fmt: skip
def test_what_is_no_tile_is_bad_input(text: str) -> None:
    with pytest.raises(InputError, match=r"no tile of a template.*templates are direct"):
        parse_tile(text)


def test_budgets() -> None:
    assert Budget.parse("200") == Budget(trials=200)
    assert Budget.parse("60s") == Budget(seconds=60)
    assert Budget.parse("5m") == Budget(seconds=300)
    for text in ("", "0", "-3", "1h", "x"):
        with pytest.raises(InputError, match=r"a tuning budget is trials \(200\) or time"):
            Budget.parse(text)


def test_the_faster_choice_stays(tmp_path: Path) -> None:
    database = TuningDatabase(tmp_path / "t.sqlite")
    assert database.best("k", "m") is None
    database.keep_best("k", "m", BEST)
    database.keep_best("k", "m", Best(DirectTile(1, 1), 1.5, 2.0, "conv1"))
    assert database.best("k", "m") == BEST
    database.keep_best("k", "m", Best(DirectTile(1, 2), 0.9, 1.0, "conv1"))  # the machine is faster
    assert database.best("k", "m") == BEST
    database.keep_best("k", "m", Best(DirectTile(6, 2), 0.5, 2.0, "conv1"))
    found = database.best("k", "m")
    assert found is not None
    assert found.tile == DirectTile(6, 2)
    assert database.best("k", "other machine") is None


def test_export_and_import(tmp_path: Path) -> None:
    one, other = TuningDatabase(tmp_path / "a.sqlite"), TuningDatabase(tmp_path / "b.sqlite")
    one.keep_best("k", "m", BEST)
    assert one.export(tmp_path / "t.json") == 1
    assert other.take(tmp_path / "t.json") == 1
    assert other.best("k", "m") == BEST
    (tmp_path / "bad.json").write_text('{"format": "codesign-tuning/1", "best": [{"key": 1}]}')
    with pytest.raises(InputError, match="is no exported tuning database"):
        other.take(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot read"):
        other.take(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot write"):
        one.export(tmp_path / "no folder" / "t.json")


def test_a_damaged_database_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    path.write_bytes(b"not a database" * 1000)
    database = TuningDatabase(path)
    database.keep_best("k", "m", BEST)
    assert database.best("k", "m") == BEST
    (aside,) = tmp_path.glob("t.sqlite.damaged-*")
    assert aside.read_bytes().startswith(b"not a database")


def test_rows_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    import sqlite3

    database = TuningDatabase(tmp_path / "t.sqlite")
    database.keep_best("k", "m", BEST)
    with sqlite3.connect(database.path) as connection:
        connection.execute("INSERT INTO best VALUES ('k2', 'm', '{}', 1, 1, 'l', 0)")
    assert set(database.all_best("m")) == {"k"}


def _write(path: Path, number: int) -> None:
    database = TuningDatabase(path)
    for i in range(40):
        database.keep_trial(f"k{number}", "m", Trial(DirectTile(i + 1, 1), "measured", 1.0))


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    database = TuningDatabase(path)
    assert [len(database.trials(f"k{n}", "m")) for n in range(2)] == [40, 40]


def test_a_killed_writer_loses_nothing_committed(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from codesign.targets.tuning.database import *; "
        "from codesign.targets.tvm_lower.tiles import DirectTile; "
        "d = TuningDatabase(Path(sys.argv[1])); "
        "d.keep_best('k', 'm', Best(DirectTile(4, 2), 1.0, 2.0, 'conv1')); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert TuningDatabase(path).best("k", "m") == BEST


FAULTY = """
import os, pickle, sys, time
out = os.fdopen(os.dup(1), "wb")
while True:
    request = pickle.load(sys.stdin.buffer)
    if request.repeats == 666:
        os.kill(os.getpid(), 11)
    if request.repeats == 777:
        time.sleep(60)
    from codesign.targets.tuning.protocol import Reply
    pickle.dump(Reply((1.0,), "d"), out)
    out.flush()
"""


def test_a_worker_that_crashes_or_hangs_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_worker.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    graph = convolution((1, 8, 4, 4), 8, 1)

    def ask(worker: IsolatedRunner, repeats: int) -> Reply:
        return worker.measure(Request(graph, host_machine(), TILE, repeats))

    with IsolatedRunner(timeout=2.0, module="faulty_worker") as worker:
        assert ask(worker, 1) == Reply((1.0,), "d")
        assert ask(worker, 666).error == "crashed: exit -11"
        assert ask(worker, 1) == Reply((1.0,), "d")
        assert ask(worker, 777).error == "hangs: no reply within 2 s"
        assert ask(worker, 1) == Reply((1.0,), "d")


class Scripted(IsolatedRunner):
    """Answers from a function of the tile."""

    def __init__(self, answer: dict[Tile, Reply], default: Reply) -> None:
        super().__init__()
        self.answer, self.default, self.asked = answer, default, list[Tile | None]()

    def measure(self, request: Ask) -> Reply:
        assert isinstance(request, Request)
        self.asked.append(request.tile)
        assert request.tile is not None
        return self.answer.get(request.tile, self.default)


class Races(Contest):
    """A contest whose times are known: of each tile, and of the fixed rules'; they drift."""

    def __init__(self, times: Mapping[Tile, float], rules: float) -> None:
        self.times, self.rules = times, rules
        self.networks: list[Mapping[str, Tile]] = []
        self.clock = 100.0

    @property
    def started(self) -> bool:
        return bool(self.networks)

    def now(self) -> float:
        return self.clock

    def add(self, tiles: Mapping[str, Tile]) -> int | None:
        self.networks.append(dict(tiles))
        self.clock += self.build_seconds
        return len(self.networks) - 1

    def watch(
        self, numbers: Sequence[int], groups: Mapping[str, Sequence[str]], rounds: int,
        until: float | None = None,
    ) -> dict[int, dict[str, list[float]]]:  # fmt: skip
        def time(number: int, group: str) -> float:
            tile = self.networks[number].get(group)
            return self.rules if tile is None else self.times.get(tile, self.rules)

        return {
            n: {g: [time(n, g) * (1 + turn) for turn in range(rounds)] for g in groups}
            for n in numbers
        }


def test_the_tuner_goes_on_after_bad_candidates(tmp_path: Path) -> None:
    graph = convolution((1, 16, 14, 14), 32, 3)
    machine = host_machine()
    (task,) = tasks_of(graph, machine)
    first, crash, wrong, fast = task.left[:4]
    answers = {
        first: Reply((2.0,), "right"), crash: Reply((), "", "crashed: exit -11"),
        wrong: Reply((0.1,), "other"), fast: Reply((1.0,), "right"),
    }  # fmt: skip
    database = TuningDatabase(tmp_path / "t.sqlite")
    lines: list[str] = []
    worker = Scripted(answers, Reply((3.0,), "right"))
    races = Races({fast: 1.0}, 2.0)
    done = tune(graph, machine, "m", database, Budget(trials=6),
                lambda line, spent, whole: lines.append(line), worker, races)  # fmt: skip
    assert (done.trials, done.failed, done.improved) == (6, 2, 1)
    assert len(lines) == 7
    assert races.networks == [{}, {task.key: fast}]
    found = database.best(task.key, "m")
    assert found is not None
    assert (found.tile, found.median_ms / found.default_ms, found.layer) == (fast, 0.5, "conv")
    kept = database.trials(task.key, "m")
    assert kept[crash].status == "crashed: exit -11"
    assert kept[wrong].status == "wrong result"
    # what was tried is not tried again, save the measure that others are compared with
    again = Scripted(answers, Reply((3.0,), "right"))
    tune(graph, machine, "m", database, Budget(trials=2), runner=again, contest=races)
    assert not {crash, wrong} & set(again.asked)


def test_times_are_held_against_the_fixed_rules_in_turns(tmp_path: Path) -> None:
    """The machine is twice as slow when the second tile comes: it is faster all the same."""
    graph, machine = convolution((1, 16, 14, 14), 32, 3), host_machine()
    (task,) = tasks_of(graph, machine)
    first, slow, fast = task.left[:3]
    answers = {
        first: Reply((1.0, 1.2), "d"), slow: Reply((1.1, 2.2), "d", "", (1.0, 2.0)),
        fast: Reply((1.8, 1.6), "d", "", (2.0, 2.0)),
    }  # fmt: skip
    database = TuningDatabase(tmp_path / "t.sqlite")
    tune(graph, machine, "m", database, Budget(trials=3), runner=Scripted(answers, answers[first]),
         contest=Races({}, 1.0))  # fmt: skip
    kept = database.trials(task.key, "m")
    assert kept[first].least_ms == 1.0
    assert kept[slow].least_ms == pytest.approx(1.1)
    assert kept[fast].least_ms == pytest.approx(0.85)
    assert database.best(task.key, "m") is None  # alone it was faster, in the network it is not


def test_the_network_has_the_last_word(tmp_path: Path) -> None:
    graph, machine = convolution((1, 16, 14, 14), 32, 3), host_machine()
    (task,) = tasks_of(graph, machine)
    one, two, three, equal = task.left[1:5]
    times = {one: 0.7, two: 0.8, three: 0.6, equal: 0.995}
    task.tried = {tile: Trial(tile, "measured", alone) for tile, alone in times.items()}
    task.tried[task.left[0]] = Trial(task.left[0], "measured", 1.0)
    assert task.rivals() == [three, one, two]
    races = Races({one: 1.4, two: 0.9, three: 1.0}, 1.5)
    kept = settle([task], races, None)
    assert {key: best.tile for key, best in kept.items()} == {task.key: two}
    assert kept[task.key].median_ms / kept[task.key].default_ms == pytest.approx(0.6)
    assert [len(tiles) for tiles in races.networks] == [0, 1, 1, 1]
    # with little time only the best ones come into the network, and without any nothing does
    for left, networks in (3.4, [three, one, two]), (2.4, [three, one]), (1.3, [three]), (0.5, []):
        races = Races({one: 1.4, two: 0.9, three: 1.0}, 1.5)
        races.build_seconds = 1.0
        races.add({})
        kept = settle([task], races, races.clock + left)
        assert set(kept) == ({task.key} if networks else set())
        assert [tile for tiles in races.networks for tile in tiles.values()] == networks
        assert races.clock <= 101.0 + left


def test_tuning_for_real_and_build_from_the_database(tmp_path: Path) -> None:
    graph = convolution((1, 16, 14, 14), 16, 3)
    target = HostTarget(tuning=tmp_path / "t.sqlite")
    done = target.tune(graph, Budget(trials=3))
    assert (done.trials, done.failed, done.kernels) == (3, 0, 1)
    key = tasks_of(graph, target.machine())[0].key
    database = target.tuning_database()
    assert len(database.trials(key, target.machine_key())) == 3
    database.keep_best(key, target.machine_key(), Best(DirectTile(3, 1), 1e-9, 1.0, "conv"))
    assert target.tiles()(key) == DirectTile(3, 1)
    assert HostTarget(tuned=False).tiles()(key) is None
    assert json.loads(tile_text(DirectTile(3, 1)))["template"] == "direct"


def test_networks_compete_for_real() -> None:
    graph, machine = convolution((1, 16, 14, 14), 16, 3), host_machine()
    (task,) = tasks_of(graph, machine)
    contest = Contest(graph, machine)
    assert contest.add({}) == 0
    assert contest.add({task.key: DirectTile(1, 1, 0, True, False)}) == 1
    assert contest.build_seconds > 0
    times = contest.watch([0, 1], {"g": task.layers}, 4)
    assert {n: len(found["g"]) for n, found in times.items()} == {0: 4, 1: 4}
    assert all(t > 0 for found in times.values() for t in found["g"])
