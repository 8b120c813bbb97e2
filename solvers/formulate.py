# SPDX-License-Identifier: Apache-2.0
"""Problem to integer model and back: ``lower`` gives the model and what ``lift`` needs.

Without a choice of architecture (p: merged groups, j: their columns, x binary):

    min Σ cost[j] x[j]   s.t.  Σ_{j in p} x[j] = 1,  Σ w[j] x[j] ≤ W,  Σ_{clause} x ≤ n - 1

With architectures a, one is picked (Σ z[a] = 1), and where a table depends on it, y[a,j] stands
for the product z[a] x[j] by the exact linear form Σ_{j in p} y[a,j] = z[a], Σ_a y[a,j] = x[j].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from codesign.solvers.base import CapabilityError
from codesign.solvers.model import Constraint, Linear, Model, Variable
from codesign.solvers.problem import IntArray, Problem
from codesign.solvers.reduce import Reduced, reduce_problem

MAX_VARIABLES = 500_000
"""Larger models are refused (``exact`` does not build one and has no such limit)."""


@dataclass(frozen=True, eq=False)
class Lowering:
    """A problem's model with the way back."""

    reduced: Reduced
    model: Model | None
    """None when ties, forbids or limits on the architecture alone leave nothing to choose."""
    choice_columns: int
    """x[j] are the variables 0 .. choice_columns - 1; z[a] follow."""

    def lift(self, values: Sequence[int]) -> tuple[tuple[int, ...], int | None]:
        """Option per group and the architecture, from the model's variable values."""
        columns = [column for column in range(self.choice_columns) if values[column]]
        arch = 0
        if len(self.reduced.archs) > 1:
            arch = next(
                a for a in range(len(self.reduced.archs)) if values[self.choice_columns + a]
            )
        return self.reduced.lift(columns), self.reduced.architecture(arch)

    def picked(self, values: Sequence[int]) -> list[int]:
        """The x and z variables that are 1: what identifies an answer."""
        last = self.choice_columns
        if len(self.reduced.archs) > 1:
            last += len(self.reduced.archs)
        return [column for column in range(last) if values[column]]


@dataclass
class _Builder:
    variables: list[Variable] = field(default_factory=list)
    rows: list[Constraint] = field(default_factory=list)

    def variable(self, name: str, upper: int = 1) -> int:
        self.variables.append(Variable(name, 0, upper))
        return len(self.variables) - 1

    def row(
        self,
        name: str,
        terms: Iterable[tuple[int, int]],
        lower: int | None,
        upper: int | None,
    ) -> None:
        self.rows.append(Constraint(name, linear(terms), lower, upper))


def linear(terms: Iterable[tuple[int, int]], constant: int = 0) -> Linear:
    """The expression of (column, coefficient) pairs; zero coefficients are left out."""
    kept = [(column, coefficient) for column, coefficient in terms if coefficient]
    return Linear(tuple(c for c, _ in kept), tuple(v for _, v in kept), constant)


def lower(problem: Problem) -> Lowering:
    """The problem's integer model. Raises CapabilityError beyond MAX_VARIABLES variables."""
    reduced = reduce_problem(problem)
    columns = int(reduced.offsets[-1])
    if reduced.empty:
        return Lowering(reduced, None, columns)
    archs = len(reduced.archs)
    tables = [reduced.cost, *(row.weights for row in reduced.rows)]
    joint = archs > 1 and (
        reduced.mask is not None
        or any(table.ndim == 2 for table in tables)
        or any(clause.arch >= 0 for clause in reduced.clauses)
    )
    size = columns + archs + (columns * archs if joint else 0)
    if size > MAX_VARIABLES:
        raise CapabilityError(
            f"the integer model would need {size} variables, more than {MAX_VARIABLES}; "
            "use the solver 'exact', which treats architectures one by one"
        )
    build = _Builder()
    names = _names(reduced)
    for column in range(columns):
        blocked = archs == 1 and reduced.mask is not None and not reduced.mask[0, column]
        build.variable(f"x[{names[column]}]", 0 if blocked else 1)
    for group, (start, end) in enumerate(zip(reduced.offsets, reduced.offsets[1:])):
        build.row(f"pick[{group}]", ((j, 1) for j in range(int(start), int(end))), 1, 1)
    if archs > 1:
        for arch in reduced.archs:
            build.variable(f"z[{problem.architectures[int(arch)]}]")
        build.row("pick_architecture", ((columns + a, 1) for a in range(archs)), 1, 1)
    if joint:
        _products(build, reduced, names)
    for row in reduced.rows:
        terms = _terms(reduced, row.weights, joint)
        build.row(f"limit[{row.limit.metric}.{row.limit.side}]", terms, None, row.bound)
    for place, clause in enumerate(reduced.clauses):
        picked = list(clause.columns)
        if archs > 1 and clause.arch >= 0:
            picked.append(columns + clause.arch)
        build.row(f"forbid[{place}]", ((j, 1) for j in picked), None, len(picked) - 1)
    terms = list(_terms(reduced, reduced.cost, joint))
    constant = 0
    if archs > 1:
        terms += [(columns + a, int(reduced.base[a])) for a in range(archs)]
    else:
        constant = int(reduced.base[0])
    model = Model(
        problem.name, tuple(build.variables), tuple(build.rows), linear(terms, constant)
    )
    return Lowering(reduced, model, columns)


def _names(reduced: Reduced) -> list[str]:
    """group.option of every column, by the first group of its tie."""
    problem = reduced.problem
    flat = [
        f"{group}.{option}"
        for group, options in zip(problem.groups, problem.options)
        for option in options
    ]
    return [flat[int(place)] for place in reduced.layers[0]]


def _products(build: _Builder, reduced: Reduced, names: list[str]) -> None:
    """y[a,j] = z[a] x[j]; y is variable columns + archs + a * columns + j."""
    columns, archs = len(names), len(reduced.archs)
    first = columns + archs
    for arch in range(archs):
        label = reduced.problem.architectures[int(reduced.archs[arch])]
        for column in range(columns):
            blocked = reduced.mask is not None and not reduced.mask[arch, column]
            build.variable(f"y[{label},{names[column]}]", 0 if blocked else 1)
    for arch in range(archs):
        at = first + arch * columns
        for group, (start, end) in enumerate(zip(reduced.offsets, reduced.offsets[1:])):
            terms = [(at + j, 1) for j in range(int(start), int(end))]
            build.row(f"on[{arch},{group}]", [*terms, (columns + arch, -1)], 0, 0)
    for column in range(columns):
        terms = [(first + arch * columns + column, 1) for arch in range(archs)]
        build.row(f"join[{column}]", [*terms, (column, -1)], 0, 0)


def _terms(reduced: Reduced, table: IntArray, joint: bool) -> Iterable[tuple[int, int]]:
    columns, archs = int(reduced.offsets[-1]), len(reduced.archs)
    if table.ndim == 1:
        return [(j, int(value)) for j, value in enumerate(table)]
    assert joint, "a table over architectures needs the products"
    first = columns + archs
    return [(first + place, int(value)) for place, value in enumerate(table.flat)]


__all__ = ["MAX_VARIABLES", "Lowering", "linear", "lower"]
