# SPDX-License-Identifier: Apache-2.0
"""The graph IR: types, operators, graphs, text form, drawing and the reference interpreter."""

from codesign.ir.analysis import GraphStats, LayerStats, graph_stats, layer_stats
from codesign.ir.batch import batch_size, run_batched, with_batch
from codesign.ir.draw import NodeStyle, to_dot, to_svg
from codesign.ir.graph import Graph, GraphBuilder, Node, rewrite, verify
from codesign.ir.interpret import run, run_values
from codesign.ir.ops import OPS, Op
from codesign.ir.text import parse_file, parse_graph, print_graph
from codesign.ir.types import F32, S8, S32, U8, DType, TensorType

__all__ = [
    "F32", "OPS", "S8", "S32", "U8", "DType", "Graph", "GraphBuilder", "GraphStats", "LayerStats",
    "Node", "NodeStyle", "Op", "TensorType", "batch_size", "graph_stats", "layer_stats",
    "parse_file", "parse_graph", "print_graph", "rewrite", "run", "run_batched", "run_values",
    "to_dot", "to_svg", "verify", "with_batch",
]  # fmt: skip
