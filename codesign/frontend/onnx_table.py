# SPDX-License-Identifier: Apache-2.0
"""The table of ONNX operators: how a handler is declared and what it sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable
from codesign.ir.graph import Array
from codesign.ir.types import DType


@dataclass
class Known:
    """A value known at import: an initialiser, or computed from such."""

    value: Array
    dtype: DType | None = None
    """Number format where the array's own does not say it (4-bit integers)."""
    name: str = ""
    """Name in the model; empty for what was computed here."""
    built: str | None = None
    """Its constant in the builder, once it was needed there."""


@dataclass(frozen=True)
class Part:
    """A step of a pattern that is one operator in the IR (gelu by erf, layer norm by sqrt)."""

    kind: str
    x: str
    """The value the pattern started from."""
    eps: float = 0.0

    @property
    def complaint(self) -> str:
        """What to say where the pattern does not go on."""
        if self.kind == "std":
            return "Sqrt outside of a layer norm (x - mean) / sqrt(variance + eps)"
        return "Erf outside of a gelu x * (1 + erf(x / sqrt(2))) / 2"


Item = Known | Part | str
"""An operand: known, a step of a pattern, or the name of a computed value in the builder."""
Result = Item | list[str]


@dataclass(frozen=True)
class Call:
    """One node: its attributes and operands."""

    lower: Lowering
    kind: str
    items: list[Item | None]
    names: list[str]
    """Names of the operands in the model."""
    attributes: dict[str, Any]
    outputs: int
    """How many results the node has that have a name."""
    opset: int

    def __len__(self) -> int:
        return len(self.items)

    def has(self, index: int) -> bool:
        """Whether operand ``index`` is given."""
        return index < len(self.items) and self.items[index] is not None

    def item(self, index: int) -> Item:
        """Operand ``index`` as it is."""
        item = self.items[index] if index < len(self.items) else None
        if item is None:
            raise NotLowerable(f"operand {index} is missing")
        return item

    def tensor(self, index: int) -> str:
        """Operand ``index`` as a value in the builder."""
        item = self.item(index)
        if isinstance(item, Part):
            raise NotLowerable(item.complaint)
        if isinstance(item, str):
            return item
        if item.built is None:
            value = item.value
            if value.dtype.kind not in "fiu":
                raise NotLowerable(f"operand {self.names[index]!r} holds {value.dtype}")
            if value.dtype.kind == "f":
                value = value.astype(np.float32)
            name = item.name or f"{self.names[index]}"
            item.built = self.lower.builder.constant(value, name, item.dtype, item.name)
        return item.built

    def optional(self, index: int) -> str | None:
        """Operand ``index`` as a value, None if it is not given."""
        return self.tensor(index) if self.has(index) else None

    def known(self, index: int) -> Array:
        """Operand ``index``, which must be known at import."""
        item = self.item(index)
        if not isinstance(item, Known):
            raise NotLowerable(f"operand {self.names[index]!r} must be a constant")
        return item.value

    def ints(self, index: int) -> list[int]:
        """Operand ``index`` as a list of integers."""
        return [int(n) for n in self.known(index).reshape(-1)]

    def scalar(self, index: int) -> float | None:
        """Operand ``index`` as a known number, None if it is not given."""
        if not self.has(index):
            return None
        value = self.known(index)
        if value.size != 1:
            raise NotLowerable(f"operand {self.names[index]!r} must be one number")
        return float(value.reshape(()))

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute or its default."""
        return self.attributes.get(name, default)

    def axes(self, attribute: str, index: int) -> list[int] | None:
        """Axes given as attribute (older operator sets) or as operand; None if not given."""
        if attribute in self.attributes:
            return [int(n) for n in self.attributes[attribute]]
        return self.ints(index) if self.has(index) else None


Handler = Callable[[Lowering, Call], Result]
HANDLERS: dict[str, Handler] = {}
"""By operator name; filled by the modules that hold the handlers."""

NEEDED: dict[str, str] = {
    "QLinearConv": "operator-oriented quantization; export with QuantizeLinear and "
    "DequantizeLinear (quant_format=QDQ)",
    "QLinearMatMul": "operator-oriented quantization; export with QuantizeLinear and "
    "DequantizeLinear (quant_format=QDQ)",
    "DynamicQuantizeLinear": "scales chosen at run time; quantize statically",
    "ConvTranspose": "the IR has no transposed convolution; use Resize and a convolution",
    "Mish": "the IR has no mish; use silu or hardswish",
    "InstanceNormalization": "the IR has no instance norm; use batch norm or layer norm",
    "GroupNormalization": "the IR has no group norm; use batch norm or layer norm",
    "If": "control flow; export the branch that is taken",
    "Loop": "control flow; unroll it",
    "Scan": "control flow; unroll it",
    "LSTM": "recurrent networks cannot be taken",
    "GRU": "recurrent networks cannot be taken",
    "RNN": "recurrent networks cannot be taken",
    "Elu": "the IR has no elu; use leaky_relu",
    "Softplus": "the IR has no softplus; use relu",
}
"""What to do about operators that people meet often."""


def handles(*kinds: str) -> Callable[[Handler], Handler]:
    """Declare the handler of operators."""

    def register(handler: Handler) -> Handler:
        for kind in kinds:
            HANDLERS[kind] = handler
        return handler

    return register
