# SPDX-License-Identifier: Apache-2.0
"""The Relax operators that have a form in the graph IR, one handler each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable
from codesign.ir.ops import Activation, ActivationKind

Values = str | list[str]


@dataclass(frozen=True)
class Call:
    """One call: operands in order (values, numbers, shapes) and attributes."""

    lower: Lowering
    operands: Sequence[Any]
    attrs: Any

    def tensor(self, index: int = 0) -> str:
        """Operand ``index``, which must be a tensor."""
        value = self.operands[index]
        if not isinstance(value, str):
            raise NotLowerable(f"operand {index} must be a tensor, got {value!r}")
        return value

    def pair(self, name: str) -> tuple[int, int]:
        """A pair of integers among the attributes."""
        first, second = (int(n) for n in getattr(self.attrs, name))
        return first, second

    def pads(self) -> tuple[int, int, int, int]:
        """Padding as top, left, bottom, right."""
        pads = [int(n) for n in self.attrs.padding]
        top, left, bottom, right = pads * 2 if len(pads) == 2 else pads
        return top, left, bottom, right

    def axes(self, name: str = "axis") -> list[int]:
        """An attribute that is an axis, a list of axes, or nothing."""
        found = getattr(self.attrs, name)
        if found is None:
            return []
        return [int(found)] if isinstance(found, int) else [int(n) for n in found]

    def layout(self, name: str, wanted: str) -> None:
        """Raise NotLowerable unless a layout attribute is ``wanted``."""
        found = str(getattr(self.attrs, name))
        if found != wanted:
            raise NotLowerable(f"{name} {found}; run before ConvertLayout, with {wanted}")


Handler = Callable[[Call], Values]
HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Declare the handler of Relax operators, named without ``relax.``."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[f"relax.{name}"] = handler
        return handler

    return register


@handles("nn.conv2d")
def _conv2d(c: Call) -> Values:
    c.layout("data_layout", "NCHW")
    c.layout("kernel_layout", "OIHW")
    return c.lower.conv2d(
        c.tensor(0), c.tensor(1), None, c.pair("strides"), c.pads(), c.pair("dilation"),
        int(c.attrs.groups),
    )  # fmt: skip


@handles("matmul")
def _matmul(c: Call) -> Values:
    return c.lower.matmul(c.tensor(0), c.tensor(1))


@handles("nn.batch_norm")
def _batch_norm(c: Call) -> Values:
    if c.attrs.training:
        raise NotLowerable("batch norm in training mode; export the model in eval mode")
    if int(c.attrs.axis) != 1:
        raise NotLowerable(f"batch norm over axis {c.attrs.axis}; only axis 1 can be taken")
    x, gamma, beta, mean, var = (c.tensor(i) for i in range(5))
    y = c.lower.batch_norm(x, gamma, beta, mean, var, float(c.attrs.epsilon))
    return [y, mean, var]  # the statistics stay as they are


@handles("nn.layer_norm")
def _layer_norm(c: Call) -> Values:
    x = c.tensor()
    shape = c.lower.shape(x)
    axes = sorted(c.lower.axis(x, a) for a in c.axes("axes"))
    if axes != list(range(len(shape) - len(axes), len(shape))):
        raise NotLowerable(f"layer norm over axes {axes}; only trailing axes can be taken")
    normal = shape[len(shape) - len(axes) :]
    return c.lower.layer_norm(x, c.tensor(1), c.tensor(2), normal, float(c.attrs.epsilon))


@handles("nn.softmax")
def _softmax(c: Call) -> Values:
    return c.lower.softmax(c.tensor(), int(c.attrs.axis))


@handles("add")
def _add(c: Call) -> Values:
    return c.lower.add(c.tensor(0), c.tensor(1))


@handles("subtract")
def _subtract(c: Call) -> Values:
    return c.lower.sub(c.tensor(0), c.tensor(1))


@handles("multiply")
def _multiply(c: Call) -> Values:
    return c.lower.mul(c.tensor(0), c.tensor(1))


@handles("divide")
def _divide(c: Call) -> Values:
    return c.lower.div(c.tensor(0), c.tensor(1))


@handles("negative")
def _negative(c: Call) -> Values:
    return c.lower.mul(c.tensor(), c.lower.scalar(-1.0, "minus_one"))


@handles("power")
def _power(c: Call) -> Values:
    return c.lower.power(c.tensor(), _number(c, 1))


@handles("clip")
def _clip(c: Call) -> Values:
    return _clamp(c, float(c.operands[1]), float(c.operands[2]))


@handles("maximum")
def _maximum(c: Call) -> Values:
    return _clamp(c, _number(c, 1), math.inf)


@handles("minimum")
def _minimum(c: Call) -> Values:
    return _clamp(c, -math.inf, _number(c, 1))


def _clamp(c: Call, low: float, high: float) -> str:
    """Clamp; max(x, 0) that is clamped from above becomes one clamp."""
    x = c.tensor()
    node = c.lower.builder.node(x)
    if low < 0 and isinstance(node.op, Activation) and node.op.kind == "relu" and high > 0:
        return c.lower.clamp(node.inputs[0], 0.0, high)
    return c.lower.clamp(x, low, high)


@handles("isnan")
def _isnan(c: Call) -> Values:
    """Of a constant only: TVM's ONNX frontend asks it of the bounds of Clip."""
    known = c.lower.known(c.tensor())
    if known is None or known.size != 1:
        raise NotLowerable("isnan of a computed tensor")
    return "nan" if np.isnan(known).any() else "number"


