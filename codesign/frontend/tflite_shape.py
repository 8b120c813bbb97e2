# SPDX-License-Identifier: Apache-2.0
"""TFLite operators that move elements, and those that compute shapes at import."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codesign.frontend.report import NotLowerable
from codesign.frontend.tflite_table import (
    IMAGE_AXIS,
    Call,
    Image,
    Known,
    Plain,
    Result,
    handler,
)  # fmt: skip
from codesign.frontend.tflite_values import TO_IMAGE, TO_PLAIN, move, reshape

Range = tuple[int, int, int]


@handler("RESHAPE", moves=True)
def _reshape(c: Call) -> Result:
    want = c.ints(1) if c.has(1) else c.options.integers(0)
    return Plain(reshape(c.lower, c.data(0), want, ""))


@handler("SQUEEZE", moves=True)
def _squeeze(c: Call) -> Result:
    shape = c.shape(0)
    axes = {c.axis(axis, len(shape)) for axis in c.options.integers(0)}
    if any(shape[axis] != 1 for axis in axes):
        raise NotLowerable(f"axes {sorted(axes)} of {list(shape)} are not all of size 1")
    gone = axes or {axis for axis, size in enumerate(shape) if size == 1}
    kept = [size for axis, size in enumerate(shape) if axis not in gone]
    return Plain(reshape(c.lower, c.data(0), kept, ""))


@handler("EXPAND_DIMS", moves=True)
def _expand_dims(c: Call) -> Result:
    shape, at = list(c.shape(0)), c.ints(1)
    if len(at) != 1:
        raise NotLowerable(f"{len(at)} axes; expected one")
    shape.insert(c.axis(at[0], len(shape) + 1), 1)
    return Plain(reshape(c.lower, c.data(0), shape, ""))


@handler("TRANSPOSE", moves=True)
def _transpose(c: Call) -> Result:
    x, perm = c.data(0), c.ints(1)
    shape = c.lower.shape(x)
    order = tuple(c.axis(axis, len(shape)) for axis in perm)
    if sorted(order) != list(range(len(shape))):
        raise NotLowerable(f"permutation {list(perm)} of {list(shape)}")
    if c.lower.known(x) is not None:
        return Plain(c.lower.transpose(x, order))
    return Plain(move(c.lower, x, shape, order))


@handler("PAD", "PADV2", "MIRROR_PAD", moves=True)
def _pad(c: Call) -> Result:
    rank, amounts = len(c.shape(0)), c.ints(1)
    if len(amounts) != 2 * rank:
        raise NotLowerable(f"{len(amounts)} amounts for {rank} axes; expected {2 * rank}")
    if min(amounts, default=0) < 0:
        raise NotLowerable(f"negative amounts {list(amounts)}")
    value, mode = 0.0, "constant"
    if c.operator.kind == "MIRROR_PAD":
        if c.options.byte(0):
            raise NotLowerable("mode SYMMETRIC; REFLECT can be taken")
        mode = "reflect"
    elif c.has(2):
        found = c.values.real(c.index(2))
        if found is None or found.size != 1 or not np.isfinite(found).all():
            raise NotLowerable("the value must be one constant number")
        value = float(found.item())
    before, after = amounts[::2], amounts[1::2]
    if c.is_image(0):
        before, after = (tuple(side[axis] for axis in TO_IMAGE) for side in (before, after))
        return Image(c.lower.pad(c.image(0), before, after, mode, value))
    return Plain(c.lower.pad(c.plain(0), before, after, mode, value))


@handler("CONCATENATION", moves=True)
def _concat(c: Call) -> Result:
    places, rank = range(len(c.operator.inputs)), len(c.shape(0))
    axis = c.axis(c.options.integer(0), rank)
    if any(len(c.shape(place)) != rank for place in places):
        raise NotLowerable(f"operands of shapes {[list(c.shape(place)) for place in places]}")
    if any(c.is_image(place) for place in places):
        y = c.lower.concat([c.image(place) for place in places], IMAGE_AXIS[axis])
        return Image(c.fused(y, c.options.byte(1)))
    y = c.lower.concat([c.plain(place) for place in places], axis)
    return Plain(c.fused(y, c.options.byte(1)))


@handler("SPLIT", moves=True)
def _split(c: Call) -> list[Result]:
    axis, shape, parts = c.ints(0), c.shape(1), c.options.integer(0)
    where = c.axis(axis[0], len(shape)) if len(axis) == 1 else -1
    if where < 0 or parts < 1 or shape[where] % parts:
        raise NotLowerable(f"{list(shape)} in {parts} parts along {list(axis)}")
    return _parts(c, 1, where, [shape[where] // parts] * parts)


@handler("SPLIT_V", moves=True)
def _split_v(c: Call) -> list[Result]:
    shape, sizes, axis = c.shape(0), list(c.ints(1)), c.ints(2)
    where = c.axis(axis[0], len(shape)) if len(axis) == 1 else -1
    if sizes.count(-1) == 1 and where >= 0:
        sizes[sizes.index(-1)] = shape[where] - sum(sizes) - 1
    if where < 0 or min(sizes, default=0) < 1 or sum(sizes) != shape[where]:
        raise NotLowerable(f"{list(shape)} in parts of {sizes} along {list(axis)}")
    return _parts(c, 0, where, sizes)


def _parts(c: Call, position: int, axis: int, sizes: Sequence[int]) -> list[Result]:
    x = c.either(position)
    if isinstance(x, Image):
        return [Image(part) for part in c.lower.split(x.value, sizes, IMAGE_AXIS[axis])]
    return [Plain(part) for part in c.lower.split(x.value, sizes, axis)]


@handler("SLICE", moves=True)
def _slice(c: Call) -> Result:
    shape, begin, size = c.shape(0), c.ints(1), c.ints(2)
    if not len(begin) == len(size) == len(shape):
        raise NotLowerable(f"start {list(begin)} and size {list(size)} of {list(shape)}")
    stops = [n if s == -1 else b + s for n, b, s in zip(shape, begin, size)]
    return _cut(c, [(b, e, 1) for b, e in zip(begin, stops)])


@handler("STRIDED_SLICE", moves=True)
def _strided_slice(c: Call) -> Result:
    o, shape = c.options, c.shape(0)
    begin, end, strides = c.ints(1), c.ints(2), c.ints(3)
    if not len(begin) == len(end) == len(strides) <= len(shape):
        raise NotLowerable(f"limits {list(begin)}, {list(end)} of {list(shape)}")
    if o.integer(2) or o.integer(3):
        raise NotLowerable("an ellipsis or a new axis; write the limits of all axes")
    ranges, gone = [], set()
    for axis, (b, e, s, n) in enumerate(zip(begin, end, strides, shape)):
        bit = 1 << axis
        if s < 1:
            raise NotLowerable(f"step {s}; steps must be positive")
        if o.integer(4) & bit:
            at = c.axis(b, n)
            gone.add(axis)
            ranges.append((at, at + 1, 1))
            continue
        first = 0 if o.integer(0) & bit else b
        last = n if o.integer(1) & bit else e + b if o.byte(5) else e
        ranges.append((first, last, s))
    y = _cut(c, ranges)
    if isinstance(y, Known):
        kept = [n for axis, n in enumerate(y.value.shape) if axis not in gone]
        return Known(y.value.reshape(kept))
    if not gone:
        return y
    x = y.value
    if isinstance(y, Image):
        x = move(c.lower, x, c.lower.shape(x), TO_PLAIN)
    kept = [n for axis, n in enumerate(c.lower.shape(x)) if axis not in gone]
    return Plain(reshape(c.lower, x, kept, ""))


def _cut(c: Call, ranges: Sequence[Range]) -> Result:
    """The slice of operand 0; ``ranges`` in the file's order of axes."""
    value = c.known(0)
    if value is not None and value.dtype.kind in "iu" and not c.tensor(0).scales.size:
        return Known(value[tuple(slice(*limits) for limits in ranges)])
    x = c.either(0)
    y = x.value
    for axis, (start, stop, step) in enumerate(ranges):
        where = IMAGE_AXIS[axis] if isinstance(x, Image) else axis
        y = c.lower.slice(y, where, start, stop, step, "" if axis == len(ranges) - 1 else "slice")
    return Image(y) if isinstance(x, Image) else Plain(y)


