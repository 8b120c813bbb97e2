# SPDX-License-Identifier: Apache-2.0
"""Generated integer graphs: quantized networks in the form of DESIGN, section 3."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np

from codesign.ir import S32, DType, Graph, GraphBuilder, TensorType, ops

S16 = DType("signed", 16)
COORDINATES: tuple[Literal["half_pixel", "asymmetric"], ...] = ("half_pixel", "asymmetric")
PADS: tuple[Literal["constant", "edge"], ...] = ("constant", "edge")
T = TypeVar("T")


def dyadic(ratio: float) -> tuple[int, int]:
    """Multiplier m and shift e with m / 2^e nearest ``ratio``, m of 16 bits."""
    fraction, exponent = math.frexp(ratio)
    m = math.floor(fraction * 65536 + 0.5)
    if m == 65536:
        m, exponent = 32768, exponent + 1
    e = 16 - exponent
    if e > 62:
        return 0, 1
    assert e >= 1, f"ratio {ratio} is too large"
    return m, e


def random_integer_graph(
    seed: int, *, blocks: int = 5, float_ends: bool = True, batch: int | None = None
) -> Graph:
    """A network of integer operators with weights and activations of 2 to 8 bits.

    With ``float_ends`` it starts with Quantize and ends with Dequantize; otherwise inputs and
    outputs are integers. No accumulator can overflow.
    """
    maker = IntegerMaker(f"integer{seed}", np.random.default_rng([seed, 2]))
    maker.start(float_ends, batch)
    for _ in range(maker.pick(max(1, blocks - 2), blocks + 2)):
        maker.images.append(maker.block(maker.one(maker.images[-3:])))
    return maker.finish(float_ends)


class IntegerMaker:
    """A builder with a generator; ``images`` are the narrow values [N, C, H, W] made so far."""

    def __init__(self, name: str, rng: np.random.Generator) -> None:
        self.builder = GraphBuilder(name)
        self.rng = rng
        self.images: list[str] = []

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

    def dtype(self, value: str) -> DType:
        """Format of a value."""
        return self.builder.type(value).dtype

    def format(self) -> DType:
        """A format of activations: 2 to 8 bits, most often 8."""
        bits = 8 if self.chance(0.5) else self.pick(2, 8)
        return DType("unsigned" if self.chance(0.6) else "signed", bits)

    def integers(self, lo: int, hi: int, shape: tuple[int, ...], dtype: DType, name: str) -> str:
        """A constant of integers from lo to hi."""
        values = self.rng.integers(lo, hi, shape, endpoint=True)
        return self.builder.constant(values.astype(dtype.numpy), name, dtype)

    # Whole network

    def start(self, float_ends: bool, batch: int | None) -> None:
        """The input: a float image that is quantized, or an integer one."""
        n = self.pick(1, 2) if batch is None else batch
        shape = (n, self.pick(1, 6), self.pick(3, 13), self.pick(3, 13))
        dtype = self.format()
        if float_ends:
            x = self.builder.input("x", TensorType(shape))
            step = np.array(6.0 / (dtype.max - dtype.min), np.float32)
            scale = self.builder.constant(step, "scale")
            self.images.append(self.builder.add(ops.Quantize(dtype), [x, scale]))
        else:
            self.images.append(self.builder.input("x", TensorType(shape, dtype)))

    def finish(self, float_ends: bool) -> Graph:
        """Pool what nothing reads yet, join it and classify."""
        draft = self.builder.finish([self.images[-1]])
        loose = [
            name for name, readers in draft.users.items()
            if not readers and not draft.is_constant(name)
        ]  # fmt: skip
        dtype = self.format()
        pooled = [self.global_pool(value, dtype) for value in loose]
        joined = self.builder.add(ops.Concat(1), pooled) if len(pooled) > 1 else pooled[0]
        n, channels = self.shape(joined)[:2]
        flat = self.builder.add(ops.Reshape((n, channels)), [joined])
        result = self.requantize(self.linear(flat, self.pick(2, 10)), S16)
        if float_ends:
            scale = self.builder.constant(np.array(2.0**-12 * 1.37, np.float32), "scale")
            result = self.builder.add(ops.Dequantize(), [result, scale])
        return self.builder.finish([result])

    def block(self, x: str) -> str:
        """A random block on an image; the result is an image in a narrow format."""
        blocks: list[Callable[[str], str]] = [
            self.conv_block, self.conv_block, self.conv_block, self.depthwise, self.residual,
            self.residual, self.pool, self.pool, self.lookup, self.multiply, self.concat,
            self.move, self.matmul,
        ]  # fmt: skip
        return self.one(blocks)(x)

    # Layers

    def spread(self, x: str) -> float:
        """About how large the values of a format are."""
        dtype = self.dtype(x)
        return max(1.0, (dtype.max - dtype.min) / 4)

    def requantize(self, x: str, dtype: DType, reach: float | None = None) -> str:
        """Bring wide values of about ``reach`` to ``dtype``, per channel or with one scale."""
        shape = self.shape(x)
        axis = -1
        if self.dtype(x) == S32 and self.chance(0.7):
            axis = 1 if len(shape) == 4 else len(shape) - 1
        size: tuple[int, ...] = () if axis < 0 else (shape[axis],)
        wide = self.spread(x) / 2**20 if reach is None else reach
        ratios = dtype.max / max(wide, 1.0) * self.rng.uniform(0.3, 1.2, size)
        pairs = [dyadic(min(float(ratio), 2.0**15)) for ratio in np.ravel(ratios)]
        m = np.array([p[0] for p in pairs], np.int32).reshape(size)
        e = np.array([p[1] for p in pairs], np.int32).reshape(size)
        lo = 0 if dtype.kind == "signed" and self.chance(0.2) else dtype.min
        hi = self.pick(max(1, dtype.max // 2), dtype.max) if self.chance(0.2) else dtype.max
        op = ops.Requantize(dtype, lo, hi, axis)
        return self.builder.add(
            op, [x, self.builder.constant(m, "m"), self.builder.constant(e, "e")]
        )

    def reach(self, x: str, bits: int, depth: int) -> float:
        """About how large sums of ``depth`` products with weights of ``bits`` are."""
        return self.spread(x) * 2.0 ** (bits - 1) / 1.7 * math.sqrt(depth)

    def conv(
        self, x: str, outputs: int, *, groups: int = 1, same: bool = False
    ) -> tuple[str, float]:
        """A convolution with bias, and how large its sums are."""
        _, channels, height, width = self.shape(x)
        kernel = (self.pick(1, min(3, height)), self.pick(1, min(3, width)))
        dilation, stride = (1, 1), (1, 1)
        if same:
            top, left = ((k - 1) // 2 for k in kernel)
            bottom, right = kernel[0] - 1 - top, kernel[1] - 1 - left
        else:
            if self.chance(0.25):
                dilation = (self.pick(1, 2), self.pick(1, 2))
            stride = (self.pick(1, 2), self.pick(1, 2))
            ends = [d * (k - 1) for d, k in zip(dilation, kernel)]
            top, left = self.pick(0, ends[0]), self.pick(0, ends[1])
            # At least one output position: the window must fit into the padded image.
            bottom = max(self.pick(0, ends[0]), ends[0] + 1 - height - top)
            right = max(self.pick(0, ends[1]), ends[1] + 1 - width - left)
        bits = 8 if self.chance(0.5) else self.pick(2, 8)
        depth = channels // groups
        most = 2 ** (bits - 1) - 1
        w = self.integers(-most, most, (outputs, depth, *kernel), DType("signed", bits), "w")
        reach = self.reach(x, bits, depth * kernel[0] * kernel[1])
        bias = self.integers(-int(reach), int(reach), (outputs,), S32, "bias")
        op = ops.Conv2d(stride, (top, left, bottom, right), dilation, groups)
        return self.builder.add(op, [x, w, bias], "conv"), reach

    def linear(self, x: str, outputs: int) -> str:
        """A linear layer over the last axis, its sums in s32."""
        depth = self.shape(x)[-1]
        bits = self.pick(2, 8)
        most = 2 ** (bits - 1) - 1
        w = self.integers(-most, most, (outputs, depth), DType("signed", bits), "w")
        if self.chance(0.3):
            return self.builder.add(ops.Linear(bias=False), [x, w], "linear")
        reach = int(self.reach(x, bits, depth))
        bias = self.integers(-reach, reach, (outputs,), S32, "bias")
        return self.builder.add(ops.Linear(), [x, w, bias], "linear")

    def global_pool(self, x: str, dtype: DType) -> str:
        """[N, C, 1, 1] in ``dtype``: the sum over the image, rescaled."""
        area = self.shape(x)[2] * self.shape(x)[3]
        total = self.builder.add(ops.Reduce("sum", (2, 3)), [x])
        return self.requantize(total, dtype, self.spread(x) * area)

    # Blocks

    def conv_block(self, x: str) -> str:
        """Convolution, perhaps grouped or with relu in the accumulator, then requantize."""
        channels = self.shape(x)[1]
        groups = self.one([g for g in range(1, channels + 1) if channels % g == 0])
        y, reach = self.conv(x, groups * self.pick(1, max(1, 8 // groups)), groups=groups)
        if self.chance(0.15):
            y = self.builder.add(ops.Activation("relu"), [y])
        return self.requantize(y, self.format(), reach)

    def depthwise(self, x: str) -> str:
        """A depthwise convolution, then requantize."""
        channels = self.shape(x)[1]
        y, reach = self.conv(x, channels * self.pick(1, 2), groups=channels)
        return self.requantize(y, self.format(), reach)

    def residual(self, x: str) -> str:
        """A shortcut: both sides to 16 bits at one scale, added, clipped."""
        y, reach = self.conv(x, self.shape(x)[1], same=True)
        dtype = self.format()
        left = self.requantize(y, S16, reach * 64)
        right = self.requantize(x, S16, self.spread(x) * 64)
        total = self.builder.add(ops.Add(), [left, right])
        lo = dtype.min if self.chance(0.7) else max(dtype.min, -3)
        return self.builder.add(ops.Clip(dtype, lo, dtype.max), [total])

    def pool(self, x: str) -> str:
        """Max pooling in the format, or a sum that is rescaled."""
        _, _, height, width = self.shape(x)
        kernel = (self.pick(1, min(3, height)), self.pick(1, min(3, width)))
        stride = (self.pick(1, 2), self.pick(1, 2))
        padding = (
            self.pick(0, kernel[0] - 1), self.pick(0, kernel[1] - 1),
            self.pick(0, kernel[0] - 1), self.pick(0, kernel[1] - 1),
        )  # fmt: skip
        if self.chance(0.2):
            return self.builder.add(ops.Reduce("max", (2, 3)), [x])
        if self.chance(0.5):
            return self.builder.add(ops.Pool2d("max", kernel, stride, padding), [x])
        total = self.builder.add(ops.Pool2d("sum", kernel, stride, padding), [x])
        return self.requantize(total, self.format(), self.spread(x) * kernel[0] * kernel[1])

    def lookup(self, x: str) -> str:
        """Any function of one narrow integer."""
        dtype = self.format()
        table = self.integers(dtype.min, dtype.max, (1 << self.dtype(x).bits,), dtype, "table")
        return self.builder.add(ops.Lookup(), [x, table])

    def multiply(self, x: str) -> str:
        """The image times a gate from its own pooled values, or times itself."""
        gate = x if self.chance(0.3) else self.lookup(self.global_pool(x, self.format()))
        product = self.builder.add(ops.Mul(), [x, gate])
        return self.requantize(product, self.format(), self.spread(x) * self.spread(gate))

    def concat(self, x: str) -> str:
        """Two branches brought to one format and joined."""
        y, reach = self.conv(x, self.pick(1, 4), same=True)
        dtype = self.dtype(x)
        return self.builder.add(ops.Concat(1), [x, self.requantize(y, dtype, reach)])

    def move(self, x: str) -> str:
        """Operators that pass the format through."""
        n, channels, height, width = self.shape(x)
        add = self.builder.add
        match self.pick(0, 6):
            case 0:
                before, after = (0, 0, self.pick(0, 2), 1), (0, 0, 1, self.pick(0, 2))
                return add(ops.Pad(before, after, self.one(PADS)), [x])
            case 1:
                axis = self.pick(1, 3)
                stop = self.pick(1, self.shape(x)[axis])
                return add(ops.Slice(axis, self.pick(0, stop - 1), stop, self.pick(1, 2)), [x])
            case 2:
                size = (self.pick(1, 2 * min(height, 8)), self.pick(1, 2 * min(width, 8)))
                coordinates = self.one(COORDINATES)
                return add(ops.Resize(size, "nearest", coordinates), [x])
            case 3:
                flat = add(ops.Reshape((n, channels, height * width)), [x])
                turned = add(ops.Transpose((0, 2, 1)), [flat])
                return add(ops.Reshape((n, height * width, channels, 1)), [turned])
            case 4:
                return add(ops.Transpose((0, 1, 3, 2)), [x])
            case 5:
                return add(ops.Activation("relu"), [x])
        small = self.global_pool(x, self.format())
        return add(ops.Broadcast((n, channels, 2, 3)), [small])

    def matmul(self, x: str) -> str:
        """The product of an image's rows with its columns."""
        width = self.shape(x)[3]
        other = self.builder.add(ops.Transpose((0, 1, 3, 2)), [x])
        product = self.builder.add(ops.MatMul(), [x, other])
        return self.requantize(product, self.format(), self.spread(x) ** 2 * width)
