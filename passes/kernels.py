# SPDX-License-Identifier: Apache-2.0
"""Sums of convolutions of one image as one convolution, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from codesign.ir.graph import Array


@dataclass(frozen=True, eq=False)
class Kernel:
    """conv(x, weight) + bias; weight: [O, C/groups, KH, KW], bias: [O]."""

    weight: Array
    bias: Array
    groups: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, left, bottom, right."""

    @classmethod
    def identity(cls, channels: int) -> Kernel:
        """The convolution that changes nothing: depthwise 1x1 of ones."""
        return cls(np.ones((channels, 1, 1, 1)), np.zeros(channels), channels)

    def scaled(self, scale: Array, shift: Array) -> Kernel:
        """result · scale + shift with one value a channel."""
        weight = self.weight * scale.reshape(-1, 1, 1, 1)
        return replace(self, weight=weight, bias=self.bias * scale + shift)

    @property
    def multiplications(self) -> int:
        """Multiplications for each output position."""
        return int(self.weight.size)

    def taps(self, axis: int) -> list[int]:
        """Offsets from the stride grid that the kernel reads along H (0) or W (1)."""
        count, step, before = self.weight.shape[2 + axis], self.dilation[axis], self.padding[axis]
        return [i * step - before for i in range(count)]

    def regrouped(self, groups: int) -> Array:
        """The weight for fewer groups (a divisor of the present ones), zeros between."""
        outputs, width = self.weight.shape[:2]
        channels = width * self.groups
        result = np.zeros((outputs, channels // groups, *self.weight.shape[2:]))
        for group in range(self.groups):
            rows = slice(group * outputs // self.groups, (group + 1) * outputs // self.groups)
            start = group * width % (channels // groups)
            result[rows, start : start + width] = self.weight[rows]
        return result


def merge_kernels(kernels: Sequence[Kernel]) -> Kernel:
    """One convolution that equals the sum of ``kernels`` (same input, stride and result shape).

    Every tap of a kernel reads the input at a fixed offset from the stride grid. The result
    covers all offsets; its dilation is the greatest that hits each of them.
    """
    groups = math.gcd(*(k.groups for k in kernels))
    axes = [_merge_axis(kernels, axis) for axis in (0, 1)]
    (top, bottom, dil_h, size_h), (left, right, dil_w, size_w) = axes
    shape = kernels[0].regrouped(groups).shape[:2]
    weight = np.zeros((*shape, size_h, size_w))
    for k in kernels:
        rows = [(t + top) // dil_h for t in k.taps(0)]
        cols = [(t + left) // dil_w for t in k.taps(1)]
        weight[:, :, np.array(rows)[:, None], np.array(cols)] += k.regrouped(groups)
    bias = np.sum([k.bias for k in kernels], axis=0)
    padding = (top, left, bottom, right)
    return Kernel(weight, bias, groups, kernels[0].stride, (dil_h, dil_w), padding)


def _merge_axis(kernels: Sequence[Kernel], axis: int) -> tuple[int, int, int, int]:
    """Padding before and after, dilation and size of the merged kernel along one axis."""
    offsets: set[int] = set()
    ends: list[tuple[int, int]] = []
    for k in kernels:
        taps = k.taps(axis)
        offsets.update(taps)
        # The kernel that reaches furthest also tells how much padding its reach needs.
        ends.append((taps[-1], k.padding[2 + axis]))
    first, (last, after) = min(offsets), max(ends)
    dilation = math.gcd(*(offset - first for offset in offsets)) or 1
    return -first, after, dilation, (last - first) // dilation + 1
