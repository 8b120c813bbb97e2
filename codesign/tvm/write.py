# SPDX-License-Identifier: Apache-2.0
"""Integer graphs inside Relax: one ``call_dps_packed`` an operator, and back.

Each call carries its operator as text IR, so that a module says all of what it computes: any
pass can look at it, and it runs as it is, by the reference interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tvm_ffi
from tvm import ir, relax

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph, GraphBuilder, Node
from codesign.ir.interpret import run
from codesign.ir.ops import Constant, Input
from codesign.ir.text import parse_graph, print_graph
from codesign.ir.types import TensorType

OPERATOR = "codesign.operator"
"""Packed function of one operator: text of a graph of that node alone, operands, result."""


def storage(kind: TensorType) -> Any:
    """Relax's type of a value: sub-byte formats take a byte an element."""
    return relax.TensorType(kind.shape, str(kind.dtype.numpy))


def operator_text(graph: Graph, node: Node) -> str:
    """``node`` as a graph of its own, on one line; its inputs are called a0, a1, …"""
    builder = GraphBuilder(graph.name)
    operands = [
        builder.input(f"a{i}", TensorType(graph.type(v).shape, graph.type(v).dtype))
        for i, v in enumerate(node.inputs)
    ]
    made = builder.add(node.op, operands, node.name, node.source)
    return " ".join(print_graph(builder.finish([made])).split("\n")).strip()


@lru_cache(maxsize=4096)
def parse_operator(text: str) -> Graph:
    """Inverse of ``operator_text``."""
    return parse_graph(text, "operator of a Relax module")


def _run_operator(text: Any, *tensors: Any) -> None:
    graph = parse_operator(str(text))
    *operands, result = (np.from_dlpack(tensor) for tensor in tensors)
    (value,) = run(graph, *operands)
    result[...] = value.reshape(result.shape)


tvm_ffi.register_global_func(OPERATOR, _run_operator, override=True)


def emit_graph(builder: Any, graph: Graph, arguments: Sequence[Any]) -> list[Any]:
    """Emit every operator of ``graph`` as a call; returns the outputs' variables."""
    values: dict[str, Any] = dict(zip(graph.inputs, arguments))
    for node in graph.nodes.values():
        if isinstance(node.op, Input):
            continue
        if isinstance(node.op, Constant):
            array = graph.constants[node.name]
            values[node.name] = relax.const(array, str(array.dtype))
            continue
        fields = [ir.StringImm(operator_text(graph, node)), *(values[v] for v in node.inputs)]
        call = relax.call_dps_packed(OPERATOR, relax.Tuple(fields), storage(node.type))
        values[node.name] = builder.emit(call, name_hint=label(node.name))
    return [values[name] for name in graph.outputs]


def label(name: str) -> str:
    """A value's name as TVM takes it."""
    return name.replace(".", "_")


def is_operator(value: Any) -> bool:
    """Whether a Relax expression is one of our calls."""
    return (
        isinstance(value, relax.Call)
        and str(getattr(value.op, "name", "")) == "relax.call_dps_packed"
        and str(value.args[0].global_symbol) == OPERATOR
    )


class Region:
    """Calls that become one graph again."""

    def __init__(self, name: str) -> None:
        self.builder = GraphBuilder(name)
        self.names: dict[Any, str] = {}
        """Relax variable to value."""
        self.inputs: list[Any] = []
        """Variables from outside, in the order of the graph's inputs."""

    def add(self, variable: Any, call: Any) -> None:
        """Append the operator of ``call``, whose result is ``variable``."""
        text, *operands = call.args[1].fields
        try:
            graph = parse_operator(str(text.value))
        except InputError as error:
            raise InputError(f"{variable.name}: not an operator of this version: {error}") from None
        (node,) = (n for n in graph.nodes.values() if not isinstance(n.op, Input))
        read = [
            self._operand(operand, graph.type(name))
            for operand, name in zip(operands, graph.inputs)
        ]
        self.names[variable] = self.builder.add(node.op, read, node.name, node.source)

    def _operand(self, operand: Any, kind: TensorType) -> str:
        if isinstance(operand, relax.Var):
            if operand not in self.names:
                self.names[operand] = self.builder.input(str(operand.name), kind)
                self.inputs.append(operand)
            return self.names[operand]
        array: Array = np.array(operand.value.numpy())
        return self.builder.constant(array, "constant", kind.dtype)

    def finish(self, results: Sequence[Any]) -> Graph:
        """The graph with the variables ``results`` as outputs."""
        return self.builder.finish([self.names[variable] for variable in results])
