# SPDX-License-Identifier: Apache-2.0
"""An example plugin: one pass, one target, one solver, one number format."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from codesign import ir
from codesign.errors import InputError
from codesign.ir.graph import Graph, GraphBuilder, Node, rewrite
from codesign.ir.ops import Activation
from codesign.ir.text import parse_graph, print_graph
from codesign.passes import Pass
from codesign.quant.formats import LayerFormat
from codesign.solvers import Problem, Shape, Status
from codesign.solvers.base import Deadline, Result, Solver
from codesign.targets.base import Array, BuildResult, Runner, Target, Timing, Unsupported

TINY = LayerFormat(3, 4)
"""A number format with a name of its own: 3-bit weights that read a 4-bit tensor."""


@dataclass(frozen=True)
class RelaxRelu6(Pass):
    """Replace relu6 by relu. Changes what the network computes above 6; retrain afterwards.

    ``relu6(x) -> relu(x)``
    """

    name: ClassVar[str] = "relax-relu6"

    def run(self, graph: Graph) -> Graph:
        def relax(builder: GraphBuilder, node: Node, inputs: tuple[str, ...]) -> str | None:
            if not isinstance(node.op, Activation) or node.op.kind != "relu6":
                return None
            return builder.add(replace(node.op, kind="relu"), inputs, node.name, node.source)

        return rewrite(graph, relax)


@dataclass(frozen=True)
class InterpreterTarget(Target):
    """Runs networks on the reference interpreter: slow, and right by definition."""

    name: ClassVar[str] = "interpreter"
    description: ClassVar[str] = "the NumPy reference interpreter"
    kind: ClassVar = "cpu"
    formats: ClassVar[tuple[str, ...]] = ("w8a8", "float")

    def unsupported(self, graph: Graph) -> tuple[Unsupported, ...]:
        return ()

    def build(self, graph: Graph, out: Path) -> BuildResult:
        start = time.perf_counter()
        out.mkdir(parents=True)
        text = print_graph(graph)
        (out / "network.ir").write_text(text, encoding="utf-8")
        seconds = time.perf_counter() - start
        return BuildResult(out, ("network.ir",), seconds, len(text.encode()))

    def load(self, directory: Path) -> Runner:
        path = directory / "network.ir"
        if not path.is_file():
            raise InputError(f"no build in {str(directory)!r}: network.ir is missing")
        return InterpreterRunner(parse_graph(path.read_text(encoding="utf-8")))

    def layer_latency(self, graph: Graph) -> dict[str, Timing]:
        raise InputError("the interpreter's latency says nothing about any device")


class InterpreterRunner(Runner):
    """A loaded graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.inputs = tuple((name, graph.type(name)) for name in graph.inputs)
        self.outputs = tuple((name, graph.type(name)) for name in graph.outputs)

    def _run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(ir.run(self.graph, *arrays))

    def time(self, arrays: Sequence[Array], repeats: int = 10, warmup: int = 3) -> Timing:
        samples = []
        for _ in range(warmup + repeats):
            start = time.perf_counter()
            self.run(*arrays)
            samples.append(1e3 * (time.perf_counter() - start))
        return Timing(tuple(samples[warmup:]))


class RandomSearch(Solver):
    """The best of 1000 seeded random choices that meet every limit; proves nothing."""

    name: ClassVar[str] = "random-search"
    summary: ClassVar[str] = "1000 random choices; a baseline, no proof"
    tries: ClassVar[int] = 1000

    def solve(self, problem: Problem, time_limit: float | None = None) -> Result:
        start, deadline = time.perf_counter(), Deadline.after(time_limit)
        rng = random.Random(0)
        best: tuple[int, tuple[int, ...], int | None] | None = None
        for _ in range(self.tries):
            if deadline.passed:
                break
            choice = tuple(rng.randrange(len(options)) for options in problem.options)
            arch = rng.randrange(len(problem.architectures)) if problem.architectures else None
            if not meets(problem, choice, arch):
                continue
            value = problem.total(problem.metric, choice, arch)
            if best is None or (value > best[0] if problem.maximize else value < best[0]):
                best = (value, choice, arch)
        seconds = time.perf_counter() - start
        if best is None:
            return Result(Status.UNKNOWN, seconds, solver=self.name)
        bound = no_better_than(problem)
        return Result(Status.FEASIBLE, seconds, best[1], best[2], best[0], bound, solver=self.name)


def no_better_than(problem: Problem) -> int:
    """A true bound, though a weak one: each group at its best, limits and ties forgotten."""
    best = max if problem.maximize else min
    if problem.metric.shape is Shape.ARCHITECTURE:
        return int(best(problem.metric.values))
    spans = list(zip(problem.offsets, problem.offsets[1:], strict=False))
    rows = [problem.metric.row(arch) for arch in range(len(problem.architectures) or 1)]
    return best(sum(int(best(row[start:end])) for start, end in spans) for row in rows)


def meets(problem: Problem, choice: tuple[int, ...], arch: int | None) -> bool:
    """Whether a choice meets every limit, tie and forbid of the problem."""
    for limit in problem.limits:
        total = problem.total(problem.metrics[limit.metric], choice, arch)
        bound = problem.bound(limit)
        if total > bound if limit.side == "max" else total < bound:
            return False
    names = [options[picked] for options, picked in zip(problem.options, choice, strict=True)]
    if any(len({names[group] for group in tie}) > 1 for tie in problem.ties):
        return False
    taken = {*enumerate(choice), (-1, arch)}
    return not any(taken.issuperset(clause) for clause in problem.forbid)
