# SPDX-License-Identifier: Apache-2.0
"""One architecture of a reduced problem as a knapsack, and helpers over all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codesign.solvers.formulate import linear
from codesign.solvers.knapsack import Knapsack
from codesign.solvers.model import Constraint, Model, Variable
from codesign.solvers.problem import BoolArray, IntArray
from codesign.solvers.reduce import Index, Reduced


def without_alike(reduced: Reduced) -> tuple[Reduced, int]:
    """Only the architecture of least base where they differ in nothing else; how many went."""
    tables = [reduced.cost, *(row.weights for row in reduced.rows)]
    if (
        len(reduced.archs) == 1
        or reduced.mask is not None
        or any(table.ndim == 2 for table in tables)
        or any(clause.arch >= 0 for clause in reduced.clauses)
    ):
        return reduced, 0
    best = int(reduced.base.argmin())
    kept = slice(best, best + 1)
    return (
        replace(reduced, archs=reduced.archs[kept], base=reduced.base[kept]),
        len(reduced.archs) - 1,
    )


def least_sums(table: IntArray, starts: Index, mask: BoolArray | None) -> IntArray:
    """The exact least total of every architecture (or one, shared)."""
    if mask is not None:
        table = np.broadcast_to(table, mask.shape)
        table = np.where(mask, table, table.max())
    least = np.minimum.reduceat(np.atleast_2d(table), starts, axis=1)
    total: IntArray = least.sum(axis=1)
    return total


def without_slack_rows(reduced: Reduced) -> Reduced:
    """Only the limits that some choice breaks."""
    starts = reduced.offsets[:-1]
    rows = tuple(
        row
        for row in reduced.rows
        if (least_sums(-row.weights, starts, reduced.mask) < -row.bound).any()
    )
    return replace(reduced, rows=rows)


def trivial_bound(reduced: Reduced) -> int:
    """The least sum of the groups' least costs over all architectures, exactly."""
    sums = least_sums(reduced.cost, reduced.offsets[:-1], reduced.mask)
    return int((sums + reduced.base).min())


def one_knapsack(reduced: Reduced, arch: int) -> tuple[Knapsack, Index]:
    """One architecture's knapsack without limits that always hold, and its columns' places."""

    def row(table: IntArray) -> IntArray:
        return table[arch] if table.ndim == 2 else table

    columns = np.arange(int(reduced.offsets[-1]))
    offsets = reduced.offsets
    if reduced.mask is not None:
        good = reduced.mask[arch]
        columns = np.flatnonzero(good)
        sizes = np.add.reduceat(good.astype(np.int64), offsets[:-1])
        offsets = np.concatenate(([0], np.cumsum(sizes)))
    weights, bounds = [], []
    for item in reduced.rows:
        values = row(item.weights)[columns]
        weights.append(values)
        bounds.append(item.bound)
    place = {int(column): at for at, column in enumerate(columns)} if reduced.clauses else {}
    clauses = tuple(
        tuple(place[column] for column in clause.columns)
        for clause in reduced.clauses
        if clause.arch in (-1, arch) and all(column in place for column in clause.columns)
    )
    cost = row(reduced.cost)[columns]
    return Knapsack(offsets, cost, tuple(weights), tuple(bounds), clauses), columns


def knapsack_model(knapsack: Knapsack) -> Model:
    """The knapsack as an integer model; its first variables are the columns."""
    count = int(knapsack.offsets[-1])
    everything = range(count)
    rows = []
    for group, (start, end) in enumerate(zip(knapsack.offsets, knapsack.offsets[1:])):
        terms = [(j, 1) for j in range(int(start), int(end))]
        rows.append(Constraint(f"pick[{group}]", linear(terms), 1, 1))
    for k, (weights, bound) in enumerate(zip(knapsack.weights, knapsack.bounds)):
        terms = [(j, int(weights[j])) for j in everything]
        rows.append(Constraint(f"limit[{k}]", linear(terms), None, bound))
    for place, clause in enumerate(knapsack.clauses):
        terms = [(j, 1) for j in clause]
        rows.append(Constraint(f"forbid[{place}]", linear(terms), None, len(clause) - 1))
    cost = linear((j, int(knapsack.cost[j])) for j in everything)
    variables = tuple(Variable(f"x[{j}]") for j in everything)
    return Model("knapsack", variables, tuple(rows), cost)
