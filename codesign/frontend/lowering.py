# SPDX-License-Identifier: Apache-2.0
"""What both frontends lower to: one method per operator family, on top of the graph builder.

Values are names in the builder. Reshapes and transposes of constants are computed at once, so
that weights stay constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from codesign.frontend.report import NotLowerable
from codesign.ir import ops
from codesign.ir.graph import Array, GraphBuilder, Node
from codesign.ir.ops import ActivationKind
from codesign.ir.types import TensorType

Pads = tuple[int, int, int, int]
Pair = tuple[int, int]
LARGE = 1e30
"""A clamp bound beyond this is no bound."""


class Builder(GraphBuilder):
    """A graph builder that shows the nodes added before."""

    def node(self, value: str) -> Node:
        """The node behind a value."""
        return self._nodes[value]


class Lowering:
    """Adds nodes for one operator of the user's network at a time (see ``at``)."""

    def __init__(self, name: str) -> None:
        self.builder = Builder(name)
        self._name = ""
        self._source = ""

    def at(self, name: str, source: str) -> None:
        """What follows belongs to the user's operator ``name`` at ``source``."""
        self._name, self._source = name, source

    def emit(self, op: ops.Op, inputs: Sequence[str], part: str = "") -> str:
        """Add a node; ``part`` names a helper that stands before the main node."""
        name = f"{self._name}.{part}" if part else self._name
        return self.builder.add(op, inputs, name, self._source)

    def constant(self, value: Array, part: str) -> str:
        """Add a constant; float64 becomes float32."""
        if value.dtype == np.float64:
            value = value.astype(np.float32)
        return self.builder.constant(value, f"{self._name}.{part}")

    def scalar(self, value: float, part: str) -> str:
        """Add a float32 scalar."""
        return self.constant(np.array(value, np.float32), part)

    def type(self, x: str) -> TensorType:
        """Type of a value."""
        return self.builder.type(x)

    def shape(self, x: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.builder.type(x).shape

    def known(self, x: str) -> Array | None:
        """The value if it is a constant."""
        return self.builder.value(x)

    def axis(self, x: str, axis: int) -> int:
        """``axis`` counted from the front; raises NotLowerable if x has no such axis."""
        rank = len(self.shape(x))
        if not -rank <= axis < rank:
            raise NotLowerable(f"axis {axis} does not exist in {self.type(x)}")
        return axis % rank

    # Arithmetic.

    def add(self, a: str, b: str, part: str = "") -> str:
        """a + b."""
        return self.emit(ops.Add(), [a, b], part)

    def mul(self, a: str, b: str, part: str = "") -> str:
        """a · b."""
        return self.emit(ops.Mul(), [a, b], part)

    def sub(self, a: str, b: str) -> str:
        """a − b; a constant b is negated at once."""
        value = self.known(b)
        if value is not None:
            return self.add(a, self.constant(-value, "shift"))
        return self.add(a, self.mul(b, self.scalar(-1.0, "minus_one"), "negated"))

    def div(self, a: str, b: str) -> str:
        """a / b for a constant b."""
        value = self.known(b)
        if value is None:
            raise NotLowerable("division by a computed tensor; only constants can be divided by")
        if not np.all(value):
            raise NotLowerable("division by a constant that holds zeros")
        return self.mul(a, self.constant(np.reciprocal(value.astype(np.float64)), "scale"))

    def power(self, x: str, exponent: float) -> str:
        """x ** exponent for exponents 1, 2 and 3."""
        if exponent not in (1.0, 2.0, 3.0):
            raise NotLowerable(f"power with exponent {exponent:g}; 1, 2 and 3 can be taken")
        if exponent == 1.0:
            return x
        square = self.mul(x, x, "" if exponent == 2.0 else "square")
        return square if exponent == 2.0 else self.mul(square, x)

    def activation(self, x: str, kind: ActivationKind, alpha: float = 0.0) -> str:
        """Activation ``kind``."""
        return self.emit(ops.Activation(kind, alpha), [x])

    def clamp(self, x: str, low: float | None, high: float | None) -> str:
        """min(max(x, low), high), made of relu or relu6 where it is neither.

        relu6 has the slope 1 between 0 and 6, so x is brought to that range and back.
        """
        low = None if low is None or low <= -LARGE else float(low)
        high = None if high is None or high >= LARGE else float(high)
        if low is None and high is None:
            return x
        if low is not None and high is not None:
            if low >= high:
                raise NotLowerable(f"clamp to the empty range [{low:g}, {high:g}]")
            scale = 6.0 / (high - low)
            y = x if low == 0 else self.add(x, self.scalar(-low, "minus_low"), "from_low")
            y = y if scale == 1 else self.mul(y, self.scalar(scale, "to_six"), "scaled")
            last = "" if scale == 1 and low == 0 else "relu6"
            y = self.emit(ops.Activation("relu6"), [y], last)
            if scale != 1:
                y = self.mul(y, self.scalar(1 / scale, "from_six"), "" if low == 0 else "back")
            return y if low == 0 else self.add(y, self.scalar(low, "low"))
        if low is not None:
            if low == 0:
                return self.activation(x, "relu")
            y = self.add(x, self.scalar(-low, "minus_low"), "from_low")
            y = self.emit(ops.Activation("relu"), [y], "relu")
            return self.add(y, self.scalar(low, "low"))
        assert high is not None  # x below high: high − relu(high − x)
        minus = self.scalar(-1.0, "minus_one")
        y = self.mul(x, minus, "negated")
        y = y if high == 0 else self.add(y, self.scalar(high, "high"), "to_high")
        y = self.emit(ops.Activation("relu"), [y], "relu")
        y = self.mul(y, minus, "" if high == 0 else "back")
        return y if high == 0 else self.add(y, self.scalar(high, "high"))

    # Layers.

    def conv2d(
        self, x: str, w: str, bias: str | None, stride: Pair, padding: Pads, dilation: Pair,
        groups: int,
    ) -> str:  # fmt: skip
        """Convolution of [N, C, H, W]."""
        if len(self.shape(x)) != 4 or len(self.shape(w)) != 4:
            raise NotLowerable(
                f"convolution of {self.type(x)} with {self.type(w)}; only 2-D convolutions "
                "(N, C, H, W) can be taken"
            )
        op = ops.Conv2d(stride, padding, dilation, groups, bias is not None)
        return self.emit(op, [x, w] if bias is None else [x, w, bias])

    def linear(self, x: str, w: str, bias: str | None) -> str:
        """x @ w.T + bias."""
        return self.emit(ops.Linear(bias is not None), [x, w] if bias is None else [x, w, bias])

    def matmul(self, a: str, b: str, part: str = "") -> str:
        """a @ b; a linear layer where b is a constant matrix."""
        if len(self.shape(a)) < 2 or len(self.shape(b)) < 2:
            raise NotLowerable(
                f"product of {self.type(a)} and {self.type(b)}; both must have two axes or more"
            )
        if self.is_weight(b) and len(self.shape(b)) == 2:
            w = self.transpose(b, (1, 0), "weight")
            return self.emit(ops.Linear(bias=False), [a, w], part)
        return self.emit(ops.MatMul(), [a, b], part)

    def is_weight(self, x: str) -> bool:
        """Whether ``x`` is a constant or a dequantized one."""
        if self.known(x) is not None:
            return True
        node = self.builder.node(x)
        return isinstance(node.op, ops.Dequantize) and self.known(node.inputs[0]) is not None

    def batch_norm(
        self, x: str, gamma: str | None, beta: str | None, mean: str, var: str, eps: float
    ) -> str:
        """Batch norm with fixed statistics."""
        channels = self.shape(mean)
        gamma = gamma or self.constant(np.ones(channels, np.float32), "gamma")
        beta = beta or self.constant(np.zeros(channels, np.float32), "beta")
        return self.emit(ops.BatchNorm(eps), [x, gamma, beta, mean, var])

    def layer_norm(
        self, x: str, gamma: str | None, beta: str | None, shape: tuple[int, ...], eps: float
    ) -> str:
        """Layer norm over the trailing axes ``shape``."""
        gamma = gamma or self.constant(np.ones(shape, np.float32), "gamma")
        beta = beta or self.constant(np.zeros(shape, np.float32), "beta")
        return self.emit(ops.LayerNorm(eps), [x, gamma, beta])

    def softmax(self, x: str, axis: int, part: str = "") -> str:
        """Softmax along ``axis``."""
        return self.emit(ops.Softmax(self.axis(x, axis)), [x], part)

    def attention(
        self, q: str, k: str, v: str, mask: str | None, causal: bool, scale: float | None
    ) -> str:
        """softmax(q · kᵀ · scale + mask) · v over the last two axes."""
        rank, width = len(self.shape(k)), self.shape(q)[-1]
        factor = 1 / math.sqrt(width) if scale is None else scale
        perm = (*range(rank - 2), rank - 1, rank - 2)
        scaled = self.mul(q, self.scalar(factor, "scale"), "scaled_query")
        scores = self.matmul(scaled, self.transpose(k, perm, "key_transposed"), "scores")
        if causal:
            rows, columns = self.shape(scores)[-2:]
            # finite, so that no constant is infinite; its exponential is 0 in float32
            above = np.triu(np.full((rows, columns), -1e9, np.float32), 1)
            mask = self.constant(above, "causal")
        if mask is not None:
            scores = self.add(scores, mask, "masked")
        return self.matmul(self.softmax(scores, -1, "weights"), v)

    # Pooling.

    def pool(
        self, x: str, kind: Literal["max", "avg", "sum"], kernel: Pair, stride: Pair,
        padding: Pads, dilation: Pair = (1, 1), ceil: bool = False, count_pad: bool = True,
    ) -> str:  # fmt: skip
        """Pooling of [N, C, H, W]; ``ceil``: windows that hang over the end count too."""
        if len(self.shape(x)) != 4:
            raise NotLowerable(f"2-D pooling of {self.type(x)}; only [N, C, H, W] can be taken")
        size = (self.shape(x)[2], self.shape(x)[3])
        if kind != "sum" and kernel == size and padding == (0, 0, 0, 0) and dilation == (1, 1):
            return self.emit(ops.Reduce("mean" if kind == "avg" else "max", (2, 3)), [x])
        top, left, bottom, right = padding
        if ceil:
            over = tuple(
                _hang(n, k, s, d, before, after)
                for n, k, s, d, before, after in zip(
                    size, kernel, stride, dilation, (top, left), (bottom, right)
                )
            )
            if kind == "avg" and max(over) > 0:
                # what hangs over never counts, padding does if count_pad: pad first
                if count_pad and max(padding) > 0:
                    before, after = (0, 0, top, left), (0, 0, bottom, right)
                    x = self.emit(ops.Pad(before, after), [x], "pad")
                    top = left = bottom = right = 0
                count_pad = False
            bottom, right = bottom + over[0], right + over[1]
        if kind == "max" or max(top, left, bottom, right) == 0:
            count_pad = True  # no difference: one spelling
        pads = (top, left, bottom, right)
        return self.emit(ops.Pool2d(kind, kernel, stride, pads, dilation, count_pad), [x])

    def adaptive_pool(self, x: str, kind: Literal["max", "avg"], size: Sequence[int]) -> str:
        """Pooling to ``size`` where that divides the image."""
        if len(self.shape(x)) != 4:
            raise NotLowerable(f"2-D pooling of {self.type(x)}; only [N, C, H, W] can be taken")
        height, width = self.shape(x)[2:]
        rows, columns = size
        if height % rows or width % columns:
            raise NotLowerable(
                f"adaptive pooling from {height}x{width} to {rows}x{columns}; the result must "
                "divide the image, or use a pooling with a fixed window"
            )
        window = (height // rows, width // columns)
        if window == (1, 1):
            return x
        return self.pool(x, kind, window, window, (0, 0, 0, 0))

    def reduce(
        self, x: str, kind: Literal["mean", "max", "sum"], axes: Sequence[int], keep: bool
    ) -> str:
        """Reduction over ``axes`` (none given: all)."""
        where = sorted({self.axis(x, a) for a in axes}) or list(range(len(self.shape(x))))
        if not where:
            return x
        return self.emit(ops.Reduce(kind, tuple(where), keep), [x])

    # Shapes.

    def reshape(self, x: str, shape: Sequence[int], part: str = "") -> str:
        """Another shape; one −1 stands for what is left."""
        size, want = self.type(x).size, [int(n) for n in shape]
        if want.count(-1) == 1:
            rest = math.prod(n for n in want if n != -1)
            if rest and size % rest == 0:
                want[want.index(-1)] = size // rest
        if math.prod(want) != size or min(want, default=1) < 0:
            raise NotLowerable(f"reshape of {self.type(x)} to {list(shape)}")
        if tuple(want) == self.shape(x):
            return x
        value = self.known(x)
        if value is not None:
            return self._like(x, value.reshape(want))
        return self.emit(ops.Reshape(tuple(want)), [x], part)

    def transpose(self, x: str, perm: Sequence[int], part: str = "") -> str:
        """Permuted axes; constants and dequantized constants are permuted at once."""
        order = tuple(self.axis(x, p) for p in perm)
        if order == tuple(range(len(order))):
            return x
        value = self.known(x)
        if value is not None:
            return self._like(x, value.transpose(order))
        node = self.builder.node(x)
        if isinstance(node.op, ops.Dequantize):
            value = self.known(node.inputs[0])
            if value is not None:
                axis = order.index(node.op.axis) if node.op.axis >= 0 else -1
                integers = self._like(node.inputs[0], value.transpose(order))
                op = ops.Dequantize(axis, node.op.zero_point)
                return self.emit(op, [integers, node.inputs[1]], part)
        return self.emit(ops.Transpose(order), [x], part)

    def _like(self, x: str, value: Array) -> str:
        """A constant derived from constant ``x``, under a name next to it."""
        node = self.builder.node(x)
        return self.builder.constant(value, node.name, node.type.dtype, node.source)

    def broadcast(self, x: str, shape: Sequence[int]) -> str:
        """NumPy broadcast to ``shape``."""
        if tuple(shape) == self.shape(x):
            return x
        return self.emit(ops.Broadcast(tuple(shape)), [x])

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1, part: str = "") -> str:
        """x[..., start:stop:step, ...] with Python's rules for negative and large positions."""
        axis = self.axis(x, axis)
        size = self.shape(x)[axis]
        if step < 1:
            raise NotLowerable(f"slice with step {step}; steps must be positive")
        first, last, _ = slice(start, stop, step).indices(size)
        if first >= last:
            raise NotLowerable(f"empty slice [{start}:{stop}] of axis {axis} of {self.type(x)}")
        if (first, last, step) == (0, size, 1):
            return x
        return self.emit(ops.Slice(axis, first, last, step), [x], part)

    def select(self, x: str, axis: int, index: int) -> str:
        """One position of ``axis``, which disappears."""
        axis = self.axis(x, axis)
        shape = self.shape(x)
        index = index % shape[axis]
        y = self.slice(x, axis, index, index + 1, part="slice")
        return self.reshape(y, (*shape[:axis], *shape[axis + 1 :]))

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Consecutive parts along ``axis``: one slice each."""
        stops = np.cumsum(sizes).tolist()
        return [
            self.slice(x, axis, stop - size, stop, part=f"part{i}")
            for i, (size, stop) in enumerate(zip(sizes, stops))
        ]

    def concat(self, parts: Sequence[str], axis: int) -> str:
        """Concatenation."""
        if len(parts) == 1:
            return parts[0]
        return self.emit(ops.Concat(self.axis(parts[0], axis)), list(parts))

    def pad(
        self, x: str, before: Sequence[int], after: Sequence[int], mode: str, value: float
    ) -> str:
        """Pad; negative amounts cut."""
        modes: dict[str, Literal["constant", "reflect", "edge"]] = {
            "constant": "constant", "reflect": "reflect", "replicate": "edge", "edge": "edge",
        }  # fmt: skip
        if mode not in modes:
            raise NotLowerable(f"pad mode {mode!r}; known: constant, reflect, replicate")
        for axis, (b, a) in enumerate(zip(before, after)):
            if min(a, b) < 0:
                size = self.shape(x)[axis]
                x = self.slice(x, axis, max(0, -b), size - max(0, -a), part="cut")
        more = tuple(max(0, b) for b in before), tuple(max(0, a) for a in after)
        if not any(more[0] + more[1]):
            return x
        return self.emit(ops.Pad(*more, modes[mode], value if mode == "constant" else 0.0), [x])

    def resize(
        self, x: str, size: Pair, kind: Literal["nearest", "bilinear"],
        coordinates: str, rounding: str = "floor",
    ) -> str:  # fmt: skip
        """Resize of [N, C, H, W]; coordinates and rounding as in ``ops.Resize``."""
        shape = self.shape(x)
        if len(shape) != 4:
            raise NotLowerable(f"resize of {self.type(x)}; only [N, C, H, W] can be taken")
        if size == shape[2:]:
            return x
        op = ops.Resize(size, kind, coordinates, rounding)  # type: ignore[arg-type]
        return self.emit(op, [x])


def _hang(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Positions by which the last window of a ceil-mode pool hangs over the padded end.

    A window must start inside the image or the padding before it.
    """
    reach = dilation * (kernel - 1) + 1
    steps = -(-(size + before + after - reach) // stride)
    if steps * stride >= size + before:
        steps -= 1
    return max(0, steps * stride + reach - size - before - after)


def same_padding(size: Pair, kernel: Pair, stride: Pair, dilation: Pair, lower: bool) -> Pads:
    """TensorFlow's SAME: ceil(size / stride) positions; the odd zero goes after (or before)."""
    pads = []
    for n, k, s, d in zip(size, kernel, stride, dilation):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        small = total // 2
        pads.append((total - small, small) if lower else (small, total - small))
    (top, bottom), (left, right) = pads
    return top, left, bottom, right
