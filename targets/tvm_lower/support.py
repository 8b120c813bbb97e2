# SPDX-License-Identifier: Apache-2.0
"""Which operators have a kernel. Needs no TVM."""

from __future__ import annotations

from codesign.ir.graph import Graph, Node
from codesign.targets.base import Unsupported
from codesign.targets.tvm_lower.groups import COMPUTE, ELEMENTWISE

KERNELS = COMPUTE | ELEMENTWISE | {
    "pool2d", "reduce", "softmax", "layer_norm", "concat", "slice", "transpose", "broadcast",
    "reshape", "pad", "resize",
}  # fmt: skip
"""Names of the operators that the lowering knows."""


def unsupported(graph: Graph) -> tuple[Unsupported, ...]:
    """Every node that cannot be lowered, in graph order."""
    found = []
    for node in graph.nodes.values():
        why = _why_not(graph, node)
        if why:
            found.append(Unsupported(node.name, node.op.name, why, node.source))
    return tuple(found)


def _why_not(graph: Graph, node: Node) -> str | None:
    if node.op.name in ("input", "constant"):
        return None
    if node.op.name not in KERNELS:
        return f"there is no kernel for operator {node.op.name!r}"
    if node.op.name == "requantize":
        computed = [v for v in node.inputs[1:] if v not in graph.constants]
        if computed:
            return f"multiplier and shift must be constants, {', '.join(computed)} is computed"
    if node.op.name == "dequantize" and node.inputs[1] not in graph.constants:
        return f"the scale must be a constant, {node.inputs[1]} is computed"
    if any(graph.type(v).dtype.bits > 32 and graph.type(v).dtype.is_integer for v in node.inputs):
        return "integers wider than 32 bits have no kernel"
    return None
