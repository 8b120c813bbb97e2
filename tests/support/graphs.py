# SPDX-License-Identifier: Apache-2.0
"""Generated float graphs for property tests: every seed gives a legal graph, nothing is filtered.

``random_integer_graph`` (its own file) makes quantized ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np

from codesign.ir import Graph, GraphBuilder, TensorType, ops
from codesign.ir.graph import Array
from tests.support.integer_graphs import random_integer_graph

__all__ = ["Maker", "random_graph", "random_inputs", "random_integer_graph"]

ACTIVATIONS: tuple[ops.ActivationKind, ...] = (
    "relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu",
    "gelu_tanh", "tanh",
)  # fmt: skip
POOLS: tuple[Literal["max", "avg"], ...] = ("max", "max", "avg")
RESIZES: tuple[Literal["nearest", "bilinear"], ...] = ("nearest", "bilinear")
COORDINATES: tuple[Literal["half_pixel", "asymmetric", "align_corners"], ...] = (
    "half_pixel", "asymmetric", "align_corners",
)  # fmt: skip
ROUNDINGS: tuple[Literal["floor", "round_prefer_floor", "round_prefer_ceil", "ceil"], ...] = (
    "floor", "round_prefer_floor", "round_prefer_ceil", "ceil",
)  # fmt: skip
PADS: tuple[Literal["constant", "reflect", "edge"], ...] = ("constant", "reflect", "edge")
REDUCTIONS: tuple[Literal["mean", "max"], ...] = ("mean", "max")
T = TypeVar("T")


def random_inputs(graph: Graph, seed: int) -> tuple[Array, ...]:
    """Inputs of the graph: floats around zero, integers over the whole range of their format."""
    rng = np.random.default_rng([seed, 1])
    arrays: list[Array] = []
    for name in graph.inputs:
        kind = graph.type(name)
        if kind.dtype.is_float:
            arrays.append(rng.standard_normal(kind.shape).astype(kind.dtype.numpy))
        else:
            lo, hi = kind.dtype.min, kind.dtype.max
            values = rng.integers(lo, hi, kind.shape, endpoint=True)
            arrays.append(values.astype(kind.dtype.numpy))
    return tuple(arrays)


def random_graph(
    seed: int,
    *,
    blocks: int = 5,
    batch: int | None = None,
    prepared: bool = False,
    single_output: bool = True,
) -> Graph:
    """A float network of about ``blocks`` blocks over all float operators.

    ``prepared`` makes the form that quantization takes: no batch norm; convolutions and linears
    carry bias, activation and residual. Without ``single_output`` every unread value is a
    result. ``batch``: leading dimension, else 1 or 2.
    """
    maker = Maker(f"random{seed}", np.random.default_rng([seed, 0]), prepared)
    maker.start(batch)
    for _ in range(maker.pick(max(1, blocks - 2), blocks + 2)):
        maker.images.append(maker.block(maker.one(maker.images[-3:])))
    return maker.finish(single_output)


class Maker:
    """A builder with a generator; ``images`` are the values [N, C, H, W] made so far."""

    def __init__(self, name: str, rng: np.random.Generator, prepared: bool) -> None:
        self.builder = GraphBuilder(name)
        self.rng = rng
        self.prepared = prepared
        self.images: list[str] = []

    # Choices

    def pick(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, share: float) -> bool:
        """True in ``share`` of the cases."""
        return bool(self.rng.random() < share)

    def one(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.pick(0, len(options) - 1)]

    def shape(self, value: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.builder.type(value).shape

    def weights(self, *shape: int, fan: int = 1, name: str = "w") -> str:
        """A constant of normal values that keep the magnitude over a sum of ``fan`` products."""
        values = self.rng.standard_normal(shape) / math.sqrt(fan)
        return self.builder.constant(values.astype(np.float32), name)

    def positive(self, *shape: int) -> str:
        """A constant of values in 0.5..1.5."""
        return self.builder.constant(
            self.rng.uniform(0.5, 1.5, shape).astype(np.float32), "positive"
        )

    # Whole network

    def start(self, batch: int | None) -> None:
        """One or two inputs of odd and even sizes."""
        count = 2 if self.chance(0.15) else 1
        n = self.pick(1, 2) if batch is None else batch
        for i in range(count):
            shape = (n, self.pick(1, 6), self.pick(3, 13), self.pick(3, 13))
            self.images.append(self.builder.input(f"x{i}", TensorType(shape)))
        if count == 2:  # read both
            self.images = [self.concat_pooled(self.images), *self.images]

    def concat_pooled(self, values: Sequence[str]) -> str:
        """[N, C, 1, 1] of every value's mean or maximum."""
        pooled = [self.builder.add(ops.Reduce(self.one(REDUCTIONS), (2, 3)), [v]) for v in values]
        return self.builder.add(ops.Concat(1), pooled) if len(pooled) > 1 else pooled[0]

    def finish(self, single_output: bool) -> Graph:
        """Join what nothing reads yet into one classifier, or give all of it as results."""
        draft = self.builder.finish([self.images[-1]])
        loose = [
            name for name, readers in draft.users.items()
            if not readers and not draft.is_constant(name)
        ]  # fmt: skip
        if not single_output:
            return self.builder.finish(loose)
        pooled = self.concat_pooled(loose)
        n, channels = self.shape(pooled)[:2]
        flat = self.builder.add(ops.Reshape((n, channels)), [pooled])
        return self.builder.finish([self.linear(flat, self.pick(2, 10))])

    def block(self, x: str) -> str:
        """A random block on an image; the result is an image."""
        blocks: list[Callable[[str], str]] = [
            self.conv_block, self.conv_block, self.conv_block, self.depthwise_block, self.residual,
            self.residual, self.squeeze_excite, self.branches, self.shuffle, self.pool, self.pool,
            self.resize, self.pad, self.attention, self.elementwise, self.channels_last,
        ]  # fmt: skip
        return self.one(blocks)(x)

    # Layers

    def conv(self, x: str, outputs: int, *, groups: int = 1, same: bool = False) -> str:
        """A convolution of any legal attributes; ``same`` keeps the image size."""
        _, channels, height, width = self.shape(x)
        kernel = (self.pick(1, min(3, height)), self.pick(1, min(3, width)))
        dilation = (1, 1)
        if same:
            padding, stride = self.same_padding(kernel), (1, 1)
        else:
            if self.chance(0.25):
                dilation = (self.pick(1, 2), self.pick(1, 2))
            reach = [d * (k - 1) for d, k in zip(dilation, kernel)]
            stride = (self.pick(1, 2), self.pick(1, 2))
            top, left = self.pick(0, reach[0]), self.pick(0, reach[1])
            # At least one output position: the window must fit into the padded image.
            bottom = max(self.pick(0, reach[0]), reach[0] + 1 - height - top)
            right = max(self.pick(0, reach[1]), reach[1] + 1 - width - left)
            padding = (top, left, bottom, right)
        depth = channels // groups
        w = self.weights(outputs, depth, *kernel, fan=depth * kernel[0] * kernel[1])
        bias = self.prepared or self.chance(0.5)
        op = ops.Conv2d(stride, padding, dilation, groups, bias, False, *self.fused())
        operands = [x, w, *([self.weights(outputs, name="bias")] if bias else [])]
        return self.builder.add(op, operands, "conv")

    def same_padding(self, kernel: tuple[int, int]) -> tuple[int, int, int, int]:
        """Padding that keeps the image size; even kernels put more at the end."""
        (top, left) = ((k - 1) // 2 for k in kernel)
        return top, left, kernel[0] - 1 - top, kernel[1] - 1 - left

    def fused(self) -> tuple[ops.ActivationKind, float]:
        """Activation and slope of a layer: often none, as networks come from a frontend."""
        if not self.chance(0.7 if self.prepared else 0.2):
            return "none", 0.0
        kind = self.one(ACTIVATIONS)
        return kind, 0.125 if kind == "leaky_relu" else 0.0

    def linear(self, x: str, outputs: int) -> str:
        """A linear layer over the last axis."""
        inputs = self.shape(x)[-1]
        bias = self.prepared or self.chance(0.7)
        operands = [x, self.weights(outputs, inputs, fan=inputs)]
        operands += [self.weights(outputs, name="bias")] if bias else []
        return self.builder.add(ops.Linear(bias), operands, "linear")

    def activation(self, x: str) -> str:
        """A stand-alone activation."""
        kind = self.one(ACTIVATIONS)
        return self.builder.add(ops.Activation(kind, 0.25 if kind == "leaky_relu" else 0.0), [x])

    def norm(self, x: str) -> str:
        """Batch norm, where the graph may hold one."""
        if self.prepared or self.chance(0.4):
            return x
        c = self.shape(x)[1]
        operands = [x, self.positive(c), self.weights(c), self.weights(c), self.positive(c)]
        return self.builder.add(ops.BatchNorm(self.one((1e-5, 1e-3))), operands)

    # Blocks

    def conv_block(self, x: str) -> str:
        """Convolution, perhaps grouped, perhaps with norm and activation."""
        channels = self.shape(x)[1]
        groups = self.one([g for g in range(1, channels + 1) if channels % g == 0])
        y = self.norm(self.conv(x, groups * self.pick(1, max(1, 8 // groups)), groups=groups))
        return self.activation(y) if self.chance(0.3) else y

    def depthwise_block(self, x: str) -> str:
        """Expand, depthwise, project; with a shortcut where the shapes agree."""
        channels = self.shape(x)[1]
        wide = self.conv(x, self.pick(2, 8), same=True)
        hidden = self.shape(wide)[1]
        deep = self.norm(self.conv(wide, hidden * self.pick(1, 2), groups=hidden))
        y = self.conv(deep, channels, same=True)
        return self.builder.add(ops.Add(), [y, x]) if self.shape(y) == self.shape(x) else y

    def residual(self, x: str) -> str:
        """Shortcut around one or two convolutions: as an operand, or as an addition."""
        channels = self.shape(x)[1]
        y = self.conv(x, channels, same=True) if self.chance(0.5) else self.activation(x)
        if self.chance(0.5):
            kernel = (self.pick(1, 3), self.pick(1, 3))
            w = self.weights(channels, channels, *kernel, fan=channels * 9)
            op = ops.Conv2d((1, 1), self.same_padding(kernel), (1, 1), 1, True, True, *self.fused())
            return self.builder.add(op, [y, w, self.weights(channels, name="bias"), x], "conv")
        shortcut = x if self.chance(0.7) else self.conv(x, channels, same=True)
        deep = self.norm(self.conv(y, channels, same=True))
        added = self.builder.add(ops.Add(), [deep, shortcut])
        return self.activation(added) if self.chance(0.5) else added

    def squeeze_excite(self, x: str) -> str:
        """The image times a gate made from its channel means."""
        channels = self.shape(x)[1]
        mean = self.builder.add(ops.Reduce("mean", (2, 3)), [x])
        gate = self.builder.add(
            ops.Activation(self.one(("sigmoid", "hardsigmoid"))), [self.conv(mean, channels)]
        )
        return self.builder.add(ops.Mul(), [x, gate])

    def branches(self, x: str) -> str:
        """Two or three branches, concatenated."""
        parts = [self.conv(x, self.pick(1, 4), same=True) for _ in range(self.pick(1, 2))]
        parts.append(x if self.chance(0.5) else self.activation(x))
        return self.builder.add(ops.Concat(1), parts)

    def shuffle(self, x: str) -> str:
        """Split along channels, rows or columns, work on one part, join in another order."""
        axis = self.pick(1, 3)
        size = self.shape(x)[axis]
        cut = self.pick(1, size)
        head = self.builder.add(ops.Slice(axis, 0, cut), [x])
        if cut == size:
            step = self.pick(1, 2)
            return self.builder.add(ops.Slice(axis, self.pick(0, size - 1), size, step), [head])
        tail = self.activation(self.builder.add(ops.Slice(axis, cut, size), [x]))
        return self.builder.add(ops.Concat(axis), [tail, head])

    def pool(self, x: str) -> str:
        """Max, average or sum pooling, also over the whole image."""
        _, _, height, width = self.shape(x)
        if self.chance(0.15):
            y = self.builder.add(ops.Reduce(self.one(REDUCTIONS), (2, 3)), [x])
            return self.builder.add(ops.Broadcast((*self.shape(y)[:2], 2, 3)), [y])
        kernel = (self.pick(1, min(3, height)), self.pick(1, min(3, width)))
        stride = (self.pick(1, 2), self.pick(1, 2))
        padding = (
            self.pick(0, kernel[0] - 1), self.pick(0, kernel[1] - 1),
            self.pick(0, kernel[0] - 1), self.pick(0, kernel[1] - 1),
        )  # fmt: skip
        kind = self.one(POOLS)
        op = ops.Pool2d(kind, kernel, stride, padding, (1, 1), self.chance(0.5))
        return self.builder.add(op, [x])

    def resize(self, x: str) -> str:
        """Nearest or bilinear, up or down."""
        _, _, height, width = self.shape(x)
        size = (self.pick(1, min(2 * height, 16)), self.pick(1, min(2 * width, 16)))
        kind = self.one(RESIZES)
        if kind == "nearest" or self.chance(0.5):
            size = (2 * height, 2 * width) if max(height, width) <= 8 else size
        coordinates = self.one(COORDINATES)
        rounding = self.one(ROUNDINGS)
        op = ops.Resize(size, kind, coordinates, rounding if kind == "nearest" else "floor")
        return self.builder.add(op, [x])

    def pad(self, x: str) -> str:
        """Padding of the image axes in every mode."""
        _, _, height, width = self.shape(x)
        mode = self.one(PADS)
        most = [min(2, n - 1) if mode == "reflect" else 2 for n in (height, width)]
        before = (0, 0, self.pick(0, most[0]), self.pick(0, most[1]))
        after = (0, 0, self.pick(0, most[0]), self.pick(0, most[1]))
        value = self.one((0.0, 0.0, -1.5)) if mode == "constant" else 0.0
        return self.builder.add(ops.Pad(before, after, mode, value), [x])

    def attention(self, x: str) -> str:
        """Self-attention over the positions of the image, with layer norm and shortcut."""
        n, channels, height, width = self.shape(x)
        heads = 2 if channels % 2 == 0 else 1
        depth, tokens = channels // heads, height * width
        add = self.builder.add
        flat = add(ops.Transpose((0, 2, 1)), [add(ops.Reshape((n, channels, tokens)), [x])])
        gamma, beta = self.positive(channels), self.weights(channels)
        normed = add(ops.LayerNorm(self.one((1e-6, 1e-5))), [flat, gamma, beta])
        split = ops.Reshape((n, tokens, heads, depth))
        q, k, v = (
            add(ops.Transpose(perm), [add(split, [self.linear(normed, channels)])])
            for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        )
        scale = self.builder.constant(np.array(depth**-0.5, np.float32), "scale")
        scores = add(ops.Mul(), [add(ops.MatMul(), [q, k]), scale])
        mixed = add(ops.MatMul(), [add(ops.Softmax(3), [scores]), v])
        joined = add(
            ops.Reshape((n, tokens, channels)), [add(ops.Transpose((0, 2, 1, 3)), [mixed])]
        )
        out = add(ops.Add(), [self.linear(joined, channels), flat])
        image = add(ops.Transpose((0, 2, 1)), [out])
        return add(ops.Reshape((n, channels, height, width)), [image])

    def elementwise(self, x: str) -> str:
        """Arithmetic with constants of several broadcast shapes, or a product of values."""
        channels = self.shape(x)[1]
        shapes: tuple[tuple[int, ...], ...] = ((), (channels, 1, 1), (1, channels, 1, 1))
        other = self.weights(*self.one(shapes)) if self.chance(0.7) else self.activation(x)
        y = self.builder.add(self.one((ops.Add(), ops.Mul())), [x, other])
        return self.activation(y) if self.chance(0.5) else y

    def channels_last(self, x: str) -> str:
        """To NHWC, a linear or a softmax over the channels, and back."""
        y = self.builder.add(ops.Transpose((0, 2, 3, 1)), [x])
        y = self.linear(y, self.pick(1, 6)) if self.chance(0.6) else (
            self.builder.add(ops.Softmax(3), [y])
        )  # fmt: skip
        return self.builder.add(ops.Transpose((0, 3, 1, 2)), [y])
