# SPDX-License-Identifier: Apache-2.0
"""Which operators share a kernel: an anchor and the element-wise operators around it.

A group is one kernel: at most one anchor (convolution, pooling, …), the chain of element-wise
operators that only it feeds (requantize, add, clip, …), and element-wise side branches that
only the chain reads (the requantised residual of an add). The group's result is its tail; no
other result leaves the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.graph import Graph, Node

ELEMENTWISE = frozenset(
    {"add", "mul", "activation", "batch_norm", "quantize", "dequantize", "requantize", "clip",
     "lookup"}
)  # fmt: skip
"""Operators whose result at an index depends on the operands at that index alone."""

COMPUTE = frozenset({"conv2d", "linear", "matmul"})

_MAX_COSTLY = 2
"""Activations in one kernel: each repeats its operand's expression."""


@dataclass(frozen=True)
class Group:
    """One kernel."""

    head: str
    """The anchor, or the first element-wise operator where there is none."""
    tail: str
    members: tuple[str, ...]
    """All nodes of the kernel in graph order, head and tail included."""


def kernel_name(tail: str) -> str:
    """What the lowering calls the kernel whose result is ``tail``."""
    return f"k_{tail.replace('.', '_')}"


def make_groups(graph: Graph) -> tuple[Group, ...]:
    """The kernels of ``graph`` in an order in which they can run; constants have none."""
    live = live_nodes(graph)
    taken: set[str] = set()
    groups: dict[str, Group] = {}
    position = {name: index for index, name in enumerate(graph.nodes)}
    order = sorted(
        (n for n in graph.nodes.values() if n.name in live and n.inputs),
        key=lambda n: (_rank(n), position[n.name]),
    )
    for node in order:
        if node.name in taken:
            continue
        members = _grow(graph, node, taken, live)
        taken.update(members)
        tail = members[-1]
        members += _side_branches(graph, members, taken, live)
        taken.update(members)
        ordered = tuple(sorted(members, key=position.__getitem__))
        groups[tail] = Group(node.name, tail, ordered)
    return tuple(groups[name] for name in graph.nodes if name in groups)


def live_nodes(graph: Graph) -> frozenset[str]:
    """The nodes that some output depends on, and all inputs."""
    live = set(graph.inputs)
    stack = list(graph.outputs)
    while stack:
        name = stack.pop()
        if name not in live:
            live.add(name)
            stack.extend(graph.nodes[name].inputs)
    return frozenset(live)


def _rank(node: Node) -> int:
    # Convolutions choose first what they absorb, element-wise operators last.
    if node.op.name in COMPUTE:
        return 0
    return 2 if node.op.name in ELEMENTWISE else 1


def _grow(graph: Graph, head: Node, taken: set[str], live: frozenset[str]) -> list[str]:
    members = [head.name]
    costly = int(head.op.name == "activation")
    while (reader := _only_reader(graph, members[-1], live)) is not None:
        node = graph.nodes[reader]
        costly += node.op.name == "activation"
        if (
            reader in taken
            or node.op.name not in ELEMENTWISE
            or node.type.shape != graph.type(members[-1]).shape
            or costly > _MAX_COSTLY
        ):
            break
        members.append(reader)
    return members


def _side_branches(
    graph: Graph, chain: list[str], taken: set[str], live: frozenset[str]
) -> list[str]:
    """Element-wise producers that only the group reads; activations are not repeated."""
    found: list[str] = []
    stack = [v for name in chain[1:] for v in graph.nodes[name].inputs]
    if graph.nodes[chain[0]].op.name in ELEMENTWISE:
        stack += graph.nodes[chain[0]].inputs
    while stack:
        name = stack.pop()
        node = graph.nodes[name]
        if (
            name in taken
            or name in found
            or name in chain
            or node.op.name not in ELEMENTWISE - {"activation"}
            or node.type.shape != graph.type(chain[-1]).shape
            or _only_reader(graph, name, live) is None
        ):
            continue
        found.append(name)
        stack.extend(node.inputs)
    return found


def _only_reader(graph: Graph, name: str, live: frozenset[str]) -> str | None:
    """The one node that reads ``name``, which is no output; None if there are more or none."""
    if name in graph.outputs:
        return None
    readers = [r for r in graph.users[name] if r in live]
    return readers[0] if len(readers) == 1 else None
