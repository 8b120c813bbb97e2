# SPDX-License-Identifier: Apache-2.0
"""Operators of the graph IR: frozen dataclasses whose fields are the attributes.

Every operator has one result. ``infer`` checks the operand types and gives the result type;
it raises ``OpError`` with a message that names expected and got. What an operator computes is
written once, in ``codesign.ir.interpret``. Weights, biases and scales are operands (constants
of the graph), so that passes treat them like any other value.

Integer graphs use the same operators on integer types: a convolution, linear, matmul, add,
mul or sum of integers gives the exact ``s32`` result; ``Requantize`` and ``Clip`` bring it
back to a narrow format (DESIGN, section 3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from codesign.ir.types import F32, S32, DType, TensorType

ACTIVATIONS = (
    "none", "relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid", "sigmoid", "silu",
    "gelu", "gelu_tanh", "tanh",
)  # fmt: skip
ActivationKind = Literal[
    "none", "relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid", "sigmoid", "silu",
    "gelu", "gelu_tanh", "tanh",
]  # fmt: skip


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


def _result_dtype(op: str, *types: TensorType) -> DType:
    """Exact result format of arithmetic: floats stay float, integers go to s32."""
    floats = {t.dtype.is_float for t in types}
    need(len(floats) == 1, f"{op} mixes float and integer operands: {', '.join(map(str, types))}")
    return types[0].dtype if floats == {True} else S32


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
        dtype = _result_dtype("conv2d", x, w)
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
        _check_activation(self.activation, dtype)
        return result


def _check_activation(kind: str, dtype: DType) -> None:
    need(kind in ACTIVATIONS, f"unknown activation {kind!r} (known: {', '.join(ACTIVATIONS)})")
    need(
        dtype.is_float or kind in ("none", "relu"),
        f"activation {kind!r} has no integer form; integer graphs use clip or lookup",
    )


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
        dtype = _result_dtype("linear", x, w)
        result = TensorType((*x.shape[:-1], w.shape[0]), dtype)
        if self.bias:
            _check_bias("linear", args[2], w.shape[0], dtype)
        if self.residual:
            need(
                args[-1].shape == result.shape and args[-1].dtype == dtype,
                f"linear residual must be {result}, got {args[-1]}",
            )
        _check_activation(self.activation, dtype)
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
        return TensorType((*batch, a.shape[-2], b.shape[-1]), _result_dtype("matmul", a, b))


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


def broadcast_shapes(op: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy broadcasting; raises OpError."""
    rank = max(len(a), len(b))
    pad_a, pad_b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    need(
        all(m == n or 1 in (m, n) for m, n in zip(pad_a, pad_b)),
        f"{op} cannot broadcast {list(a)} with {list(b)}",
    )
    return tuple(n if m == 1 else m for m, n in zip(pad_a, pad_b))


@dataclass(frozen=True)
class _Binary(Op):
    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """Broadcast shape; s32 for integers."""
        self._arity(args)
        a, b = args
        shape = broadcast_shapes(self.name, a.shape, b.shape)
        layout = next((t.layout for t in args if t.layout and t.shape == shape), "")
        return TensorType(shape, _result_dtype(self.name, a, b), layout)


@dataclass(frozen=True)
class Add(_Binary):
    """a + b with NumPy broadcasting."""

    name: ClassVar[str] = "add"


@dataclass(frozen=True)
class Mul(_Binary):
    """a · b with NumPy broadcasting."""

    name: ClassVar[str] = "mul"


