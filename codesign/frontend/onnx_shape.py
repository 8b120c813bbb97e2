# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that move data without computing."""

from __future__ import annotations

import math

import numpy as np

from codesign.frontend.lowering import Lowering
from codesign.frontend.onnx_table import Call, Known, Result, handles
from codesign.frontend.report import NotLowerable


@handles("Shape")
def _shape(lower: Lowering, c: Call) -> Result:
    item = c.item(0)
    shape = item.value.shape if isinstance(item, Known) else lower.shape(c.tensor(0))
    part = shape[c.attribute("start", 0) : c.attribute("end", len(shape))]
    return Known(np.array(part, np.int64))


@handles("Size")
def _size(lower: Lowering, c: Call) -> Result:
    return Known(np.array(lower.type(c.tensor(0)).size, np.int64))


@handles("Reshape")
def _reshape(lower: Lowering, c: Call) -> Result:
    x, want = c.tensor(0), c.ints(1)
    shape = lower.shape(x)
    if not c.attribute("allowzero", 0):
        want = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(want)]
    return lower.reshape(x, want)


@handles("Flatten")
def _flatten(lower: Lowering, c: Call) -> Result:
    x = c.tensor(0)
    shape, axis = lower.shape(x), c.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return lower.reshape(x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@handles("Squeeze")
def _squeeze(lower: Lowering, c: Call) -> Result:
    x, axes = c.tensor(0), c.axes("axes", 1)
    shape = lower.shape(x)
    if axes is None:
        return lower.reshape(x, [n for n in shape if n != 1])
    gone = {lower.axis(x, a) for a in axes}
    return lower.reshape(x, [n for i, n in enumerate(shape) if i not in gone])


@handles("Unsqueeze")
def _unsqueeze(lower: Lowering, c: Call) -> Result:
    x, axes = c.tensor(0), c.axes("axes", 1) or []
    shape = list(lower.shape(x))
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return lower.reshape(x, shape)


@handles("Transpose")
def _transpose(lower: Lowering, c: Call) -> Result:
    x = c.tensor(0)
    return lower.transpose(x, c.attribute("perm", range(len(lower.shape(x)))[::-1]))


@handles("Expand")
def _expand(lower: Lowering, c: Call) -> Result:
    x = c.tensor(0)
    return lower.broadcast(x, np.broadcast_shapes(lower.shape(x), tuple(c.ints(1))))


@handles("Concat")
def _concat(lower: Lowering, c: Call) -> Result:
    return lower.concat([c.tensor(i) for i in range(len(c))], c.attribute("axis"))


@handles("Split")
def _split(lower: Lowering, c: Call) -> Result:
    x, axis = c.tensor(0), c.attribute("axis", 0)
    size = lower.shape(x)[lower.axis(x, axis)]
    if c.has(1):
        return lower.split(x, c.ints(1), axis)
    step = -(-size // c.attribute("num_outputs", c.outputs))
    return lower.split(x, [min(step, size - at) for at in range(0, size, step)], axis)


@handles("Slice")
def _slice(lower: Lowering, c: Call) -> Result:
    x, starts, stops = c.tensor(0), c.ints(1), c.ints(2)
    axes = c.ints(3) if c.has(3) else list(range(len(starts)))
    steps = c.ints(4) if c.has(4) else [1] * len(starts)
    for index, (axis, start, stop, step) in enumerate(zip(axes, starts, stops, steps)):
        part = "" if index == len(axes) - 1 else f"axis{axis}"
        x = lower.slice(x, axis, start, stop, step, part)
    return x


@handles("Gather")
def _gather(lower: Lowering, c: Call) -> Result:
    x, where, axis = c.tensor(0), c.known(1), c.attribute("axis", 0)
    size = lower.shape(x)[lower.axis(x, axis)]
    if where.ndim == 0:
        return lower.select(x, axis, int(where))
    places = [int(n) % size for n in where.reshape(-1)]
    if where.ndim == 1 and places == list(range(places[0], places[0] + len(places))):
        return lower.slice(x, axis, places[0], places[-1] + 1)
    raise NotLowerable("Gather of places that are not one run; use Slice")


@handles("Pad")
def _pad(lower: Lowering, c: Call) -> Result:
    x, pads = c.tensor(0), c.ints(1)
    rank = len(lower.shape(x))
    axes = [a % rank for a in c.ints(3)] if c.has(3) else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[index + len(axes)]
    return lower.pad(x, before, after, c.attribute("mode", "constant"), c.scalar(2) or 0.0)


@handles("DepthToSpace")
def _depth_to_space(lower: Lowering, c: Call) -> Result:
    x, r = c.tensor(0), c.attribute("blocksize")
    n, channels, h, w = lower.shape(x)
    if c.attribute("mode", "DCR") == "DCR":
        split, perm = (n, r, r, channels // r**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = (n, channels // r**2, r, r, h, w), (0, 1, 4, 2, 5, 3)
    mixed = lower.transpose(lower.reshape(x, split, "parts"), perm, "mixed")
    return lower.reshape(mixed, (n, channels // r**2, h * r, w * r))