@handles("where")
def _where(c: Call) -> Values:
    if c.operands[0] not in ("nan", "number"):
        raise NotLowerable("the IR has no choice between tensors")
    return c.tensor(1 if c.operands[0] == "nan" else 2)


def _number(c: Call, index: int) -> float:
    value = c.operands[index]
    if isinstance(value, str):
        known = c.lower.known(value)
        if known is None or known.size != 1:
            raise NotLowerable(f"operand {index} must be a constant number")
        return float(known.reshape(()))
    return float(value)


def _plain(kind: ActivationKind) -> Handler:
    return lambda c: c.lower.activation(c.tensor(), kind)


_ACTIVATIONS: dict[str, ActivationKind] = {
    "nn.relu": "relu", "nn.relu6": "relu6", "nn.gelu": "gelu", "nn.gelu_tanh": "gelu_tanh",
    "nn.silu": "silu", "sigmoid": "sigmoid", "tanh": "tanh",
}  # fmt: skip
for _name, _kind in _ACTIVATIONS.items():
    handles(_name)(_plain(_kind))


@handles("nn.leakyrelu")
def _leaky_relu(c: Call) -> Values:
    return c.lower.activation(c.tensor(), "leaky_relu", float(c.attrs.alpha))


def _pool(kind: Literal["max", "avg"]) -> Handler:
    def handler(c: Call) -> Values:
        c.layout("layout", "NCHW")
        return c.lower.pool(
            c.tensor(), kind, c.pair("pool_size"), c.pair("strides"), c.pads(),
            c.pair("dilation"), bool(c.attrs.ceil_mode), bool(c.attrs.count_include_pad),
        )  # fmt: skip

    return handler


def _adaptive(c: Call) -> Values:
    c.layout("layout", "NCHW")
    x = c.tensor()
    size = c.lower.shape(x)[2:] if c.attrs.output_size is None else c.pair("output_size")
    return c.lower.adaptive_pool(x, "avg", size)


handles("nn.max_pool2d")(_pool("max"))
handles("nn.avg_pool2d")(_pool("avg"))
handles("nn.adaptive_avg_pool2d")(_adaptive)


def _reduce(kind: Literal["mean", "sum", "max"]) -> Handler:
    return lambda c: c.lower.reduce(c.tensor(), kind, c.axes(), bool(c.attrs.keepdims))


