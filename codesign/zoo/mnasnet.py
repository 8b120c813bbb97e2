# SPDX-License-Identifier: Apache-2.0
"""MnasNet-B1 and, with squeeze-excite, -A1 (Tan et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from codesign.zoo.entry import Entry, InputKind
from codesign.zoo.layers import (
    IMAGENET_CLASSES,
    IMAGENET_SHAPE,
    Classifier,
    ConvNorm,
    InvertedResidual,
    SqueezeExcite,
)

_B1 = (
    # kernel, expansion, outputs, blocks, stride of the first, gated
    (3, 3, 24, 3, 2, False),
    (5, 3, 40, 3, 2, False),
    (5, 6, 80, 3, 2, False),
    (3, 6, 96, 2, 1, False),
    (5, 6, 192, 4, 2, False),
    (3, 6, 320, 1, 1, False),
)
_A1 = (
    (3, 6, 24, 2, 2, False),
    (5, 3, 40, 3, 2, True),
    (3, 6, 80, 4, 2, False),
    (3, 6, 112, 2, 1, True),
    (5, 6, 160, 3, 2, True),
    (3, 6, 320, 1, 1, False),
)


def mnasnet(stages: Sequence[tuple[int, int, int, int, int, bool]]) -> nn.Module:
    """Stem of 32 channels, a separable convolution to 16, ``stages``, 1280 features."""
    features: list[nn.Module] = [ConvNorm(3, 32, 3, 2), InvertedResidual(32, 32, 16, 3, 1)]
    channels = 16
    for kernel, expansion, outputs, blocks, first, gated in stages:
        for index in range(blocks):
            squeezed = channels // 4  # of the block's input, as in the paper's code

            def gate(hidden: int, squeezed: int = squeezed) -> nn.Module:
                return SqueezeExcite(hidden, squeezed, nn.Sigmoid)

            features.append(
                InvertedResidual(
                    channels,
                    channels * expansion,
                    outputs,
                    kernel,
                    first if index == 0 else 1,
                    gate=gate if gated else None,
                )
            )
            channels = outputs
    features.append(ConvNorm(channels, 1280))
    return Classifier(features, [nn.Linear(1280, IMAGENET_CLASSES)])


_SOURCE = "Tan et al., MnasNet: Platform-Aware Neural Architecture Search, CVPR 2019"
MNASNET_B1 = Entry(lambda: mnasnet(_B1), IMAGENET_SHAPE, InputKind.NORMALISED, _SOURCE)
MNASNET_A1 = Entry(lambda: mnasnet(_A1), IMAGENET_SHAPE, InputKind.NORMALISED, _SOURCE)
