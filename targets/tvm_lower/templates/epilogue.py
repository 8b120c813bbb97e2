# SPDX-License-Identifier: Apache-2.0
"""From the sums of a register tile to stored results: requantisation in vectors.

Vector units have no 64-bit products of 64-bit operands, but they multiply the even 32-bit lanes
to 64 bits. So even and odd lanes are scaled apart: the even results are the low halves of a right
shift, the odd ones the high halves of a left shift, and a blend puts them together. The bias is
folded into the 64-bit term that rounds: acc · m + (bias · m + 2^(e-1)). All of it is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx
from tvm.script.ir_builder import tirx as build

from codesign.ir import ops
from codesign.ir.graph import Graph, Node
from codesign.ir.types import DType
from codesign.targets.tvm_lower.groups import Group
from codesign.targets.tvm_lower.isa.base import LEAST_SHIFT, SUM_LIMIT, Scaling
from codesign.targets.tvm_lower.kernel import Expr, Index, Kernel, Reader, clamp, const, storage
from codesign.targets.tvm_lower.templates import write

Finish = Callable[[Expr, Index], Expr]
_LIFT = 8
"""Tried before what is just enough, so that layers run the same code."""
_TABLES = 6
"""int64 values a channel pair: two multipliers, two rounding terms, two shifts."""


@dataclass(frozen=True)
class Epilogue:
    """What is done with the sums of a kernel."""

    finish: Finish
    """(value, logical index) → result; the value is the sum, or the scaled sum with ``scale``."""
    tables: Any = None
    """Buffer of the scaling constants, or None where ``finish`` does everything."""
    scaling: Scaling | None = None
    """How to scale with them; None for the way of this module."""
    lift: int = 0
    """Bits that sums are shifted left before: so much more are the shifts in the tables."""

    def vector(self, sums: Expr, block: Expr, lanes: int) -> Expr:
        """Scale a vector of sums of output channels block·lanes …; int32."""
        if self.tables is None:
            return sums
        if self.scaling is not None:
            scaling, words = self.scaling, self.scaling.words(lanes)
            if self.lift:
                sums = sums << tirx.Broadcast(const(self.lift, "int32"), lanes)
            return scaling.apply(
                lambda start, count: write.load(self.tables, block * words + start, count),
                sums, lanes,
            )  # fmt: skip
        half = lanes // 2

        def table(row: int) -> Expr:
            return write.load(self.tables, block * (_TABLES * half) + row * half, half)

        def low(value: Expr) -> Expr:
            return (value << thirty_two) >> thirty_two

        thirty_two = tirx.Broadcast(const(32, "int64"), half)
        pairs = tirx.reinterpret(f"int64x{half}", sums)
        even = low(pairs) * low(table(0)) + table(2)
        odd = (pairs >> thirty_two) * low(table(1)) + table(3)
        unsigned = f"uint64x{half}"
        even = tirx.reinterpret(unsigned, even) >> tirx.reinterpret(unsigned, table(4))
        odd = tirx.reinterpret(unsigned, odd << table(5))
        mask = tirx.Broadcast(tirx.const(0xFFFFFFFF, "uint64"), half)
        high = tirx.Broadcast(tirx.const(0xFFFFFFFF00000000, "uint64"), half)
        return tirx.reinterpret(f"int32x{lanes}", (even & mask) | (odd & high))

    def store(
        self, out: Any, sums: Any, start: Expr, count: int, index: Callable[[Expr], Index],
        place: Callable[[Index], list[Expr]],
    ) -> None:  # fmt: skip
        """Finish and store ``count`` neighbouring channels; values lie in ``sums`` at ``start``."""
        kind = "vectorized" if count & (count - 1) == 0 else "serial"
        with write.loop(count, kind) as lane:
            at = index(lane)
            value = self.finish(tirx.BufferLoad(sums, [start + lane]), at)
            build.buffer_store(out, value.astype(str(out.dtype)), place(at))


def fused_requantize(graph: Graph, group: Group) -> Node | None:
    """The requantize behind a kernel's head, if its constants suit the scaling in vectors."""
    head = graph.nodes[group.head]
    readers = [r for r in graph.users[head.name] if r in group.members]
    if len(readers) != 1 or head.name in graph.outputs:
        return None
    node = graph.nodes[readers[0]]
    op = node.op
    if not isinstance(op, ops.Requantize) or op.axis not in (-1, 1, len(node.type.shape) - 1):
        return None
    if op.axis == len(node.type.shape) - 1 != 1 and head.op.name == "conv2d":
        return None
    m, e = (graph.constants.get(v) for v in node.inputs[1:])
    if m is None or e is None or not e.size:
        return None
    if int(e.min()) < 1 or int(e.max()) > 32 or int(m.min(initial=0)) < 0:
        return None
    return node if int(e.min()) >= 16 or _stays_small(graph, head, m, e) else None


