# SPDX-License-Identifier: Apache-2.0
"""Reading and writing ``codesign-problem/1``. Numbers are decimals and are taken exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from codesign.solvers.decimals import Number, common_scale, dump_json, scale_down
from codesign.solvers.files import expect_format, parse_json, read_text
from codesign.solvers.problem import (
    ARCHITECTURE,
    ARCHITECTURE_KEY,
    IntArray,
    Limit,
    Metric,
    Problem,
    Shape,
    integer_array,
)
from codesign.solvers.validate import MAX_ENTRIES, Checker, key_path, listed, near

FORMAT = "codesign-problem/1"
_KEYS = (
    "format",
    "name",
    "choices",
    "architectures",
    "metrics",
    "minimize",
    "maximize",
    "limits",
    "ties",
    "forbid",
)


def load_problem(path: str | Path) -> Problem:
    """The problem in a file. Raises InputError for anything wrong with it."""
    return parse_problem(read_text(path, "problem"), source=str(path))


def parse_problem(text: str, source: str = "") -> Problem:
    """The problem in a JSON text; ``source`` names it in errors."""
    return problem_from_data(parse_json(text, source), source)


def problem_from_data(data: object, source: str = "") -> Problem:
    """The problem from parsed JSON (integers and Decimals; floats are refused)."""
    check = Checker(source)
    table = expect_format(check, data, FORMAT)
    check.keys(table, _KEYS, "")
    for key in ("choices", "metrics"):
        if key not in table:
            check.fail("", f"no {key!r}; a problem needs choices, metrics and an objective")
    name = table.get("name", "")
    if not isinstance(name, str):
        check.fail("name", "expected a text")
    choices = check.choices(table["choices"])
    archs = check.architectures(table["architectures"]) if "architectures" in table else ()
    metrics = check.table(table["metrics"], "metrics", "metric to its values")
    return Problem.build(
        name=name,
        choices=choices,
        architectures=table.get("architectures"),
        metrics=[_metric(check, key, value, choices, archs) for key, value in metrics.items()],
        minimize=table.get("minimize"),
        maximize=table.get("maximize"),
        limits=table.get("limits", {}),
        ties=table.get("ties", ()),
        forbid=table.get("forbid", ()),
        source=source,
    )


def _metric(
    check: Checker,
    name: str,
    value: object,
    choices: Mapping[str, tuple[str, ...]],
    archs: tuple[str, ...],
) -> Metric:
    path = key_path("metrics", name)
    table = check.table(value, path, "keyed by group or by architecture")
    shape = _shape(check, path, table, choices, archs)
    if shape is Shape.CHOICE:
        flat = list(_additive(check, table, choices, path))
        size: tuple[int, ...] = (len(flat),)
    elif shape is Shape.ARCHITECTURE:
        _same_keys(check, table, archs, path, "architecture")
        flat = [_number(check, table[arch], key_path("metrics", name, arch)) for arch in archs]
        size = (len(flat),)
    else:
        _same_keys(check, table, archs, path, "architecture")
        options = sum(map(len, choices.values()))
        if options * len(archs) > MAX_ENTRIES:
            check.fail(
                path,
                f"{options * len(archs)} numbers, but at most {MAX_ENTRIES} are taken in one "
                "table; drop dominated architectures and options first",
            )
        flat = []
        for arch in archs:
            where = key_path("metrics", name, arch)
            inner = check.table(table[arch], where, "group to option to number")
            flat.extend(_additive(check, inner, choices, where))
        size = (len(archs), options)
    values, digits = _integers(flat, len(choices))
    return Metric(name, shape, values.reshape(size), digits)


def _shape(
    check: Checker,
    path: str,
    table: Mapping[str, Any],
    choices: Mapping[str, tuple[str, ...]],
    archs: tuple[str, ...],
) -> Shape:
    """Told from the keys; where a name is both a group and an architecture, from the depth."""
    if not table:
        check.fail(path, "empty; give its values keyed by group or by architecture")
    by_group = sum(key in choices for key in table)
    by_arch = len(set(table) & set(archs))
    nested = [value for value in table.values() if isinstance(value, Mapping)]
    deep = any(isinstance(inner, Mapping) for value in nested for inner in value.values())
    if not by_group and not by_arch:
        key = next(iter(table))
        what = "neither a group nor an architecture" if archs else "not a group"
        check.fail(
            path,
            f"key {key!r} is {what}{near(key, [*choices, *archs])} (groups: {listed(choices)}"
            + (f"; architectures: {listed(archs)})" if archs else ")"),
        )
    if by_group > by_arch or (by_group == by_arch and nested and not deep):
        return Shape.CHOICE
    return Shape.JOINT if nested else Shape.ARCHITECTURE


def _same_keys(
    check: Checker, table: Mapping[str, Any], names: tuple[str, ...], path: str, what: str
) -> None:
    known = set(names)
    for key in table:
        if key not in known:
            check.fail(path, f"unknown {what} {key!r}{near(key, names)} (known: {listed(names)})")
    missing = [name for name in names if name not in table]
    if missing:
        check.fail(path, f"no value for {what} {listed(missing)}; every {what} needs one")


def _additive(
    check: Checker, table: Mapping[str, Any], choices: Mapping[str, tuple[str, ...]], path: str
) -> Iterator[Number]:
    if table.keys() != choices.keys():
        _same_keys(check, table, tuple(choices), path, "group")
    for group, options in choices.items():
        inner = table[group]
        if not isinstance(inner, Mapping) or len(inner) != len(options):
            check.table(inner, key_path(group, under=path), "option to number")
            _same_keys(check, inner, options, key_path(group, under=path), "option")
        for option in options:
            if option not in inner:
                _same_keys(check, inner, options, key_path(group, under=path), "option")
            value = inner[option]
            if type(value) is int and -(10**18) < value < 10**18:
                yield value
            else:
                yield _number(check, value, key_path(group, option, under=path))


def _number(check: Checker, value: object, path: str) -> Number:
    return check.number(value, path)


def _integers(values: list[Number], groups: int) -> tuple[IntArray, int]:
    """Values over one power of ten, exactly, and that power."""
    if set(map(type, values)) <= {int}:
        return integer_array(_array(values), groups), 0
    digits = common_scale(values)
    scaled: list[int] = [scale_down(value, digits) for value in values]
    return integer_array(_array(scaled), groups), digits


def _array(values: list[Any]) -> IntArray:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        return np.array(values, dtype=object)


def problem_to_data(problem: Problem) -> dict[str, Any]:
    """The problem as nested dicts in file form; numbers are Decimal or int."""
    data: dict[str, Any] = {"format": FORMAT, "name": problem.name}
    data["choices"] = dict(zip(problem.groups, map(list, problem.options)))
    if problem.architectures:
        data["architectures"] = list(problem.architectures)
    data["metrics"] = {name: _values(problem, metric) for name, metric in problem.metrics.items()}
    data["maximize" if problem.maximize else "minimize"] = problem.objective
    if problem.limits:
        data["limits"] = _limits(problem.limits)
    if problem.ties:
        data["ties"] = [[problem.groups[group] for group in tie] for tie in problem.ties]
    forbid = [
        [list(_pair(problem, group, option)) for group, option in clause]
        for clause in problem.forbid
    ]
    forbid += _masked(problem)
    if forbid:
        data["forbid"] = forbid
    return data


def problem_to_json(problem: Problem) -> str:
    """The problem's file text; reading it back gives the same problem."""
    return dump_json(problem_to_data(problem)) + "\n"


