# SPDX-License-Identifier: Apache-2.0
"""``codesign inspect`` and ``codesign opt``: looking at a network, trying passes on it."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from codesign.errors import InputError, VerifyError
from codesign.flow.prepare import load_target
from codesign.frontend import load_network
from codesign.ir.analysis import LayerStats, layer_stats
from codesign.ir.graph import Graph
from codesign.ir.text import parse_graph, print_graph
from codesign.passes import prepare
from codesign.passes.pipeline import parse_pipeline


@dataclass(frozen=True)
class Inspection:
    """Facts about a network for people and scripts."""

    graph: Graph
    target: str
    layers: tuple[LayerStats, ...]
    unsupported: tuple[str, ...]
    """Why the target cannot take it, one line an operator; empty if it can."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(layer.parameters for layer in self.layers)


def inspect(
    network: str,
    *,
    target: str = "host",
    weights: Path | None = None,
    batch: int = 1,
    seed: int = 0,
    raw: bool = False,
) -> Inspection:
    """Load ``network`` and say what is in it; ``raw`` leaves the standard passes out."""
    chosen = load_target(target)
    graph = load_network(network, batch=batch, weights=weights, seed=seed).graph
    if not raw:
        graph = prepare().run(graph).graph
    unsupported = tuple(str(item) for item in chosen.unsupported(graph))
    return Inspection(graph, target, layer_stats(graph), unsupported)


def optimise(file: Path, passes: str, print_after: Collection[str] = ()) -> tuple[str, str]:
    """Run a pass pipeline on a text IR file ("-": standard input): new text, timing table."""
    pipeline = parse_pipeline(passes)
    text = _read(file)
    try:
        graph = parse_graph(text, str(file))
    except VerifyError as error:
        raise InputError(f"{file}: {error}") from None
    after: Collection[str] = "all" if "all" in print_after else print_after
    result = pipeline.run(graph, print_after=after, stream=sys.stderr)
    return print_graph(result.graph), result.timing_table()


def _read(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as text IR ({error})") from None
