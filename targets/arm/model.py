# SPDX-License-Identifier: Apache-2.0
"""A modelled latency of each layer on a board. Never checked against a board.

A layer takes the greater of two times, plus a start: its multiply-accumulates at the rate of its
kind of kernel on all cores, and its weights at the memory's peak rate. The rates are what
llvm-mca 14 says of the inner loops that we compile (``codesign.targets.arm.mca``); they hold for
data in the first cache. Not modelled: cache misses of activations, threads that wait, operators
without weights. LLVM 14 has no tables of the A76 and takes the A57's.
"""

from __future__ import annotations

from codesign.ir.analysis import layer_stats
from codesign.ir.graph import Graph, Node
from codesign.ir.ops import Constant, Input, Pool2d, Reduce
from codesign.targets.arm.board import Board
from codesign.targets.layers import extract_layers

RATES: dict[tuple[str, str], float] = {
    # (LLVM's CPU, kind): multiply-accumulates a cycle of one core
    ("cortex-a53", "dense"): 2.7,
    ("cortex-a9", "dense"): 1.3,
    ("cortex-a9", "narrow"): 1.3,
    ("cortex-a9", "depthwise"): 0.6,
    ("cortex-a9", "float"): 0.5,
    ("cortex-a72", "dense"): 7.4,
    ("cortex-a55", "dense"): 6.7,
    ("cortex-a76", "dense"): 19.0,
    ("cortex-a53", "narrow"): 2.8,
    ("cortex-a72", "narrow"): 7.8,
    ("cortex-a55", "narrow"): 6.7,
    ("cortex-a76", "narrow"): 19.0,
    ("cortex-a53", "depthwise"): 1.2,
    ("cortex-a72", "depthwise"): 2.9,
    ("cortex-a55", "depthwise"): 1.2,
    ("cortex-a76", "depthwise"): 2.9,
    ("cortex-a53", "float"): 1.0,
    ("cortex-a72", "float"): 3.0,
    ("cortex-a55", "float"): 1.0,
    ("cortex-a76", "float"): 3.0,
}
"""Integer kinds are llvm-mca's figures for 14x14x64 3x3 layers: dense, dense with weights of at
most 4 bits, depthwise with its requantisation. Float is an assumption, and so is the A9: its NEON
unit is half as wide as the A53's (Cortex-A9 NEON MPE TRM, DDI 0409)."""
OTHER_CPU = {"dense": 2.7, "narrow": 2.8, "depthwise": 1.2, "float": 1.0}
"""For CPUs of a user's board: those of the slowest that is known."""
ELEMENT_CYCLES: dict[str, float] = {
    "requantize": 4.0, "quantize": 2.0, "dequantize": 1.0, "lookup": 1.5, "mul": 1.5, "add": 1.0,
    "softmax": 40.0, "pool2d": 0.5, "reduce": 0.5, "reshape": 0.0, "concat": 0.25, "slice": 0.25,
    "pad": 0.25, "transpose": 1.0, "resize": 0.5, "clip": 0.5, "broadcast": 0.25,
}  # fmt: skip
"""Cycles of one A53 core for an element of an operator without weights (pools and reductions: a
window position). Assumptions: a few vector instructions for 4 to 16 elements, none measured."""
OTHER_CYCLES = 8.0
"""For what ``ELEMENT_CYCLES`` does not name: functions of floats such as exp, one at a time."""
START_MS = 2e-3
"""A kernel's call and the wake-up of its threads; an assumption."""
_NARROW_BITS = 4


def layer_ms(graph: Graph, board: Board) -> dict[str, float]:
    """Milliseconds of every layer of ``graph``, alone."""
    stats = {row.name: row for row in layer_stats(graph)}
    cores, hertz = board.cores, board.clock_mhz * 1e6
    result = {}
    for name in extract_layers(graph):
        row = stats[name]
        compute = row.macs / (rate(board, layer_kind(graph, graph.nodes[name])) * hertz * cores)
        kind = graph.type(graph.nodes[name].inputs[1])
        stored = kind.size * kind.dtype.numpy.itemsize  # formats below a byte take a byte
        memory = stored / (board.memory_gb_per_s * 1e9)
        result[name] = max(compute, memory) * 1e3 + START_MS
    return result


def node_ms(graph: Graph, board: Board) -> dict[str, float]:
    """Milliseconds of every operator of ``graph`` on all cores: layers as ``layer_ms`` has them,
    others ``ELEMENT_CYCLES`` an element, at most as fast as memory moves operands and result."""
    found = layer_ms(graph, board)
    # the element costs are an A53's; other cores are faster by what they are on layers
    speed = rate(board, "dense") / RATES["cortex-a53", "dense"]
    per_second = board.clock_mhz * 1e6 * board.cores * speed
    for name, node in graph.nodes.items():
        if name in found or isinstance(node.op, Input | Constant):
            continue
        work = node.type.size
        if isinstance(node.op, Pool2d):
            work *= node.op.kernel[0] * node.op.kernel[1]
        elif isinstance(node.op, Reduce):
            work = graph.type(node.inputs[0]).size
        cycles = work * ELEMENT_CYCLES.get(node.op.name, OTHER_CYCLES)
        moved = sum(graph.type(v).bytes for v in node.inputs) + node.type.bytes
        if not cycles:
            found[name] = 0.0  # a view
            continue
        seconds = max(cycles / per_second, moved / (board.memory_gb_per_s * 1e9))
        found[name] = seconds * 1e3 + START_MS
    return found


def layer_kind(graph: Graph, node: Node) -> str:
    """Which kind of kernel a layer gets: dense, narrow, depthwise or float."""
    kind = graph.type(node.inputs[1])
    if kind.dtype.is_float:
        return "float"
    groups = getattr(node.op, "groups", 1)
    if groups > 1 and kind.shape[1] == 1:
        return "depthwise"
    return "narrow" if kind.dtype.bits <= _NARROW_BITS else "dense"


def rate(board: Board, kind: str) -> float:
    """Multiply-accumulates a cycle of one core."""
    return RATES.get((board.mcpu, kind), OTHER_CPU[kind])


def peak_macs_per_s(board: Board) -> float:
    """The greatest rate that ``layer_ms`` knows for the board, all cores together."""
    best = max(rate(board, kind) for kind in OTHER_CPU)
    return best * board.clock_mhz * 1e6 * board.cores
