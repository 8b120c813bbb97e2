# SPDX-License-Identifier: Apache-2.0
"""A loaded network: its graph, where it came from, and a hash of what it computes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from codesign.ir.graph import Graph


@dataclass(frozen=True)
class Network:
    """A network ready for passes."""

    graph: Graph
    name: str
    """Short name, fit for files and reports."""
    source: str
    """What the user wrote: ``zoo:resnet18``, ``model.onnx``, …"""

    @cached_property
    def content_hash(self) -> str:
        """See ``content_hash``."""
        return content_hash(self.graph)


def content_hash(graph: Graph) -> str:
    """SHA-256 (hex) over nodes, outputs and constants; not over the graph's name or sources.

    Equal hashes mean equal computations value by value, whatever file they came from.
    """
    digest = hashlib.sha256()
    for node in graph.nodes.values():
        digest.update(f"{node.name}={node.op!r}({', '.join(node.inputs)}):{node.type}\n".encode())
    digest.update(f"outputs {', '.join(graph.outputs)}\n".encode())
    for name, value in sorted(graph.constants.items()):
        digest.update(f"{name} {value.dtype.str}{list(value.shape)}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
