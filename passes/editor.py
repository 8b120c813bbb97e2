# SPDX-License-Identifier: Apache-2.0
"""A mutable working copy of a graph, for the inside of a pass.

``rewrite`` suits passes that look at one node at a time; passes that move a node past another
(folding, fusing) need users, in-place replacement and stable names. An editor never touches
the graph it was made from; ``finish`` gives the new, verified graph.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np

from codesign.errors import VerifyError
from codesign.ir.graph import NAME, Array, Graph, Node, verify
from codesign.ir.ops import Constant, Input, Op, OpError
from codesign.ir.types import DType, TensorType


class Editor:
    """Nodes, users and constants of a graph under change. Every change keeps result types."""

    def __init__(self, graph: Graph) -> None:
        self.name = graph.name
        self._nodes: dict[str, Node] = dict(graph.nodes)
        self._constants: dict[str, Array] = dict(graph.constants)
        self._outputs: list[str] = list(graph.outputs)
        self._users: dict[str, list[str]] = {k: list(v) for k, v in graph.users.items()}
        # Code that was dead before the pass stays: removing it is another pass.
        self._dead_before = frozenset(
            k for k, v in self._users.items() if not v and k not in graph.outputs
        )

    def __iter__(self) -> Iterator[Node]:
        """The nodes at the time of the call; ones removed or replaced since are left out."""
        for name in list(self._nodes):
            node = self._nodes.get(name)
            if node is not None and (self.alive(name) or name in self._dead_before):
                yield node

    def alive(self, name: str) -> bool:
        """Whether a value is read by a node, or is an output."""
        return bool(self._users[name]) or name in self._outputs

    def node(self, name: str) -> Node:
        """The node that computes a value."""
        return self._nodes[name]

    def type(self, name: str) -> TensorType:
        """Type of a value."""
        return self._nodes[name].type

    def value(self, name: str) -> Array | None:
        """The value of a constant, or None if it is computed."""
        return self._constants.get(name)

    def operand(self, node: Node, label: str) -> str | None:
        """The value a node reads as ``label``, or None."""
        names = node.op.operand_names()
        return node.inputs[names.index(label)] if label in names else None

    def users(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value (twice where one reads it twice)."""
        return tuple(self._nodes[user] for user in self._users[name])

    def is_output(self, name: str) -> bool:
        """Whether a value is a result of the graph."""
        return name in self._outputs

    def only_user(self, name: str) -> Node | None:
        """The one reader of a value that is read once and is no output, else None."""
        users = self._users[name]
        return self._nodes[users[0]] if len(users) == 1 and name not in self._outputs else None

    def used_once(self, name: str) -> bool:
        """Whether a value has one reader and is no output."""
        return self.only_user(name) is not None

    def fresh(self, wanted: str) -> str:
        """A legal name not taken yet, as near to ``wanted`` as can be."""
        base = re.sub(r"[^A-Za-z0-9_.]+", "_", wanted).strip("._") or "value"
        base = base if NAME.fullmatch(base) else f"_{base}"
        name, count = base, 0
        while name in self._nodes:
            count += 1
            name = f"{base}_{count}"
        return name

    def add(self, op: Op, inputs: Sequence[str], name: str, source: str = "") -> str:
        """Add a node under a fresh name like ``name``; returns the name."""
        name = self.fresh(name)
        self._nodes[name] = Node(name, op, tuple(inputs), self._infer(name, op, inputs), source)
        self._users[name] = []
        for value in inputs:
            self._users[value].append(name)
        return name

    def constant(self, value: Array, dtype: DType, name: str, source: str = "") -> str:
        """Add a constant; ``value`` is converted (rounded once) to ``dtype``."""
        stored = np.array(value, dtype=dtype.numpy, order="C")
        stored.setflags(write=False)
        name = self.add(Constant(TensorType(stored.shape, dtype)), (), name, source)
        self._constants[name] = stored
        return name

    def update(self, name: str, op: Op | None = None, inputs: Sequence[str] | None = None) -> Node:
        """Change operator or operands of a node in place; name, source and type stay."""
        node = self._nodes[name]
        op = node.op if op is None else op
        inputs = node.inputs if inputs is None else tuple(inputs)
        found = self._infer(name, op, inputs)
        if found != node.type:
            raise VerifyError(f"{self.name}: node {name!r} changes type: {node.type} to {found}")
        for value in node.inputs:
            self._users[value].remove(name)
        for value in inputs:
            self._users[value].append(name)
        self._nodes[name] = dataclasses.replace(node, op=op, inputs=inputs)
        return self._nodes[name]

    def set_constant(self, node: str, index: int, value: Array) -> None:
        """Change a constant operand for this one reader, in place if nobody else reads it."""
        old = self._nodes[self._nodes[node].inputs[index]]
        name = self.constant(value, old.type.dtype, old.name, old.source)
        if self.used_once(old.name):  # give the new value the old name
            self._constants[old.name] = self._constants.pop(name)
            new = self._nodes.pop(name)
            del self._users[name]
            self._nodes[old.name] = dataclasses.replace(old, op=new.op, type=new.type)
        else:
            inputs = list(self._nodes[node].inputs)
            inputs[index] = name
            self.update(node, inputs=inputs)

    def replace(self, old: str, new: str) -> None:
        """Let all readers of ``old``, and the outputs, take ``new`` instead."""
        if old == new:
            return
        if self.type(old) != self.type(new):
            raise VerifyError(
                f"{self.name}: {new!r} ({self.type(new)}) cannot stand for {old!r} "
                f"({self.type(old)})"
            )
        for user in dict.fromkeys(self._users[old]):
            node = self._nodes[user]
            self.update(user, inputs=[new if v == old else v for v in node.inputs])
        self._outputs = [new if v == old else v for v in self._outputs]
        self.drop(old)

    def take_place(self, old: str, new: str) -> None:
        """Replace ``old`` by ``new``, which gets its name."""
        self.replace(old, new)
        self.rename_if_free(new, old)

    def rename_if_free(self, name: str, wanted: str) -> str:
        """Rename a node unless the name is taken; returns the node's name now."""
        if wanted in self._nodes:
            return name
        self._rename(name, wanted)
        return wanted

    def _rename(self, old: str, new: str) -> None:
        node = self._nodes[old]
        users = dict.fromkeys(self._users[old])
        self._nodes = {  # at the place where it stands
            new if k == old else k: dataclasses.replace(v, name=new) if k == old else v
            for k, v in self._nodes.items()
        }
        self._users[new] = self._users.pop(old)
        for value in node.inputs:
            self._users[value] = [new if u == old else u for u in self._users[value]]
        for user in users:
            reader = self._nodes[user]
            inputs = tuple(new if v == old else v for v in reader.inputs)
            self._nodes[user] = dataclasses.replace(reader, inputs=inputs)
        self._outputs = [new if v == old else v for v in self._outputs]
        if old in self._constants:
            self._constants[new] = self._constants.pop(old)

    def drop(self, name: str) -> None:
        """Remove a node that nobody reads, and what only it kept alive."""
        stack = [name]
        while stack:
            value = stack.pop()
            node = self._nodes.get(value)
            if node is None or isinstance(node.op, Input) or self.alive(value):
                continue
            del self._nodes[value], self._users[value]
            self._constants.pop(value, None)
            for operand in node.inputs:
                self._users[operand].remove(value)
                if operand not in self._dead_before:
                    stack.append(operand)

    def finish(self) -> Graph:
        """The new graph: nodes keep their order but for moves that operands need; verified."""
        for name in list(self._nodes):
            if name in self._nodes and name not in self._dead_before:
                self.drop(name)
        order: dict[str, Node] = {}
        for root in self._nodes:
            stack, opened = [root], set[str]()
            while stack:
                name = stack[-1]
                waiting = [v for v in self._nodes[name].inputs if v not in order]
                if name in order or not waiting:
                    order.setdefault(name, self._nodes[stack.pop()])
                elif name in opened:
                    raise VerifyError(f"{self.name}: node {name!r} depends on itself")
                else:
                    opened.add(name)
                    stack.extend(reversed(waiting))
        graph = Graph(self.name, order, tuple(self._outputs), self._constants)
        verify(graph)
        return graph

    def _infer(self, name: str, op: Op, inputs: Sequence[str]) -> TensorType:
        try:
            return op.infer([self._nodes[v].type for v in inputs])
        except OpError as error:
            raise VerifyError(f"{self.name}: node {name!r} ({op.name}): {error}") from None


def channel_vector(value: Array, kind: TensorType, axis: int) -> Array | None:
    """A constant that, broadcast to ``kind``, varies along ``axis`` only, as float64 [C].

    None if it varies along another axis or would enlarge the result.
    """
    axis %= kind.rank
    if value.ndim > kind.rank:
        return None
    shape = (1,) * (kind.rank - value.ndim) + value.shape
    if any(n != 1 for i, n in enumerate(shape) if i != axis):
        return None
    if shape[axis] not in (1, kind.shape[axis]):
        return None
    return np.broadcast_to(value.astype(np.float64).reshape(-1), (kind.shape[axis],))


def split_constant(editor: Editor, node: Node) -> tuple[str, Array] | None:
    """For a binary node with one constant operand: the other operand and the constant."""
    a, b = node.inputs
    left, right = editor.value(a), editor.value(b)
    if left is None and right is not None:
        return a, right
    if right is None and left is not None:
        return b, left
    return None
