# SPDX-License-Identifier: Apache-2.0
"""Cycles of the inner loops that we compile, by llvm-mca. Modelled, never checked on a board.

llvm-mca knows a core's issue ports and latencies and assumes that every load hits the first
cache, so its multiply-accumulates a cycle are what a kernel could reach at best. A loop is found
in the assembly text: a backward branch with multiply instructions in its body and no other loop
inside. Each loop counts once, weighted by nothing: the one with the most products is reported.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from codesign.errors import CodesignError, InputError
from codesign.ir.graph import Graph
from codesign.targets.arm.board import Board
from codesign.targets.layers import extract_layer
from codesign.targets.tools import Tool, register_tool, require_tool

register_tool("llvm-mca", Tool(
    ("llvm-mca", *(f"llvm-mca-{n}" for n in range(20, 13, -1))), "CODESIGN_LLVM_MCA",
    "modelled cycles of inner loops", "apt-get install llvm",
))  # fmt: skip

ITERATIONS = 100
_LABEL = re.compile(r"^(\.L\w+):")
_BRANCH = re.compile(r"^\s+(?:b\.?\w*|cbn?z\s+\w+,|tbn?z\s+[^,]+,[^,]+,)\s*(\.L\w+)")
_PRODUCTS = (
    (re.compile(r"[su]dot\s+v\d+\.4s"), 16),
    (re.compile(r"[su]m(?:ull|lal|lsl)2?\s+v\d+\.8h"), 8),
    (re.compile(r"(?:mla|mul)\s+v\d+\.8h"), 8),
    (re.compile(r"[su]m(?:ull|lal|lsl)2?\s+v\d+\.4s"), 4),
    (re.compile(r"f?m(?:la|ul)\s+v\d+\.4s"), 4),
)
"""Instructions and the integer (or float32) products that each makes."""


@dataclass(frozen=True)
class Loop:
    """An inner loop under llvm-mca."""

    instructions: int
    macs: int
    """Products of one pass through the loop."""
    cycles: float
    """Cycles of one pass, in the steady state."""
    spills: int
    """Loads and stores of the stack in the loop: registers ran out."""

    @property
    def rate(self) -> float:
        """Multiply-accumulates a cycle of one core."""
        return self.macs / self.cycles


def products(instruction: str) -> int:
    """Products that one instruction makes."""
    return next((n for pattern, n in _PRODUCTS if pattern.match(instruction)), 0)


def inner_loops(assembly: str) -> Iterator[list[str]]:
    """Bodies of all innermost loops with products: instructions without labels or comments."""
    lines = assembly.splitlines()
    place: dict[str, int] = {}
    last = -1
    for at, line in enumerate(lines):
        if label := _LABEL.match(line):
            place[label[1]] = at
        elif (branch := _BRANCH.match(line)) and branch[1] in place:
            start = place[branch[1]]
            body = [
                re.sub(r"\s*(?://|;).*", "", text).strip()
                for text in lines[start + 1 : at + 1]
                if re.match(r"^\s+[a-z]", text)
            ]
            if start > last and any(map(products, body)):
                yield body
            last = at


def analyse(body: list[str], board: Board) -> Loop:
    """A loop's figures on the board's CPU; raises ToolNotFoundError without llvm-mca."""
    command = [
        require_tool("llvm-mca"), "-mtriple=aarch64", f"-mcpu={board.mcpu}",
        f"-iterations={ITERATIONS}", *(f"-mattr=+{name}" for name in board.features),
    ]  # fmt: skip
    done = subprocess.run(
        command, input="\n".join(body), capture_output=True, text=True, check=False
    )
    cycles = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if done.returncode or cycles is None:
        raise CodesignError(f"llvm-mca cannot read a loop: {done.stderr.strip()[:500]}")
    spills = sum("[sp" in line or "[x29" in line for line in body)
    return Loop(len(body), sum(map(products, body)), int(cycles[1]) / ITERATIONS, spills)


def layer_loop(graph: Graph, layer: str, board: Board, machine: Any) -> Loop:
    """The loop of a layer's kernel that makes the most products."""
    loops = [
        (sum(map(products, body)), body)
        for body in inner_loops(layer_assembly(graph, layer, machine))
    ]
    if not loops:
        raise InputError(f"layer {layer!r}: no loop with vector products in its code")
    return analyse(max(loops)[1], board)


def layer_assembly(graph: Graph, layer: str, machine: Any) -> str:
    """What the compiler makes of one layer, with what is fused into it."""
    from codesign.targets.tvm_lower.compile import compile_graph

    module = compile_graph(extract_layer(graph, layer), machine).mod
    for part in module.imports:
        if part.kind == "llvm":
            return str(part.inspect_source("s"))
    raise CodesignError(f"layer {layer!r}: TVM made no code")
