# SPDX-License-Identifier: Apache-2.0
"""The table of ATen operators: how a handler is declared and what it sees.

A handler takes the lowering and the call's arguments (by the names of the operator's schema,
defaults filled in) and returns the value or values that stand for the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable


@dataclass(frozen=True)
class Value:
    """A tensor: its name in the builder."""

    name: str


@dataclass(frozen=True)
class Args:
    """Arguments of one call; tensors are ``Value``, the rest plain Python."""

    values: Mapping[str, Any]
    lower: Lowering

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def tensor(self, name: str) -> str:
        """A tensor argument's value."""
        value = self.values[name]
        if not isinstance(value, Value):
            raise NotLowerable(f"argument {name!r} must be a tensor, got {value!r}")
        return value.name

    def optional(self, name: str) -> str | None:
        """A tensor argument that may be None."""
        return None if self.values[name] is None else self.tensor(name)

    def operand(self, name: str) -> str:
        """A tensor argument, or a number made a scalar constant."""
        value = self.values[name]
        if isinstance(value, Value):
            return value.name
        return self.lower.scalar(float(value), name)

    def number(self, name: str) -> float | None:
        """A number, a constant scalar tensor's value, or None."""
        value = self.values[name]
        if isinstance(value, Value):
            array = self.lower.known(value.name)
            if array is None or array.size != 1:
                raise NotLowerable(f"argument {name!r} must be a constant number")
            return float(array.reshape(()))
        return None if value is None else float(value)

    def pair(self, name: str) -> tuple[int, int]:
        """Two integers; one stands for both."""
        value: Sequence[int] = self.values[name]
        if len(value) not in (1, 2):
            raise NotLowerable(f"{name} {list(value)}; only 2-D windows can be taken")
        return int(value[0]), int(value[-1])

    def pads(self, name: str) -> tuple[int, int, int, int]:
        """Symmetric padding as top, left, bottom, right."""
        rows, columns = self.pair(name)
        return rows, columns, rows, columns

    def arrays(self, name: str) -> list[str]:
        """A list of tensors."""
        return [item.name for item in self.values[name]]


Result = str | list[str]
Handler = Callable[[Lowering, Args], Result]
HANDLERS: dict[str, Handler] = {}
"""``aten.relu.default`` and so on; filled by the modules that hold the handlers."""

NEEDED: dict[str, str] = {
    "aten.index.Tensor": "indexing with tensors is data movement the IR has not; use slices",
    "aten.embedding.default": "the IR has no table lookup of vectors; feed embedded inputs",
    "aten._native_batch_norm_legit.no_stats": (
        "batch norm without running statistics; use track_running_stats=True"
    ),
    "aten._native_batch_norm_legit_functional.default": (
        "batch norm in training mode; call eval() before the export"
    ),
    "aten.group_norm.default": "the IR has no group norm; use batch norm or layer norm",
    "aten.instance_norm.default": "the IR has no instance norm; use batch norm or layer norm",
    "aten.conv_transpose2d.input": (
        "the IR has no transposed convolution; use nearest or bilinear resize and a convolution"
    ),
    "aten.conv1d.default": "the IR has 2-D convolutions only; reshape to [N, C, 1, W]",
    "aten.conv3d.default": "the IR has 2-D convolutions only",
    "aten.mish.default": "the IR has no mish; use silu or hardswish",
    "aten.softplus.default": "the IR has no softplus; use relu",
    "aten.elu.default": "the IR has no elu; use leaky_relu",
    "aten.lstm.input": "recurrent networks cannot be taken",
    "aten.gru.input": "recurrent networks cannot be taken",
}
"""What to do about operators that people meet often."""


def handles(*targets: str) -> Callable[[Handler], Handler]:
    """Declare the handler of ATen overloads, named without ``aten.``."""

    def register(handler: Handler) -> Handler:
        for target in targets:
            HANDLERS[f"aten.{target}"] = handler
        return handler

    return register


def number_list(value: Any) -> list[int]:
    """A list argument that may be None or a single integer."""
    if value is None:
        return []
    return [int(value)] if isinstance(value, int) else [int(n) for n in value]


def as_float(array: np.typing.NDArray[Any]) -> np.typing.NDArray[Any]:
    """Floating-point parameters as float32; integers stay."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array