@dataclass(frozen=True)
class Concat(Op):
    """Concatenation along ``axis``."""

    name: ClassVar[str] = "concat"
    operands: ClassVar[tuple[str, ...]] = ("*",)
    axis: int = 1

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The joined shape."""
        need(len(args) > 0, "concat takes at least one operand")
        first = args[0]
        need(0 <= self.axis < first.rank, f"concat axis {self.axis} is not one of {first}")
        for arg in args:
            same = arg.rank == first.rank and all(
                m == n for i, (m, n) in enumerate(zip(arg.shape, first.shape)) if i != self.axis
            )
            need(same and arg.dtype == first.dtype, f"concat operands do not fit: {first}, {arg}")
        total = sum(arg.shape[self.axis] for arg in args)
        shape = tuple(total if i == self.axis else n for i, n in enumerate(first.shape))
        return TensorType(shape, first.dtype, first.layout)


@dataclass(frozen=True)
class Slice(Op):
    """x[..., start:stop:step, ...] along ``axis``; a split is several slices."""

    name: ClassVar[str] = "slice"
    axis: int
    start: int
    stop: int
    step: int = 1

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The sliced shape."""
        self._arity(args)
        x = args[0]
        need(0 <= self.axis < x.rank, f"slice axis {self.axis} is not one of {x}")
        need(
            self.step > 0 and 0 <= self.start < self.stop <= x.shape[self.axis],
            f"slice [{self.start}:{self.stop}:{self.step}] does not fit axis {self.axis} of {x}",
        )
        n = -(-(self.stop - self.start) // self.step)
        shape = tuple(n if i == self.axis else m for i, m in enumerate(x.shape))
        return TensorType(shape, x.dtype, x.layout)


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
        _check_activation(self.kind, args[0].dtype)
        return args[0]


@dataclass(frozen=True)
class Pool2d(Op):
    """Max, average or sum over windows of [N, C, H, W].

    Padding counts as minus infinity for max and zero for avg and sum. ``avg`` divides by the
    window size, or by the number of real elements when ``count_include_pad`` is false.
    ``sum`` is what integer graphs use: exact, in s32, the division is left to Requantize.
    """

    name: ClassVar[str] = "pool2d"
    kind: Literal["max", "avg", "sum"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, left, bottom, right; a ceil-mode pool is one with more padding at the end."""
    dilation: tuple[int, int] = (1, 1)
    count_include_pad: bool = True

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """[N, C, OH, OW]; sums of integers are s32."""
        self._arity(args)
        x = args[0]
        need(x.rank == 4, f"pool2d input must have 4 axes (N, C, H, W), got {x}")
        need(self.kind in ("max", "avg", "sum"), f"unknown pool2d kind {self.kind!r}")
        need(
            min(*self.kernel, *self.stride, *self.dilation) > 0 and min(self.padding) >= 0,
            f"pool2d kernel, stride and dilation must be positive: {self}",
        )
        top, left, bottom, right = self.padding
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation)]
        need(
            max(top, bottom) < reach[0] and max(left, right) < reach[1],
            f"pool2d padding {self.padding} must be smaller than the window {self.kernel}",
        )
        need(
            not (self.kind == "avg" and x.dtype.is_integer),
            "pool2d 'avg' has no integer form; integer graphs use 'sum' and requantize",
        )
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        out_h = conv_output(x.shape[2], kh, sh, top, bottom, dh)
        out_w = conv_output(x.shape[3], kw, sw, left, right, dw)
        need(out_h > 0 and out_w > 0, f"pool2d window {self.kernel} is larger than padded {x}")
        dtype = S32 if self.kind == "sum" and x.dtype.is_integer else x.dtype
        return TensorType((*x.shape[:2], out_h, out_w), dtype, x.layout)


@dataclass(frozen=True)
class Reduce(Op):
    """Mean, max or sum over ``axes``; over (2, 3) of an image it is the global pooling."""

    name: ClassVar[str] = "reduce"
    kind: Literal["mean", "max", "sum"]
    axes: tuple[int, ...]
    keepdims: bool = True

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The reduced shape; sums of integers are s32."""
        self._arity(args)
        x = args[0]
        need(self.kind in ("mean", "max", "sum"), f"unknown reduce kind {self.kind!r}")
        need(
            len(set(self.axes)) == len(self.axes) > 0 and all(0 <= a < x.rank for a in self.axes),
            f"reduce axes {self.axes} do not fit {x}",
        )
        need(
            not (self.kind == "mean" and x.dtype.is_integer),
            "reduce 'mean' has no integer form; integer graphs use 'sum' and requantize",
        )
        dtype = S32 if self.kind == "sum" and x.dtype.is_integer else x.dtype
        if self.keepdims:
            shape = tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))
        else:
            shape = tuple(n for i, n in enumerate(x.shape) if i not in self.axes)
        return TensorType(shape, dtype)


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


@dataclass(frozen=True)
class Reshape(Op):
    """Same elements in row-major order, another shape (also flatten, squeeze, unsqueeze)."""

    name: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The new shape."""
        self._arity(args)
        x = args[0]
        need(
            math.prod(self.shape) == x.size,
            f"reshape of {x} ({x.size} elements) to {list(self.shape)} "
            f"({math.prod(self.shape)} elements)",
        )
        return x.with_shape(self.shape)


@dataclass(frozen=True)
class Broadcast(Op):
    """NumPy broadcast to ``shape`` (torch expand)."""

    name: ClassVar[str] = "broadcast"
    shape: tuple[int, ...]

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The new shape."""
        self._arity(args)
        need(
            broadcast_shapes("broadcast", args[0].shape, self.shape) == self.shape,
            f"broadcast cannot take {args[0]} to {list(self.shape)}",
        )
        return args[0].with_shape(self.shape)


