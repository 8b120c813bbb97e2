# SPDX-License-Identifier: Apache-2.0
"""Parts of an integer network for an accelerator: one ``call_dps_packed`` each.

The packed function of a part takes the part's inputs and its results, in storage types and
logical order. What it must compute is kept in the module, as text IR with the weights.
"""

from __future__ import annotations

import graphlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from codesign.errors import InputError
from codesign.ir.graph import Graph, GraphBuilder, Node, copy_node
from codesign.ir.interpret import run
from codesign.ir.ops import Constant, Input
from codesign.ir.text import parse_graph, print_graph
from codesign.ir.types import TensorType
from codesign.targets.tvm_lower.groups import make_groups
from codesign.tvm.regions import relax_functions, rewrite_function
from codesign.tvm.write import OPERATOR, label, operator_text, storage

ACCELERATOR = "codesign.accelerator"
"""Packed functions of parts are called ``codesign.accelerator.BACKEND.PART``."""
_PARTS = "codesign.partitions"


def partition(layers: Collection[str] | Callable[[Node], bool], backend: str) -> Any:
    """A pass that gives layers to ``backend``; run it after ``quantize``, before ``lower_int8``.

    ``layers`` names them, or says of each layer's node whether it is given away. A layer takes
    along what is fused into it (requantize, residual add, clip); layers that only feed each
    other become one part. Raises InputError for names that no function has.
    """
    wanted = layers if callable(layers) else frozenset(layers)

    def transform(module: Any, _: Any) -> Any:
        writer = _Writer(wanted, backend)
        made = module.clone()
        for variable, function in relax_functions(module):
            changed = rewrite_function(function, writer.replace)
            if changed is not None:
                made.update_func(made.get_global_var(variable.name_hint), changed)
        if not callable(wanted) and (missing := wanted - writer.seen):
            known = ", ".join(sorted(writer.seen)) or "none; run quantize first"
            raise InputError(
                f"codesign.tvm.partition: no layer {', '.join(sorted(missing))} (layers: {known})"
            )
        kept = {**_texts(module), **writer.texts}
        return made.with_attr(_PARTS, json.dumps(kept))

    return tvm.transform.module_pass(transform, opt_level=0, name="codesign.partition")


def partitions(module: Any) -> dict[str, Graph]:
    """What each accelerator function of a module must compute, by the function's name."""
    return {name: parse_graph(text, name) for name, text in _texts(module).items()}


def simulate(module: Any) -> tuple[str, ...]:
    """Register the reference interpreter as every accelerator function of ``module``.

    Returns the names. The functions stay until others are registered in their place.
    """
    found = partitions(module)
    for name, graph in found.items():
        tvm_ffi.register_global_func(name, _interpreted(graph), override=True)
    return tuple(found)


def _interpreted(graph: Graph) -> Callable[..., None]:
    def call(*tensors: Any) -> None:
        arrays = [np.from_dlpack(tensor) for tensor in tensors]
        inputs, results = arrays[: len(graph.inputs)], arrays[len(graph.inputs) :]
        for result, value in zip(results, run(graph, *inputs)):
            result[...] = value

    return call


def _texts(module: Any) -> dict[str, str]:
    attrs = module.attrs or {}
    return dict(json.loads(str(attrs[_PARTS]))) if _PARTS in attrs else {}


@dataclass(frozen=True)
class _Part:
    """Nodes that are computed by one call."""

    nodes: tuple[str, ...]
    given: bool
    """Whether an accelerator computes them."""


