# SPDX-License-Identifier: Apache-2.0
"""An exact, smaller form of a problem: minimise, all limits as "at most", ties merged.

Every solver except the exhaustive oracle starts here. ``Reduced.lift`` is the inverse: an answer
of the smaller form is one of the problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.solvers.problem import ARCHITECTURE, BoolArray, IntArray, Limit, Problem, Shape

Index: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Row:
    """Σ of ``weights`` over the chosen columns ≤ ``bound``."""

    limit: Limit
    weights: IntArray
    """(columns,), or (architectures, columns)."""
    bound: int


@dataclass(frozen=True)
class Clause:
    """``columns`` are not all chosen (under architecture ``arch``, or under any when -1)."""

    arch: int
    columns: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Reduced:
    """Minimise ``base[a] + Σ cost`` over one architecture a and one column per merged group."""

    problem: Problem
    archs: Index
    """Positions of the architectures that remain; [-1] for a problem without architectures."""
    pruned: int
    """Architectures discarded by a limit on the architecture alone, or for lack of options."""
    offsets: Index
    """Where each merged group's columns start, and the end of the last."""
    layers: tuple[Index, ...]
    """layers[r][column]: the option (by its place in the problem's tables) that the r-th group of
    the tie takes when the column is chosen; -1 where the tie has fewer groups."""
    cost: IntArray
    """(columns,), or (architectures, columns)."""
    base: IntArray
    """(architectures,)."""
    rows: tuple[Row, ...]
    mask: BoolArray | None
    """(architectures, columns) that may be chosen; None means all."""
    clauses: tuple[Clause, ...]

    @property
    def empty(self) -> bool:
        """True when no choice is possible, whatever the limits on additive metrics."""
        return len(self.archs) == 0

    @property
    def sizes(self) -> Index:
        """Columns per merged group."""
        return np.diff(self.offsets)

    def lift(self, columns: Sequence[int]) -> tuple[int, ...]:
        """Option position per group of the problem, from the chosen column per merged group."""
        problem = self.problem
        chosen = [0] * len(problem.groups)
        for column in columns:
            for layer in self.layers:
                place = int(layer[column])
                if place >= 0:
                    group = int(np.searchsorted(problem.offsets, place, side="right")) - 1
                    chosen[group] = place - int(problem.offsets[group])
        return tuple(chosen)

    def architecture(self, arch: int) -> int | None:
        """Position in the problem of a remaining architecture; None without architectures."""
        position = int(self.archs[arch])
        return None if position < 0 else position


def reduce_problem(problem: Problem) -> Reduced:
    """The smaller form of ``problem``; nothing that matters for an optimum is lost."""
    archs = _feasible_archs(problem)
    total = max(1, len(problem.architectures))
    layers, sizes = _merge(problem)
    units, clauses, dead = _clauses(problem, layers, archs)
    if dead.size:
        keep = ~np.isin(np.arange(len(archs)), dead)
        single = _renumber([Clause(arch, (column,)) for arch, column in units], keep)
        units = [(clause.arch, clause.columns[0]) for clause in single]
        clauses = _renumber(clauses, keep)
        archs = archs[keep]
    mask = _mask(problem, layers, archs, units)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    if mask is not None and len(archs):
        usable: BoolArray = np.asarray(mask.any(axis=0))
        per_group: BoolArray = np.asarray(
            np.logical_or.reduceat(mask, offsets[:-1], axis=1).all(axis=1)
        )
        if not usable.all() and usable.any():
            layers, sizes, clauses, mask = _drop_columns(layers, offsets, clauses, mask, usable)
            offsets = np.concatenate(([0], np.cumsum(sizes)))
        if not per_group.all():
            clauses = _renumber(clauses, per_group)
            archs, mask = archs[per_group], mask[per_group]
        if mask.all():
            mask = None
    gather = _Gather(problem, layers, archs)
    sign = -1 if problem.maximize else 1
    metric = problem.metric
    if metric.shape is Shape.ARCHITECTURE:
        cost: IntArray = np.zeros(int(offsets[-1]), dtype=np.int64)
        base: IntArray = sign * metric.values[archs]
    else:
        cost = gather.table(metric.values, metric.shape, sign)
        base = np.zeros(len(archs), dtype=np.int64)
    rows = []
    for limit in problem.limits:
        found = problem.metrics[limit.metric]
        if found.shape is not Shape.ARCHITECTURE:
            side = 1 if limit.side == "max" else -1
            weights = gather.table(found.values, found.shape, side)
            rows.append(Row(limit, weights, side * problem.bound(limit)))
    return Reduced(
        problem=problem,
        archs=archs,
        pruned=total - len(archs),
        offsets=offsets,
        layers=layers,
        cost=cost,
        base=base,
        rows=tuple(rows),
        mask=mask,
        clauses=tuple(clauses),
    )


def _renumber(clauses: list[Clause], keep: BoolArray) -> list[Clause]:
    """Clauses where only the architectures in ``keep`` remain."""
    position = np.cumsum(keep) - 1
    return [
        Clause(int(position[clause.arch]) if clause.arch >= 0 else -1, clause.columns)
        for clause in clauses
        if clause.arch < 0 or keep[clause.arch]
    ]


def _feasible_archs(problem: Problem) -> Index:
    """Architectures that meet every limit on metrics of the architecture alone."""
    if not problem.architectures:
        return np.array([-1], dtype=np.int64)
    keep = np.ones(len(problem.architectures), dtype=np.bool_)
    for limit in problem.limits:
        metric = problem.metrics[limit.metric]
        if metric.shape is Shape.ARCHITECTURE:
            bound = problem.bound(limit)
            met = metric.values <= bound if limit.side == "max" else metric.values >= bound
            keep &= met.astype(np.bool_)
    return np.flatnonzero(keep)


