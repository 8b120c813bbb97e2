# SPDX-License-Identifier: Apache-2.0
"""The joint problem's frontier: equal to brute force, certified, taken up again, in parallel."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import joblib
import pytest

from codesign.errors import InfeasibleError, InputError
from codesign.flow import joint
from codesign.flow.frontier import Explorer
from codesign.flow.joint import joint_problem
from codesign.flow.joint.frontier import JointPoint, JointPointFile, JointQuestion
from codesign.flow.options import DesignOptions
from codesign.flow.pareto import pareto
from codesign.solvers.solution import Status
from tests.space.conftest import Question, designs, draw_question


def ask(seed: int, first: str, second: str, **changes: Any) -> tuple[Question, JointQuestion]:
    question = draw_question(seed)
    question.arguments.update(
        {"limits": {}, "ties": (), "forbid": (), "objective": first, "stream": False, **changes}
    )
    problem = joint_problem(
        question.workload, "pynq-z2", space=question.options, also=(first, second),
        **question.arguments,
    )  # fmt: skip
    return question, JointQuestion(problem, first, second, name=f"{seed} {first} {second}")


def brute(question: Question, by: Any, first: str, second: str) -> list[tuple[int, int]]:
    """Undominated totals over every accelerator and every combination of formats."""
    pairs: set[tuple[int, int]] = set()
    for values, runs in designs(question, "pynq-z2", by):
        pairs |= set(zip(values[first][runs].tolist(), values[second][runs].tolist()))
    found: list[tuple[int, int]] = []
    for a, b in sorted(pairs, key=lambda pair: (pair[1], pair[0])):
        if not found or a < found[-1][0]:
            found.append((a, b))
    return found


def pairs(explorer: Explorer[JointPoint], question: JointQuestion) -> list[tuple[int, int]]:
    digits = question.problem.digits[question.first]
    return [
        (int(explorer.points[low].first.scaleb(digits)), low) for low in sorted(explorer.points)
    ]


@pytest.mark.parametrize(
    ("seed", "first", "second"),
    [(0, "loss", "latency"), (2, "latency", "size"), (3, "energy", "loss"), (5, "latency", "loss"),
     (6, "size", "loss"), (8, "latency", "dsp"), (9, "latency", "energy")],
)  # fmt: skip
def test_the_whole_frontier_by_brute_force(seed: int, first: str, second: str) -> None:
    question, asked = ask(seed, first, second)
    explorer: Explorer[JointPoint] = Explorer(asked)
    assert explorer.run()
    expected = brute(question, asked.problem.tables.by, first, second)
    assert pairs(explorer, asked) == [(int(a), int(b)) for a, b in expected]
    for point in explorer.points.values():
        for proof in (point.certificate, point.tie_break):
            assert proof.status is Status.OPTIMAL
            assert proof.gap == 0
            assert proof.solved + proof.pruned == proof.undominated
    if len(explorer.points) > 2:
        assert any(point.certificate.warm for point in explorer.points.values())


def test_taken_up_again_and_not_trusted_blindly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, asked = ask(5, "latency", "loss")
    file = JointPointFile(tmp_path / "points", asked)
    whole: Explorer[JointPoint] = Explorer(asked, on_point=file.add)
    assert file.load() == []
    assert whole.run()
    lines = file.path.read_text().splitlines()
    assert len(lines) - 1 >= len(whole.points) >= 4
    changed = json.loads(lines[2])
    changed[1] = "1"  # a first metric that its design does not have
    file.path.write_text("\n".join([lines[0], lines[1], json.dumps(changed), *lines[3:-1], "[nu"]))
    kept = file.load()
    assert len(kept) == len(lines) - 1 - 2
    calls = []
    solve = joint.solve

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return solve(*arguments, **options)

    monkeypatch.setattr(joint, "solve", counted)
    again: Explorer[JointPoint] = Explorer(asked, on_point=file.add)
    assert again.run(kept)
    assert pairs(again, asked) == pairs(whole, asked)
    assert 0 < len(calls) <= 8
    # another question's file is started anew
    other = JointPointFile(file.path, replace(asked, name="other"))
    assert other.load() == []


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_in_parallel(backend: str) -> None:
    _, asked = ask(5, "latency", "loss")
    alone: Explorer[JointPoint] = Explorer(asked)
    alone.run()
    spread: Explorer[JointPoint] = Explorer(asked, jobs=2)
    if backend == "dask":
        from dask.distributed import Client, LocalCluster

        cluster = LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        )
        with cluster, Client(cluster), joblib.parallel_config("dask"):
            assert spread.run()
    else:
        with joblib.parallel_config(backend):
            assert spread.run()
    assert pairs(spread, asked) == pairs(alone, asked)


def test_nothing_to_draw_and_bad_metrics(tmp_path: Path) -> None:
    question = draw_question(5)
    least = min(sum(min(row.values()) for row in question.arguments["loss"].values()), 10**9)
    _, asked = ask(5, "latency", "loss", limits={"loss": least, "latency_ms": 0})
    with pytest.raises(InfeasibleError, match=r"^infeasible: "):
        Explorer(asked).run()
    options = DesignOptions("zoo:digits", target="ultra96")
    with pytest.raises(InputError, match=r"^--x 'bops': expected one of latency, throughput, "):
        pareto(options, tmp_path, x="bops")


def test_codesign_pareto_for_a_board(tmp_path: Path) -> None:
    options = DesignOptions("zoo:digits", target="pynq-z2", formats=("w8a8", "w4a4"))
    found = pareto(options, tmp_path, x="latency", y="loss", points=3)
    data = json.loads((tmp_path / "pareto.json").read_text())
    assert data["target"] == "pynq-z2"
    assert data["x"]["unit"].startswith("ms (modelled")
    assert len(data["points"]) == len(found.points) == 3
    for point in data["points"]:
        assert point["certificate"]["status"] == "optimal"
        assert point["certificate"]["tie_break"]["status"] == "optimal"
        assert point["hardware"]["accelerator"]["dense"]["pi"] >= 1
        assert set(point["choices"].values()) <= {"w8a8", "w4a4"}
        cycles = point["hardware"]["cycles_modelled"]
        assert point["x"] == pytest.approx(cycles / 143e6 * 1e3, rel=0.01)
    page = (tmp_path / "pareto.html").read_text()
    assert "proven frontier" in page
    assert "accelerator: d" in page
    again = pareto(options, tmp_path, x="latency", y="loss", points=3)
    assert [p.totals for p in again.points] == [p.totals for p in found.points]


def test_codesign_pareto_of_a_stream_under_a_limit_on_dsp(tmp_path: Path) -> None:
    options = DesignOptions(
        "zoo:digits", target="pynq-z2", formats=("w8a8", "w4a4"), limits=(("dsp", 40.0, "%"),)
    )
    found = pareto(options, tmp_path, x="throughput", y="loss", points=2)
    assert found.limits == {"dsp": 88}
    slow, fast = sorted(found.points, key=lambda point: point.totals["throughput"])
    assert slow.totals["loss"] < fast.totals["loss"]
    for point in found.points:
        assert point.certificate is not None
        assert point.certificate["status"] == "optimal"
        assert 0 < point.totals["dsp"] <= 88
        # engines work on different images at once
        assert point.totals["throughput"] * point.totals["latency"] >= 1000 - Decimal("0.01")


def test_limits_that_boards_do_not_have() -> None:
    with pytest.raises(InputError, match=r"^--limit energy: expected a number, not a share"):
        DesignOptions("zoo:digits", target="pynq-z2", limits=(("energy", 40.0, "%"),))
    with pytest.raises(InputError, match=r"^--limit speed: target 'pynq-z2' has no such metric"):
        DesignOptions("zoo:digits", target="pynq-z2", limits=(("speed", 40.0, ""),))
