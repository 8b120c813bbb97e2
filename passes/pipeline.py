# SPDX-License-Identifier: Apache-2.0
"""Pipelines: passes in order, verified between, timed; and the specs that name them."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TextIO

from codesign.errors import InputError, VerifyError
from codesign.ir.graph import Graph
from codesign.ir.ops import OpError
from codesign.passes.base import Pass


@dataclass(frozen=True)
class PassTiming:
    """What one pass took."""

    spec: str
    """The pass with its options."""
    seconds: float
    """Wall clock of the pass itself, without verification."""
    nodes_before: int
    nodes_after: int


@dataclass(frozen=True)
class PipelineResult:
    """The transformed graph, and one timing a pass in order."""

    graph: Graph
    timings: tuple[PassTiming, ...]

    def timing_table(self) -> str:
        """The timings as text, one line a pass and a total."""
        width = max([len(t.spec) for t in self.timings] + [len("total")])
        lines = [
            f"{t.spec:<{width}}  {t.seconds * 1e3:9.2f} ms  {t.nodes_before} -> {t.nodes_after}"
            for t in self.timings
        ]
        total = sum(t.seconds for t in self.timings)
        return "\n".join([*lines, f"{'total':<{width}}  {total * 1e3:9.2f} ms"])


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order they run. ``str`` gives the spec that ``parse_pipeline`` reads."""

    passes: tuple[Pass, ...]

    def __init__(self, passes: Iterable[Pass]) -> None:
        object.__setattr__(self, "passes", tuple(passes))

    def __str__(self) -> str:
        return ",".join(map(str, self.passes))

    def __add__(self, other: Pipeline) -> Pipeline:
        """This pipeline, then the other."""
        return Pipeline((*self.passes, *other.passes))

    def run(
        self,
        graph: Graph,
        *,
        print_after: Collection[str] | Literal["all"] = (),
        stream: TextIO | None = None,
    ) -> PipelineResult:
        """Run every pass; verify the graph before the first and after each.

        ``print_after`` names passes whose result is printed to ``stream`` (standard error by
        default), or ``"all"``. Raises VerifyError if the graph is invalid, or if a pass makes
        an invalid one (the message names the pass); InputError if ``print_after`` names a pass
        that the pipeline does not have.
        """
        if isinstance(print_after, str) and print_after != "all":
            print_after = (print_after,)
        self._check_print_after(print_after)
        stream = sys.stderr if stream is None else stream
        graph.verify()
        timings: list[PassTiming] = []
        for item in self.passes:
            start = time.perf_counter()
            result = _run_one(item, graph)
            seconds = time.perf_counter() - start
            _check_result(item, graph, result)
            timings.append(PassTiming(str(item), seconds, len(graph.nodes), len(result.nodes)))
            graph = result
            if print_after == "all" or item.name in print_after:
                print(f"// after {item}\n{graph}", file=stream)
        return PipelineResult(graph, tuple(timings))

    def _check_print_after(self, print_after: Collection[str] | str) -> None:
        if print_after == "all":
            return
        names = list(dict.fromkeys(p.name for p in self.passes))
        for name in print_after:
            if name not in names:
                raise InputError(
                    f"cannot print after {name!r}: the pipeline has no such pass "
                    f"(it has: {', '.join(names)})"
                )


def _run_one(item: Pass, graph: Graph) -> Graph:
    try:
        return item.run(graph)
    except (VerifyError, OpError) as error:
        raise VerifyError(_defect(item, str(error))) from error


def _defect(item: Pass, message: str) -> str:
    return f"defect in pass {str(item)!r}: {message} (please report it with the network)"


def _check_result(item: Pass, before: Graph, after: Graph) -> None:
    try:
        after.verify()
    except VerifyError as error:
        raise VerifyError(_defect(item, f"its result is invalid: {error}")) from error
    if not item.keeps_interface:
        return
    for label, old, new in (
        ("inputs", _types(before, before.inputs, True), _types(after, after.inputs, True)),
        ("outputs", _types(before, before.outputs, False), _types(after, after.outputs, False)),
    ):
        if old != new:
            raise VerifyError(_defect(item, f"it changed the {label} from {old} to {new}"))


def _types(graph: Graph, names: Iterable[str], named: bool) -> str:
    return ", ".join(f"{n}: {graph.type(n)}" if named else str(graph.type(n)) for n in names)


def parse_pipeline(text: str) -> Pipeline:
    """Read a spec such as ``fold-batch-norm,fuse{add=false}``; raises InputError.

    >>> str(parse_pipeline("fold-batch-norm, fuse{ add = false }"))
    'fold-batch-norm,fuse{add=false}'
    """
    from codesign.passes.spec import SpecParser

    return Pipeline(SpecParser(text).passes())


def options_of(kind: type[Pass]) -> tuple[str, ...]:
    """Names of the options of a pass as specs write them."""
    return tuple(f.name.replace("_", "-") for f in dataclasses.fields(kind))
