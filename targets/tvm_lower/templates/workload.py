# SPDX-License-Identifier: Apache-2.0
"""The sizes of a kernel that a template can write. Needs no TVM."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from codesign.ir import ops
from codesign.ir.graph import Graph
from codesign.ir.types import DType
from codesign.targets.tvm_lower.groups import Group


@dataclass(frozen=True)
class Workload:
    """A convolution or linear layer in integers with known weights."""

    n: int
    height: int
    width: int
    """Of the input."""
    depth: int
    """Input channels of a group."""
    channels: int
    """Output channels of a group."""
    groups: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    data: DType
    weight: DType
    wide: bool = False
    """Whether the input lies in memory in 16 bits, see ``tvm_lower.wide``."""

    @property
    def stored(self) -> str:
        """TVM's name of the type of the input in memory."""
        return "int16" if self.wide else str(self.data.numpy)

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved on its own."""
        return self.groups > 1 and self.depth == self.channels == 1

    @property
    def flat(self) -> bool:
        """Whether all pixels can be taken as one row."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.padding)

    def sampled(self) -> Workload:
        """The same without a stride, for a 1x1 convolution whose template copies its input: it
        copies the pixels that count alone."""
        if self.kernel != (1, 1) or any(self.padding) or self.wide or self.groups > 1:
            return self
        return replace(self, height=self.out_height, width=self.out_width, stride=(1, 1))

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        pixels = self.n * self.out_height * self.out_width * self.groups
        return pixels * self.channels * self.depth * math.prod(self.kernel)


def find_workload(graph: Graph, group: Group) -> Workload | None:
    """The workload of a kernel, or None if no template is made for it."""
    head = graph.nodes[group.head]
    if head.op.name not in ("conv2d", "linear") or head.inputs[1] not in graph.constants:
        return None
    data, weight = (graph.type(v) for v in head.inputs[:2])
    kinds = data.dtype, weight.dtype
    if any(not k.is_integer or k.bits > 8 for k in kinds) or str(head.type.dtype) != "s32":
        return None
    if weight.dtype.kind != "signed":
        return None
    if isinstance(head.op, ops.Conv2d):
        n, _, height, width = data.shape
        o, depth, kh, kw = weight.shape
        groups = head.op.groups
        found = Workload(
            n, height, width, depth, o // groups, groups, head.type.shape[2],
            head.type.shape[3], (kh, kw), head.op.stride, head.op.dilation, head.op.padding,
            data.dtype, weight.dtype,
        )  # fmt: skip
        return found if groups == 1 or found.depthwise else None
    *lead, depth = data.shape
    n, rows, columns = math.prod(lead[:-2]), *([1, 1, *lead][-2:])
    return Workload(
        n, rows, columns, depth, weight.shape[0], 1, rows, columns, (1, 1), (1, 1), (1, 1),
        (0, 0, 0, 0), data.dtype, weight.dtype,
    )  # fmt: skip