def _values(problem: Problem, metric: Metric) -> dict[str, Any]:
    def additive(row: IntArray) -> dict[str, dict[str, Decimal]]:
        return {
            group: {
                option: metric.decimal(int(row[start + place]))
                for place, option in enumerate(options)
            }
            for group, options, start in zip(problem.groups, problem.options, problem.offsets)
        }

    if metric.shape is Shape.CHOICE:
        return additive(metric.values)
    pairs = zip(problem.architectures, metric.values)
    if metric.shape is Shape.JOINT:
        return {arch: additive(row) for arch, row in pairs}
    return {arch: metric.decimal(int(value)) for arch, value in pairs}


def _limits(limits: tuple[Limit, ...]) -> dict[str, Any]:
    sides: dict[str, dict[str, Number]] = {}
    for limit in limits:
        side = sides.setdefault(limit.metric, {})
        tightest = min if limit.side == "max" else max
        side[limit.side] = tightest(limit.value, side.get(limit.side, limit.value))
    return {
        name: value["max"] if set(value) == {"max"} else dict(value)
        for name, value in sides.items()
    }


def _pair(problem: Problem, group: int, option: int) -> tuple[str, str]:
    if group == ARCHITECTURE:
        return ARCHITECTURE_KEY, problem.architectures[option]
    return problem.groups[group], problem.options[group][option]


def _masked(problem: Problem) -> list[list[list[str]]]:
    """The ``allowed`` mask as forbids."""
    if problem.allowed is None:
        return []
    group_of = np.repeat(np.arange(len(problem.groups)), np.diff(problem.offsets))
    found: list[list[list[str]]] = []
    for place in np.argwhere(~problem.allowed):
        column = int(place[-1])
        group = int(group_of[column])
        option = column - int(problem.offsets[group])
        clause = [list(_pair(problem, group, option))]
        if len(place) == 2:
            clause.insert(0, [ARCHITECTURE_KEY, problem.architectures[int(place[0])]])
        found.append(clause)
    return found
