# SPDX-License-Identifier: Apache-2.0
"""QuantizeLinear and DequantizeLinear: kept as they are, with scales and zero points.

ONNX rounds half to even, the IR's Quantize rounds half up (floor(x / s + 1/2)): a float exactly
between two steps may come out one step higher than another runtime gives.
"""

from __future__ import annotations

import numpy as np

from codesign.frontend.lowering import Lowering
from codesign.frontend.onnx_table import Call, Known, Result
from codesign.frontend.report import NotLowerable
from codesign.ir import ops
from codesign.ir.types import DType, TensorType

_TYPES = {
    2: DType("unsigned", 8), 3: DType("signed", 8), 4: DType("unsigned", 16),
    5: DType("signed", 16), 6: DType("signed", 32), 21: DType("unsigned", 4),
    22: DType("signed", 4), 25: DType("unsigned", 2), 26: DType("signed", 2),
}  # fmt: skip
"""TensorProto.DataType to number format."""


def quantize(lower: Lowering, c: Call) -> Result:
    """QuantizeLinear."""
    x = c.tensor(0)
    scale, axis = _scale(lower, c, lower.type(x))
    dtype = _TYPES.get(c.attribute("output_dtype", 0) or 2)
    zero: tuple[int, ...] = (0,)
    if c.has(2):
        item = c.item(2)
        zero = _zero(c, axis)
        if isinstance(item, Known):
            dtype = item.dtype or _array_type(item)
    if dtype is None:
        raise NotLowerable(f"QuantizeLinear to type {c.attribute('output_dtype')}; integers only")
    return lower.emit(ops.Quantize(dtype, axis, zero), [x, scale])


def dequantize(lower: Lowering, c: Call) -> Result:
    """DequantizeLinear."""
    x = c.tensor(0)
    if not lower.type(x).dtype.is_integer:
        raise NotLowerable(f"DequantizeLinear of {lower.type(x)}; integers only")
    scale, axis = _scale(lower, c, lower.type(x))
    zero = _zero(c, axis) if c.has(2) else (0,)
    return lower.emit(ops.Dequantize(axis, zero), [x, scale])


def _scale(lower: Lowering, c: Call, x: TensorType) -> tuple[str, int]:
    """The scale as scalar or vector, and the axis (−1: one scale)."""
    if c.attribute("block_size", 0):
        raise NotLowerable("scales per block; per tensor and per channel can be taken")
    value = c.known(1)
    if value.dtype != np.float32:
        raise NotLowerable(f"scale of type {value.dtype}; float32 only")
    if not (np.isfinite(value).all() and (value > 0).all()):
        raise NotLowerable(f"scale {c.names[1]!r} holds values that are not positive and finite")
    if value.ndim == 0 or (value.size == 1 and value.ndim == 1):
        return lower.constant(value.reshape(()), "scale"), -1
    axis = c.attribute("axis", 1) % x.rank
    if value.shape != (x.shape[axis],):
        raise NotLowerable(
            f"scale of shape {list(value.shape)} for axis {axis} of {x}; "
            f"[{x.shape[axis]}] can be taken"
        )
    return lower.constant(value, "scale"), axis


def _zero(c: Call, axis: int) -> tuple[int, ...]:
    points = c.ints(2)
    if axis < 0 and len(points) != 1:
        raise NotLowerable(f"{len(points)} zero points for one scale")
    return (points[0],) if len(set(points)) == 1 else tuple(points)


def _array_type(item: Known) -> DType | None:
    kind = item.value.dtype.kind
    if kind not in "iu":
        return None
    return DType("signed" if kind == "i" else "unsigned", item.value.dtype.itemsize * 8)
