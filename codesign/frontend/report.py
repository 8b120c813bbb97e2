# SPDX-License-Identifier: Apache-2.0
"""Checks that every frontend shares: unsupported operators listed at once, unfit weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError, UnsupportedError
from codesign.ir.graph import Graph, GraphBuilder
from codesign.ir.ops import Constant, Input


class NotLowerable(Exception):
    """One operator that has no form in the IR; the message says what would be needed."""


@dataclass(frozen=True)
class Unsupported:
    """An operator of the user's network that cannot be taken."""

    operator: str
    where: str
    """Module path or node name."""
    needed: str
    """Why not, and what would be needed."""

    def __str__(self) -> str:
        return f"{self.operator} at {self.where!r}: {self.needed}"


def raise_unsupported(network: str, found: Sequence[Unsupported]) -> None:
    """Raise UnsupportedError that lists all of ``found``; nothing if there are none."""
    if not found:
        return
    count = f"{len(found)} operators are" if len(found) > 1 else "1 operator is"
    lines = "".join(f"\n  {item}" for item in found)
    raise UnsupportedError(f"network {network!r}: {count} not supported:{lines}")


def finish(builder: GraphBuilder, outputs: Sequence[str], network: str) -> Graph:
    """The verified graph without unused nodes; raises InputError for unfit weights.

    Inputs stay even if nothing reads them: they are the network's signature.
    """
    graph = builder.finish(outputs)
    live = set(outputs)
    for node in reversed(list(graph.nodes.values())):
        if node.name in live or isinstance(node.op, Input):
            live.add(node.name)
            live.update(node.inputs)
    nodes = {name: node for name, node in graph.nodes.items() if name in live}
    constants = {name: value for name, value in graph.constants.items() if name in live}
    pruned = Graph(graph.name, nodes, graph.outputs, constants)
    _check_constants(pruned, network)
    return pruned


def _check_constants(graph: Graph, network: str) -> None:
    for name, value in graph.constants.items():
        node = graph.nodes[name]
        assert isinstance(node.op, Constant)
        layer = next(iter(graph.users[name]), name)
        label = node.source or name
        if value.size == 0:
            raise InputError(
                f"network {network!r}: tensor {label!r} of layer {layer!r} has an empty "
                f"dimension: {list(value.shape)}"
            )
        if value.dtype.kind == "f":
            bad = value.size - int(np.isfinite(value).sum())
            if bad:
                raise InputError(
                    f"network {network!r}: tensor {label!r} of layer {layer!r} holds NaN or "
                    f"infinite values ({bad} of {value.size}); retrain or repair the weights"
                )
