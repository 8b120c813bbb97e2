# SPDX-License-Identifier: Apache-2.0
"""The graph: an immutable network of operators, and the builder that makes one.

A graph is a value. Passes never change one; they build another with ``GraphBuilder`` or
``rewrite``. Each node has one result, named like the node.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codesign.errors import VerifyError
from codesign.ir.ops import Constant, Input, Op, OpError
from codesign.ir.types import DType, TensorType

if TYPE_CHECKING:
    import networkx as nx

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One operator applied to named values; its result carries the node's name."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    type: TensorType
    """Type of the result, as ``op.infer`` gives it."""
    source: str = ""
    """Where the node comes from in the user's network (module path or ONNX node name)."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in topological order, the names of the results, the constants' values.

    Two graphs are equal when nodes, outputs and constants (bit for bit) are equal.
    """

    name: str
    nodes: Mapping[str, Node]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))

    def __getstate__(self) -> dict[str, Any]:
        return {
            "name": self.name, "nodes": dict(self.nodes),
            "outputs": self.outputs, "constants": dict(self.constants),
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            object.__setattr__(self, key, value)
        self.__post_init__()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return (
            self.name == other.name
            and list(self.nodes.items()) == list(other.nodes.items())
            and self.outputs == other.outputs
            and self.constants.keys() == other.constants.keys()
            and all(
                value.dtype == other.constants[key].dtype
                and value.shape == other.constants[key].shape
                and value.tobytes() == other.constants[key].tobytes()
                for key, value in self.constants.items()
            )
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input nodes, in order."""
        return tuple(n.name for n in self.nodes.values() if isinstance(n.op, Input))

    @cached_property
    def users(self) -> Mapping[str, tuple[str, ...]]:
        """For each value the nodes that read it (a node that reads it twice appears twice)."""
        users: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for value in node.inputs:
                users[value].append(node.name)
        return {name: tuple(readers) for name, readers in users.items()}

    @cached_property
    def nx(self) -> nx.MultiDiGraph[str]:
        """The graph for networkx: nodes carry ``node``, edges the operand index ``operand``."""
        import networkx as nx  # a tenth of a second that most commands need not pay

        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=self.name)
        for node in self.nodes.values():
            graph.add_node(node.name, node=node)
        for node in self.nodes.values():
            for index, value in enumerate(node.inputs):
                graph.add_edge(value, node.name, operand=index)
        return graph

    def is_constant(self, name: str) -> bool:
        """Whether the value is known at compile time."""
        return name in self.constants

    def type(self, name: str) -> TensorType:
        """Type of a value."""
        return self.nodes[name].type

    def operand(self, node: Node, label: str) -> str | None:
        """The value a node reads as operand ``label``, or None if it takes no such operand."""
        names = node.op.operand_names()
        return node.inputs[names.index(label)] if label in names else None

    def layers(self) -> tuple[Node, ...]:
        """The nodes with weights (conv2d and linear with a constant w), in order.

        These are what number formats, tilings and costs are chosen for.
        """
        return tuple(
            n for n in self.nodes.values()
            if n.op.name in ("conv2d", "linear") and n.inputs[1] in self.constants
        )  # fmt: skip

    def __str__(self) -> str:
        from codesign.ir.text import print_graph

        return print_graph(self, resources=False)

    def verify(self) -> None:
        """Check every rule of the IR; raises VerifyError that names the node."""
        verify(self)


def verify(graph: Graph) -> None:
    """Check order, names, types, constants and outputs; raises VerifyError naming the node."""
    seen: dict[str, Node] = {}

    def fail(node: Node | None, message: str) -> None:
        where = f"node {node.name!r} ({node.op.name})" if node else "graph"
        source = f" from {node.source!r}" if node and node.source else ""
        raise VerifyError(f"{graph.name}: {where}{source}: {message}")

    for key, node in graph.nodes.items():
        if key != node.name:
            fail(node, f"is stored under the name {key!r}")
        if not NAME.fullmatch(node.name):
            fail(node, "name must be letters, digits, '_' and '.', not starting with a digit")
        for value in node.inputs:
            if value not in seen:
                defined = "later" if value in graph.nodes else "nowhere"
                fail(node, f"reads {value!r}, which is defined {defined}")
        try:
            found = node.op.infer([seen[v].type for v in node.inputs])
        except OpError as error:
            fail(node, str(error))
        else:
            if found != node.type:
                fail(node, f"result type is {found}, the node says {node.type}")
        if isinstance(node.op, Constant):
            _verify_constant(graph, node, fail)
        seen[node.name] = node
    for name in graph.constants:
        if name not in seen or not isinstance(seen[name].op, Constant):
            fail(None, f"constant {name!r} belongs to no constant node")
    if not graph.outputs:
        fail(None, "has no outputs")
    for name in graph.outputs:
        if name not in seen:
            fail(None, f"output {name!r} is defined nowhere")


