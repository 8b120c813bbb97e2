# SPDX-License-Identifier: Apache-2.0
"""Everything wrong with a problem file is one clear InputError, word for word."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.solvers import Limit, Metric, Problem, files, load_problem, parse_problem, solve
from codesign.solvers.problem_file import problem_from_data

GOOD: dict[str, Any] = {
    "format": "codesign-problem/1",
    "name": "good",
    "choices": {"conv1": ["w4a4", "w8a8"], "conv2": ["w8a8", "w4a4"], "fc": ["w8a8"]},
    "architectures": ["pe64", "pe128"],
    "metrics": {
        "loss": {
            "conv1": {"w4a4": Decimal("0.12"), "w8a8": Decimal("0.003")},
            "conv2": {"w4a4": Decimal("0.3"), "w8a8": 0},
            "fc": {"w8a8": 0},
        },
        "dsp": {"pe64": 64, "pe128": 128},
    },
    "minimize": "loss",
    "limits": {"dsp": 100},
    "ties": [["conv1", "conv2"]],
    "forbid": [[["conv1", "w4a4"], ["architecture", "pe128"]]],
}


def edit(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set the value at a path of keys parted by slashes."""

    def change(data: dict[str, Any]) -> None:
        *keys, last = [int(key) if key.isdigit() else key for key in path.split("/")]
        inner: Any = data
        for key in keys:
            inner = inner[key]
        inner[last] = value

    return change


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *keys, last = path.split("/")
        inner: Any = data
        for key in keys:
            inner = inner[key]
        del inner[last]

    return change


KNOWN_KEYS = (
    "(known: 'format', 'name', 'choices', 'architectures', 'metrics', 'minimize', 'maximize', "
    "'limits', 'ties', 'forbid')"
)

