# SPDX-License-Identifier: Apache-2.0
"""Whether two graphs compute the same, whatever their values are called."""

from __future__ import annotations

import hashlib

from codesign.ir.graph import Graph
from codesign.ir.ops import Constant, Input


def computation(graph: Graph) -> str:
    """Hash over operators, types and constants of what the outputs depend on; not over names."""
    seen: dict[str, bytes] = {}
    for node in graph.nodes.values():
        digest = hashlib.sha256(str(node.type).encode())
        if isinstance(node.op, Constant):
            digest.update(graph.constants[node.name].tobytes())
        elif isinstance(node.op, Input):
            digest.update(f"input {graph.inputs.index(node.name)}".encode())
        else:
            digest.update(repr(node.op).encode())
        for value in node.inputs:
            digest.update(seen[value])
        seen[node.name] = digest.digest()
    return hashlib.sha256(b"".join(seen[name] for name in graph.outputs)).hexdigest()