@dataclass(frozen=True)
class Transpose(Op):
    """Permute the logical axes."""

    name: ClassVar[str] = "transpose"
    perm: tuple[int, ...]

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The permuted shape."""
        self._arity(args)
        x = args[0]
        need(
            sorted(self.perm) == list(range(x.rank)),
            f"transpose {list(self.perm)} is no permutation of the axes of {x}",
        )
        return x.with_shape(tuple(x.shape[i] for i in self.perm))


@dataclass(frozen=True)
class Pad(Op):
    """Pad each axis: ``before`` and ``after`` hold one count an axis."""

    name: ClassVar[str] = "pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    mode: Literal["constant", "reflect", "edge"] = "constant"
    value: float = 0.0

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """The padded shape."""
        self._arity(args)
        x = args[0]
        need(
            len(self.before) == len(self.after) == x.rank and min(*self.before, *self.after) >= 0,
            f"pad {self.before}, {self.after} does not fit {x}",
        )
        need(self.mode in ("constant", "reflect", "edge"), f"unknown pad mode {self.mode!r}")
        need(
            x.dtype.is_float
            or (float(self.value).is_integer() and x.dtype.min <= self.value <= x.dtype.max),
            f"pad value {self.value} does not fit {x}",
        )
        if self.mode == "reflect":
            need(
                all(max(b, a) < n for b, a, n in zip(self.before, self.after, x.shape)),
                f"reflect pad {self.before}, {self.after} is larger than {x}",
            )
        shape = tuple(b + n + a for b, n, a in zip(self.before, x.shape, self.after))
        return TensorType(shape, x.dtype, x.layout)


@dataclass(frozen=True)
class Resize(Op):
    """Resize H and W of [N, C, H, W] to ``size``.

    ``coordinates`` maps an output position i to an input position (ONNX names):
    half_pixel (i + 0.5)·in/out − 0.5, asymmetric i·in/out, align_corners i·(in−1)/(out−1).
    ``nearest`` rounds as ``rounding`` says; ``bilinear`` interpolates and clamps at the edge.
    """

    name: ClassVar[str] = "resize"
    size: tuple[int, int]
    kind: Literal["nearest", "bilinear"] = "nearest"
    coordinates: Literal["half_pixel", "asymmetric", "align_corners"] = "asymmetric"
    rounding: Literal["floor", "round_prefer_floor", "round_prefer_ceil", "ceil"] = "floor"

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """[N, C, *size]."""
        self._arity(args)
        x = args[0]
        need(x.rank == 4 and min(self.size) > 0, f"resize of {x} to {self.size}")
        need(self.kind in ("nearest", "bilinear"), f"unknown resize kind {self.kind!r}")
        need(
            self.kind == "nearest" or x.dtype.is_float, "bilinear resize has no integer form"
        )
        need(
            self.coordinates in ("half_pixel", "asymmetric", "align_corners"),
            f"unknown resize coordinates {self.coordinates!r}",
        )
        need(
            self.rounding in ("floor", "round_prefer_floor", "round_prefer_ceil", "ceil"),
            f"unknown resize rounding {self.rounding!r}",
        )
        return TensorType((*x.shape[:2], *self.size), x.dtype, x.layout)


def _check_scale(op: str, x: TensorType, scale: TensorType, axis: int) -> None:
    need(scale.dtype == F32, f"{op} scale must be f32, got {scale}")
    if axis < 0:
        need(scale.shape == (), f"{op} scale must be a scalar f32[], got {scale}")
    else:
        need(
            axis < x.rank and scale.shape == (x.shape[axis],),
            f"{op} scale must be f32[{x.shape[axis] if axis < x.rank else '?'}] for axis {axis} "
            f"of {x}, got {scale}",
        )


@dataclass(frozen=True)
class Quantize(Op):
    """clip(floor(x / scale + 1/2) + zero_point) in float32, to an integer format.

    scale: f32[] with ``axis`` −1, else f32[size of axis]. Our own networks have zero point 0;
    imported ones may not.
    """

    name: ClassVar[str] = "quantize"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale")
    dtype: DType
    axis: int = -1
    zero_point: tuple[int, ...] = (0,)
    """One value, or one for each position of ``axis``."""

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in ``dtype``."""
        self._arity(args)
        x, scale = args
        need(x.dtype.is_float, f"quantize takes a float, got {x}")
        need(
            self.dtype.is_integer and self.dtype.bits <= 32,
            f"quantize gives an integer of up to 32 bits, not {self.dtype}",
        )
        _check_scale("quantize", x, scale, self.axis)
        need(len(self.zero_point) in (1, scale.size), "quantize zero_point does not fit scale")
        return dataclasses.replace(x, dtype=self.dtype)


