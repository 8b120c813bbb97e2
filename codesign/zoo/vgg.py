# SPDX-License-Identifier: Apache-2.0
"""VGG11 without batch norm (configuration A of Simonyan and Zisserman, ICLR 2015)."""

from __future__ import annotations

from torch import Tensor, nn

from codesign.zoo.entry import Entry, InputKind
from codesign.zoo.layers import IMAGENET_CLASSES, IMAGENET_SHAPE

_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class Vgg11(nn.Module):
    """Eight biased 3x3 convolutions, five max poolings, three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = 3
        for stage in _STAGES:
            for outputs in stage:
                features += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
                channels = outputs
            features.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.head = nn.Sequential(
            nn.Flatten(1),
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, IMAGENET_CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) to logits (N, 1000)."""
        logits: Tensor = self.head(self.features(x))
        return logits


VGG11 = Entry(
    build=Vgg11,
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015",
)
