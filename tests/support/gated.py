# SPDX-License-Identifier: Apache-2.0
"""A network that an accelerator cannot do alone: a gate with a sigmoid, softmax at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gated(nn.Module):
    """Convolution, squeeze-and-excitation gate, convolution, pool, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of 16 classes."""
        x = torch.relu(self.first(x))
        gate = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = torch.relu(self.last(x * torch.sigmoid(self.excite(gate))))
        return torch.softmax(x.mean((2, 3)), 1)


def gated() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network with fixed random weights, and an example of its input."""
    torch.manual_seed(0)
    return Gated().eval(), (torch.randn(1, 3, 16, 16),)
