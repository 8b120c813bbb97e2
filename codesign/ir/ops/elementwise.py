# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, activations and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.ops.activations import ACTIVATIONS, ActivationKind
from codesign.ir.ops.base import Op, broadcast_shapes, need, result_dtype
from codesign.ir.types import DType, TensorType


@dataclass(frozen=True)
class _Binary(Op):
    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """Broadcast shape; s32 for integers."""
        self._arity(args)
        a, b = args
        shape = broadcast_shapes(self.name, a.shape, b.shape)
        layout = next((t.layout for t in args if t.layout and t.shape == shape), "")
        return TensorType(shape, result_dtype(self.name, a, b), layout)


@dataclass(frozen=True)
class Add(_Binary):
    """a + b with NumPy broadcasting."""

    name: ClassVar[str] = "add"


@dataclass(frozen=True)
class Mul(_Binary):
    """a · b with NumPy broadcasting."""

    name: ClassVar[str] = "mul"


def check_activation(kind: str, dtype: DType) -> None:
    need(kind in ACTIVATIONS, f"unknown activation {kind!r} (known: {', '.join(ACTIVATIONS)})")
    need(
        dtype.is_float or kind in ("none", "relu"),
        f"activation {kind!r} has no integer form; integer graphs use clip or lookup",
    )


@dataclass(frozen=True)
class Activation(Op):
    """Element-wise activation: relu, relu6, leaky_relu, hardswish, sigmoid, silu, gelu, …"""

    name: ClassVar[str] = "activation"
    kind: ActivationKind
    alpha: float = 0.0
    """Slope of leaky_relu for negative inputs."""

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The type of x."""
        self._arity(args)
        need(self.kind != "none", "activation 'none' is no operator")
        check_activation(self.kind, args[0].dtype)
        return args[0]


@dataclass(frozen=True)
class Softmax(Op):
    """Softmax along ``axis``."""

    name: ClassVar[str] = "softmax"
    axis: int

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The type of x."""
        self._arity(args)
        x = args[0]
        need(x.dtype.is_float and 0 <= self.axis < x.rank, f"softmax axis {self.axis} on {x}")
        return x


@dataclass(frozen=True)
class LayerNorm(Op):
    """Normalise over the trailing axes that gamma covers; gamma and beta: trailing shape."""

    name: ClassVar[str] = "layer_norm"
    operands: ClassVar[tuple[str, ...]] = ("x", "gamma", "beta")
    eps: float = 1e-5

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The type of x."""
        self._arity(args)
        x, gamma, beta = args
        need(
            x.dtype.is_float and 0 < gamma.rank <= x.rank and x.shape[-gamma.rank :] == gamma.shape
            and beta.shape == gamma.shape,
            f"layer_norm parameters {gamma}, {beta} do not fit the trailing axes of {x}",
        )  # fmt: skip
        return x
