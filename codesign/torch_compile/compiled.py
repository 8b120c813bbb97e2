# SPDX-License-Identifier: Apache-2.0
"""What runs in place of a graph: compiled once for each shape and each state of the weights."""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensor

from codesign.errors import InputError, UnsupportedError
from codesign.ir.graph import Array, Graph
from codesign.passes import prepare as prepare_pipeline
from codesign.targets import TARGETS
from codesign.targets.base import Runner, Target
from codesign.targets.tuning.tune import Budget
from codesign.torch_compile.options import CompileOptions
from codesign.torch_compile.quantize import finished_graph, quantized
from codesign.torch_compile.subgraph import (
    CannotTake,
    FallbackWarning,
    Signature,
    first_reason,
    import_subgraph,
)

_KEPT = 16
"""Most shapes for which compiled code is kept; the oldest goes first."""
Shapes = tuple[Any, ...]


def compile_subgraph(
    module: fx.GraphModule, inputs: Sequence[Any], options: CompileOptions
) -> Callable[..., Any]:
    """The callable that dynamo runs in place of ``module``."""
    target = load_target(options)
    compiled = Compiled(module, Signature.of(module, inputs), target, options)
    concrete = not compiled.signature.sizes and not any(isinstance(v, FakeTensor) for v in inputs)
    if concrete and not compiled.observing:
        compiled.prepare(inputs)  # now, so that torch.compile takes the time and not the first call
    return compiled


def load_target(options: CompileOptions) -> Target:
    """The target of the options; raises InputError if it cannot run networks here."""
    loaded = TARGETS.load(options.target)
    target: Target = loaded() if isinstance(loaded, type) else loaded
    if options.threads:
        if not hasattr(target, "threads"):
            raise InputError(f"target {target.name!r} has no option 'threads'")
        target = type(target)(threads=options.threads)  # type: ignore[call-arg]
    if why := target.unavailable():
        raise InputError(f"torch.compile: target {target.name!r} cannot be used here: {why}")
    return target


class Compiled:
    """One of dynamo's graphs."""

    def __init__(
        self, module: fx.GraphModule, signature: Signature, target: Target,
        options: CompileOptions,
    ) -> None:  # fmt: skip
        self.module = module
        self.signature = signature
        self.target = target
        self.options = options
        self._runners: dict[Shapes, Runner | None] = {}
        """By shapes of the inputs; None where eager torch runs."""
        self._weights: tuple[Any, ...] | None = None
        self._lock = threading.Lock()
        self._seen: list[list[Array]] = []
        """Inputs of observed calls."""

    @property
    def observing(self) -> bool:
        """Whether ranges still have to be taken from calls to come."""
        options = self.options
        return (
            options.quantized and options.calib is None and options.design is None
            and len(self._seen) + 1 < options.observe
        )  # fmt: skip

    def __call__(self, *inputs: Any) -> Any:
        data = [inputs[i] for i in self.signature.data]
        with self._lock:
            if self.observing:
                self._observe(data)
                return self.module(*inputs)
            if self._weights is not None and self._weights != self._state(inputs):
                self._runners.clear()  # weights were changed in place: constants are stale
            key = self._shapes(inputs)
            if key not in self._runners:
                self._build(key, inputs)
            runner = self._runners[key]
        if runner is None:
            return self.module(*inputs)
        arrays = [value.detach().contiguous().numpy() for value in data]
        results = runner.run(*arrays)
        return tuple(torch.from_numpy(np.ascontiguousarray(r)) for r in results)

    def prepare(self, inputs: Sequence[Any]) -> None:
        """Compile for inputs of these shapes."""
        with self._lock:
            self._build(self._shapes(inputs), inputs)

    def _observe(self, data: Sequence[Tensor]) -> None:
        self._seen.append([value.detach().clone().numpy() for value in data])

    def _shapes(self, inputs: Sequence[Any]) -> Shapes:
        shapes = (tuple(inputs[i].shape) for i in self.signature.data)
        return (*shapes, *(int(inputs[i]) for i in self.signature.sizes))

    def _state(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Changes when a weight is written or replaced."""
        weights = (inputs[i] for i in self.signature.weights)
        return tuple((w.data_ptr(), None if w.is_inference() else w._version) for w in weights)

    def _build(self, key: Shapes, inputs: Sequence[Any]) -> None:
        self._weights = self._state(inputs)
        if len(self._runners) >= _KEPT:
            del self._runners[next(iter(self._runners))]
        try:
            graph = self._graph(inputs)
            self._runners[key] = make_runner(self.target, graph, self.options.tune)
        except CannotTake as why:
            if self.options.strict:
                raise UnsupportedError(f"torch.compile(backend='codesign'): {why}") from why
            self._runners[key] = None
            text = f"torch.compile(backend='codesign'): this graph runs in eager torch: {why}"
            warnings.warn(text, FallbackWarning, stacklevel=3)
            return
        if self.options.listen is not None:
            self.options.listen(graph)

    def _graph(self, inputs: Sequence[Any]) -> Graph:
        """What is compiled; raises CannotTake."""
        imported = import_subgraph(self.module, self.signature, inputs)
        graph = prepare_pipeline().run(imported).graph
        try:
            if self.options.quantized:
                graph = finished_graph(graph, self.options) or self._quantized(graph, inputs)
            self.target.check(graph)
        except UnsupportedError as error:
            raise CannotTake(first_reason(error)) from error
        return graph

    def _quantized(self, graph: Graph, inputs: Sequence[Any]) -> Graph:
        data = [inputs[i] for i in self.signature.data]
        if len(self._seen) < self.options.observe:
            self._observe(data)
        shapes = [graph.type(name).shape for name in graph.inputs]
        fitting = [call for call in self._seen if all(_fits(a, s) for a, s in zip(call, shapes))]
        return quantized(graph, self.options, fitting or [[v.detach().numpy() for v in data]])


def _fits(array: Array, shape: tuple[int, ...]) -> bool:
    """Whether calibration can use inputs of another batch for this one."""
    return array.shape[1:] == shape[1:] and array.shape[0] % shape[0] == 0


def make_runner(target: Target, graph: Graph, tune: str | None = None) -> Runner:
    """``graph`` compiled for this process: in memory where the target can, else through files.

    ``tune`` is a budget for finding faster code first.
    """
    if tune is not None:
        tuner = getattr(target, "tune", None)
        if tuner is None:
            raise InputError(f"torch.compile: target {target.name!r} has no option 'tune'")
        tuner(graph, Budget.parse(tune))
    in_memory = getattr(target, "runner", None)
    if in_memory is not None:
        made: Runner = in_memory(graph)
        return made
    with tempfile.TemporaryDirectory(prefix="codesign-") as folder:
        target.build(graph, Path(folder) / "build")
        return target.load(Path(folder) / "build")
