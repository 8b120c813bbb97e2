# SPDX-License-Identifier: Apache-2.0
"""A user's package adds a pass, a target, a solver and a number format: it is really installed,
by pip, into a folder of its own, and used in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).resolve().parents[1] / "plugin_pkg"

USE = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
from codesign import ir
from codesign.ir.ops import Activation
from codesign.passes import PASSES, parse_pipeline
from codesign.quant.formats import FORMATS, parse_formats
from codesign.solvers import parse_problem, registry as solvers, solve
from codesign.targets import TARGETS

builder = ir.GraphBuilder("net")
x = builder.input("x", ir.TensorType((1, 4)))
graph = builder.finish([builder.add(Activation("relu6"), [x], "y")])
found = {"owners": [registry.owner(name) for registry, name in (
    (PASSES, "relax-relu6"), (TARGETS, "interpreter"), (solvers, "random-search"),
    (FORMATS, "tiny"))]}

relaxed = parse_pipeline("relax-relu6").run(graph).graph
found["kind"] = relaxed.nodes["y"].op.kind
data = np.array([[-1, 3, 6, 9]], np.float32)
found["before"] = ir.run(graph, data)[0].tolist()
found["after"] = ir.run(relaxed, data)[0].tolist()

target = TARGETS.load("interpreter")()
target.check(relaxed)
built = target.build(relaxed, Path(tempfile.mkdtemp()) / "build")
runner = target.load(built.directory)
found["built"] = runner.run(data)[0].tolist()
found["samples"] = runner.time([data], repeats=4).samples

problem = parse_problem(sys.argv[1])
best, tried = solve(problem), solve(problem, solver="random-search")
found["solved"] = [str(best.objective), str(tried.objective), str(tried.status), str(tried.bound)]

found["formats"] = [str(f) for f in parse_formats("tiny,w8a8")]
print(json.dumps(found))
"""

PROBLEM = {
    "format": "codesign-problem/1",
    "name": "two layers",
    "choices": {"a": ["w4a4", "w8a8"], "b": ["w4a4", "w8a8"]},
    "metrics": {
        "loss": {"a": {"w4a4": 5, "w8a8": 1}, "b": {"w4a4": 3, "w8a8": 1}},
        "size": {"a": {"w4a4": 10, "w8a8": 20}, "b": {"w4a4": 10, "w8a8": 20}},
    },
    "minimize": "loss",
    "limits": {"size": 30},
}


def run(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin") / "site"
    run(
        folder, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-index", "--no-build-isolation", "--target", str(folder), str(PLUGIN),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def used(installed: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run(installed, "-c", USE, json.dumps(PROBLEM)))
    return result


def test_plugin_owns_its_entries(used: dict[str, Any]) -> None:
    assert used["owners"] == ["codesign-example-plugin"] * 4


def test_plugin_pass_runs_in_a_pipeline(used: dict[str, Any]) -> None:
    assert used["kind"] == "relu"
    assert used["before"] == [[0.0, 3.0, 6.0, 6.0]]
    assert used["after"] == [[0.0, 3.0, 6.0, 9.0]]


def test_plugin_target_builds_and_runs(used: dict[str, Any]) -> None:
    assert used["built"] == [[0.0, 3.0, 6.0, 9.0]]
    assert used["samples"] == 4


def test_plugin_solver_answers(used: dict[str, Any]) -> None:
    assert used["solved"] == ["4", "4", "feasible", "2"]


def test_plugin_format_is_understood(used: dict[str, Any]) -> None:
    assert used["formats"] == ["w3a4", "w8a8"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("passes", "relax-relu6"),
        ("targets", "interpreter"),
        ("solvers", "random-search"),
        ("formats", "tiny"),
    ],
)
def test_plugin_is_listed_on_the_command_line(installed: Path, kind: str, name: str) -> None:
    assert name in run(installed, "-m", "codesign", "list", kind)
