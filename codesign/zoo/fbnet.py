# SPDX-License-Identifier: Apache-2.0
"""FBNet-C (Wu et al., CVPR 2019): found by a differentiable search for a phone's latency."""

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

_BLOCKS = (
    # kernel, expansion, outputs, stride; the skipped block of the 24-channel stage left out
    (3, 1, 16, 1),
    (3, 6, 24, 2),
    (3, 1, 24, 1),
    (3, 1, 24, 1),
    (5, 6, 32, 2),
    (5, 3, 32, 1),
    (5, 6, 32, 1),
    (3, 6, 32, 1),
    (5, 6, 64, 2),
    (5, 3, 64, 1),
    (5, 6, 64, 1),
    (5, 6, 64, 1),
    (5, 6, 112, 1),
    (5, 6, 112, 1),
    (5, 6, 112, 1),
    (5, 3, 112, 1),
    (5, 6, 184, 2),
    (5, 6, 184, 1),
    (5, 6, 184, 1),
    (5, 6, 184, 1),
    (3, 6, 352, 1),
)


def fbnet_c() -> nn.Module:
    """Stem of 16 channels, 21 inverted residuals, 1984 features."""
    features: list[nn.Module] = [ConvNorm(3, 16, 3, 2)]
    channels = 16
    for kernel, expansion, outputs, stride in _BLOCKS:
        features.append(InvertedResidual(channels, channels * expansion, outputs, kernel, stride))
        channels = outputs
    features.append(ConvNorm(channels, 1984))
    return Classifier(features, [nn.Linear(1984, IMAGENET_CLASSES)])


FBNET_C = Entry(
    build=fbnet_c,
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Wu et al., FBNet: Hardware-Aware Efficient ConvNet Design, CVPR 2019",
)
