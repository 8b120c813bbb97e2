# SPDX-License-Identifier: Apache-2.0
"""Width of accumulators, proven from the actual integer weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codesign.ir.graph import Array, Graph, Node
from codesign.ir.types import DType

IntArray = npt.NDArray[np.int64]


def accumulator_range(weight: Array, x: DType, bias: Array | None) -> tuple[IntArray, IntArray]:
    """Least and greatest value of any partial sum, per output channel (axis 0 of ``weight``).

    Holds for any order of summation, for every input of format ``x`` and for zero padding.
    """
    flat = weight.reshape(weight.shape[0], -1).astype(np.int64)
    positive = np.maximum(flat, 0).sum(axis=1)
    negative = np.minimum(flat, 0).sum(axis=1)
    least = positive * min(x.min, 0) + negative * x.max
    most = positive * x.max + negative * min(x.min, 0)
    if bias is not None:
        offset = bias.astype(np.int64)
        least, most = least + np.minimum(offset, 0), most + np.maximum(offset, 0)
    return least, most


def signed_bits(least: int, most: int) -> int:
    """Bits of the narrowest two's complement format that holds least..most (least ≤ 0 ≤ most).

    >>> signed_bits(-128, 127), signed_bits(-128, 128), signed_bits(0, 0)
    (8, 9, 1)
    """
    return 1 + max(most.bit_length(), (-least - 1).bit_length() if least < 0 else 0)


def accumulator_bits(graph: Graph, node: Node) -> int:
    """Bits that the exact accumulator of an integer conv2d or linear needs, bias included."""
    weight = graph.constants[node.inputs[1]]
    name = graph.operand(node, "bias")
    bias = None if name is None else graph.constants[name]
    least, most = accumulator_range(weight, graph.type(node.inputs[0]).dtype, bias)
    return signed_bits(int(least.min(initial=0)), int(most.max(initial=0)))


def fits_float32(graph: Graph, node: Node) -> bool:
    """Whether float32 arithmetic holds every partial sum of the layer exactly (below 2^24)."""
    return node.inputs[1] in graph.constants and accumulator_bits(graph, node) <= 24
