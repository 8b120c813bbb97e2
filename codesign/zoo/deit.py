# SPDX-License-Identifier: Apache-2.0
"""DeiT-Ti (Touvron et al., ICML 2021) without the distillation token: a small ViT.

Attention is written out with matmul and softmax, so that it exports to simple operators.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codesign.zoo.entry import Entry, InputKind
from codesign.zoo.layers import IMAGENET_CLASSES, IMAGENET_SHAPE

_EPSILON = 1e-6


class MatMul(nn.Module):
    """A product of two activations, as a module so that hooks can see it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., M, K) times (..., K, N)."""
        return torch.matmul(a, b)


class Attention(nn.Module):
    """Multi-head self-attention; tokens (N, T, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.scores = MatMul()
        self.mix = MatMul()
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, T, C)."""
        count, tokens, width = x.shape
        q, k, v = self.qkv(x).split(width, dim=2)
        q, k, v = (
            part.reshape(count, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in (q, k, v)
        )
        weights = torch.softmax(self.scores(q * self.scale, k.transpose(2, 3)), dim=3)
        mixed = self.mix(weights, v).transpose(1, 2).reshape(count, tokens, width)
        y: Tensor = self.project(mixed)
        return y


class Encoder(nn.Module):
    """Layer norm before attention and before the two-layer perceptron, each with a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, _EPSILON)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, _EPSILON)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, T, C)."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.perceptron(self.norm2(x))
        return y


class Deit(nn.Module):
    """Patches to tokens, a class token, learned positions, ``depth`` encoders, a linear head."""

    def __init__(
        self,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        patch: int = 16,
        side: int = 224,
        classes: int = IMAGENET_CLASSES,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.encoders = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, _EPSILON)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, side, side) to logits (N, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.position
        x = self.norm(self.encoders(x))
        logits: Tensor = self.head(x[:, 0])
        return logits


DEIT_TINY = Entry(
    build=Deit,
    input_shape=IMAGENET_SHAPE,
    input_kind=InputKind.NORMALISED,
    source="Touvron et al., Training data-efficient image transformers, ICML 2021",
)