def _stays_small(
    graph: Graph, head: Node, m: npt.NDArray[Any], e: npt.NDArray[Any]
) -> bool:
    """Whether scaled sums fit 32 bits, which they must before they are clipped.

    With e of 16 and more all do; less is the rule with weights of two bits, whose scales are
    large and whose sums are small.
    """
    weights = graph.constants.get(head.inputs[1])
    if head.op.name not in ("conv2d", "linear") or weights is None:
        return False
    names = dict(zip(head.op.operand_names(), head.inputs))
    bias = graph.constants.get(names["bias"]) if "bias" in names else np.zeros(1, np.int64)
    if bias is None:
        return False
    data = graph.type(head.inputs[0]).dtype
    sums = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
    greatest = (sums * max(-data.min, data.max) + np.abs(bias.astype(np.int64))).astype(object)
    shift = e.astype(object)
    return bool(np.all(greatest * m.astype(object) + 2 ** (shift - 1) < 2 ** (shift + 31)))


def scaling_tables(
    m: npt.NDArray[Any], e: npt.NDArray[Any], bias: npt.NDArray[Any], lanes: int
) -> npt.NDArray[np.int64]:
    """Constants [block, row, lanes / 2] of channels padded to whole vectors."""
    channels = bias.size
    blocks = -(-channels // lanes)

    def padded(values: npt.NDArray[Any], fill: int) -> npt.NDArray[np.int64]:
        wide = np.full(blocks * lanes, fill, np.int64)
        wide[:channels] = values
        return wide.reshape(blocks, lanes // 2, 2)

    multiplier, shift = padded(m, 0), padded(e, 16)
    term = padded(bias, 0) * multiplier + (1 << (shift - 1))
    rows = [multiplier[..., 0], multiplier[..., 1], term[..., 0], term[..., 1], shift[..., 0],
            32 - shift[..., 1]]  # fmt: skip
    return np.stack(rows, 1)


def short_lift(
    data: DType, weights: npt.NDArray[Any], bias: npt.NDArray[Any], e: npt.NDArray[Any]
) -> int | None:
    """Bits by which a layer's sums are shifted so that ``InstructionSet.short_scaling`` suits them;
    None if it does not.

    (x · 2^k · m + 2^(e+k-1)) >> (e + k) is the same: small sums with large scales, which weights of
    two or three bits have, reach the least shift like this.
    """
    greatest = np.abs(weights.astype(np.int64)).sum(axis=(1, 2, 3)) * max(-data.min, data.max)
    greatest += np.abs(bias)
    least, most = int(e.min(initial=62)), int(e.max(initial=0))
    for lift in (0, _LIFT, LEAST_SHIFT - least):
        small = int(greatest.max(initial=0)) << max(lift, 0) < SUM_LIMIT
        if lift >= 0 and small and least + lift >= LEAST_SHIFT and most + lift <= 32 and least > 0:
            return lift
    return None


def scaled_reader(node: Node, values: list[Expr]) -> Reader:
    """Reads the requantize ``node`` whose scaled sum stands last in ``values``."""
    op = node.op
    assert isinstance(op, ops.Requantize)
    return lambda index: clamp(values[-1], op.lo, op.hi).astype(storage(op.dtype))


def constant_bias(
    kernel: Kernel, head: Node, correction: npt.NDArray[np.int32] | None, channels: int
) -> npt.NDArray[np.int64] | None:
    """Bias and correction of each output channel as they add up, or None if not constant."""
    names = dict(zip(head.op.operand_names(), head.inputs))
    total = np.zeros(channels, np.int64)
    if "bias" in names:
        given = kernel.graph.constants.get(names["bias"])
        if given is None:
            return None
        total += given.astype(np.int64)
    if correction is not None:
        total += correction
    return total.astype(np.int32).astype(np.int64)
