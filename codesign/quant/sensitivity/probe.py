# SPDX-License-Identifier: Apache-2.0
"""Runs a float network with one tensor rounded and looks at what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.ir.graph import Array, Graph
from codesign.quant.calibrate import Calibration, channel_axes
from codesign.quant.data import batches, whole_batches
from codesign.quant.groups import non_negative, roots
from codesign.quant.options import QuantOptions
from codesign.quant.torch_exec import Edit, GraphModule
from codesign.quant.weights import rounded_weights

_PIECE = 64
_MEAN_PIECES = 2
Distance = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Sum over samples of the harm done: (float outputs, rounded outputs, labels) to a scalar."""


def divergence(reference: Tensor, outputs: Tensor, labels: Tensor | None) -> Tensor:
    """Loss increase in nats: of the cross entropy to the labels, or the Kullback-Leibler
    divergence from the float network's own answer if there are none."""
    now = F.log_softmax(outputs.double(), 1)
    before = F.log_softmax(reference.double(), 1)
    if labels is not None:
        return F.nll_loss(now, labels, reduction="sum") - F.nll_loss(
            before, labels, reduction="sum"
        )
    return F.kl_div(now, before, reduction="sum", log_target=True)


def square_error(reference: Tensor, outputs: Tensor, labels: Tensor | None) -> Tensor:
    """Squared error of the outputs, averaged over the outputs of a sample."""
    return (outputs.double() - reference.double()).square().flatten(1).mean(1).sum()


class Probe:
    """A float network and samples, with the undisturbed values at hand."""

    def __init__(
        self,
        graph: Graph,
        calibration: Calibration,
        images: Mapping[str, Array],
        labels: Array | None,
        options: QuantOptions,
    ) -> None:
        self.graph = graph
        self.calibration = calibration
        self.options = options
        self.module = GraphModule(graph)
        self.samples = len(next(iter(images.values())))
        least = {name: calibration[name].least for name in graph.inputs}
        self.signs = non_negative(graph, least)
        self.roots = roots(graph, self.signs)
        size = self.module.batch or whole_batches(graph, _PIECE)
        self.pieces = [
            {k: torch.from_numpy(p.copy()) for k, p in zip(images, parts)}
            for parts in zip(*(batches(v, size) for v in images.values()))
        ]
        self.labels = [
            None if labels is None else torch.from_numpy(labels[i : i + size].astype(np.int64))
            for i in range(0, self.samples, size)
        ]

    def rounded(self, root: str, bits: int) -> Callable[[Tensor], Tensor]:
        """Fake quantization of the value ``root`` to ``bits`` bits."""
        signed = not self.signs[root]
        scale = self.options.scales.get(root) or self.calibration.scale(
            root, bits, signed, self.options.method
        )
        lo, hi = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        return lambda x: (x / scale + 0.5).floor().clamp(lo, hi) * scale

    def weights(self, layer: str, bits: int, distance: Distance) -> float:
        """Mean harm of one layer's weights in ``bits`` bits."""
        node = self.graph.nodes[layer]
        name = node.inputs[1]
        rounded = torch.from_numpy(
            rounded_weights(self.graph.constants[name], bits, self.options.weight_clip)
        )
        edits: dict[str, Edit] = {name: lambda _: rounded}
        bias = self.graph.operand(node, "bias")
        if self.options.bias_correction and bias is not None and bias in self.graph.constants:
            shift = self._mean(layer, {}) - self._mean(layer, edits)
            edits[bias] = lambda value: value + shift
        return self._harm(name, edits, distance)

    @torch.no_grad()
    def _mean(self, layer: str, edits: Mapping[str, Edit]) -> Tensor:
        """Mean of each channel of a layer's product on the first samples."""
        found: list[Tensor] = []

        def observe(name: str, value: Tensor) -> None:
            if name == f"{layer}:acc":
                found.append(value.mean(channel_axes(value.dim())))

        for inputs in self.pieces[:_MEAN_PIECES]:
            self.module.run(inputs, observe=observe, edits=edits)
        return torch.stack(found).mean(0)

    def activations(self, root: str, bits: int, distance: Distance) -> float:
        """Mean harm of one tensor (with all that share its scale) in ``bits`` bits."""
        return self._harm(root, {root: self.rounded(root, bits)}, distance)

    @torch.no_grad()
    def _harm(self, value: str, edits: Mapping[str, Edit], distance: Distance) -> float:
        after = _downstream(self.graph, value) | set(edits)
        total = 0.0
        for inputs, labels in zip(self.pieces, self.labels):
            before: dict[str, Tensor] = {}
            (reference, *_) = self.module.run(inputs, observe=before.__setitem__)
            known = {k: v for k, v in before.items() if k in self.graph.nodes and k not in after}
            (outputs, *_) = self.module.run(inputs, edits=edits, known=known)
            total += float(distance(reference, outputs, labels))
        return max(0.0, total / self.samples)


def _downstream(graph: Graph, value: str) -> set[str]:
    found, stack = {value}, [value]
    while stack:
        for user in graph.users[stack.pop()]:
            if user not in found:
                found.add(user)
                stack.append(user)
    return found
