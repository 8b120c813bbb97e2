# SPDX-License-Identifier: Apache-2.0
"""The joint problem of DESIGN section 2 as frozen data (file format ``codesign-problem/1``).

Every metric is held as integers: value = integer / 10**digits, exactly. Tables are NumPy arrays
over the options of all groups laid side by side, 64-bit where sums cannot overflow and Python
integers otherwise, so that tens of thousands of architectures fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.solvers.decimals import Number, plain, scale_down, scale_up, to_decimal
from codesign.solvers.validate import MAX_ENTRIES, Checker, key_path, listed, near

IntArray: TypeAlias = npt.NDArray[Any]
"""int64, or object holding Python integers where 64 bits are not enough."""
BoolArray: TypeAlias = npt.NDArray[np.bool_]

ARCHITECTURE = -1
"""Stands for a group in a forbid pair that names an architecture."""
ARCHITECTURE_KEY = "architecture"
"""Names the architecture in a forbid pair of a file (when no group has that name)."""

_SAFE = 2**62


class Shape(StrEnum):
    """What a metric's values depend on."""

    CHOICE = "choice"
    """Additive over choices: one value per option."""
    JOINT = "joint"
    """Additive over choices, with one table per architecture."""
    ARCHITECTURE = "architecture"
    """One value per architecture."""


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric; ``values`` has the shape (options,), (architectures, options) or
    (architectures,) and counts units of ``10**-digits``."""

    name: str
    shape: Shape
    values: IntArray
    digits: int = 0

    @staticmethod
    def choice(name: str, values: npt.ArrayLike, digits: int = 0) -> Metric:
        """Additive over choices: integers over all options, group after group."""
        return Metric(name, Shape.CHOICE, np.asarray(values), digits)

    @staticmethod
    def joint(name: str, values: npt.ArrayLike, digits: int = 0) -> Metric:
        """Additive over choices, depending on the architecture: (architectures, options)."""
        return Metric(name, Shape.JOINT, np.asarray(values), digits)

    @staticmethod
    def architecture(name: str, values: npt.ArrayLike, digits: int = 0) -> Metric:
        """Of the architecture alone: (architectures,)."""
        return Metric(name, Shape.ARCHITECTURE, np.asarray(values), digits)

    def row(self, architecture: int | None) -> IntArray:
        """Values over the options under one architecture (not for Shape.ARCHITECTURE)."""
        assert self.shape is not Shape.ARCHITECTURE
        return self.values[architecture] if self.shape is Shape.JOINT else self.values

    def decimal(self, scaled: int) -> Decimal:
        """A count of this metric's units as the user's number, exactly."""
        return to_decimal(scaled, self.digits)


@dataclass(frozen=True)
class Limit:
    """One side of a limit: the metric's total is at most ("max") or at least ("min") ``value``."""

    metric: str
    side: Literal["min", "max"]
    value: Number

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.side == 'max' else '>='} {plain(self.value)}"


