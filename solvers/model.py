# SPDX-License-Identifier: Apache-2.0
"""The solver-neutral integer program: integer variables, linear rows, a linear objective.

Integers only. Back ends translate it and say so when a number is beyond them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variable:
    """An integer with inclusive bounds."""

    name: str
    lower: int = 0
    upper: int = 1


@dataclass(frozen=True, slots=True)
class Linear:
    """Σ coefficients[i] · variable[columns[i]] + constant; a column appears at most once."""

    columns: tuple[int, ...]
    coefficients: tuple[int, ...]
    constant: int = 0

    def value(self, values: Sequence[int]) -> int:
        """The expression's value, exactly."""
        return self.constant + sum(
            coefficient * values[column]
            for column, coefficient in zip(self.columns, self.coefficients)
        )


@dataclass(frozen=True, slots=True)
class Constraint:
    """lower ≤ expression ≤ upper; None leaves a side open."""

    name: str
    expression: Linear
    lower: int | None
    upper: int | None


@dataclass(frozen=True, slots=True)
class Model:
    """Minimise ``objective`` subject to ``constraints``."""

    name: str
    variables: tuple[Variable, ...]
    constraints: tuple[Constraint, ...]
    objective: Linear

    def violations(self, values: Sequence[int]) -> list[str]:
        """Names of the bounds and rows that ``values`` break, exactly."""
        broken = [
            variable.name
            for variable, value in zip(self.variables, values)
            if not variable.lower <= value <= variable.upper
        ]
        for row in self.constraints:
            value = row.expression.value(values)
            if (row.lower is not None and value < row.lower) or (
                row.upper is not None and value > row.upper
            ):
                broken.append(row.name)
        return broken

    def without(self, columns: Sequence[int]) -> Model:
        """The model where the 0/1 variables ``columns`` are not all 1."""
        row = Constraint(
            f"not_all_{len(self.constraints)}",
            Linear(tuple(columns), (1,) * len(columns)),
            None,
            len(columns) - 1,
        )
        return Model(self.name, self.variables, (*self.constraints, row), self.objective)

    def to_text(self) -> str:
        """A readable form, one row a line, for people and golden tests."""
        lines = [f"minimize {self._terms(self.objective)}", "subject to"]
        for row in self.constraints:
            low = "" if row.lower is None else f"{row.lower} <= "
            high = "" if row.upper is None else f" <= {row.upper}"
            if row.lower is not None and row.lower == row.upper:
                low, high = "", f" = {row.lower}"
            lines.append(f"  {row.name}: {low}{self._terms(row.expression)}{high}")
        lines.append("integers")
        lines += [f"  {v.lower} <= {v.name} <= {v.upper}" for v in self.variables]
        return "\n".join(lines) + "\n"

    def _terms(self, expression: Linear) -> str:
        text = ""
        for column, coefficient in zip(expression.columns, expression.coefficients):
            sign = "-" if coefficient < 0 else "+"
            size = "" if abs(coefficient) == 1 else f"{abs(coefficient)} "
            text += f" {sign} {size}{self.variables[column].name}"
        if expression.constant or not text:
            text += f" {'-' if expression.constant < 0 else '+'} {abs(expression.constant)}"
        return text.removeprefix(" + ").replace(" - ", "- ", 1) if text[1] == "-" else text[3:]
