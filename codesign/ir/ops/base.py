# SPDX-License-Identifier: Apache-2.0
"""Base of all operators, and the checks that several share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.types import S32, DType, TensorType


class OpError(Exception):
    """Operand types or attributes that an operator does not take."""


def need(condition: bool, message: str) -> None:
    """Raise OpError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise OpError(message)


@dataclass(frozen=True)
class Op:
    """Base of all operators."""

    name: ClassVar[str]
    """Name in the text form."""
    operands: ClassVar[tuple[str, ...]] = ("x",)
    """Names of the operands; optional ones are decided by the attributes (``operand_names``)."""

    def operand_names(self) -> tuple[str, ...]:
        """Names of the operands that this instance takes; ``"*"`` stands for any number."""
        return self.operands

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """Result type; raises OpError."""
        raise NotImplementedError

    def _arity(self, args: Sequence[TensorType]) -> None:
        names = self.operand_names()
        need(
            "*" in names or len(args) == len(names),
            f"{self.name} takes {len(names)} operands ({', '.join(names)}), got {len(args)}",
        )


@dataclass(frozen=True)
class Input(Op):
    """An input of the graph."""

    name: ClassVar[str] = "input"
    operands: ClassVar[tuple[str, ...]] = ()
    type: TensorType

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The declared type."""
        self._arity(args)
        need(all(n > 0 for n in self.type.shape), f"input has an empty dimension: {self.type}")
        return self.type


@dataclass(frozen=True)
class Constant(Op):
    """A tensor known at compile time; its value is in ``Graph.constants``."""

    name: ClassVar[str] = "constant"
    operands: ClassVar[tuple[str, ...]] = ()
    type: TensorType

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The declared type."""
        self._arity(args)
        return self.type


def result_dtype(op: str, *types: TensorType) -> DType:
    """Exact result format of arithmetic: floats stay float, integers go to s32."""
    floats = {t.dtype.is_float for t in types}
    need(len(floats) == 1, f"{op} mixes float and integer operands: {', '.join(map(str, types))}")
    return types[0].dtype if floats == {True} else S32


def broadcast_shapes(op: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy broadcasting; raises OpError."""
    rank = max(len(a), len(b))
    pad_a, pad_b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    need(
        all(m == n or 1 in (m, n) for m, n in zip(pad_a, pad_b)),
        f"{op} cannot broadcast {list(a)} with {list(b)}",
    )
    return tuple(n if m == 1 else m for m, n in zip(pad_a, pad_b))