CASES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (edit("format", "codesign-problem/2"),
     "format: expected 'codesign-problem/1', got 'codesign-problem/2'; "
     "did you mean 'codesign-problem/1'?"),
    (drop("format"), 'no "format"; expected "format": "codesign-problem/1" at the top'),
    (edit("minimise", "loss"), f"unknown key 'minimise'; did you mean 'minimize'? {KNOWN_KEYS}"),
    (drop("metrics"), "no 'metrics'; a problem needs choices, metrics and an objective"),
    (edit("name", 3), "name: expected a text"),
    (edit("choices", []), "choices: expected an object (group to its options), got a list"),
    (edit("choices", {}), "choices: empty; give at least one group with at least one option"),
    (edit("choices/fc", []), "choices.fc: empty; a group needs at least one option to pick"),
    (edit("choices/fc", "w8a8"),
     "choices.fc: expected a list (the options of the group), got the text 'w8a8'"),
    (edit("choices/fc", ["w8a8", "w8a8"]), "choices.fc: option 'w8a8' is listed twice"),
    (edit("choices/fc", [8]), "choices.fc[0]: expected the name of option as a text, got 8"),
    (edit("architectures", []), "architectures: empty; leave the key out or name at least one"),
    (edit("architectures", ["pe64", "pe64"]), "architectures: architecture 'pe64' is listed twice"),
    (drop("architectures"),
     "metrics.dsp: key 'pe64' is not a group (groups: 'conv1', 'conv2', 'fc')"),
    (drop("minimize"), 'give exactly one of "minimize" and "maximize"; neither is given'),
    (edit("maximize", "loss"), 'give exactly one of "minimize" and "maximize"; both are given'),
    (edit("minimize", "los"),
     "minimize: unknown metric 'los'; did you mean 'loss'? (known: 'loss', 'dsp')"),
    (edit("metrics/loss", {}),
     "metrics.loss: empty; give its values keyed by group or by architecture"),
    (edit("metrics/loss", 3),
     "metrics.loss: expected an object (keyed by group or by architecture), got 3"),
    (drop("metrics/loss/fc"),
     "metrics.loss: no value for group 'fc'; every group needs one"),
    (drop("metrics/loss/conv1/w4a4"),
     "metrics.loss.conv1: no value for option 'w4a4'; every option needs one"),
    (edit("metrics/loss/conv1/w4a5", 1),
     "metrics.loss.conv1: unknown option 'w4a5'; did you mean 'w4a4'? (known: 'w4a4', 'w8a8')"),
    (edit("metrics/loss/conv9", {}),
     "metrics.loss: unknown group 'conv9'; did you mean 'conv2'? (known: 'conv1', 'conv2', 'fc')"),
    (edit("metrics/loss/conv1/w4a4", float("nan")),
     "metrics.loss.conv1.w4a4: NaN is not a number; every value must be finite"),
    (edit("metrics/loss/conv1/w4a4", float("-inf")),
     "metrics.loss.conv1.w4a4: -Infinity is not a number; every value must be finite"),
    (edit("metrics/loss/conv1/w4a4", 0.5),
     "metrics.loss.conv1.w4a4: 0.5 is a float, which is rounded; pass an int or a Decimal"),
    (edit("metrics/loss/conv1/w4a4", "0.5"),
     "metrics.loss.conv1.w4a4: expected a number, got the text '0.5'"),
    (edit("metrics/loss/conv1/w4a4", True),
     "metrics.loss.conv1.w4a4: expected a number, got true"),
    (edit("metrics/loss/conv1/w4a4", None),
     "metrics.loss.conv1.w4a4: expected a number, got null"),
    (edit("metrics/loss/conv1", 7),
     "metrics.loss.conv1: expected an object (option to number), got 7"),
    (edit("metrics/loss/conv1/w4a4", Decimal("1E+200")),
     "metrics.loss.conv1.w4a4: 1E+200 is out of range; at most 100 digits either side of the "
     "decimal point are taken"),
    (drop("metrics/dsp/pe64"),
     "metrics.dsp: no value for architecture 'pe64'; every architecture needs one"),
    (edit("limits", [1]), "limits: expected an object (metric to its limit), got a list"),
    (edit("limits/lats", 1), "limits: unknown metric 'lats' (known: 'loss', 'dsp')"),
    (edit("limits/dsp", -1),
     "limits.dsp: max -1 is negative, but no value of 'dsp' is; give a limit of zero or more, "
     "or leave it out"),
    (edit("limits/dsp", {"min": 9, "max": 3}),
     "limits.dsp: min 9 is above max 3; no value can meet both"),
    (edit("limits/dsp", {}), 'limits.dsp: empty; give a number (at most), or "min", "max" or both'),
    (edit("limits/dsp", {"maximum": 3}),
     "limits.dsp: unknown key 'maximum'; did you mean 'max'? (known: 'min', 'max')"),
    (edit("limits/dsp", "80%"), "limits.dsp: expected a number, got the text '80%'"),
    (edit("ties", [["conv1", "fc"]]),
     "ties[0]: groups 'conv1' and 'fc' have different options ('w4a4', 'w8a8' against 'w8a8'); "
     "tied groups must offer the same ones"),
    (edit("ties", [["conv1", "conv3"]]),
     "ties[0][1]: unknown group 'conv3'; did you mean 'conv2'? (known: 'conv1', 'conv2', 'fc')"),
    (edit("ties", [["conv1"]]), "ties[0]: a tie needs at least two groups"),
    (edit("ties", [["conv1", "conv1"]]), "ties[0]: group 'conv1' is listed twice"),
    (edit("ties", "conv1"), "ties: expected a list (lists of groups), got the text 'conv1'"),
    (edit("forbid", [[["conv1", "int2"]]]),
     "forbid[0][0]: group 'conv1' has no option 'int2' (known: 'w4a4', 'w8a8')"),
    (edit("forbid", [[["architecture", "gpu"]]]),
     "forbid[0][0]: unknown architecture 'gpu' (known: 'pe64', 'pe128')"),
    (edit("forbid", [[]]), "forbid[0]: empty; name at least one pair of group and option"),
    (edit("forbid", [[["conv1"]]]), "forbid[0][0]: expected a group and an option, got 1 entries"),
    (edit("forbid", [["conv1", "w4a4"]]),
     "forbid[0][0]: expected a list (a group and an option), got the text 'conv1'"),
]  # fmt: skip


def test_the_good_problem_is_good() -> None:
    assert problem_from_data(GOOD).name == "good"


