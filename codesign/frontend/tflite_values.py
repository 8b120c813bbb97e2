# SPDX-License-Identifier: Apache-2.0
"""The tensors of a TFLite network on the way to the graph IR.

TFLite's images are [N, H, W, C], the IR's are [N, C, H, W]. A tensor is kept in the form in which
its operator made it: ``image`` (its axes 0, 3, 1, 2) or ``plain`` (the axes of the file). The
other form is made when something asks for it; two moves in a row become one, and one that only
moves axes of size 1 is a reshape, so that a network of images holds no transposes.

Quantized tensors stand for the real numbers (q - zero point) * scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codesign.errors import ParseError
from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable
from codesign.ir import ops
from codesign.ir.graph import Array
from codesign.ir.types import DType
from codesign.zoo.tflite import TfliteModel, TfliteTensor

TO_IMAGE = (0, 3, 1, 2)
TO_PLAIN = (0, 2, 3, 1)


@dataclass
class Value:
    """A computed tensor: the name of a graph value in one form or both."""

    plain: str | None = None
    image: str | None = None


class Values:
    """Tensors by their number in the file: computed ones, and constants known at import."""

    def __init__(self, lower: Lowering, model: TfliteModel) -> None:
        self.lower = lower
        self.tensors = model.tensors
        self.computed: dict[int, Value] = {}
        self.folded: dict[int, Array] = {}
        """Constants that operators on constants gave."""
        self.skipped: set[int] = set()
        """Results of operators that cannot be taken."""

    def constant(self, index: int) -> Array | None:
        """The tensor as it is stored (integers where quantized), None if it is computed."""
        if index in self.computed:
            return None
        if index in self.folded:
            return self.folded[index]
        tensor = self.tensors[index]
        if tensor.data is None and 0 in tensor.shape:
            return np.zeros(tensor.shape, tensor.dtype)
        return tensor.data

    def real(self, index: int) -> Array | None:
        """A constant as float32, None if it is computed; raises NotLowerable for integers."""
        value = self.constant(index)
        if value is None:
            return None
        tensor = self.tensors[index]
        if index in self.folded or not is_quantized(tensor):
            if value.dtype.kind != "f":
                raise NotLowerable(
                    f"operand {tensor.name!r} is {value.dtype} without scale; expected a float"
                )
            return value.astype(np.float32)
        check_scales(tensor)
        return tensor.values()

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape in the file's order of axes."""
        value = self.constant(index)
        if value is not None:
            return value.shape
        form = self._form(index)
        if form.plain is not None:
            return self.lower.shape(form.plain)
        assert form.image is not None
        n, c, h, w = self.lower.shape(form.image)
        return n, h, w, c

    def is_image(self, index: int) -> bool:
        """Whether a computed tensor has the image form."""
        return self.constant(index) is None and self._form(index).image is not None

    def image(self, index: int, part: str = "operand") -> str:
        """The tensor as [N, C, H, W]; tensors of lower rank get leading axes, scalars stay."""
        value = self.real(index)
        if value is not None:
            return self.lower.constant(_as_image(value), part)
        form = self._form(index)
        if form.image is None:
            assert form.plain is not None
            shape = self.lower.shape(form.plain)
            if len(shape) > 4:
                raise NotLowerable(f"an image of {len(shape)} axes; expected 4 (N, H, W, C)")
            full = (1,) * (4 - len(shape)) + shape
            form.image = move(self.lower, form.plain, full, TO_IMAGE)
        return form.image

    def plain(self, index: int, part: str = "operand") -> str:
        """The tensor with the axes of the file."""
        value = self.real(index)
        if value is not None:
            return self.lower.constant(value, part)
        form = self._form(index)
        if form.plain is None:
            assert form.image is not None
            form.plain = move(self.lower, form.image, self.lower.shape(form.image), TO_PLAIN)
        return form.plain

    def weight(self, index: int, perm: Sequence[int], array: Array | None = None) -> str:
        """A constant weight with permuted axes; quantized: its integers and a Dequantize.

        ``array`` stands for the stored value where the caller has rearranged it.
        """
        tensor = self.tensors[index]
        value = self.constant(index) if array is None else array
        if value is None:
            raise NotLowerable(f"weight {tensor.name!r} is computed; only constants can be taken")
        if value.ndim != len(perm):
            raise NotLowerable(
                f"weight {tensor.name!r} has shape {list(value.shape)}, expected {len(perm)} axes"
            )
        if index in self.folded or not is_quantized(tensor):
            real = self.real(index)
            assert real is not None
            real = real if array is None else array.astype(np.float32)
            return self.lower.constant(real.transpose(perm), "weight")
        return self.dequantized(index, value.transpose(perm), perm, "weight")

    def dequantized(self, index: int, value: Array, perm: Sequence[int], part: str) -> str:
        """Constant integers and the Dequantize that gives them back their scales."""
        tensor, lower = self.tensors[index], self.lower
        check_scales(tensor)
        dtype, zero = number_format(tensor)
        axis = perm.index(tensor.axis) if tensor.scales.size > 1 else -1
        scales = tensor.scales if axis >= 0 else tensor.scales.reshape(())
        moved = value.astype(np.int64) - (_zeros(tensor)[0] - zero[0])
        integers = lower.constant(moved.astype(dtype.numpy), f"{part}.q")
        scale = lower.constant(scales.astype(np.float32), f"{part}.scale")
        return lower.emit(ops.Dequantize(axis, zero), [integers, scale], part)

    def _form(self, index: int) -> Value:
        if index not in self.computed:
            raise ParseError(
                f"tensor {self.tensors[index].name!r} is read before an operator computes it"
            )
        return self.computed[index]


