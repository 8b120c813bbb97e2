# SPDX-License-Identifier: Apache-2.0
"""Bad problem files through ``codesign solve``: exit codes and messages of DESIGN, nothing left
half-written, and an early end that says how far from the best it may be."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codesign.cli import main
from codesign.solvers import files

Change = Callable[[dict[str, Any]], None]


def good() -> dict[str, Any]:
    return {
        "format": "codesign-problem/1",
        "choices": {"a": ["w8a8", "w4a4"], "b": ["w8a8", "w4a4"], "c": ["w8a8", "w2a2"]},
        "metrics": {
            "loss": {"a": {"w8a8": 1, "w4a4": 9}, "b": {"w8a8": 2, "w4a4": 5},
                     "c": {"w8a8": 0, "w2a2": 30}},
            "size": {"a": {"w8a8": 8, "w4a4": 4}, "b": {"w8a8": 8, "w4a4": 4},
                     "c": {"w8a8": 8, "w2a2": 2}},
        },
        "minimize": "loss",
        "limits": {"size": 20},
    }  # fmt: skip


def put(*path: Any) -> Change:
    """Set the value at a path; the last item is the value."""
    *keys, last, value = path

    def change(data: dict[str, Any]) -> None:
        inner: Any = data
        for key in keys:
            inner = inner[key]
        inner[last] = value

    return change


def drop(*path: str) -> Change:
    def change(data: dict[str, Any]) -> None:
        inner: Any = data
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return change


CASES: dict[str, tuple[Change, int, str]] = {
    "unknown key": (put("limit", {"size": 3}), 2, "unknown key 'limit'; did you mean 'limits'?"),
    "missing option": (drop("metrics", "loss", "b", "w4a4"), 2,
        "metrics.loss.b: no value for option 'w4a4'; every option needs one"),
    "missing group": (drop("metrics", "size", "c"), 2,
        "metrics.size: no value for group 'c'; every group needs one"),
    "NaN": (put("metrics", "loss", "a", "w4a4", float("nan")), 2,
        "metrics.loss.a.w4a4: NaN is not a number; every value must be finite"),
    "NaN limit": (put("limits", "size", float("nan")), 2,
        "limits.size: NaN is not a number; every value must be finite"),
    "negative limit": (put("limits", "size", -1), 2,
        "limits.size: max -1 is negative, but no value of 'size' is; give a limit of zero or more, "
        "or leave it out"),
    "tie of different options": (put("ties", [["a", "c"]]), 2,
        "ties[0]: groups 'a' and 'c' have different options ('w8a8', 'w4a4' against 'w8a8', "
        "'w2a2'); tied groups must offer the same ones"),
    "forbid of nothing known": (put("forbid", [[["a", "w3a3"]]]), 2,
        "forbid[0][0]: group 'a' has no option 'w3a3'"),
    "two objectives": (put("maximize", "size"), 2,
        'give exactly one of "minimize" and "maximize"; both are given'),
    "infeasible": (put("limits", "size", 9), 3,
        "infeasible: this limit cannot hold: size <= 9 (feasible from 10"),
    "infeasible by ties and forbids": (
        lambda data: data.update(ties=[["a", "b"]], limits={},
                                 forbid=[[["a", "w8a8"]], [["b", "w4a4"]]]), 3,
        "infeasible"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_problems_end_with_their_code(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, code, message = CASES[name]
    data = good()
    change(data)
    problem, solution = tmp_path / "p.json", tmp_path / "s.json"
    problem.write_text(json.dumps(data))
    assert main(["solve", str(problem), "-o", str(solution)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    left = {path.name for path in tmp_path.iterdir()}
    if code == 3:  # an answer, so it is written
        assert left == {"p.json", "s.json"}
        assert json.loads(solution.read_text())["status"] == "infeasible"
    else:
        assert left == {"p.json"}


def test_ten_million_options_are_refused_in_little_memory(tmp_path: Path) -> None:
    """Ten options in each of a million groups, and their table: too long before it is parsed."""
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.write(b'{"format": "codesign-problem/1", "choices": {')
        file.truncate(10_000_000 * 24)  # the text would be longer; a hole takes no disk
    code = "import sys; from codesign.cli import entry; sys.argv = ['codesign', *sys.argv[1:]]"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; entry()", "solve", str(path)],
        capture_output=True, text=True, check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.endswith(
        f"{path}: 240000000 bytes, but a problem file may have at most {files.MAX_FILE_BYTES}; "
        "drop dominated options first, or build it from arrays with Problem.build\n"
    )


def test_a_time_limit_that_ends_early_is_feasible_with_a_true_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven limits close to what can be met: long to prove. What one run proved must not
    contradict what the other found."""
    rng = random.Random(0)
    groups, options = [f"g{i}" for i in range(100)], [f"o{i}" for i in range(6)]
    tables = {
        name: {g: {o: rng.randint(1000, 99_999) for o in options} for g in groups}
        for name in ("cost", *(f"r{k}" for k in range(7)))
    }
    mean = {n: sum(sum(row.values()) for row in t.values()) / 6 for n, t in tables.items()}
    data = {
        "format": "codesign-problem/1", "choices": dict.fromkeys(groups, options),
        "metrics": tables, "minimize": "cost",
        "limits": {n: int(0.88 * mean[n]) for n in tables if n != "cost"},
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(data))
    found = []
    for seconds in ("4", "5"):
        code = main(["solve", str(tmp_path / "p.json"), "--time-limit", seconds, "--json"])
        assert code == 0
        solution = json.loads(capsys.readouterr().out)
        assert solution["status"] == "feasible"
        assert solution["bound"] < solution["objective"]
        gap = (solution["objective"] - solution["bound"]) / solution["objective"]
        assert solution["gap"] == pytest.approx(gap)
        total = sum(tables["cost"][g][o] for g, o in solution["choices"].items())
        assert total == solution["objective"]
        found.append(solution)
    assert max(s["bound"] for s in found) <= min(s["objective"] for s in found)


def test_solve_explains_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = tmp_path / "p.json"
    problem.write_text(json.dumps(good()))
    assert main(["solve", str(problem), "-o", str(tmp_path / "s.json"), "--explain", "20"]) == 0
    # a wide, b narrow, c wide: loss 1 + 5 + 0 at size 8 + 4 + 8; all wide: loss 3 at size 24
    assert capsys.readouterr().out.splitlines()[1:] == [
        "size <= 20 (total 20): binds; 1 more is worth 0; the next step is 24, worth 3",
        "a: w8a8; next best w4a4, 5 worse",
        "b: w4a4; next best w8a8, 5 worse",
        "c: w8a8; next best w2a2, 27 worse",
    ]
    assert main(["solve", str(problem), "--explain", "20", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [item["binds"] for item in data["explanation"]["limits"]] == [True]
    assert data["objective"] == data["explanation"]["objective"] == 6
