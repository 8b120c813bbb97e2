# SPDX-License-Identifier: Apache-2.0
"""Layers: convolution, linear, matrix product, batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.ops.activations import ActivationKind
from codesign.ir.ops.base import Op, broadcast_shapes, need, result_dtype
from codesign.ir.ops.elementwise import check_activation
from codesign.ir.types import DType, TensorType


def _check_bias(op: str, bias: TensorType, channels: int, result: DType) -> None:
    need(bias.shape == (channels,), f"{op} bias must have shape [{channels}], got {bias}")
    need(bias.dtype == result, f"{op} bias must be {result}, got {bias.dtype}")


def conv_output(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """Output positions of a sliding window along one axis (rounded down)."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def _layer_operands(bias: bool, residual: bool) -> tuple[str, ...]:
    return ("x", "w", *(("bias",) if bias else ()), *(("residual",) if residual else ()))


@dataclass(frozen=True)
class Conv2d(Op):
    """2-D convolution (cross-correlation), optionally with bias, residual and activation.

    x: [N, C, H, W], w: [O, C/groups, KH, KW], bias: [O], residual: the result's shape.
    result = activation(conv(x, w) + bias + residual).
    """

    name: ClassVar[str] = "conv2d"
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Zeros added at top, left, bottom, right."""
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    residual: bool = False
    activation: ActivationKind = "none"
    alpha: float = 0.0
    """Slope of leaky_relu."""

    def operand_names(self) -> tuple[str, ...]:
        """x, w, then bias and residual where present."""
        return _layer_operands(self.bias, self.residual)

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """[N, O, OH, OW]; s32 for integers."""
        self._arity(args)
        x, w = args[0], args[1]
        need(x.rank == 4, f"conv2d input must have 4 axes (N, C, H, W), got {x}")
        need(w.rank == 4, f"conv2d weight must have 4 axes (O, C/groups, KH, KW), got {w}")
        need(self.groups > 0, f"conv2d groups must be positive, got {self.groups}")
        channels, outputs = x.shape[1], w.shape[0]
        need(
            channels == w.shape[1] * self.groups and outputs % self.groups == 0,
            f"conv2d input has {channels} channels, weight {w} with groups {self.groups} "
            f"takes {w.shape[1] * self.groups}",
        )
        need(min(self.stride) > 0, f"conv2d stride must be positive, got {self.stride}")
        need(min(self.dilation) > 0, f"conv2d dilation must be positive, got {self.dilation}")
        need(min(self.padding) >= 0, f"conv2d padding must not be negative, got {self.padding}")
        dtype = result_dtype("conv2d", x, w)
        top, left, bottom, right = self.padding
        out_h = conv_output(x.shape[2], w.shape[2], self.stride[0], top, bottom, self.dilation[0])
        out_w = conv_output(x.shape[3], w.shape[3], self.stride[1], left, right, self.dilation[1])
        need(out_h > 0 and out_w > 0, f"conv2d kernel {w} is larger than the padded input {x}")
        result = TensorType((x.shape[0], outputs, out_h, out_w), dtype, x.layout)
        if self.bias:
            _check_bias("conv2d", args[2], outputs, dtype)
        if self.residual:
            need(
                args[-1].shape == result.shape and args[-1].dtype == dtype,
                f"conv2d residual must be {result}, got {args[-1]}",
            )
        check_activation(self.activation, dtype)
        return result


@dataclass(frozen=True)
class Linear(Op):
    """x @ w.T + bias over the last axis. x: [..., K], w: [O, K], bias: [O]."""

    name: ClassVar[str] = "linear"
    bias: bool = True
    residual: bool = False
    activation: ActivationKind = "none"
    alpha: float = 0.0

    def operand_names(self) -> tuple[str, ...]:
        """x, w, then bias and residual where present."""
        return _layer_operands(self.bias, self.residual)

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """[..., O]; s32 for integers."""
        self._arity(args)
        x, w = args[0], args[1]
        need(x.rank >= 1 and w.rank == 2, f"linear takes x [..., K] and w [O, K], got {x}, {w}")
        need(x.shape[-1] == w.shape[1], f"linear input {x} does not fit weight {w}")
        dtype = result_dtype("linear", x, w)
        result = TensorType((*x.shape[:-1], w.shape[0]), dtype)
        if self.bias:
            _check_bias("linear", args[2], w.shape[0], dtype)
        if self.residual:
            need(
                args[-1].shape == result.shape and args[-1].dtype == dtype,
                f"linear residual must be {result}, got {args[-1]}",
            )
        check_activation(self.activation, dtype)
        return result


@dataclass(frozen=True)
class MatMul(Op):
    """Batched matrix product of two values: a [..., M, K] @ b [..., K, N] (b may broadcast)."""

    name: ClassVar[str] = "matmul"
    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """[..., M, N]; s32 for integers."""
        self._arity(args)
        a, b = args
        need(a.rank >= 2 and b.rank >= 2, f"matmul takes matrices, got {a}, {b}")
        need(a.shape[-1] == b.shape[-2], f"matmul inner sizes differ: {a}, {b}")
        batch = broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2])
        return TensorType((*batch, a.shape[-2], b.shape[-1]), result_dtype("matmul", a, b))


@dataclass(frozen=True)
class BatchNorm(Op):
    """(x - mean) / sqrt(var + eps) * gamma + beta over axis 1. All parameters: [C]."""

    name: ClassVar[str] = "batch_norm"
    operands: ClassVar[tuple[str, ...]] = ("x", "gamma", "beta", "mean", "var")
    eps: float = 1e-5

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The type of x."""
        self._arity(args)
        x = args[0]
        need(x.rank >= 2 and x.dtype.is_float, f"batch_norm takes float [N, C, ...], got {x}")
        for label, arg in zip(self.operands[1:], args[1:]):
            want = (x.shape[1],)
            need(arg.shape == want, f"batch_norm {label} must be {list(want)}, got {arg}")
        return x