def move(lower: Lowering, x: str, shape: tuple[int, ...], perm: tuple[int, ...]) -> str:
    """``x`` seen as ``shape`` with permuted axes, in as few nodes as can be."""
    node = lower.builder.node(x)
    if isinstance(node.op, ops.Transpose) and shape == lower.shape(x):
        merged = tuple(node.op.perm[p] for p in perm)
        if merged == tuple(range(len(merged))):
            return node.inputs[0]
        return move(lower, node.inputs[0], lower.shape(node.inputs[0]), merged)
    result = tuple(shape[p] for p in perm)
    if [p for p in perm if shape[p] > 1] == [p for p in range(len(shape)) if shape[p] > 1]:
        return reshape(lower, x, result)
    return lower.emit(ops.Transpose(perm), [reshape(lower, x, shape)], "axes")


def reshape(lower: Lowering, x: str, shape: Sequence[int], part: str = "shape") -> str:
    """A reshape that takes a reshape before it in; a transpose of axes of size 1 is none."""
    node = lower.builder.node(x)
    while isinstance(node.op, ops.Reshape):
        x = node.inputs[0]
        node = lower.builder.node(x)
    return lower.reshape(x, shape, part)


def is_quantized(tensor: TfliteTensor) -> bool:
    """Whether the tensor stands for real numbers by scale and zero point."""
    return tensor.dtype.kind in "iu" and tensor.scales.size > 0


def check_scales(tensor: TfliteTensor) -> None:
    """Raise NotLowerable for scales that no Quantize can have."""
    scales = tensor.scales
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise NotLowerable(f"tensor {tensor.name!r} has a scale that is not positive and finite")
    if len(set(_zeros(tensor))) > 1:
        raise NotLowerable(f"tensor {tensor.name!r} has a zero point per channel")


def number_format(tensor: TfliteTensor) -> tuple[DType, tuple[int]]:
    """Number format and zero point; whole shifts by half the range change the signedness.

    int8 with zero point -128 is the same numbers as uint8 with zero point 0.
    """
    if tensor.dtype.itemsize > 4:
        raise NotLowerable(f"tensor {tensor.name!r} is {tensor.dtype} with a scale")
    signed, bits = tensor.dtype.kind == "i", 8 * tensor.dtype.itemsize
    zero, half = _zeros(tensor)[0], 1 << (bits - 1)
    if bits < 32 and zero == (-half if signed else half):
        return DType("unsigned" if signed else "signed", bits), (0,)
    return DType("signed" if signed else "unsigned", bits), (zero,)


def same_scales(a: TfliteTensor, b: TfliteTensor) -> bool:
    """Whether two tensors are quantized alike."""
    return a.dtype == b.dtype and a.scales.tolist() == b.scales.tolist() and _zeros(a) == _zeros(b)


def _zeros(tensor: TfliteTensor) -> list[int]:
    return [int(z) for z in tensor.zero_points] or [0]


def _as_image(value: Array) -> Array:
    if value.ndim == 0 or value.ndim > 4:
        return value
    return value.reshape((1,) * (4 - value.ndim) + value.shape).transpose(TO_IMAGE)
