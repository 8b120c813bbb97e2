# SPDX-License-Identifier: Apache-2.0
"""Networks that come quantized (Quantize and Dequantize around float operators).

Their scales are kept: the pairs are taken out of the graph and become ``QuantOptions.scales``
(tensors) and ``QuantOptions.weight_scales`` (weights). Run this before the passes that fuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from codesign.ir import ops
from codesign.ir.graph import Array, Graph, GraphBuilder, Node, copy_node
from codesign.quant.groups import non_negative


@dataclass(frozen=True, eq=False)
class QdqImport:
    """A float network and the scales that its quantizers had."""

    graph: Graph
    scales: Mapping[str, float] = field(default_factory=dict)
    """Value name to step."""
    weight_scales: Mapping[str, Array] = field(default_factory=dict)
    """Name of a weight constant to its steps: () or one per output channel."""
    notes: tuple[str, ...] = ()
    """Quantizers whose scale could not be kept, and why: those tensors are calibrated."""

    def scales_in(self, prepared: Graph) -> dict[str, float]:
        """``scales`` by the value names of ``prepared``, where passes fused this graph.

        The scale of an activation or addition that a layer took in is now that of the layer.
        """
        found: dict[str, float] = {}
        for name, scale in self.scales.items():
            for value in self._stands_for(name, prepared):
                found[value] = scale
        return found

    def _stands_for(self, name: str, prepared: Graph) -> list[str]:
        if name in prepared.nodes:
            return [name]
        node = self.graph.nodes[name]
        if not isinstance(node.op, ops.Activation | ops.Add | ops.BatchNorm):
            return []
        operands = node.inputs if isinstance(node.op, ops.Add) else node.inputs[:1]
        found = [v for operand in operands for v in self._stands_for(operand, prepared)]
        if isinstance(node.op, ops.Add):
            return [v for v in found if getattr(prepared.nodes[v].op, "residual", False)]
        return [v for v in found if isinstance(prepared.nodes[v].op, ops.Conv2d | ops.Linear)]


def absorb_qdq(graph: Graph) -> QdqImport:
    """Take the quantizers of an imported network out and keep their scales.

    Quantizers with a zero point other than 0 (or with a scale per channel on activations) have
    no counterpart here: they are dropped with a note, and calibration decides. A quantizer to
    an unsigned format of a value that may be negative clips like a relu: one is put there.
    """
    return _Absorber(graph).run()


class _Absorber:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = GraphBuilder(graph.name)
        self.new: dict[str, str] = {}
        self.scales: dict[str, float] = {}
        self.weight_scales: dict[str, Array] = {}
        self.notes: list[str] = []
        self.signs = non_negative(graph, dict.fromkeys(graph.inputs, -1.0))

    def run(self) -> QdqImport:
        for node in self.graph.nodes.values():
            self.new[node.name] = self._take(node)
        made = self.builder.finish([self.new[name] for name in self.graph.outputs])
        used = {v for node in made.nodes.values() for v in node.inputs}
        return QdqImport(
            _without_unused(made, used),
            self.scales,
            {k: v for k, v in self.weight_scales.items() if k in used},
            tuple(self.notes),
        )

    def _take(self, node: Node) -> str:
        op = node.op
        if isinstance(op, ops.Quantize):
            if self._constant(node.name) is not None:
                return ""
            return self._tensor(node, op)
        if isinstance(op, ops.Dequantize):
            value = self._constant(node.name)
            if value is not None:
                return self._weight(node, op, value)
            return self.new[node.inputs[0]]
        return copy_node(self.builder, self.graph, node, [self.new[v] for v in node.inputs])

    def _constant(self, name: str) -> Array | None:
        """The value of a chain of quantizers on a constant, computed."""
        from codesign.ir.interpret import run_node

        node = self.graph.nodes[name]
        if name in self.graph.constants:
            return self.graph.constants[name]
        if not isinstance(node.op, ops.Quantize | ops.Dequantize):
            return None
        args = [self._constant(value) for value in node.inputs]
        if any(arg is None for arg in args):
            return None
        return run_node(self.graph, node, tuple(a for a in args if a is not None))

    def _weight(self, node: Node, op: ops.Dequantize, value: Array) -> str:
        name = self.builder.constant(value, node.name, node.type.dtype, node.source)
        symmetric = not any(op.zero_point)
        if symmetric and op.axis in (-1, 0):
            self.weight_scales[name] = self.graph.constants[node.inputs[1]].astype(np.float64)
        elif not symmetric:
            self.notes.append(f"{node.name}: weight zero point is not 0; its scale is chosen anew")
        return name

    def _tensor(self, node: Node, op: ops.Quantize) -> str:
        source = self.new[node.inputs[0]]
        scale = self.graph.constants.get(node.inputs[1])
        if any(op.zero_point):
            self.notes.append(f"{node.name}: zero point {op.zero_point[0]} is not 0; calibrated")
            return source
        if op.axis != -1 or scale is None:
            self.notes.append(f"{node.name}: activation scale per channel; calibrated")
            return source
        if op.dtype.kind == "unsigned" and not self.signs[node.inputs[0]]:
            before = self.graph.nodes[node.inputs[0]].op
            if not isinstance(before, ops.Input):
                source = self.builder.add(ops.Activation("relu"), [source], f"{node.name}.relu")
        self.scales[source] = float(scale)
        return source


def _without_unused(graph: Graph, used: set[str]) -> Graph:
    builder = GraphBuilder(graph.name)
    for node in graph.nodes.values():
        if node.name in used or node.name in graph.outputs or node.name not in graph.constants:
            copy_node(builder, graph, node, node.inputs)
    return builder.finish(graph.outputs)