Pair: TypeAlias = tuple[int, int]
"""(group, option) by position, or (ARCHITECTURE, architecture)."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Every group picks one option and, where there are architectures, one of them is picked.

    Build it with ``Problem.build`` or ``load_problem``; the constructor does not check.
    """

    name: str
    groups: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    architectures: tuple[str, ...]
    metrics: Mapping[str, Metric]
    objective: str
    maximize: bool
    limits: tuple[Limit, ...] = ()
    ties: tuple[tuple[int, ...], ...] = ()
    """Groups, by position, that pick the option of the same name."""
    forbid: tuple[tuple[Pair, ...], ...] = ()
    """Pairs that must not hold all together."""
    allowed: BoolArray | None = None
    """Options that may be taken, (options,) or (architectures, options); None means all."""

    @staticmethod
    def build(
        *,
        choices: Mapping[str, Sequence[str]],
        metrics: Sequence[Metric],
        minimize: str | None = None,
        maximize: str | None = None,
        architectures: Sequence[str] | None = None,
        limits: Mapping[str, Any] | None = None,
        ties: Sequence[Sequence[str]] = (),
        forbid: Sequence[Sequence[Sequence[str]]] = (),
        allowed: npt.ArrayLike | None = None,
        name: str = "",
        source: str = "",
    ) -> Problem:
        """The checked problem from names and integer arrays.

        ``limits`` maps a metric to a number (at most) or to {"min": …, "max": …}. Tables are
        taken without a copy where their type allows, and must not be changed afterwards.
        Raises InputError, prefixed with ``source``.
        """
        check = Checker(source)
        table = check.choices(choices)
        archs = () if architectures is None else check.architectures(architectures)
        if (minimize is None) == (maximize is None):
            both = "both are given" if minimize is not None else "neither is given"
            check.fail("", f'give exactly one of "minimize" and "maximize"; {both}')
        count = sum(map(len, table.values()))
        checked = {
            metric.name: _check_metric(check, metric, len(archs), count, len(table))
            for metric in metrics
        }
        side = "minimize" if minimize is not None else "maximize"
        wanted = minimize if minimize is not None else maximize
        objective = check.known(wanted, side, "metric", checked)
        mask = None
        if allowed is not None:
            mask = np.asarray(allowed, dtype=np.bool_)
            if mask.shape not in ((count,), (len(archs), count)):
                check.fail(
                    "allowed",
                    f"shape {mask.shape}; expected ({count},) or ({len(archs)}, {count})",
                )
        problem = Problem(
            name=name,
            groups=tuple(table),
            options=tuple(table.values()),
            architectures=archs,
            metrics=checked,
            objective=objective,
            maximize=maximize is not None,
            allowed=mask,
        )
        return replace(
            problem,
            limits=_check_limits(check, limits or {}, checked),
            ties=_check_ties(check, ties, table),
            forbid=_check_forbids(check, forbid, table, archs),
        )

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each group's options start in a table's row; one more entry ends the last."""
        sizes = [0, *map(len, self.options)]
        return np.cumsum(np.asarray(sizes, dtype=np.int64))

    @property
    def option_count(self) -> int:
        """Options of all groups together."""
        return int(self.offsets[-1])

    @property
    def metric(self) -> Metric:
        """The metric of the objective."""
        return self.metrics[self.objective]

    def bound(self, limit: Limit) -> int:
        """The limit in units of its metric; exact, as totals are whole numbers of units."""
        digits = self.metrics[limit.metric].digits
        scale = scale_down if limit.side == "max" else scale_up
        return scale(limit.value, digits)

    def total(self, metric: Metric, choice: Sequence[int], architecture: int | None) -> int:
        """The metric's total in its units for one option position per group, exactly."""
        if metric.shape is Shape.ARCHITECTURE:
            assert architecture is not None
            return int(metric.values[architecture])
        row = metric.row(architecture)
        return sum(int(row[start + option]) for start, option in zip(self.offsets, choice))

    def with_limits(self, limits: Sequence[Limit]) -> Problem:
        """The same problem under other limits."""
        return replace(self, limits=tuple(limits))

    def with_objective(self, metric: str, maximize: bool = False) -> Problem:
        """The same problem with another objective."""
        Checker().known(metric, "minimize", "metric", self.metrics)
        return replace(self, objective=metric, maximize=maximize)

    def with_forbid(self, *pairs: Pair) -> Problem:
        """The same problem where ``pairs`` must not hold all together."""
        return replace(self, forbid=(*self.forbid, tuple(pairs)))


