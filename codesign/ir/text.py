# SPDX-License-Identifier: Apache-2.0
"""Text form of the IR: printer and parser."""

from __future__ import annotations

from codesign.ir.graph import Graph


def print_graph(graph: Graph, resources: bool = True) -> str:
    """Print ``graph``; with ``resources`` the large constants follow and the text reads back."""
    raise NotImplementedError