@pytest.mark.parametrize(("change", "message"), CASES, ids=[m[:60] for _, m in CASES])
def test_each_mistake_has_its_message(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = copy.deepcopy(GOOD)
    change(data)
    with pytest.raises(InputError) as caught:
        problem_from_data(data, "p.json")
    assert str(caught.value) == f"p.json: {message}"
    assert caught.value.exit_code == 2


TEXTS = [
    ('{"format": "codesign-problem/1",\n "name" 3}',
     "line 2, column 9: not JSON: Expecting ':' delimiter"),
    ("", "line 1, column 1: not JSON: Expecting value"),
    ("[1, 2]", "expected an object (a file of format 'codesign-problem/1'), got a list"),
    ('{"format": "codesign-problem/1",\n "choices": {"a": ["x"],\n  "a": ["y"]}}',
     "line 3, column 3: key choices.a is given twice; keep one of them"),
    ('{"x": [{"k": 1}, {"k": 1, "j.q": {}, "k": 2}]}',
     "line 1, column 38: key x[1].k is given twice; keep one of them"),
    ("[" * 100_000, "nested too deeply to be a problem or solution"),
    ('{"x": ' + "9" * 5000 + "}",
     "holds a number with too many digits (thousands); at most 100 are taken"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), TEXTS, ids=[m[:40] for _, m in TEXTS])
def test_malformed_text_says_where(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_problem(text, "p.json")
    assert str(caught.value) == f"p.json: {message}"


def test_nan_in_a_file_is_refused_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "nan.json"
    data = copy.deepcopy(GOOD)
    data["metrics"]["loss"] = {
        "conv1": {"w4a4": float("nan"), "w8a8": 1},
        "conv2": {"w4a4": 1, "w8a8": 1},
        "fc": {"w8a8": 1},
    }
    path.write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        load_problem(path)
    assert str(caught.value) == (
        f"{path}: metrics.loss.conv1.w4a4: NaN is not a number; every value must be finite"
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    with pytest.raises(InputError, match=r"none\.json: cannot read the problem file: No such file"):
        load_problem(missing)
    with pytest.raises(InputError, match="cannot read the problem file: Is a directory"):
        load_problem(tmp_path)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\x00\xff\xfe")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 1\); expected a problem in JSON"):
        load_problem(binary)


def test_ten_million_options_are_refused_before_they_are_parsed(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(files.MAX_FILE_BYTES + 1)  # a hole: no disk is used
    with pytest.raises(InputError) as caught:
        load_problem(path)
    assert str(caught.value) == (
        f"{path}: 104857601 bytes, but a problem file may have at most 104857600; drop dominated "
        "options first, or build it from arrays with Problem.build"
    )


def test_more_options_than_the_limit_are_refused_by_count() -> None:
    options = [str(i) for i in range(1001)]
    data = {"format": "codesign-problem/1", "choices": {f"g{i}": options for i in range(1000)}}
    with pytest.raises(InputError) as caught:
        problem_from_data(data | {"metrics": {}, "minimize": "x"}, "p.json")
    assert str(caught.value) == (
        "p.json: choices: 1001000 options, but at most 1000000 are taken; drop dominated options "
        "first (those no better in any metric than another one of their group)"
    )


def test_a_table_with_too_many_entries_is_refused() -> None:
    archs = [str(i) for i in range(60_000)]
    choices = {f"g{i}": ["a", "b", "c", "d"] for i in range(250)}
    huge = np.broadcast_to(np.zeros(1, dtype=np.int64), (60_000, 1000))
    with pytest.raises(InputError) as caught:
        Problem.build(
            choices=choices, architectures=archs, metrics=[Metric.joint("t", huge)], minimize="t"
        )
    assert str(caught.value) == (
        "metrics.t: 60000000 numbers, but at most 50000000 are taken in one table"
    )


def test_arrays_must_be_integers_of_the_right_shape() -> None:
    choices = {"a": ["x", "y"]}
    with pytest.raises(InputError, match=r"metrics\.m: expected integers, got float64; scale"):
        Problem.build(choices=choices, metrics=[Metric.choice("m", [0.5, 1.0])], minimize="m")
    with pytest.raises(InputError, match=r"metrics\.m: shape \(3,\); expected \(2,\)"):
        Problem.build(choices=choices, metrics=[Metric.choice("m", [1, 2, 3])], minimize="m")
    with pytest.raises(InputError, match=r"metrics\.m: depends on architectures, but the problem"):
        Problem.build(choices=choices, metrics=[Metric.joint("m", [[1, 2]])], minimize="m")


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "10"])
def test_a_time_limit_must_be_a_positive_number(bad: Any) -> None:
    with pytest.raises(InputError) as caught:
        solve(problem_from_data(GOOD), time_limit=bad)
    assert str(caught.value) == f"time limit {bad!r}: expected a number of seconds above 0"


def test_an_unknown_solver_is_named_with_a_near_match() -> None:
    with pytest.raises(InputError) as caught:
        solve(problem_from_data(GOOD), "cpsat")
    assert str(caught.value) == (
        "unknown solver 'cpsat'; did you mean 'cp-sat'? "
        "(known: auto, cbc, cp-sat, exact, exhaustive, highs)"
    )


def test_limits_finer_than_the_metric_round_to_the_same_answer() -> None:
    problem = problem_from_data(GOOD)
    assert problem.bound(Limit("loss", "max", Decimal("0.1239999"))) == 123
    assert problem.bound(Limit("loss", "min", Decimal("0.1230001"))) == 124
    assert problem.bound(Limit("loss", "max", Decimal("-0.0005"))) == -1