handles("mean")(_reduce("mean"))
handles("sum")(_reduce("sum"))
handles("max")(_reduce("max"))


@handles("reshape")
def _reshape(c: Call) -> Values:
    return c.lower.reshape(c.tensor(), c.operands[1])


@handles("flatten")
def _flatten(c: Call) -> Values:
    return c.lower.reshape(c.tensor(), (-1,))


@handles("nn.batch_flatten")
def _batch_flatten(c: Call) -> Values:
    return c.lower.reshape(c.tensor(), (c.lower.shape(c.tensor())[0], -1))


@handles("permute_dims")
def _permute(c: Call) -> Values:
    x = c.tensor()
    perm = c.axes("axes") or list(range(len(c.lower.shape(x))))[::-1]
    return c.lower.transpose(x, perm)


@handles("squeeze")
def _squeeze(c: Call) -> Values:
    x = c.tensor()
    gone = {c.lower.axis(x, a) for a in c.axes()} or set(range(len(c.lower.shape(x))))
    return c.lower.reshape(
        x, [n for i, n in enumerate(c.lower.shape(x)) if i not in gone or n != 1]
    )


@handles("expand_dims")
def _expand_dims(c: Call) -> Values:
    x = c.tensor()
    shape = list(c.lower.shape(x))
    rank = len(shape) + len(c.axes())
    for at in sorted(a % rank for a in c.axes()):
        shape.insert(at, 1)
    return c.lower.reshape(x, shape)


@handles("broadcast_to")
def _broadcast(c: Call) -> Values:
    return c.lower.broadcast(c.tensor(), c.operands[1])


@handles("concat")
def _concat(c: Call) -> Values:
    return c.lower.concat(c.operands[0], int(c.attrs.axis))


@handles("split")
def _split(c: Call) -> Values:
    x, axis = c.tensor(), int(c.attrs.axis)
    size = c.lower.shape(x)[c.lower.axis(x, axis)]
    given = c.attrs.indices_or_sections
    if isinstance(given, int) or hasattr(given, "value"):
        step = math.ceil(size / int(given))
        ends = list(range(step, size, step))
    else:
        ends = [int(n) for n in given]
    sizes = [b - a for a, b in zip([0, *ends], [*ends, size])]
    return c.lower.split(x, sizes, axis)


@handles("take")
def _take(c: Call) -> Values:
    index = c.lower.known(c.tensor(1))
    if index is None or index.size != 1:
        raise NotLowerable("take with computed or several indices; use a slice")
    x, axis = c.tensor(), int(c.attrs.axis)
    at = int(index.reshape(()))
    y = c.lower.select(x, axis, at)
    return y if index.ndim == 0 else c.lower.reshape(y, _kept(c.lower.shape(x), axis))


def _kept(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(1 if i == axis % len(shape) else n for i, n in enumerate(shape))


@handles("strided_slice")
def _slice(c: Call) -> Values:
    x = c.tensor()
    axes, begins, ends, *steps = (list(part) for part in c.operands[1:])
    for i, axis in enumerate(axes):
        step = steps[0][i] if steps else 1
        x = c.lower.slice(x, int(axis), int(begins[i]), int(ends[i]), int(step))
    return x


@handles("nn.pad")
def _pad(c: Call) -> Values:
    widths = [int(n) for n in c.attrs.pad_width]
    mode, value = str(c.attrs.pad_mode), float(c.attrs.pad_value)
    return c.lower.pad(c.tensor(), widths[0::2], widths[1::2], mode, value)


@handles("zeros_like")
def _zeros_like(c: Call) -> Values:
    return c.lower.constant(np.zeros(c.lower.shape(c.tensor()), np.float32), "zeros")


@handles("astype")
def _astype(c: Call) -> Values:
    if str(c.attrs.dtype) != "float32":
        raise NotLowerable(f"conversion to {c.attrs.dtype}; networks compute in float32")
    return c.tensor()
