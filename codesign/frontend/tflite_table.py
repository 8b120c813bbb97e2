# SPDX-License-Identifier: Apache-2.0
"""What handlers of TFLite operators see and give, and the table they register in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codesign.errors import ParseError
from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable
from codesign.frontend.tflite_values import Values
from codesign.ir import ops
from codesign.ir.graph import Array
from codesign.zoo.tflite import TfliteOperator, TfliteOptions, TfliteTensor


@dataclass(frozen=True)
class Image:
    """A result in the form [N, C, H, W]."""

    value: str


@dataclass(frozen=True)
class Plain:
    """A result with the axes of the file."""

    value: str


@dataclass(frozen=True)
class Known:
    """A result computed at import."""

    value: Array


Result = Image | Plain | Known
Handler = Callable[["Call"], "Result | list[Result]"]
HANDLERS: dict[str, Handler] = {}
MOVES: set[str] = set()
"""Operators whose results are elements of their operands (or zero): one scale passes through."""


def handler(*kinds: str, moves: bool = False) -> Callable[[Handler], Handler]:
    """Register a handler for operators."""

    def register(function: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(kinds, function))
        if moves:
            MOVES.update(kinds)
        return function

    return register


@dataclass(frozen=True)
class Call:
    """One operator of the file."""

    operator: TfliteOperator
    values: Values

    @property
    def lower(self) -> Lowering:
        """Where nodes go."""
        return self.values.lower

    @property
    def options(self) -> TfliteOptions:
        """The operator's options."""
        return self.operator.options

    def has(self, position: int) -> bool:
        """Whether operand ``position`` is there."""
        inputs = self.operator.inputs
        return position < len(inputs) and inputs[position] >= 0

    def index(self, position: int) -> int:
        """Tensor number of an operand; raises ParseError if it is missing."""
        if not self.has(position):
            raise ParseError(f"{self.operator.kind} lacks operand {position}")
        return self.operator.inputs[position]

    def tensor(self, position: int) -> TfliteTensor:
        """The file's tensor of an operand."""
        return self.values.tensors[self.index(position)]

    def shape(self, position: int) -> tuple[int, ...]:
        """Shape of an operand in the file's order of axes."""
        return self.values.shape(self.index(position))

    def is_image(self, position: int) -> bool:
        """Whether an operand is a computed image."""
        return self.values.is_image(self.index(position))

    def image(self, position: int) -> str:
        """An operand as [N, C, H, W]; raises NotLowerable unless it has 4 axes."""
        if len(self.shape(position)) != 4:
            raise NotLowerable(
                f"operand of shape {list(self.shape(position))}; expected 4 axes (N, H, W, C)"
            )
        return self.values.image(self.index(position))

    def plain(self, position: int) -> str:
        """An operand with the axes of the file."""
        return self.values.plain(self.index(position))

    def either(self, position: int) -> Image | Plain:
        """An operand in the form it has."""
        if self.is_image(position):
            return Image(self.image(position))
        return Plain(self.plain(position))

    def known(self, position: int) -> Array | None:
        """The stored value of a constant operand."""
        return self.values.constant(self.index(position))

    def data(self, position: int) -> str:
        """An operand with the axes of the file; constants of integers too."""
        value = self.known(position)
        if value is None or value.dtype.kind == "f" or self.tensor(position).scales.size:
            return self.plain(position)
        if value.dtype.kind not in "iu":
            raise NotLowerable(f"operand {self.tensor(position).name!r} is {value.dtype}")
        return self.lower.constant(value, "operand")

    def ints(self, position: int) -> tuple[int, ...]:
        """A constant operand of integers, in a row."""
        value = self.known(position)
        name = self.tensor(position).name
        if value is None:
            raise NotLowerable(f"operand {name!r} is computed; only a constant can be taken")
        if value.dtype.kind not in "iu":
            raise NotLowerable(f"operand {name!r} is {value.dtype}; expected integers")
        return tuple(int(n) for n in value.reshape(-1))

    def axis(self, axis: int, rank: int) -> int:
        """``axis`` counted from the front."""
        if not -rank <= axis < rank:
            raise NotLowerable(f"axis {axis} of a tensor with {rank} axes")
        return axis % rank

    def fused(self, x: str, code: int) -> str:
        """The activation in an operator's options applied to ``x``."""
        lower = self.lower
        if code == 0:
            return x
        if code == 1:
            return lower.emit(ops.Activation("relu"), [x], "relu")
        if code == 2:
            return lower.clamp(x, -1.0, 1.0)
        if code == 3:
            return lower.emit(ops.Activation("relu6"), [x], "relu6")
        raise NotLowerable(
            f"fused activation with code {code}; relu (1), relu from -1 to 1 (2) and relu6 (3) "
            "can be taken"
        )


IMAGE_AXIS = (0, 2, 3, 1)
"""Where the file's axes N, H, W, C are in [N, C, H, W]."""
