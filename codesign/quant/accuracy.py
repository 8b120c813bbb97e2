# SPDX-License-Identifier: Apache-2.0
"""Measured accuracy of float and integer networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph
from codesign.quant.data import batches, check_batch, whole_batches


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many of ``samples`` images got their label as the greatest output."""

    correct: int
    samples: int

    @property
    def top1(self) -> float:
        """Share of correct answers, in percent."""
        return 100.0 * self.correct / self.samples


def evaluate(
    graph: Graph,
    x: Array,
    y: Array,
    *,
    batch: int = 100,
    progress: Callable[[int], None] | None = None,
    where: str = "evaluation data",
) -> Accuracy:
    """Top-1 accuracy of the first output (N, classes), measured on all of ``x`` and ``y``.

    Integer networks run exactly as the reference does. ``progress`` gets the samples done.
    """
    from codesign.quant.torch_exec import GraphModule, run_batches

    checked = check_batch(graph, x, where)
    samples = len(x)
    if len(y) != samples:
        raise InputError(f"{where}: {samples} samples, but {len(y)} labels")
    shape = graph.type(graph.outputs[0]).shape
    if len(shape) != 2:
        raise InputError(f"{graph.name}: accuracy needs an output [N, classes], got {list(shape)}")
    if int(np.min(y)) < 0 or int(np.max(y)) >= shape[1]:
        raise InputError(
            f"{where}: labels {int(np.min(y))}..{int(np.max(y))}, but {graph.name} has "
            f"{shape[1]} classes"
        )
    module = GraphModule(graph)
    size = module.batch or whole_batches(graph, batch)
    correct = done = 0
    (name,) = checked
    inputs = ({name: piece} for piece in batches(checked[name], size))
    for outputs, labels in zip(run_batches(graph, inputs, module), batches(y, size)):
        correct += int((outputs[0].argmax(axis=1) == labels).sum())
        done += len(labels)
        if progress is not None:
            progress(done)
    return Accuracy(correct, samples)