def _verify_constant(graph: Graph, node: Node, fail: Callable[[Node, str], None]) -> None:
    value = graph.constants.get(node.name)
    if value is None:
        fail(node, "has no value")
        return
    kind = node.type
    if value.shape != kind.shape or value.dtype != kind.dtype.numpy:
        fail(node, f"value is {value.dtype}{list(value.shape)}, the type is {kind}")
    if kind.dtype.is_integer and value.size:
        least, most = int(value.min()), int(value.max())
        if least < kind.dtype.min or most > kind.dtype.max:
            fail(node, f"values {least}..{most} do not fit {kind.dtype}")


NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


class GraphBuilder:
    """Collects nodes in order, infers their types and keeps names unique.

    >>> import numpy as np
    >>> from codesign.ir.ops import Linear
    >>> b = GraphBuilder("tiny")
    >>> x = b.input("x", TensorType((1, 4)))
    >>> y = b.add(Linear(bias=False), [x, b.constant(np.ones((2, 4), np.float32), "w")], "fc")
    >>> b.finish([y]).type("fc").shape
    (1, 2)
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, Node] = {}
        self._constants: dict[str, Array] = {}
        self._next: dict[str, int] = {}

    def fresh(self, wanted: str) -> str:
        """A legal name that is not taken, as near to ``wanted`` as can be."""
        base = re.sub(r"[^A-Za-z0-9_.]+", "_", wanted).strip("._") or "value"
        if not NAME.fullmatch(base):
            base = f"_{base}"
        name = base
        while name in self._nodes:
            self._next[base] = self._next.get(base, 0) + 1
            name = f"{base}_{self._next[base]}"
        return name

    def input(self, name: str, type: TensorType) -> str:
        """Add a graph input; returns its value name."""
        return self.add(Input(type), [], name)

    def constant(
        self, value: Array, name: str = "const", dtype: DType | None = None, source: str = ""
    ) -> str:
        """Add a constant. ``dtype`` defaults to the array's own format."""
        if dtype is None:
            dtype = dtype_of(value)
        stored = np.ascontiguousarray(value, dtype=dtype.numpy).reshape(value.shape)
        stored.setflags(write=False)
        name = self.add(Constant(TensorType(value.shape, dtype)), [], name, source)
        self._constants[name] = stored
        return name

    def add(self, op: Op, inputs: Sequence[str], name: str = "", source: str = "") -> str:
        """Add a node; returns its value name. Raises VerifyError if the types do not fit."""
        name = self.fresh(name or op.name)
        try:
            result = op.infer([self._nodes[v].type for v in inputs])
        except OpError as error:
            where = f" from {source!r}" if source else ""
            raise VerifyError(f"{self.name}: node {name!r} ({op.name}){where}: {error}") from None
        self._nodes[name] = Node(name, op, tuple(inputs), result, source)
        return name

    def type(self, value: str) -> TensorType:
        """Type of a value added before."""
        return self._nodes[value].type

    def value(self, name: str) -> Array | None:
        """The constant's value, or None if the value is computed."""
        return self._constants.get(name)

    def finish(self, outputs: Sequence[str]) -> Graph:
        """The verified graph."""
        graph = Graph(self.name, self._nodes, tuple(outputs), self._constants)
        verify(graph)
        return graph


def dtype_of(value: Array) -> DType:
    """Number format of an array; raises ValueError for types the IR has no format for."""
    kinds = {"f": "f", "i": "s", "u": "u"}
    if value.dtype.kind not in kinds:
        raise ValueError(f"no number format stores {value.dtype}")
    return DType.parse(f"{kinds[value.dtype.kind]}{value.dtype.itemsize * 8}")


Replacer = Callable[[GraphBuilder, Node, tuple[str, ...]], "str | None"]


def rewrite(graph: Graph, replacer: Replacer, outputs: Iterable[str] | None = None) -> Graph:
    """Copy ``graph`` node by node; ``replacer`` may put something else in a node's place.

    ``replacer(builder, node, inputs)`` sees the operands' new names and returns the value that
    stands for the node's result, or None to copy the node. Unused nodes stay: follow with
    dead-code elimination.
    """
    builder = GraphBuilder(graph.name)
    new: dict[str, str] = {}
    for node in graph.nodes.values():
        inputs = tuple(new[v] for v in node.inputs)
        replaced = replacer(builder, node, inputs)
        if replaced is None:
            replaced = copy_node(builder, graph, node, inputs)
        new[node.name] = replaced
    return builder.finish([new[v] for v in (graph.outputs if outputs is None else outputs)])


def copy_node(builder: GraphBuilder, graph: Graph, node: Node, inputs: Sequence[str]) -> str:
    """Add a copy of ``node`` that reads ``inputs``; returns its value name."""
    if isinstance(node.op, Constant):
        value = graph.constants[node.name]
        return builder.constant(value, node.name, node.type.dtype, node.source)
    return builder.add(node.op, inputs, node.name, node.source)


def rename(graph: Graph, name: str) -> Graph:
    """The same graph under another name."""
    return replace(graph, name=name)
