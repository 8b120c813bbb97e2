# SPDX-License-Identifier: Apache-2.0
"""Hessian traces by Hutchinson's estimator (as HAWQ-V2: Dong et al., NeurIPS 2020).

Tr(H) = E[zᵀHz] for z of independent signs; Hz comes from a second back-propagation. One draw
serves all tensors at once: the cross terms have mean zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.quant.sensitivity.probe import Probe

TOLERANCE = 1e-3
"""Draws end when the running sum of all traces changes by less, relatively, for a while."""
_STEADY = 3


def traces(
    loss: Tensor,
    tensors: Sequence[Tensor],
    draws: int,
    generator: torch.Generator,
    tolerance: float = TOLERANCE,
) -> list[float]:
    """Trace of the Hessian of ``loss`` with respect to each tensor, at most ``draws`` draws."""
    used = [t for t in tensors if t.requires_grad]
    grads = torch.autograd.grad(loss, used, create_graph=True, allow_unused=True)
    totals = [0.0] * len(tensors)
    last, steady = 0.0, 0
    for draw in range(1, draws + 1):
        signs = [
            torch.randint(0, 2, t.shape, generator=generator).to(t.dtype) * 2 - 1 for t in used
        ]
        terms = [(g * z).sum() for g, z in zip(grads, signs) if g is not None and g.requires_grad]
        if not terms:
            return totals
        products = torch.autograd.grad(
            torch.stack(terms).sum(), used, retain_graph=True, allow_unused=True
        )
        values = [0.0 if h is None else float((h * z).sum()) for h, z in zip(products, signs)]
        for tensor, value in zip(used, values):
            place = next(i for i, t in enumerate(tensors) if t is tensor)
            totals[place] += value
        mean = sum(abs(t) for t in totals) / draw
        steady = steady + 1 if abs(mean - last) < tolerance * mean else 0
        if steady == _STEADY:
            break
        last = mean
    return [t / draw for t in totals]


def mean_curvatures(
    probe: Probe,
    layers: Sequence[str],
    roots: Sequence[str],
    draws: int,
    seed: int,
    progress: Callable[[], None] | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, dict[str, float]]:
    """Tr(H)/n of each layer's weights and of each root's activations, of the mean loss, as
    ``{"weights": {layer: …}, "activations": {root: …}}``.

    Without labels the loss is the cross entropy to the float network's own probabilities: its
    minimum is where the network is, so that its Hessian has no negative trace. Activations of
    all samples count as one tensor, so that Tr(H)/n · ‖Δ‖² is right for both.
    """
    graph = probe.graph
    weights = {layer: probe.module.weights[graph.nodes[layer].inputs[1]] for layer in layers}
    sums = {"weights": dict.fromkeys(layers, 0.0), "activations": dict.fromkeys(roots, 0.0)}
    generator = torch.Generator().manual_seed(seed)
    for inputs, labels in zip(probe.pieces, probe.labels):
        caught: dict[str, Tensor] = {}
        size = len(next(iter(inputs.values())))
        outputs, *_ = probe.module.run(
            {k: v.clone().requires_grad_() for k, v in inputs.items()},
            edits={root: _catcher(caught, root) for root in roots},
        )
        wanted = F.softmax(outputs.detach(), 1) if labels is None else labels
        loss = F.cross_entropy(outputs, wanted)
        tensors = [*weights.values(), *(caught[root] for root in roots)]
        found = [
            v / t.numel()
            for v, t in zip(traces(loss, tensors, draws, generator, tolerance), tensors)
        ]
        share = size / probe.samples
        for layer, value in zip(layers, found):
            sums["weights"][layer] += value * share
        for root, value in zip(roots, found[len(layers) :]):
            # Once for the mean over pieces, once because the elements are those of all pieces.
            sums["activations"][root] += value * share**2
        if progress is not None:
            progress()
    return sums


def _catcher(caught: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def catch(value: Tensor) -> Tensor:
        caught[name] = value if value.requires_grad else value.clone().requires_grad_()
        return caught[name]

    return catch


@torch.no_grad()
def activation_errors(probe: Probe, root: str, bits: Sequence[int]) -> Mapping[int, float]:
    """‖Q(a) − a‖² of one tensor over all samples, for each number of bits."""
    edits = {b: probe.rounded(root, b) for b in bits}
    errors = dict.fromkeys(bits, 0.0)

    def observe(name: str, value: Tensor) -> None:
        if name == root:
            for b, edit in edits.items():
                errors[b] += float((edit(value) - value).double().square().sum())

    for inputs in probe.pieces:
        probe.module.run(inputs, observe=observe)
    return errors
