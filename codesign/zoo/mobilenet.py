# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 (Howard et al., 2017), V2 (Sandler et al., 2018) and V3 (Howard et al., 2019)."""

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
    make_divisible,
)

_V3_EPSILON = 1e-3
_V1_BLOCKS = (
    # outputs, stride
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
_V2_STAGES = (
    # expansion, outputs, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_V3_LARGE = (
    # kernel, hidden, outputs, gated, hard swish, stride
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_V3_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


def mobilenet_v1() -> nn.Module:
    """Width 1.0: thirteen pairs of depthwise 3x3 and pointwise convolution."""
    features: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
    channels = 32
    for outputs, stride in _V1_BLOCKS:
        features += [ConvNorm(channels, channels, 3, stride, channels), ConvNorm(channels, outputs)]
        channels = outputs
    return Classifier(features, [nn.Linear(channels, IMAGENET_CLASSES)])


def mobilenet_v2() -> nn.Module:
    """Width 1.0: seventeen inverted residuals with linear bottlenecks and ReLU6."""
    features: list[nn.Module] = [ConvNorm(3, 32, 3, 2, activation=nn.ReLU6)]
    channels = 32
    for expansion, outputs, blocks, first in _V2_STAGES:
        for index in range(blocks):
            stride = first if index == 0 else 1
            features.append(
                InvertedResidual(channels, channels * expansion, outputs, 3, stride, nn.ReLU6)
            )
            channels = outputs
    features.append(ConvNorm(channels, 1280, activation=nn.ReLU6))
    return Classifier(features, [nn.Linear(1280, IMAGENET_CLASSES)])


def _gate(hidden: int) -> nn.Module:
    return SqueezeExcite(hidden, make_divisible(hidden // 4), nn.Hardsigmoid)


def mobilenet_v3(
    blocks: Sequence[tuple[int, int, int, bool, bool, int]], head_width: int
) -> nn.Module:
    """Inverted residuals with squeeze-excite and hard swish; a two-layer head."""
    features: list[nn.Module] = [
        ConvNorm(3, 16, 3, 2, activation=nn.Hardswish, epsilon=_V3_EPSILON)
    ]
    channels = 16
    for kernel, hidden, outputs, gated, hard_swish, stride in blocks:
        features.append(
            InvertedResidual(
                channels,
                hidden,
                outputs,
                kernel,
                stride,
                nn.Hardswish if hard_swish else nn.ReLU,
                _gate if gated else None,
                epsilon=_V3_EPSILON,
            )
        )
        channels = outputs
    last = 6 * channels
    features.append(ConvNorm(channels, last, activation=nn.Hardswish, epsilon=_V3_EPSILON))
    return Classifier(
        features,
        [nn.Linear(last, head_width), nn.Hardswish(), nn.Linear(head_width, IMAGENET_CLASSES)],
    )


MOBILENET_V1 = Entry(
    build=mobilenet_v1,
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Howard et al., MobileNets, arXiv:1704.04861",
)
MOBILENET_V2 = Entry(
    build=mobilenet_v2,
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Sandler et al., MobileNetV2, CVPR 2018, arXiv:1801.04381",
)
MOBILENET_V3_LARGE = Entry(
    build=lambda: mobilenet_v3(_V3_LARGE, 1280),
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244",
)
MOBILENET_V3_SMALL = Entry(
    build=lambda: mobilenet_v3(_V3_SMALL, 1024),
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244",
)
