# SPDX-License-Identifier: Apache-2.0
"""Hessian traces by Hutchinson's estimator (as HAWQ-V2: Dong et al., NeurIPS 2020).

The loss is the cross entropy to the network's own answers p, so H = Jᵀ S J exactly: J are the
derivatives of the logits, S = diag(p) − p pᵀ. With S = L Lᵀ the trace is that of Lᵀ J Jᵀ L too,
and Tr(H) = E‖Jᵀ L v‖² for v of independent signs. That takes one plain back-propagation a draw
for all tensors together and is never negative. Drawing on the other side, zᵀHz with one z over
all tensors, adds the terms between them: their mean is zero, but beside a first layer whose trace
is 10⁵ times theirs they bury the small traces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.quant.sensitivity.probe import Probe

TOLERANCE = 0.05
"""Draws end when the standard error of every trace is below this share of it."""
_LEAST_DRAWS = 8


def traces(
    outputs: Tensor,
    tensors: Sequence[Tensor],
    draws: int,
    generator: torch.Generator,
    tolerance: float = TOLERANCE,
) -> list[float]:
    """Trace of the Hessian of the mean loss with respect to each tensor, at most ``draws`` draws.

    ``outputs`` are the logits [samples, classes] that were computed from ``tensors``.
    """
    root = F.softmax(outputs.detach(), 1).sqrt()
    found: list[list[float]] = []
    while len(found) < draws:
        signs = torch.randint(0, 2, root.shape, generator=generator).to(root.dtype) * 2 - 1
        # L v with L = diag(√p)(1 − √p √pᵀ)
        pushed = root * (signs - root * (root * signs).sum(1, keepdim=True))
        used = [t for t in tensors if t.requires_grad]
        grads = torch.autograd.grad(outputs, used, pushed, retain_graph=True, allow_unused=True)
        squares = {
            id(t): 0.0 if g is None else float(g.double().square().sum()) / len(outputs)
            for t, g in zip(used, grads)
        }
        found.append([squares.get(id(t), 0.0) for t in tensors])
        if len(found) >= _LEAST_DRAWS:
            values = torch.tensor(found, dtype=torch.float64)
            error = values.std(0) / len(found) ** 0.5
            if bool((error <= tolerance * values.mean(0)).all()):
                break
    return [float(v) for v in torch.tensor(found, dtype=torch.float64).mean(0)]


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

    Labels play no part. Activations of all samples count as one tensor, so that Tr(H)/n · ‖Δ‖²
    is right for both.
    """
    graph = probe.graph
    weights = {layer: probe.module.weights[graph.nodes[layer].inputs[1]] for layer in layers}
    sums = {"weights": dict.fromkeys(layers, 0.0), "activations": dict.fromkeys(roots, 0.0)}
    generator = torch.Generator().manual_seed(seed)
    for inputs in probe.pieces:
        caught: dict[str, Tensor] = {}
        size = len(next(iter(inputs.values())))
        outputs, *_ = probe.module.run(
            {k: v.clone().requires_grad_() for k, v in inputs.items()},
            edits={root: _catcher(caught, root) for root in roots},
        )
        tensors = [*weights.values(), *(caught[root] for root in roots)]
        found = [
            v / t.numel()
            for v, t in zip(traces(outputs, tensors, draws, generator, tolerance), tensors)
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
