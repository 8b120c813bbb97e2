# SPDX-License-Identifier: Apache-2.0
"""A LeNet-like network for scikit-learn's 8x8 digits (after LeCun et al., 1998)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codesign.zoo.entry import Entry, InputKind


class DigitsCnn(nn.Module):
    """Three convolutions and two linear layers: 1x8x8 intensities 0..1 to 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(128, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) to (N, 10)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = self.pool(torch.relu(self.bn3(self.conv3(x))))
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        logits: Tensor = self.fc2(x)
        return logits


DIGITS = Entry(
    build=DigitsCnn,
    input_shape=(1, 1, 8, 8),
    input_kind=InputKind.UNIT,
    source="after LeNet-5: LeCun et al., Gradient-based learning, Proc. IEEE 1998",
)
