# SPDX-License-Identifier: Apache-2.0
"""Kernels that no template writes: TVM's search, candidates that fail, what builds take of it."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import tvm

from codesign.ir import F32, GraphBuilder, TensorType, ops, run
from codesign.ir.graph import Graph
from codesign.ir.types import DType
from codesign.targets.host import HostTarget
from codesign.targets.layers import random_inputs
from codesign.targets.tuning.database import Best, TuningDatabase
from codesign.targets.tuning.protocol import Ahead, Ask, FunctionRequest, Reply
from codesign.targets.tuning.runner import IsolatedRunner
from codesign.targets.tuning.search import FunctionTask, Model, Search, function_tasks
from codesign.targets.tuning.tune import Budget, tune
from codesign.targets.tvm_lower.compile import loose, tvm_target
from codesign.targets.tvm_lower.machine import host_machine, x86_machine
from codesign.targets.tvm_lower.tiles import TraceTile, no_tiles, parse_tile, tile_text
from codesign.targets.tvm_lower.trace import same_results, traced
from tests.targets.test_tuning import Races

U8 = DType.parse("u8")


def floating() -> Graph:
    """A float convolution 3x3, the mean of its channels, a linear layer and softmax."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) / 4

    b = GraphBuilder("floating")
    x = b.input("x", TensorType((1, 8, 14, 14), F32))
    w, bias = b.constant(weights(16, 8, 3, 3), "w"), b.constant(weights(16), "bias")
    y = b.add(ops.Conv2d(padding=(1, 1, 1, 1), activation="relu"), [x, w, bias], "conv")
    y = b.add(ops.Reduce("mean", (2, 3), keepdims=False), [y], "mean")
    y = b.add(ops.Linear(), [y, b.constant(weights(8, 16), "v"), b.constant(weights(8), "c")], "fc")
    return b.finish([b.add(ops.Softmax(1), [y], "softmax")])


def integer() -> Graph:
    """An integer product of two computed values and a pooling, which have no template."""
    b = GraphBuilder("integer")
    x = b.input("x", TensorType((1, 4, 16, 16), U8))
    pooled = b.add(ops.Pool2d("max", (2, 2), (2, 2)), [x], "pool")
    return b.finish([b.add(ops.MatMul(), [pooled, pooled], "product")])


@pytest.fixture
def task(tmp_path: Path) -> FunctionTask:
    """The convolution of ``floating``."""
    return function_tasks(floating(), host_machine(), tmp_path, no_tiles)[0]


def test_which_kernels_are_searched(tmp_path: Path) -> None:
    tasks = function_tasks(floating(), host_machine(), tmp_path, no_tiles)
    assert [t.layer for t in tasks] == ["k_conv", "k_mean", "k_fc", "k_softmax"]
    assert len({t.key for t in tasks}) == 4
    kernels = function_tasks(integer(), host_machine(), tmp_path, no_tiles)
    assert [t.layer for t in kernels] == ["k_pool", "k_product"]


def test_a_search_finds_traces_that_compute_the_same(tmp_path: Path) -> None:
    """Of an integer kernel, bit for bit; the tile comes back from its text."""
    task = function_tasks(integer(), host_machine(), tmp_path, no_tiles)[1]
    first, before = task.take()
    assert (first, before) == (task.default, ())
    tile, (batch,) = task.take()
    assert isinstance(tile, TraceTile)
    assert isinstance(batch, Ahead)
    assert batch.tiles[0] == tile
    assert task.promise == float("inf")  # the rest of what is compiled comes first
    assert parse_tile(tile_text(tile)) == tile
    with IsolatedRunner() as worker:
        base = worker.measure(task.request(host_machine(), task.default, 2))
        assert base.error == ""
        task.tell(task.judge(task.default, base))
        assert worker.measure(Ahead(task.file, host_machine(), batch.tiles[:2])).error == ""
        reply = worker.measure(task.request(host_machine(), tile, 2))
    assert reply.error == ""
    assert len(reply.against_ms) in (1, 2)
    trial = task.judge(tile, reply)
    assert trial.status == "measured"
    assert task.tell(trial)


CRASH = """
import ctypes
from codesign.targets.tuning import worker
from codesign.targets.tvm_lower.tiles import TraceTile
compiled = worker._compiled

def crashing(request, tile):
    if isinstance(tile, TraceTile) and tile.trace == "[]":
        ctypes.string_at(0)
    return compiled(request, tile)

worker._compiled = crashing
worker.main()
"""