class _Writer:
    def __init__(self, wanted: frozenset[str] | Callable[[Node], bool], backend: str) -> None:
        self.wanted = wanted
        self.backend = backend
        self.seen: set[str] = set()
        """Layers of all functions."""
        self.texts: dict[str, str] = {}

    def replace(
        self, graph: Graph, inputs: Sequence[Any], results: Sequence[Any], dataflow: bool
    ) -> list[Any]:
        """Bindings of the results: single operators, and calls of the accelerator."""
        variable = relax.DataflowVar if dataflow else relax.Var
        values: dict[str, Any] = dict(zip(graph.inputs, inputs))
        named = dict(zip(graph.outputs, results))
        bindings: list[Any] = []

        def bind(name: str, value: Any) -> None:
            kind = storage(graph.type(name))
            values[name] = named[name] if name in named else variable(label(name), kind)
            bindings.append(relax.VarBinding(values[name], value))

        def operand(name: str) -> Any:
            if name in graph.constants:
                array = graph.constants[name]
                return relax.const(array, str(array.dtype))
            return values[name]

        for part in self._ordered(graph):
            if not part.given:
                node = graph.nodes[part.nodes[0]]
                text = tvm.ir.StringImm(operator_text(graph, node))
                fields = [text, *(operand(v) for v in node.inputs)]
                bind(node.name, relax.call_dps_packed(
                    OPERATOR, relax.Tuple(fields), storage(node.type)))
                continue
            made, reads = _subgraph(graph, part)
            symbol = f"{ACCELERATOR}.{self.backend}.{part.nodes[0]}"
            self.texts[symbol] = print_graph(made)
            kinds = [storage(graph.type(name)) for name in made.outputs]
            call = relax.call_dps_packed(
                symbol, relax.Tuple([values[v] for v in reads]), kinds if len(kinds) > 1
                else kinds[0],
            )  # fmt: skip
            if len(kinds) == 1:
                bind(made.outputs[0], call)
                continue
            together = variable(label(part.nodes[0]) + "_results", relax.TupleType(kinds))
            bindings.append(relax.VarBinding(together, call))
            for index, name in enumerate(made.outputs):
                bind(name, relax.TupleGetItem(together, index))
        return bindings

    def _ordered(self, graph: Graph) -> list[_Part]:
        """Parts in an order in which they can run."""
        part_of: dict[str, int] = {}
        parts: list[list[str]] = []
        given: list[bool] = []
        for group in make_groups(graph):
            if self._chosen(graph, group.head):
                reads = {v for m in group.members for v in graph.nodes[m].inputs}
                outside = [v for v in reads - set(group.members) if v not in graph.constants]
                owners = {part_of.get(v) for v in outside}
                index = owners.pop() if len(owners) == 1 else None
                if index is None or not given[index]:
                    index = len(parts)
                    parts.append([])
                    given.append(True)
                parts[index] += group.members
                part_of |= dict.fromkeys(group.members, index)
            else:
                for name in group.members:
                    part_of[name] = len(parts)
                    parts.append([name])
                    given.append(False)
        needs = {
            i: {part_of[v] for m in part for v in graph.nodes[m].inputs if v in part_of} - {i}
            for i, part in enumerate(parts)
        }
        order = graphlib.TopologicalSorter(needs).static_order()
        position = {name: i for i, name in enumerate(graph.nodes)}
        return [
            _Part(tuple(sorted(parts[i], key=position.__getitem__)), given[i]) for i in order
        ]

    def _chosen(self, graph: Graph, name: str) -> bool:
        node = graph.nodes[name]
        if node not in graph.layers():
            return False
        self.seen.add(name)
        return self.wanted(node) if callable(self.wanted) else name in self.wanted


def _subgraph(graph: Graph, part: _Part) -> tuple[Graph, list[str]]:
    """A part as a graph of its own, and the values of ``graph`` that it reads."""
    builder = GraphBuilder(part.nodes[0])
    new: dict[str, str] = {}
    reads: list[str] = []
    for name in part.nodes:
        for value in graph.nodes[name].inputs:
            node = graph.nodes[value]
            if value in new or value in part.nodes:
                continue
            if isinstance(node.op, Constant):
                new[value] = copy_node(builder, graph, node, ())
            else:
                kind = TensorType(node.type.shape, node.type.dtype)
                new[value] = builder.input(f"in{len(reads)}", kind)
                reads.append(value)
        node = graph.nodes[name]
        assert not isinstance(node.op, Input)
        new[name] = copy_node(builder, graph, node, [new[v] for v in node.inputs])
    inside = set(part.nodes)
    outputs = [
        name for name in part.nodes
        if name in graph.outputs or set(graph.users[name]) - inside
    ]  # fmt: skip
    return builder.finish([new[name] for name in outputs]), reads
