# SPDX-License-Identifier: Apache-2.0
"""The frontier: equal to brute force, taken up again after a kill, told as the user asked."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.cli.app import app
from codesign.errors import InfeasibleError, InputError
from codesign.flow.frontier import Explorer, PointFile, Question
from codesign.flow.options import DesignOptions
from codesign.flow.pareto import Frontier, pareto, summary
from codesign.solvers import Limit, Metric, Problem
from codesign.solvers.certify import violations
from codesign.solvers.pareto import ParetoPoint
from tests.flow.conftest import Files

Point = tuple[Decimal, Decimal]
FORMATS = ("w8a8", "w4a8", "w2a8")


def generated(seed: int, groups: int = 5, options: int = 3) -> Problem:
    """Random losses and sizes, some equal, one pair forbidden, decimals in the second metric."""
    rng = np.random.default_rng(seed)
    names = [f"f{i}" for i in range(options)]
    choices = {f"g{i}": names for i in range(groups)}
    return Problem.build(
        choices=choices,
        metrics=[
            Metric.choice("loss", rng.integers(0, 12, groups * options)),
            Metric.choice("size", rng.integers(0, 400, groups * options), 2),
        ],
        minimize="loss",
        forbid=[[("g0", "f0"), ("g1", "f1")]],
    )


def brute(problem: Problem, first: str, second: str) -> list[Point]:
    """Undominated totals, by trying everything."""
    totals = set()
    for choice in product(*(range(len(names)) for names in problem.options)):
        if not violations(problem, choice, None):
            a, b = (
                metric.decimal(problem.total(metric, choice, None))
                for metric in (problem.metrics[first], problem.metrics[second])
            )
            totals.add((a, b))
    return sorted(
        p for p in totals if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in totals)
    )


def points(explorer: Explorer[ParetoPoint]) -> list[Point]:
    return sorted((p.first, p.second) for p in explorer.points.values())


@pytest.mark.parametrize("cap", [0, 1000])
@pytest.mark.parametrize("seed", range(12))
def test_the_frontier_is_what_trying_everything_finds(seed: int, cap: int) -> None:
    problem = generated(seed)
    explorer = Explorer(Question(problem, "loss", "size"), cap)
    assert explorer.run()
    assert points(explorer) == brute(problem, "loss", "size")
    swapped = Explorer(Question(problem, "size", "loss"), cap)
    assert swapped.run()
    assert points(swapped) == brute(problem, "size", "loss")


def test_limits_cut_the_frontier() -> None:
    problem = generated(3).with_limits([Limit("size", "max", 9), Limit("loss", "max", 20)])
    explorer = Explorer(Question(problem, "loss", "size"))
    assert explorer.run()
    found = points(explorer)
    assert found == brute(problem, "loss", "size")
    assert all(first <= 20 and second <= 9 for first, second in found)


def test_parallel_finds_the_same() -> None:
    problem = generated(5, groups=6)
    explorer = Explorer(Question(problem, "loss", "size"), jobs=2)
    assert explorer.run()
    assert points(explorer) == brute(problem, "loss", "size")


def test_dask_finds_the_same() -> None:
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("the extra codesign[dask] is not installed")
    import joblib
    from distributed import Client

    problem = generated(6, groups=6)
    with (
        Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None),
        joblib.parallel_config("dask"),
    ):
        explorer = Explorer(Question(problem, "loss", "size"), jobs=2)
        assert explorer.run()
    assert points(explorer) == brute(problem, "loss", "size")


def test_a_cap_spreads_true_points_over_the_range() -> None:
    problem = generated(7, groups=7)
    whole = brute(problem, "loss", "size")
    explorer = Explorer(Question(problem, "loss", "size"), cap=6)
    assert not explorer.run()
    found = points(explorer)
    assert len(found) == 6 < len(whole)
    assert set(found) <= set(whole)
    assert {whole[0], whole[-1]} <= set(found)
    span = whole[0][1] - whole[-1][1]
    assert all(a[1] - b[1] < span / 2 for a, b in pairwise(found))


def test_finished_points_are_not_solved_again(tmp_path: Path) -> None:
    question = Question(generated(8), "loss", "size")
    file = PointFile(tmp_path / "points", question)
    first = Explorer(question, cap=5, on_point=file.add)
    assert file.load() == []
    assert not first.run()
    with file.path.open("a") as stream:
        stream.write('["12.5", "{\\"form')  # a line that a kill cut short
    asked: list[ParetoPoint] = []
    kept = file.load()
    assert {p.second for p in kept} == {p.second for p in first.points.values()}
    second = Explorer(question, on_point=asked.append)
    assert second.run(kept)
    assert points(second) == brute(question.problem, "loss", "size")
    known = {(p.second, p.bound) for p in kept}
    assert not known & {(p.second, p.bound) for p in asked}
    other = PointFile(file.path, replace(question, problem=generated(9)))
    assert other.load() == []


def test_a_kept_point_that_does_not_fit_the_problem_is_left_out(tmp_path: Path) -> None:
    question = Question(generated(8), "loss", "size")
    file = PointFile(tmp_path / "points", question)
    file.load()
    Explorer(question, cap=3, on_point=file.add).run()
    good = file.load()
    text = file.path.read_text()
    head, line, *rest = text.split("\n")
    bound, solution, certificate = json.loads(line)
    wrong = re.sub(r'"size": [0-9.]+', '"size": 0.01', solution)
    assert wrong != solution
    file.path.write_text("\n".join([head, json.dumps([bound, wrong, certificate]), *rest]))
    assert len(file.load()) == len(good) - 1


@pytest.fixture(scope="module")
def whole(files: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Frontier]:
    out = tmp_path_factory.mktemp("pareto")
    options = DesignOptions("zoo:digits", formats=FORMATS, eval=files.eval)
    return out, pareto(options, out, points=4, measure=True)


def test_the_file_holds_choices_totals_and_certificates(whole: tuple[Path, Frontier]) -> None:
    out, _ = whole
    data = json.loads((out / "pareto.json").read_text())
    assert data["format"] == "codesign-pareto/1"
    assert (data["x"]["metric"], data["y"]["metric"]) == ("size", "loss")
    assert data["complete"] is False
    assert data["why"] == "--points 4 reached; give --points 0 for all there are"
    assert len(data["points"]) == 4
    for point in data["points"]:
        proof = point["certificate"]
        assert proof["status"] == proof["tie_break"]["status"] == "optimal"
        assert proof["objective"] == proof["bound"] == point["y"] == point["totals"]["loss"]
        assert proof["tie_break"]["objective"] == point["x"] == point["totals"]["size"]
        assert set(point["choices"].values()) <= set(FORMATS)
        assert 0 <= point["accuracy"] <= 100
    assert data["float_accuracy"] == 100.0
    assert data["samples"] == 256
    # all w8a8 and all w2a8 are the ends of the frontier
    assert data["points"][0]["choices"] == data["uniform"]["w2a8"]["choices"]
    assert data["points"][-1]["accuracy"] == data["uniform"]["w8a8"]["accuracy"]
    sizes = [point["x"] for point in data["points"]]
    assert sizes == sorted(set(sizes))


def test_the_plot_is_one_file_with_every_point(whole: tuple[Path, Frontier]) -> None:
    out, found = whole
    text = (out / "pareto.html").read_text()
    assert len(text) > 1_000_000  # plotly.js is inside
    assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", text) == []
    plotted = text.rpartition("Plotly.newPlot(")[2]
    for point in found.points:
        assert summary(point.choices) in plotted
    assert "all layers alike" in plotted
    assert "measured on 256 inputs" in plotted


def test_a_killed_run_is_taken_up_again(tmp_path: Path) -> None:
    command = [
        "codesign", "pareto", "zoo:resnet8",
        "--formats", "w8a8,w4a8,w2a8", "--points", "400", "--out", str(tmp_path),
    ]  # fmt: skip
    script = f"import sys; sys.argv = {command!r}; from codesign.cli import entry; entry()"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    work = subprocess.Popen([sys.executable, "-c", script], env=environment)
    kept = tmp_path / "pareto.points"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and work.poll() is None:
        if kept.is_file() and kept.read_text().count("\n") > 12:
            work.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    assert work.wait() == -signal.SIGKILL
    assert not (tmp_path / "pareto.json").exists()
    head, *before = kept.read_text().split("\n")[:11]
    options = DesignOptions("zoo:resnet8", formats=FORMATS)
    found = pareto(options, tmp_path, points=14)
    after = kept.read_text()
    assert after.split("\n")[0] == head
    assert all(line in after for line in before)
    sizes = {json.loads(json.loads(line)[1])["totals"]["size"] for line in before}
    assert sizes <= {int(point.totals["size"]) for point in found.points}


def options(**more: Any) -> DesignOptions:
    return DesignOptions("zoo:digits", **more)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"x": "speed"}, "--x 'speed': expected one of latency, size, loss, bops"),
        ({"x": "loss"}, "--x loss --y loss: a frontier needs two different metrics"),
        ({"points": 1}, "--points 1: expected at least 2, or 0 for all points"),
        (
            {"measure": True},
            "--measure: accuracy is measured on labelled data; give --eval X.npz",
        ),
    ],
)
def test_bad_requests(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        pareto(options(), tmp_path / "out", **asked)
    assert str(error.value) == message
    assert not (tmp_path / "out").exists()


def test_an_objective_or_an_accuracy_limit_has_no_meaning_here(
    tmp_path: Path, files: Files
) -> None:
    with pytest.raises(InputError) as error:
        pareto(options(objective="size"), tmp_path)
    assert str(error.value) == (
        "--objective size: a frontier has two objectives; name them with --x and --y"
    )
    with pytest.raises(InputError) as error:
        pareto(options(eval=files.eval, max_drop=1.0), tmp_path)
    assert str(error.value) == (
        "--max-drop: accuracy is measured, not limited, on a frontier; give --measure with "
        "--eval to see it at every point, or use `codesign design`"
    )


def test_an_infeasible_question_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError) as error:
        pareto(options(max_size_kb=1), tmp_path)
    assert re.fullmatch(
        r"infeasible: this limit cannot hold: size <= 1000 \(feasible from \d+, the others kept\)",
        str(error.value),
    )
    assert not (tmp_path / "pareto.json").exists()


def test_the_command_prints_the_frontier(tmp_path: Path) -> None:
    from click.testing import CliRunner

    arguments = ["pareto", "zoo:digits", "--formats", "w8a8,w4a8", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert "proven points (complete)" in done.output
    again = CliRunner().invoke(app, [*arguments, "--json"])
    text = again.stdout
    assert json.loads(text[text.index("{") :])["complete"] is True