def test_a_candidate_that_crashes_or_is_wrong_ends_nothing(
    task: FunctionTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    (tmp_path / "crashing_worker.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    machine = host_machine()
    with IsolatedRunner(module="crashing_worker") as worker:
        for tile, said in (
            (TraceTile("[]"), r"crashed: exit -11"),
            (TraceTile("[[], []]x"), "JSONDecodeError|trace is not of this"),
            (task.default, "^$"),
        ):
            reply = worker.measure(FunctionRequest(task.file, machine, tile, 1))
            assert re.search(said, reply.error), reply.error
        # a batch with one that crashes is lost, its others are built when they are asked for
        reply = worker.measure(Ahead(task.file, machine, (task.default, TraceTile("[]"))))
        assert "crashed" in reply.error
        assert worker.measure(FunctionRequest(task.file, machine, task.default, 1)).error == ""


def test_results_are_compared() -> None:
    floats = np.array([1.0, -3.0, np.inf], np.float32)
    assert same_results([floats], [floats + np.float32(1e-4)])
    assert not same_results([floats], [floats + np.float32(1e-3)])
    assert not same_results([floats], [np.array([1.0, -3.0, 5.0], np.float32)])
    whole = np.array([1, 2], np.int32)
    assert same_results([whole], [whole])
    assert not same_results([whole], [whole + 1])
    assert not same_results([whole], [whole.astype(np.int8)])
    assert not same_results([whole], [])


class Faster(IsolatedRunner):
    """Answers at once: every trace takes three quarters of what the fixed rules' loops take."""

    def measure(self, request: Ask) -> Reply:
        if not isinstance(request, FunctionRequest):
            return Reply((), "")
        fast = isinstance(request.tile, TraceTile)
        return Reply((0.75,), "", against_ms=(1.0,)) if fast else Reply((1.0,), "")


def test_what_is_found_is_kept_carried_and_built(tmp_path: Path) -> None:
    """From nothing to a network that is built from an imported database, still the same."""
    graph = floating()
    target = HostTarget(tuning=tmp_path / "t.sqlite")
    machine, key = target.machine(), target.machine_key()
    database = target.tuning_database()
    with Faster() as worker:
        done = tune(graph, machine, key, database, Budget(trials=8), runner=worker,
                    contest=AllFaster(graph, machine))  # fmt: skip
    assert (done.trials, done.failed, done.kernels) == (8, 0, 4)
    found = database.all_best(key)
    assert done.improved == len(found) >= 1
    assert all(isinstance(best.tile, TraceTile) for best in found.values())
    database.export(tmp_path / "t.json")
    other = HostTarget(tuning=tmp_path / "other.sqlite")
    assert other.tuning_database().take(tmp_path / "t.json") == len(found)
    x = random_inputs(graph)
    plain, tuned = HostTarget(tuned=False).runner(graph), other.runner(graph)
    assert same_results(tuned.run(*x), plain.run(*x))
    assert same_results(tuned.run(*x), run(graph, *x))
    codes = HostTarget(tuned=False).layer_codes(graph), other.layer_codes(graph)
    assert codes[0] != codes[1]  # the loops are others


class AllFaster(Races):
    """Every tile is faster in the network, too."""

    def __init__(self, graph: Graph, machine: object) -> None:
        super().__init__({}, 1.0)

    def watch(self, numbers, groups, rounds, until=None):  # type: ignore[no-untyped-def]
        return {
            n: {g: [0.5 if g in self.networks[n] else 1.0] * rounds for g in groups}
            for n in numbers
        }


def test_a_row_of_another_function_gives_way_to_the_fixed_rules(tmp_path: Path) -> None:
    graph = floating()
    target = HostTarget(tuning=tmp_path / "t.sqlite")
    for one in loose(graph, target.machine()):
        for steps in ("[]", '[[["GetSBlock",[],["none","main"],["b0"]]],[]]'):
            database = TuningDatabase(tmp_path / "t.sqlite")
            database.keep_best(one.key, target.machine_key(),
                               Best(TraceTile(steps), 0.5, 1.0, one.name))  # fmt: skip
    x = random_inputs(graph)
    assert same_results(target.runner(graph).run(*x), run(graph, *x))


def test_what_was_measured_before_a_trace_is_not_taken_for_what_is_built_now(
    tmp_path: Path,
) -> None:
    """Keys of the table of measured latencies know the loops that a search found."""
    from codesign.targets.in_network import _keys
    from codesign.targets.layers import extract_layers

    graph = floating()
    target = HostTarget(tuning=tmp_path / "t.sqlite")
    conv, fc = extract_layers(graph).values()
    alone = {layer.name: target.layer_key(layer) for layer in (conv, fc)}
    inside = _keys(target, graph)
    (one,) = loose(conv, target.machine(), as_stored=True)

    def keep(key: str, steps: str) -> None:
        target.tuning_database().keep_best(
            key, target.machine_key(), Best(TraceTile(steps), 1 / len(steps), 1.0, "conv")
        )

    keep("of another network", "[]")
    assert {layer.name: target.layer_key(layer) for layer in (conv, fc)} == alone
    assert _keys(target, graph) == inside
    seen = {target.layer_key(conv)}
    for steps in ("[[],[]]", "[[], []]"):
        keep(one.key, steps)
        seen.add(target.layer_key(conv))
        assert target.layer_key(fc) == alone[fc.name]
    assert len(seen) == 3
    for kernel in loose(graph, target.machine()):
        keep(kernel.key, "[[],[],[]]")
    now = _keys(target, graph)
    assert all(now[layer] != inside[layer] for layer in now)
    assert _keys(HostTarget(tuned=False, tuning=target.tuning), graph) == inside


def test_later_runs_begin_with_what_was_found(task: FunctionTask) -> None:
    task.take()
    task.tell(task.judge(task.default, Reply((1.0,), "")))
    for _ in range(3):
        tile, _ = task.take()
        assert tile is not None
        task.tell(task.judge(tile, Reply((0.5,), "", against_ms=(1.0,))))
    again = FunctionTask(task.key, task.layer, task.layers, task.default, loose=task.loose,
                         machine=task.machine, file=task.file, model=Model(1))  # fmt: skip
    again.resume(dict(task.tried))
    again.take()
    tile, _ = again.take()
    assert tile not in task.tried
    assert again._search is not None
    assert len(again._search.database.get_all_tuning_records()) >= 3


@pytest.mark.soak
@pytest.mark.parametrize(
    ("network", "budget"), [("resnet8", Budget(trials=30)), ("resnet18", Budget(seconds=90))]
)
def test_a_whole_float_network(network: str, budget: Budget, tmp_path: Path) -> None:
    """Tuned in the trials or the time given, still the same function, and what was kept is used."""
    import sqlite3
    import time

    from codesign.frontend import load_network
    from codesign.passes import prepare

    graph = prepare().run(load_network(f"zoo:{network}").graph).graph
    target = HostTarget(tuning=tmp_path / "t.sqlite")
    kernels = {kernel.key for kernel in loose(graph, target.machine())}
    start = time.monotonic()
    done = target.tune(graph, budget)
    if budget.seconds is not None:  # START_SECONDS and a candidate at most
        assert time.monotonic() - start < budget.seconds + 30
    with sqlite3.connect(tmp_path / "t.sqlite") as connection:
        rows = connection.execute("SELECT tile, status FROM trials").fetchall()
    tried = [parse_tile(text) for text, status in rows if status == "measured"]
    assert (len(tried), done.failed, done.kernels) == (done.trials, 0, len(kernels))
    if budget.trials is not None:  # each kernel once by the fixed rules, then what the search found
        assert done.trials == budget.trials
        traces = [tile for tile in tried if isinstance(tile, TraceTile)]
        assert len(traces) == done.trials - len(kernels) > 0
    x = random_inputs(graph)
    assert same_results(target.runner(graph).run(*x), run(graph, *x))
    found = target.tuning_database().all_best(target.machine_key())
    assert len(found) == done.improved


def test_our_vnni_intrinsic_takes_the_place_of_tvms(tmp_path: Path) -> None:
    """Sums of u8 · s8 become the instruction; compiled for a CPU that has it, not run."""
    b = GraphBuilder("grouped")
    rng = np.random.default_rng(0)
    x = b.input("x", TensorType((1, 16, 8, 8), U8))
    w = b.constant(rng.integers(-127, 127, (16, 16, 1, 1)).astype(np.int8), "w",
                   DType.parse("s8"))  # fmt: skip
    graph = b.finish([b.add(ops.Conv2d(bias=False), [x, w], "conv")])
    machine = x86_machine("cascadelake")
    from codesign.targets.tvm_lower.tiles import DefaultTile

    (one,) = loose(graph, machine, lambda key: DefaultTile())
    assert one.vnni
    search = Search(one.function, one.vnni, machine, Model(1), ())
    for _, tile in search.propose():
        function = traced(one.function, tile)
        if function is not None and "vpdpbusd" in function.script():
            break
    else:
        pytest.fail("no candidate uses the intrinsic")
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    built = tvm.compile(module, tvm_target(machine))
    assert "vpdpbusd" in built.mod.inspect_source("asm")
    assert pickle.loads(pickle.dumps(one)).key == one.key


@pytest.mark.parametrize("sizes", [(1, 14, 1, 14, 4, 16), (1, 56, 56, 96), (1, 7, 1, 7, 32, 8)])
@pytest.mark.parametrize("level", ["haswell", "cascadelake"])
def test_searches_begin_with_tiles_that_registers_hold(sizes: tuple[int, ...], level: str) -> None:
    from codesign.targets.tuning.seeds import _chosen

    machine = x86_machine(level)
    lanes, most = (16, 28) if level == "cascadelake" else (8, 14)
    found = _chosen(sizes, machine)
    assert found
    for tile in found:
        assert all(size % inner == 0 for size, inner in zip(sizes, tile, strict=True))
        assert 4 <= np.prod(tile[:-1]) * max(1, tile[-1] // lanes) <= most
