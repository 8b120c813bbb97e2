# SPDX-License-Identifier: Apache-2.0
"""What an engine does in one go: a convolution-like job with its way out to memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from codesign.ir.graph import Array
from codesign.space.workload import LayerShape
from codesign.targets.fpga.isa import BLOCK

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Finish:
    """From sums to results, per output channel: m, e and bias; then a residual, then a clip."""

    m: Ints
    e: Ints
    bias: Ints
    lo: int
    hi: int
    residual: str | None = None
    """The value of up to 8 bits that is added."""
    res_m: int = 0
    res_e: int = 1

    def part(self, start: int, stop: int) -> Finish:
        """Of output channels start..stop."""
        cut = slice(start, stop)
        return replace(self, m=self.m[cut], e=self.e[cut], bias=self.bias[cut])


@dataclass(frozen=True, eq=False)
class Job:
    """A convolution over an image in memory, its results requantised and stored.

    Pools and element-wise operators are depthwise jobs: kernels of ones, or the maximum.
    Negative padding crops.
    """

    name: str
    """The layer or operator it stands for."""
    kind: Literal["dense", "depthwise"]
    source: str
    """The value that is read."""
    result: str
    """The value that is made."""
    weights: Array
    """dense: [O, I, KH, KW], all channels; depthwise: [C, KH, KW]."""
    weight_bits: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    """Top and left."""
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    finish: Finish
    maximum: bool = False
    activation_bits: int = 8
    """Of the value that is read."""
    groups: int = 1
    """Dense: groups of channels, each as a job of its own (multiples of 8 channels)."""
    repeat: tuple[int, int] = (1, 1)
    """Rows and columns of the value are repeated as they are read (nearest resize);
    ``in_size`` is the repeated one."""
    nodes: tuple[str, ...] = ()
    """Nodes of the graph that it computes."""

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the kernel."""
        return self.weights.shape[-2], self.weights.shape[-1]

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def outputs(self) -> int:
        """Output channels."""
        return int(self.weights.shape[0])

    @property
    def inputs(self) -> int:
        """Input channels of all groups."""
        if self.kind == "depthwise":
            return self.outputs
        return int(self.weights.shape[1]) * self.groups

    @property
    def flat(self) -> bool:
        """Whether pixels follow each other without regard to rows (1 x 1, stride 1, no edge)."""
        return (
            self.kernel == (1, 1)
            and self.stride == (1, 1)
            and self.padding == (0, 0)
            and self.in_size == self.out_size
            and self.repeat == (1, 1)
        )

    @property
    def shape(self) -> LayerShape:
        """As the cost model sees it."""
        return LayerShape(
            self.kind, self.inputs, self.outputs, self.groups, self.kernel, self.stride,
            self.dilation, self.in_size, self.out_size, self.finish.residual is not None,
        )  # fmt: skip

    @property
    def macs(self) -> int:
        """Multiply-accumulates that the network asks for."""
        per = self.taps * (1 if self.kind == "depthwise" else int(self.weights.shape[1]))
        return per * self.outputs * self.out_size[0] * self.out_size[1]


def aligned_groups(weights: Array, groups: int) -> tuple[Array, int]:
    """Weights [O, I / groups, ...] for fewer groups, whose channels are multiples of 8: groups are
    joined, with zeros between them. One group may have any number of channels."""
    outputs, per_group = weights.shape[:2]
    out_group = outputs // groups
    for wanted in sorted((g for g in range(1, groups + 1) if groups % g == 0), reverse=True):
        joined = groups // wanted
        fits = per_group * joined % BLOCK == 0 and out_group * joined % BLOCK == 0
        if wanted == 1 or fits:
            break
    full = np.zeros((outputs, per_group * joined, *weights.shape[2:]), weights.dtype)
    for group in range(groups):
        rows = slice(group * out_group, (group + 1) * out_group)
        at = group % joined * per_group
        full[rows, at : at + per_group] = weights[rows]
    return full, wanted
