# SPDX-License-Identifier: Apache-2.0
"""The graph IR: types, operators, graphs, text form, drawing and the reference interpreter."""

from codesign.ir.batch import batch_size, run_batched, with_batch
from codesign.ir.graph import Graph, GraphBuilder, Node, rewrite, verify
from codesign.ir.interpret import run, run_values
from codesign.ir.ops import OPS, Op
from codesign.ir.text import parse_file, parse_graph, print_graph
from codesign.ir.types import F32, S8, S32, U8, DType, TensorType

__all__ = [
    "F32", "OPS", "S8", "S32", "U8", "DType", "Graph", "GraphBuilder", "Node", "Op", "TensorType",
    "batch_size", "parse_file", "parse_graph", "print_graph", "rewrite", "run", "run_batched",
    "run_values", "verify", "with_batch",
]  # fmt: skip