def integer_array(values: npt.ArrayLike, groups: int) -> IntArray:
    """``values`` as int64 where a sum over ``groups`` of them cannot overflow, else Python
    integers. Raises TypeError when they are not integers."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuO" or (
        array.dtype.kind == "O"
        and not set(map(type, array.flat)) <= {int, np.int64, np.int32, np.uint64}
    ):
        raise TypeError(f"expected integers, got {array.dtype}")
    if array.size == 0:
        return array.astype(np.int64)
    peak = max(abs(int(array.min())), abs(int(array.max())))
    if peak * max(1, groups) < _SAFE:
        result: IntArray = array.astype(np.int64, copy=False)
    else:
        result = np.array([int(v) for v in array.flat], dtype=object).reshape(array.shape)
    view = result.view()
    view.flags.writeable = False
    return view


def _check_metric(check: Checker, metric: Metric, archs: int, count: int, groups: int) -> Metric:
    path = key_path("metrics", metric.name)
    if metric.shape is not Shape.CHOICE and not archs:
        check.fail(path, "depends on architectures, but the problem names none")
    expected = {
        Shape.CHOICE: (count,),
        Shape.JOINT: (archs, count),
        Shape.ARCHITECTURE: (archs,),
    }[metric.shape]
    if metric.values.size > MAX_ENTRIES:
        check.fail(
            path, f"{metric.values.size} numbers, but at most {MAX_ENTRIES} are taken in one table"
        )
    if metric.values.shape != expected:
        check.fail(path, f"shape {metric.values.shape}; expected {expected}")
    try:
        values = integer_array(metric.values, groups)
    except TypeError as error:
        check.fail(path, f"{error}; scale decimals to integers and give digits=")
    return replace(metric, values=values)


def _check_limits(
    check: Checker, limits: object, metrics: Mapping[str, Metric]
) -> tuple[Limit, ...]:
    found: list[Limit] = []
    for name, value in check.table(limits, "limits", "metric to its limit").items():
        check.known(name, "limits", "metric", metrics)
        for side, number in check.bounds(name, value):
            if number < 0 and metrics[name].values.min() >= 0:
                check.fail(
                    key_path("limits", name),
                    f"{side} {plain(number)} is negative, but no value of {name!r} is; "
                    "give a limit of zero or more, or leave it out",
                )
            found.append(Limit(name, "max" if side == "max" else "min", number))
    return tuple(found)


def _check_ties(
    check: Checker, ties: object, choices: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[int, ...], ...]:
    position = {group: index for index, group in enumerate(choices)}
    found: list[tuple[int, ...]] = []
    for index, tie in enumerate(check.sequence(ties, "ties", "lists of groups")):
        path = f"ties[{index}]"
        names = check.sequence(tie, path, "names of groups")
        for place, name in enumerate(names):
            check.known(name, f"{path}[{place}]", "group", choices)
        check.unique(names, path, "group")
        if len(names) < 2:
            check.fail(path, "a tie needs at least two groups")
        first = names[0]
        for name in names[1:]:
            if set(choices[name]) != set(choices[first]):
                check.fail(
                    path,
                    f"groups {first!r} and {name!r} have different options "
                    f"({listed(choices[first])} against {listed(choices[name])}); "
                    "tied groups must offer the same ones",
                )
        found.append(tuple(position[name] for name in names))
    return tuple(found)


def _check_forbids(
    check: Checker,
    forbid: object,
    choices: Mapping[str, tuple[str, ...]],
    architectures: tuple[str, ...],
) -> tuple[tuple[Pair, ...], ...]:
    position = {group: index for index, group in enumerate(choices)}
    places = {name: index for index, name in enumerate(architectures)}
    found: list[tuple[Pair, ...]] = []
    for index, item in enumerate(check.sequence(forbid, "forbid", "lists of pairs")):
        path = f"forbid[{index}]"
        pairs = check.sequence(item, path, "pairs of group and option")
        if not pairs:
            check.fail(path, "empty; name at least one pair of group and option")
        clause: list[Pair] = []
        for place, pair in enumerate(pairs):
            where = f"{path}[{place}]"
            if len(check.sequence(pair, where, "a group and an option")) != 2:
                check.fail(where, f"expected a group and an option, got {len(pair)} entries")
            group, option = pair
            if group == ARCHITECTURE_KEY and group not in choices and architectures:
                check.known(option, where, "architecture", places)
                clause.append((ARCHITECTURE, places[option]))
                continue
            check.known(group, where, "group", choices)
            if not isinstance(option, str) or option not in choices[group]:
                hint = f"{near(option, choices[group])} (known: {listed(choices[group])})"
                check.fail(where, f"group {group!r} has no option {option!r}{hint}")
            clause.append((position[group], choices[group].index(option)))
        found.append(tuple(clause))
    return tuple(found)