@dataclass(frozen=True)
class Dequantize(Op):
    """(x − zero_point) · scale, in float32 with one rounding."""

    name: ClassVar[str] = "dequantize"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale")
    axis: int = -1
    zero_point: tuple[int, ...] = (0,)

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in f32."""
        self._arity(args)
        x, scale = args
        need(x.dtype.is_integer, f"dequantize takes an integer, got {x}")
        _check_scale("dequantize", x, scale, self.axis)
        need(len(self.zero_point) in (1, scale.size), "dequantize zero_point does not fit scale")
        return dataclasses.replace(x, dtype=F32)


@dataclass(frozen=True)
class Requantize(Op):
    """clip((x·m + 2^(e−1)) >> e, lo, hi): dyadic rescaling, round half up (DESIGN, section 3).

    m and e: s32 constants, scalars with ``axis`` −1, else one for each position of ``axis``;
    2^15 ≤ m < 2^16 or m = 0; 1 ≤ e ≤ 62. The product is taken in 64 bits.
    """

    name: ClassVar[str] = "requantize"
    operands: ClassVar[tuple[str, ...]] = ("x", "m", "e")
    dtype: DType
    lo: int
    hi: int
    axis: int = -1

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in ``dtype``."""
        self._arity(args)
        x, m, e = args
        need(x.dtype.is_integer and x.dtype.bits <= 32, f"requantize takes up to s32, got {x}")
        _check_range("requantize", self.dtype, self.lo, self.hi)
        shape = () if self.axis < 0 else (x.shape[self.axis],) if self.axis < x.rank else None
        for label, arg in (("m", m), ("e", e)):
            need(
                arg.shape == shape and arg.dtype == S32,
                f"requantize {label} must be s32{list(shape or ())} for axis {self.axis} of {x}, "
                f"got {arg}",
            )
        return dataclasses.replace(x, dtype=self.dtype)


def _check_range(op: str, dtype: DType, lo: int, hi: int) -> None:
    need(dtype.is_integer, f"{op} gives an integer, not {dtype}")
    need(
        dtype.min <= lo <= hi <= dtype.max,
        f"{op} range [{lo}, {hi}] does not fit {dtype} [{dtype.min}, {dtype.max}]",
    )


@dataclass(frozen=True)
class Clip(Op):
    """clip(x, lo, hi) of an integer, stored as ``dtype``."""

    name: ClassVar[str] = "clip"
    dtype: DType
    lo: int
    hi: int

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in ``dtype``."""
        self._arity(args)
        need(args[0].dtype.is_integer, f"clip takes an integer, got {args[0]}")
        _check_range("clip", self.dtype, self.lo, self.hi)
        return dataclasses.replace(args[0], dtype=self.dtype)


@dataclass(frozen=True)
class Lookup(Op):
    """table[x − min(dtype of x)]: any function of one narrow integer (sigmoid, hardswish, …)."""

    name: ClassVar[str] = "lookup"
    operands: ClassVar[tuple[str, ...]] = ("x", "table")

    def infer(self, args: Sequence[TensorType]) -> TensorType:
        """x in the table's format."""
        self._arity(args)
        x, table = args
        need(x.dtype.is_integer and x.dtype.bits <= 16, f"lookup takes up to 16 bits, got {x}")
        need(
            table.shape == (1 << x.dtype.bits,) and table.dtype.is_integer,
            f"lookup table must hold {1 << x.dtype.bits} integers, got {table}",
        )
        return dataclasses.replace(x, dtype=table.dtype)


OPS: dict[str, type[Op]] = {
    cls.name: cls
    for cls in (
        Input, Constant, Conv2d, Linear, MatMul, BatchNorm, Add, Mul, Concat, Slice, Activation,
        Pool2d, Reduce, Softmax, LayerNorm, Reshape, Broadcast, Transpose, Pad, Resize, Quantize,
        Dequantize, Requantize, Clip, Lookup,
    )
}  # fmt: skip
"""All operators by their text name."""
