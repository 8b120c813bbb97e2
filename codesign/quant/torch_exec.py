# SPDX-License-Identifier: Apache-2.0
"""Executes IR graphs in torch: float ones differentiably, integer ones exactly, at any batch.

The integer execution is the fake-quantized network: it computes with the same integers as the
NumPy interpreter (held in floats), so both agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from codesign.errors import InputError
from codesign.ir.batch import with_batch
from codesign.ir.graph import Array, Graph, Node
from codesign.ir.ops import Conv2d, Input, Linear
from codesign.quant.accumulator import fits_float32
from codesign.quant.torch_ops import FUNCTIONS, Call, activate, add_bias, holder

Observer = Callable[[str, Tensor], None]
"""Called with the name of a value; ``NODE:acc`` is a layer's product with bias, ``NODE:pre``
what its fused activation reads."""
Edit = Callable[[Tensor], Tensor]
"""Put in a value's place before anybody reads it."""


class GraphModule(nn.Module):
    """A graph as a torch module; float constants are parameters, integers are buffers.

    ``weights`` maps the graph's constant names to those tensors. With ``straight_through`` the
    roundings of an integer graph pass gradients as the identity does.
    """

    def __init__(self, graph: Graph, *, straight_through: bool = False) -> None:
        super().__init__()
        self.graph = graph
        self.straight_through = straight_through
        self.weights: dict[str, Tensor] = {}
        self._at: dict[int, _Sized | None] = {}
        for index, (name, value) in enumerate(graph.constants.items()):
            kind = graph.type(name).dtype
            tensor = torch.from_numpy(np.array(value)).to(holder(kind))
            if kind.is_float:
                parameter = nn.Parameter(tensor)
                self.register_parameter(f"constant{index}", parameter)
                self.weights[name] = parameter
            else:
                self.register_buffer(f"constant{index}", tensor)
                self.weights[name] = tensor
        self._exact32 = {
            n.name: fits_float32(graph, n)
            for n in graph.nodes.values()
            if isinstance(n.op, Conv2d | Linear) and n.type.dtype.is_integer
        }

    @property
    def batch(self) -> int | None:
        """The batch size the graph is bound to, or None if it runs at any."""
        own = self.graph.type(self.graph.inputs[0]).shape[0]
        return None if self._sized(2) is not None else own

    def _sized(self, ratio: int) -> _Sized | None:
        """The graph for ``ratio`` times its own batch, or None if it cannot be changed."""
        if ratio not in self._at:
            own = self.graph.type(self.graph.inputs[0]).shape[0]
            try:
                graph = with_batch(self.graph, own * ratio)
            except InputError:
                self._at[ratio] = None
            else:
                self._at[ratio] = _Sized(graph, _last_use(graph))
        return self._at[ratio]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The graph's outputs; a tensor if there is one only."""
        values = self.run(dict(zip(self.graph.inputs, inputs)))
        return values[0] if len(values) == 1 else values

    def run(
        self,
        inputs: Mapping[str, Tensor],
        *,
        observe: Observer | None = None,
        edits: Mapping[str, Edit] | None = None,
        known: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """The graph's outputs. ``edits`` change values as they are made; values in ``known``
        are taken from there, and what only they need is not computed."""
        ratio = self._ratio(inputs)
        sized = self._sized(ratio)
        if sized is None:
            return self._run_in_pieces(inputs, ratio, observe, edits)
        values: dict[str, Tensor] = dict(known or {})
        for name in _needed(sized.graph, values):
            node = sized.graph.nodes[name]
            value = self._compute(sized.graph, node, inputs, values, observe)
            if edits is not None and name in edits:
                value = edits[name](value)
            values[name] = value
            if observe is not None:
                observe(name, value)
            elif known is None and not torch.is_grad_enabled():
                for operand in node.inputs:
                    if sized.last_use[operand] == name:
                        values.pop(operand, None)
        return tuple(values[name] for name in sized.graph.outputs)

    def _ratio(self, inputs: Mapping[str, Tensor]) -> int:
        """How many times the graph's own batch the inputs hold."""
        ratios = set()
        for name in self.graph.inputs:
            shape, got = self.graph.type(name).shape, tuple(inputs[name].shape)
            if shape[1:] != got[1:] or not shape or got[0] % shape[0]:
                raise InputError(
                    f"{self.graph.name}: input {name!r} has shape {list(got)}, expected "
                    f"[{', '.join(['N', *map(str, shape[1:])])}]"
                )
            ratios.add(got[0] // shape[0])
        if len(ratios) != 1:
            raise InputError(f"{self.graph.name}: inputs differ in their number of samples")
        return ratios.pop()

    def _run_in_pieces(
        self,
        inputs: Mapping[str, Tensor],
        ratio: int,
        observe: Observer | None,
        edits: Mapping[str, Edit] | None,
    ) -> tuple[Tensor, ...]:
        pieces = {name: value.chunk(ratio) for name, value in inputs.items()}
        results = [
            self.run({n: p[i] for n, p in pieces.items()}, observe=observe, edits=edits)
            for i in range(ratio)
        ]
        return tuple(torch.cat(parts) for parts in zip(*results))

    def _compute(
        self,
        graph: Graph,
        node: Node,
        inputs: Mapping[str, Tensor],
        values: Mapping[str, Tensor],
        observe: Observer | None,
    ) -> Tensor:
        if isinstance(node.op, Input):
            return inputs[node.name].to(holder(node.type.dtype))
        if node.name in self.weights:
            return self.weights[node.name]
        args = [values[v] for v in node.inputs]
        types = tuple(graph.type(v) for v in node.inputs)
        call = Call(
            node=node,
            types=types,
            straight_through=self.straight_through,
            integer=bool(types) and types[0].dtype.is_integer,
            exact_float32=self._exact32.get(node.name, False),
        )
        result = FUNCTIONS[node.op.name](call, args)
        if isinstance(node.op, Conv2d | Linear):
            result = add_bias(call, result, args)
            if observe is not None:
                observe(f"{node.name}:acc", result)
            if node.op.residual:
                result = result + args[-1]
            if observe is not None and node.op.activation != "none":
                observe(f"{node.name}:pre", result)
            result = activate(node.op.activation, node.op.alpha, result)
        return result


@dataclass(frozen=True)
class _Sized:
    """The graph at one batch size."""

    graph: Graph
    last_use: Mapping[str, str]


def _needed(graph: Graph, known: Mapping[str, Tensor]) -> list[str]:
    """The values that the outputs need beside the known ones, in order."""
    needed: set[str] = set()
    stack = [name for name in graph.outputs if name not in known]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(v for v in graph.nodes[name].inputs if v not in known)
    return [name for name in graph.nodes if name in needed]


def _last_use(graph: Graph) -> dict[str, str]:
    """The last node that reads each value; the outputs are never done with."""
    last = {value: node.name for node in graph.nodes.values() for value in node.inputs}
    return {name: "" if name in graph.outputs else last.get(name, "") for name in graph.nodes}


def run_batches(
    graph: Graph, batches: Iterable[Mapping[str, Array]], module: GraphModule | None = None
) -> Iterable[tuple[Array, ...]]:
    """Outputs of ``graph`` for each batch, as NumPy arrays of the outputs' own formats."""
    module = module or GraphModule(graph)
    kinds = [graph.type(name).dtype.numpy for name in graph.outputs]
    for batch in batches:
        with torch.no_grad():
            values = module.run({k: torch.from_numpy(np.array(v)) for k, v in batch.items()})
        yield tuple(v.numpy().astype(kind) for v, kind in zip(values, kinds))


def run_torch(graph: Graph, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs of ``graph`` for one batch of ``inputs``, in the order of ``graph.inputs``."""
    return next(iter(run_batches(graph, [dict(zip(graph.inputs, inputs))])))
