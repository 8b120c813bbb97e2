# SPDX-License-Identifier: Apache-2.0
"""Parts that several families share. All tensors are NCHW."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

Activation = Callable[[], nn.Module]
IMAGENET_SHAPE = (1, 3, 224, 224)
IMAGENET_CLASSES = 1000


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, never below 90 % of ``value`` (MobileNet's rule).

    >>> make_divisible(18), make_divisible(28), make_divisible(11)
    (24, 32, 16)
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, and an activation if given; padding kernel // 2."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = nn.ReLU,
        epsilon: float = 1e-5,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, epsilon),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


class SqueezeExcite(nn.Module):
    """Channel gate: x * gate(W2 relu(W1 mean(x))) (Hu et al., 2018), with 1x1 convolutions."""

    def __init__(self, channels: int, squeezed: int, gate: Activation) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        scale = self.expand(self.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        y: Tensor = x * self.gate(scale)
        return y


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, optional gate, 1x1 projection (MobileNetV2).

    The expansion is left out where ``hidden == inputs``; the input is added where the shape
    allows and ``residual`` does not forbid it. No activation follows the projection.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        stride: int,
        activation: Activation = nn.ReLU,
        gate: Callable[[int], nn.Module] | None = None,
        residual: bool = True,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(ConvNorm(inputs, hidden, activation=activation, epsilon=epsilon))
        layers.append(ConvNorm(hidden, hidden, kernel, stride, hidden, activation, epsilon))
        if gate is not None:
            layers.append(gate(hidden))
        layers.append(ConvNorm(hidden, outputs, activation=None, epsilon=epsilon))
        self.layers = nn.Sequential(*layers)
        self.residual = residual and stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class Classifier(nn.Module):
    """A chain of feature layers, global average pooling, and a head of linear layers."""

    def __init__(self, features: Sequence[nn.Module], head: Sequence[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.head = nn.Sequential(*head)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, classes)."""
        logits: Tensor = self.head(self.flatten(self.pool(self.features(x))))
        return logits