@handler("RESIZE_BILINEAR")
def _bilinear(c: Call) -> Result:
    align, half = bool(c.options.byte(2)), bool(c.options.byte(3))
    if align and half:
        raise NotLowerable("aligned corners together with half-pixel centers")
    return _resize(c, "bilinear", align, half, "floor")


@handler("RESIZE_NEAREST_NEIGHBOR", moves=True)
def _nearest(c: Call) -> Result:
    align, half = bool(c.options.byte(0)), bool(c.options.byte(1))
    if align and half:
        raise NotLowerable("aligned corners together with half-pixel centers")
    # aligned: round; half-pixel: floor((i + 1/2) * scale), which is round of that less 1/2
    return _resize(c, "nearest", align, half, "round_prefer_ceil" if align or half else "floor")


def _resize(c: Call, kind: str, align: bool, half: bool, rounding: str) -> Result:
    x, size = c.image(0), c.ints(1)
    if len(size) != 2 or min(size) < 1:
        raise NotLowerable(f"size {list(size)}; expected height and width")
    coordinates = "align_corners" if align else "half_pixel" if half else "asymmetric"
    y = c.lower.resize(x, (size[0], size[1]), kind, coordinates, rounding)  # type: ignore[arg-type]
    return Image(y)


@handler("SHAPE")
def _shape(c: Call) -> Result:
    return Known(np.array(c.shape(0), np.int32))


@handler("PACK")
def _pack(c: Call) -> Result:
    """Of constants only: shapes computed in the network."""
    found = [c.known(place) for place in range(len(c.operator.inputs))]
    values = [value for value in found if value is not None]
    if len(values) < len(found) or not values or len({value.shape for value in values}) > 1:
        raise NotLowerable("it can be computed at import only, from constants of one shape")
    if any(value.dtype.kind not in "iu" for value in values):
        raise NotLowerable("it can be computed for integers only")
    return Known(np.stack(values, c.axis(c.options.integer(1), values[0].ndim + 1)))
