# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 (Tan and Le, ICML 2019; the Lite form by Google, 2020).

EfficientNet-B0 without squeeze-excite, with ReLU6 for swish. Paddings are symmetric.
"""

from __future__ import annotations

from torch import nn

from codesign.zoo.entry import Entry, InputKind
from codesign.zoo.layers import (
    IMAGENET_CLASSES,
    IMAGENET_SHAPE,
    Classifier,
    ConvNorm,
    InvertedResidual,
)

_EPSILON = 1e-3
_STAGES = (
    # kernel, expansion, outputs, blocks, stride of the first
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


def efficientnet_lite0() -> nn.Module:
    """Stem of 32 channels, 16 inverted residuals, 1280 features, ReLU6 throughout."""
    features: list[nn.Module] = [ConvNorm(3, 32, 3, 2, activation=nn.ReLU6, epsilon=_EPSILON)]
    channels = 32
    for kernel, expansion, outputs, blocks, first in _STAGES:
        for index in range(blocks):
            features.append(
                InvertedResidual(
                    channels,
                    channels * expansion,
                    outputs,
                    kernel,
                    first if index == 0 else 1,
                    nn.ReLU6,
                    epsilon=_EPSILON,
                )
            )
            channels = outputs
    features.append(ConvNorm(channels, 1280, activation=nn.ReLU6, epsilon=_EPSILON))
    return Classifier(features, [nn.Linear(1280, IMAGENET_CLASSES)])


EFFICIENTNET_LITE0 = Entry(
    build=efficientnet_lite0,
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Tan and Le, EfficientNet, ICML 2019; tensorflow/tpu models/official/efficientnet/lite",
)
