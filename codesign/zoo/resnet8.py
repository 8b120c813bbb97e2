# SPDX-License-Identifier: Apache-2.0
"""MLPerf Tiny's image classification network for CIFAR-10 (Banbury et al., 2021).

Two peculiarities come from Keras: a 3x3 stride-2 convolution with "same" padding pads only the
bottom and the right by one, and the projection shortcuts have no batch norm. The softmax at the
end of the original is left out: the output is logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codesign.zoo.entry import Entry, InputKind

EPSILON = 1e-3
"""Of every batch norm (Keras's default)."""


class SameConv3x3(nn.Module):
    """3x3 convolution with Keras "same" padding for even sizes, stride 1 or 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else None
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        if self.pad is not None:
            x = self.pad(x)
        y: Tensor = self.conv(x)
        return y


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (identity, or a bare 1x1 stride-2 convolution)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = SameConv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs, EPSILON)
        self.conv2 = SameConv3x3(outputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs, EPSILON)
        self.shortcut = None if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet8(nn.Module):
    """3x32x32 raw pixels 0..255 as float to 10 logits; 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv3x3(3, 16, 1)
        self.bn = nn.BatchNorm2d(16, EPSILON)
        self.block1 = Block(16, 16, 1)
        self.block2 = Block(16, 32, 2)
        self.block3 = Block(32, 64, 2)
        self.pool = nn.AvgPool2d(8)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to (N, 10)."""
        x = torch.relu(self.bn(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return logits


RESNET8 = Entry(
    build=ResNet8,
    input_shape=(1, 3, 32, 32),
    input_kind=InputKind.PIXELS,
    source="Banbury et al., MLPerf Tiny Benchmark, NeurIPS 2021; github.com/mlcommons/tiny",
)

CONVOLUTIONS = (
    # (module path, batch norm path or "") in the order of the Keras layers conv2d, conv2d_1, ...
    ("stem.conv", "bn"),
    ("block1.conv1.conv", "block1.bn1"),
    ("block1.conv2.conv", "block1.bn2"),
    ("block2.conv1.conv", "block2.bn1"),
    ("block2.conv2.conv", "block2.bn2"),
    ("block2.shortcut", ""),
    ("block3.conv1.conv", "block3.bn1"),
    ("block3.conv2.conv", "block3.bn2"),
    ("block3.shortcut", ""),
)
"""How the layers of the published weight files map to ours; the reader is ``resnet8_weights``."""
