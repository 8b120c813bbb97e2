# SPDX-License-Identifier: Apache-2.0
"""Integer programs with numbers beyond 64 bits, rewritten exactly with 64-bit ones.

With B = 2**40, a = B·hi + lo (0 ≤ lo < B) and b = B·b_hi + b_lo:

    a·x ≤ b   ⟺   there is an integer c with  lo·x - B·c ≤ b_lo  and  hi·x + c ≤ b_hi

(take c = ceil((lo·x - b_lo)/B)). An objective becomes several, minimised one after the other:
with c = floor(lo·x/B), first hi·x + c, then lo·x - B·c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from codesign.solvers.model import Constraint, Linear, Model, Variable

BASE = 2**40
SAFE = 2**61
"""Sums of magnitudes below this are left as they are."""


@dataclass(frozen=True)
class Split:
    """``model`` with its first variables unchanged, and its objective as ``levels`` to minimise
    in order: objective = Σ levels[i] · weights[i]."""

    model: Model
    levels: tuple[Linear, ...]
    weights: tuple[int, ...]


def split(model: Model) -> Split:
    """The same program with every row and level below ``SAFE``."""
    work = _Work(list(model.variables))
    for row in model.constraints:
        if fits(row.expression, work.variables, row.lower, row.upper):
            work.rows.append(row)
            continue
        if row.upper is not None:
            work.at_most(row.name, row.expression, row.upper)
        if row.lower is not None:
            work.at_most(row.name, _negated(row.expression), -row.lower)
    levels, weights = work.levels(model.objective)
    small = Model(model.name, tuple(work.variables), tuple(work.rows), levels[0])
    return Split(small, levels, weights)


def fits(expression: Linear, variables: Sequence[Variable], *bounds: int | None) -> bool:
    """Whether the sum of all magnitudes, bounds included, stays below ``SAFE``."""
    size = abs(expression.constant) + sum(abs(b) for b in bounds if b is not None)
    for column, coefficient in zip(expression.columns, expression.coefficients):
        variable = variables[column]
        size += abs(coefficient) * max(abs(variable.lower), abs(variable.upper))
    return size < SAFE


@dataclass
class _Work:
    variables: list[Variable]
    rows: list[Constraint] = field(default_factory=list)

    def _halves(self, expression: Linear) -> tuple[Linear, Linear, int]:
        """hi, lo (without constants) and a bound on lo·x."""
        pairs = [divmod(coefficient, BASE) for coefficient in expression.coefficients]
        high = _linear(expression.columns, [hi for hi, _ in pairs])
        low = _linear(expression.columns, [lo for _, lo in pairs])
        most = sum(c * self.variables[j].upper for j, c in zip(low.columns, low.coefficients))
        return high, low, most

    def _carry(self, most: int) -> int:
        self.variables.append(Variable(f"carry[{len(self.variables)}]", 0, most // BASE + 1))
        return len(self.variables) - 1

    def at_most(self, name: str, expression: Linear, upper: int) -> None:
        upper -= expression.constant
        expression = Linear(expression.columns, expression.coefficients)
        if fits(expression, self.variables, upper):
            self.rows.append(Constraint(name, expression, None, upper))
            return
        high, low, most = self._halves(expression)
        carry = self._carry(most)
        top, rest = divmod(upper, BASE)
        self.rows.append(Constraint(f"{name}.low", _plus(low, carry, -BASE), None, rest))
        self.at_most(f"{name}.high", _plus(high, carry, 1), top)

    def levels(self, expression: Linear) -> tuple[tuple[Linear, ...], tuple[int, ...]]:
        if fits(expression, self.variables):
            return (expression,), (1,)
        constant_high, constant_low = divmod(expression.constant, BASE)
        high, low, most = self._halves(expression)
        carry = self._carry(most)
        remainder = _plus(low, carry, -BASE)
        self.rows.append(Constraint("objective.low", remainder, 0, BASE - 1))
        upper = _plus(high, carry, 1)
        levels, weights = self.levels(Linear(upper.columns, upper.coefficients, constant_high))
        last = Linear(remainder.columns, remainder.coefficients, constant_low)
        return (*levels, last), (*(w * BASE for w in weights), 1)


def _linear(columns: Sequence[int], coefficients: Sequence[int]) -> Linear:
    kept = [(j, c) for j, c in zip(columns, coefficients) if c]
    return Linear(tuple(j for j, _ in kept), tuple(c for _, c in kept))


def _plus(expression: Linear, column: int, coefficient: int) -> Linear:
    return Linear(
        (*expression.columns, column), (*expression.coefficients, coefficient), expression.constant
    )


def _negated(expression: Linear) -> Linear:
    return Linear(
        expression.columns, tuple(-c for c in expression.coefficients), -expression.constant
    )
