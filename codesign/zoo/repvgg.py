# SPDX-License-Identifier: Apache-2.0
"""RepVGG in its training form (Ding et al., RepVGG: Making VGG-style ConvNets Great Again, 2021).

Each block adds a 3x3, a 1x1 and (where shapes allow) an identity branch, each with its batch
norm; for inference they merge into one 3x3 convolution, which is what the re-parameterisation
pass does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codesign.zoo.entry import Entry, InputKind
from codesign.zoo.layers import IMAGENET_CLASSES, IMAGENET_SHAPE, Classifier, ConvNorm


class RepVggBlock(nn.Module):
    """relu(bn(conv3x3(x)) + bn(conv1x1(x)) [+ bn(x)])."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.dense = ConvNorm(inputs, outputs, 3, stride, activation=None)
        self.pointwise = ConvNorm(inputs, outputs, 1, stride, activation=None)
        self.identity = nn.BatchNorm2d(inputs) if stride == 1 and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = self.dense(x) + self.pointwise(x)
        if self.identity is not None:
            y = y + self.identity(x)
        return torch.relu(y)


def repvgg(
    depths: Sequence[int], widths: Sequence[int], classes: int, stem_stride: int = 2
) -> nn.Module:
    """A stem block of at most 64 channels, then stages of ``depths`` blocks, each halving sides."""
    channels = min(64, widths[0])
    features: list[nn.Module] = [RepVggBlock(3, channels, stem_stride)]
    for depth, width in zip(depths, widths, strict=True):
        for index in range(depth):
            features.append(RepVggBlock(channels, width, 2 if index == 0 else 1))
            channels = width
    return Classifier(features, [nn.Linear(channels, classes)])


_SOURCE = "Ding et al., RepVGG: Making VGG-style ConvNets Great Again, CVPR 2021"
REPVGG_A0 = Entry(
    build=lambda: repvgg((2, 4, 14, 1), (48, 96, 192, 1280), IMAGENET_CLASSES),
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source=_SOURCE,
)
REPVGG_SMALL = Entry(
    build=lambda: repvgg((2, 3, 2), (32, 64, 128), classes=10, stem_stride=1),
    input_shape=(1, 3, 32, 32),
    input_kind=InputKind.NORMALISED,
    source=f"after {_SOURCE}; CIFAR-sized",
)
