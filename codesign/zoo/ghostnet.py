# SPDX-License-Identifier: Apache-2.0
"""GhostNetV1 1.0x (Han et al., GhostNet: More Features from Cheap Operations, CVPR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codesign.zoo.entry import Entry, InputKind
from codesign.zoo.layers import (
    IMAGENET_CLASSES,
    IMAGENET_SHAPE,
    Activation,
    ConvNorm,
    SqueezeExcite,
    make_divisible,
)

_BLOCKS = (
    # kernel, hidden, outputs, gated, stride
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
)


class Ghost(nn.Module):
    """Half of the channels by a 1x1 convolution, the rest from those by a depthwise 3x3."""

    def __init__(self, inputs: int, outputs: int, activation: Activation | None) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = ConvNorm(inputs, half, activation=activation)
        self.cheap = ConvNorm(half, half, 3, groups=half, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        primary = self.primary(x)
        return torch.cat((primary, self.cheap(primary)), 1)


class GhostBottleneck(nn.Module):
    """Ghost expansion, strided depthwise if any, optional gate, ghost projection, shortcut."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, gated: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [Ghost(inputs, hidden, nn.ReLU)]
        if stride > 1:
            layers.append(ConvNorm(hidden, hidden, kernel, stride, hidden, activation=None))
        if gated:
            layers.append(SqueezeExcite(hidden, make_divisible(hidden / 4, 4), nn.Hardsigmoid))
        layers.append(Ghost(hidden, outputs, None))
        self.layers = nn.Sequential(*layers)
        self.shortcut = (
            None
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                ConvNorm(inputs, inputs, kernel, stride, inputs, activation=None),
                ConvNorm(inputs, outputs, activation=None),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return y + (x if self.shortcut is None else self.shortcut(x))


class GhostNet(nn.Module):
    """Stem of 16 channels, 16 bottlenecks, 960 features, a 1280-wide layer after the pooling."""

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = [ConvNorm(3, 16, 3, 2)]
        channels = 16
        for kernel, hidden, outputs, gated, stride in _BLOCKS:
            features.append(GhostBottleneck(channels, hidden, outputs, kernel, stride, gated))
            channels = outputs
        features.append(ConvNorm(channels, 960))
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.widen = nn.Conv2d(960, 1280, 1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(1280, IMAGENET_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, 1000)."""
        x = self.relu(self.widen(self.pool(self.features(x))))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


GHOSTNET = Entry(
    build=GhostNet,
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Han et al., GhostNet: More Features from Cheap Operations, CVPR 2020",
)
