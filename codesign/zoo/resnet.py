# SPDX-License-Identifier: Apache-2.0
"""ResNet18, 34 and 50 (He et al., Deep Residual Learning, CVPR 2016), torchvision's form.

In ResNet50 the stride lies in the 3x3 convolution of a block, not in the first 1x1 ("v1.5").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codesign.zoo.entry import Entry, InputKind
from codesign.zoo.layers import IMAGENET_CLASSES, IMAGENET_SHAPE, Classifier, ConvNorm


class Residual(nn.Module):
    """relu(branch(x) + shortcut(x)); the shortcut is a strided 1x1 where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = (
            None
            if stride == 1 and inputs == outputs
            else ConvNorm(inputs, outputs, 1, stride, activation=None)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return torch.relu(self.branch(x) + shortcut)


def _basic(inputs: int, width: int, stride: int) -> nn.Module:
    branch = nn.Sequential(
        ConvNorm(inputs, width, 3, stride), ConvNorm(width, width, 3, activation=None)
    )
    return Residual(inputs, width, stride, branch)


def _bottleneck(inputs: int, width: int, stride: int) -> nn.Module:
    branch = nn.Sequential(
        ConvNorm(inputs, width),
        ConvNorm(width, width, 3, stride),
        ConvNorm(width, 4 * width, activation=None),
    )
    return Residual(inputs, 4 * width, stride, branch)


def resnet(depths: Sequence[int], bottleneck: bool) -> nn.Module:
    """Four stages of 64, 128, 256 and 512 channels with ``depths`` blocks each."""
    block, expansion = (_bottleneck, 4) if bottleneck else (_basic, 1)
    features: list[nn.Module] = [ConvNorm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for index in range(depth):
            features.append(block(channels, width, 2 if stage and not index else 1))
            channels = width * expansion
    return Classifier(features, [nn.Linear(channels, IMAGENET_CLASSES)])


def _entry(depths: Sequence[int], bottleneck: bool) -> Entry:
    return Entry(
        build=lambda: resnet(depths, bottleneck),
        input_shape=IMAGENET_SHAPE,
        input_kind=InputKind.NORMALISED,
        source="He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
    )


RESNET18 = _entry((2, 2, 2, 2), bottleneck=False)
RESNET34 = _entry((3, 4, 6, 3), bottleneck=False)
RESNET50 = _entry((3, 4, 6, 3), bottleneck=True)