def _merge(problem: Problem) -> tuple[tuple[Index, ...], list[int]]:
    """Layers of the merged columns and the number of columns per merged group."""
    parent = list(range(len(problem.groups)))

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for tie in problem.ties:
        for group in tie[1:]:
            low, high = sorted((root(tie[0]), root(group)))
            parent[high] = low
    if not problem.ties:
        return (np.arange(problem.option_count),), [len(names) for names in problem.options]
    tied: dict[int, list[int]] = {}
    for group in range(len(problem.groups)):
        tied.setdefault(root(group), []).append(group)
    depth = max(map(len, tied.values()))
    sizes = [len(problem.options[group]) for group in tied]
    layers = np.full((depth, sum(sizes)), -1, dtype=np.int64)
    start = 0
    for group, members in tied.items():
        names = problem.options[group]
        for rank, member in enumerate(members):
            places = {name: place for place, name in enumerate(problem.options[member])}
            at = int(problem.offsets[member])
            layers[rank, start : start + len(names)] = [at + places[name] for name in names]
        start += len(names)
    return tuple(layers), sizes


def _clauses(
    problem: Problem, layers: tuple[Index, ...], archs: Index
) -> tuple[list[tuple[int, int]], list[Clause], Index]:
    """Forbids over merged columns: single columns, longer clauses, and architectures ruled out.

    Architectures are positions in ``archs``. A clause that asks two things of one merged group
    can never be met in full and is dropped.
    """
    if not problem.forbid:
        return [], [], np.empty(0, dtype=np.int64)
    column_of = np.empty(problem.option_count, dtype=np.int64)
    for layer in layers:
        used = layer >= 0
        column_of[layer[used]] = np.flatnonzero(used)
    first = np.zeros(problem.option_count, dtype=np.int64)  # merged group of a column, by its root
    for layer in layers:
        used = layer >= 0
        first[layer[used]] = np.searchsorted(problem.offsets, layers[0][used], side="right") - 1
    place_of = {int(arch): place for place, arch in enumerate(archs)}
    units: list[tuple[int, int]] = []
    clauses: list[Clause] = []
    dead: list[int] = []
    for clause in problem.forbid:
        wanted_archs = {option for group, option in clause if group == ARCHITECTURE}
        if len(wanted_archs) > 1:
            continue
        arch = -1
        if wanted_archs:
            arch = place_of.get(wanted_archs.pop(), -2)
            if arch == -2:
                continue
        chosen: dict[int, int] = {}
        vacuous = False
        for group, option in clause:
            if group != ARCHITECTURE:
                place = int(problem.offsets[group]) + option
                column = int(column_of[place])
                vacuous |= chosen.setdefault(int(first[place]), column) != column
        columns = tuple(sorted(set(chosen.values())))
        if vacuous:
            continue
        if not columns:
            dead.append(arch)
        elif len(columns) == 1:
            units.append((arch, columns[0]))
        else:
            clauses.append(Clause(arch, columns))
    unique = list(dict.fromkeys(clauses))
    return units, unique, np.array(dead, dtype=np.int64)


def _mask(
    problem: Problem, layers: tuple[Index, ...], archs: Index, units: list[tuple[int, int]]
) -> BoolArray | None:
    if problem.allowed is None and not units:
        return None
    mask = np.ones((len(archs), len(layers[0])), dtype=np.bool_)
    if problem.allowed is not None:
        allowed = problem.allowed
        if allowed.ndim == 2:
            allowed = allowed[archs]
        for layer in layers:
            used = layer >= 0
            mask[:, used] &= allowed[..., layer[used]]
    for arch, column in units:
        mask[arch if arch >= 0 else slice(None), column] = False
    return mask


def _drop_columns(
    layers: tuple[Index, ...],
    offsets: Index,
    clauses: list[Clause],
    mask: BoolArray,
    usable: BoolArray,
) -> tuple[tuple[Index, ...], list[int], list[Clause], BoolArray]:
    """Without the columns that no architecture may choose (a group keeps at least one)."""
    starts = offsets[:-1]
    usable = usable.copy()
    lost = ~np.logical_or.reduceat(usable, starts)
    usable[starts[lost]] = True
    position = np.cumsum(usable) - 1
    kept = [
        Clause(c.arch, tuple(int(position[column]) for column in c.columns))
        for c in clauses
        if all(usable[column] for column in c.columns)
    ]
    sizes = np.add.reduceat(usable.astype(np.int64), starts)
    return (
        tuple(layer[usable] for layer in layers),
        [int(size) for size in sizes],
        kept,
        mask[:, usable],
    )


@dataclass(frozen=True)
class _Gather:
    """Tables over options to tables over merged columns and remaining architectures."""

    problem: Problem
    layers: tuple[Index, ...]
    archs: Index

    def table(self, values: IntArray, shape: Shape, sign: int) -> IntArray:
        if shape is Shape.JOINT and len(self.archs) != len(self.problem.architectures):
            values = values[self.archs]
        first = self.layers[0]
        same = len(self.layers) == 1 and len(first) == self.problem.option_count
        result: IntArray = values if same else values[..., first]
        for layer in self.layers[1:]:
            used = layer >= 0
            result[..., used] += values[..., layer[used]]
        if shape is Shape.JOINT and len(self.archs) == 1:
            result = result[0]
        return result if sign == 1 else -result
