# SPDX-License-Identifier: Apache-2.0
"""Small torch networks generated from a seed: the material of property tests.

Every seed gives a valid network; nothing is drawn and thrown away. Kernels are chosen to fit the
image they see, branches that meet are built to the same size.

>>> from tests.support.networks import random_network
>>> module, inputs = random_network(0)
>>> module(*inputs).shape[0]
1
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Pair = tuple[int, int]

INTEGER_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.SiLU, nn.Tanh,
    lambda: nn.LeakyReLU(0.1), nn.GELU, lambda: nn.GELU("tanh"),
)  # fmt: skip
"""Activations with an integer form: a clip or a table."""
FLOAT_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    *INTEGER_ACTIVATIONS, nn.Hardtanh, lambda: nn.Hardtanh(-0.5, 2.0),
)  # fmt: skip


class Residual(nn.Module):
    """activation(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that body and shortcut agree on."""
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


class Branches(nn.Module):
    """Concatenation of branches along the channels."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, sum of the branches' channels, H', W']."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class Gate(nn.Module):
    """Squeeze-excite: x * gate(expand(relu(reduce(mean(x)))))."""

    def __init__(self, channels: int, squeezed: int, gate: nn.Module, pooled: bool) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1) if pooled else None
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        s = x.mean((2, 3), keepdim=True) if self.pool is None else self.pool(x)
        y: Tensor = x * self.gate(self.expand(self.relu(self.reduce(s))))
        return y


class SplitJoin(nn.Module):
    """Channels in two parts; the second through ``body``; joined, in swapped order if asked."""

    def __init__(self, at: int, body: nn.Module, swap: bool, how: str) -> None:
        super().__init__()
        self.at, self.body, self.swap, self.how = at, body, swap, how

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        if self.how == "split":
            a, b = torch.split(x, [self.at, x.shape[1] - self.at], 1)
        elif self.how == "chunk":
            a, b = x.chunk(2, 1)
        elif self.how == "slice":
            a, b = x[:, : self.at], x[:, self.at :]
        else:
            a, b = x.narrow(1, 0, self.at), x.narrow(1, self.at, x.shape[1] - self.at)
        b = self.body(b)
        return torch.cat((b, a) if self.swap else (a, b), 1)


class Shuffle(nn.Module):
    """Channel shuffle: reshape, transpose, reshape."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Affine(nn.Module):
    """Arithmetic with scalars."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return (self.shift - x) / self.scale + x * 0.5 - 0.25


class Tokens(nn.Module):
    """Self-attention over pixels: layer norm, scaled dot product, linear projection."""

    def __init__(self, channels: int, fused: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels, bias=False)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        n, c, h, w = x.shape
        t = x.flatten(2).permute(0, 2, 1)
        q, k, v = self.qkv(self.norm(t)).chunk(3, dim=-1)
        if self.fused:
            q, k, v = (part.unsqueeze(1) for part in (q, k, v))  # one head
            mixed = nn.functional.scaled_dot_product_attention(q, k, v).squeeze(1)
        else:
            mixed = torch.softmax(q @ k.transpose(1, 2) * c**-0.5, dim=-1) @ v
        t = t + self.project(mixed)
        y: Tensor = t.transpose(1, 2).reshape(n, c, h, w)
        return y


class SpatialMean(nn.Module):
    """Mean over rows and columns."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C]."""
        return x.mean((2, 3))


@dataclass
class _State:
    """What the next block sees."""

    channels: int
    height: int
    width: int

    def conv(self, kernel: Pair, stride: Pair, reach: Pair, pad: tuple[int, int, int, int]) -> None:
        """Take the size through a window; ``reach`` is the dilated kernel."""
        top, left, bottom, right = pad
        self.height = (self.height + top + bottom - reach[0]) // stride[0] + 1
        self.width = (self.width + left + right - reach[1]) // stride[1] + 1


class _Maker:
    """Draws blocks; holds the size of the image at the point where it builds."""

    def __init__(self, rng: random.Random, integer: bool, ceil: bool, undisputed: bool) -> None:
        self.rng = rng
        self.integer = integer
        self.ceil = ceil
        self.undisputed = undisputed
        self.activations = INTEGER_ACTIVATIONS if integer else FLOAT_ACTIVATIONS
        self.s = _State(rng.randint(1, 4), rng.randint(6, 15), rng.randint(6, 15))

    def activation(self) -> nn.Module:
        return self.rng.choice(self.activations)()

    def finished(self, conv: nn.Conv2d) -> list[nn.Module]:
        """The convolution with batch norm and activation, or without."""
        layers: list[nn.Module] = [conv]
        if self.rng.random() < 0.6:
            layers.append(nn.BatchNorm2d(conv.out_channels, self.rng.choice((1e-5, 1e-3))))
        if self.rng.random() < 0.75:
            layers.append(self.activation())
        return layers

    def conv(self, outputs: int = 0, keep: bool = False) -> nn.Module:
        """A convolution of any kind; ``keep``: the image keeps its size."""
        rng, s = self.rng, self.s
        kind = rng.choice(("plain", "plain", "depthwise", "grouped"))
        outputs = outputs or rng.randint(2, 8)
        groups = 1
        if kind == "depthwise":
            groups, outputs = s.channels, s.channels * rng.randint(1, 2)
        elif kind == "grouped":
            groups = rng.choice([g for g in (2, 3, 4, 1) if s.channels % g == 0])
            outputs = groups * rng.randint(1, 3)
        return self._conv(outputs, groups, keep)

    def fitted(self, outputs: int) -> nn.Module:
        """A convolution with exactly ``outputs`` channels that keeps the image's size."""
        groups = self.rng.choice(
            [g for g in (1, 2, outputs) if outputs % g == 0 and self.s.channels % g == 0]
        )
        return self._conv(outputs, groups, keep=True)

    def _conv(self, outputs: int, groups: int, keep: bool) -> nn.Module:
        rng, s = self.rng, self.s
        bias, inputs = rng.random() < 0.6, s.channels
        kernel = rng.choice(((1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (3, 1), (2, 2), (4, 3)))
        dilation = rng.choice(((1, 1), (1, 1), (2, 2), (1, 2)))
        s.channels = outputs
        if keep:
            conv = nn.Conv2d(
                inputs, outputs, kernel, padding="same", dilation=dilation, groups=groups, bias=bias
            )
            return nn.Sequential(*self.finished(conv))
        stride = rng.choice(((1, 1), (1, 1), (2, 2), (2, 1), (3, 2)))
        reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
        size = (s.height, s.width)
        least = [max(0, r - n) for r, n in zip(reach, size)]  # so that the window fits
        if rng.random() < 0.3:  # asymmetric: a separate pad
            top, left = (rng.randint(0, k) for k in kernel)
            bottom, right = (rng.randint(0, k) + n for k, n in zip(kernel, least))
            conv = nn.Conv2d(inputs, outputs, kernel, stride, 0, dilation, groups, bias)
            s.conv(kernel, stride, (reach[0], reach[1]), (top, left, bottom, right))
            pad = nn.ZeroPad2d((left, right, top, bottom))
            return nn.Sequential(pad, *self.finished(conv))
        ph, pw = (rng.randint(0, k // 2) + n for k, n in zip(kernel, least))
        conv = nn.Conv2d(inputs, outputs, kernel, stride, (ph, pw), dilation, groups, bias)
        s.conv(kernel, stride, (reach[0], reach[1]), (ph, pw, ph, pw))
        return nn.Sequential(*self.finished(conv))

    def residual(self) -> nn.Module:
        rng, channels = self.rng, self.s.channels
        body: list[nn.Module] = [self.conv(keep=True)] if rng.random() < 0.6 else []
        last = self.fitted(channels)
        shortcut: nn.Module = nn.Identity()
        if rng.random() < 0.3:
            self.s.channels = channels
            shortcut = self.fitted(channels)
        activation = self.activation() if rng.random() < 0.6 else nn.Identity()
        return Residual(nn.Sequential(*body, last), shortcut, activation)

    def branches(self) -> nn.Module:
        rng, channels = self.rng, self.s.channels
        parts: list[nn.Module] = [nn.Identity()] if rng.random() < 0.3 else []
        total = channels * len(parts)
        for _ in range(rng.randint(2 - len(parts), 2)):
            self.s.channels = channels
            parts.append(self.conv(rng.randint(1, 4), keep=True))
            total += self.s.channels
        if rng.random() < 0.3:
            parts.append(nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Identity()))
            total += channels
        self.s.channels = total
        return Branches(parts)

    def gate(self) -> nn.Module:
        gate = self.rng.choice((nn.Sigmoid, nn.Hardsigmoid))()
        return Gate(self.s.channels, self.rng.randint(1, 4), gate, self.rng.random() < 0.5)

    def split(self) -> nn.Module:
        channels = self.s.channels
        if channels < 2:
            return self.conv()
        how = self.rng.choice(("split", "chunk", "slice", "narrow"))
        at = -(-channels // 2) if how == "chunk" else self.rng.randint(1, channels - 1)
        if how == "chunk" and at == channels:
            how = "split"
        self.s.channels = channels - at
        body = self.fitted(channels - at)
        self.s.channels = channels
        return SplitJoin(at, body, self.rng.random() < 0.5, how)

    def shuffle(self) -> nn.Module:
        return Shuffle(next(g for g in (3, 2, 1) if self.s.channels % g == 0))

    def pool(self) -> nn.Module:
        rng, s = self.rng, self.s
        k = rng.randint(2, 3)
        if min(s.height, s.width) < k:
            return self.conv()
        stride, pad, ceil = rng.randint(1, 3), rng.randint(0, k // 2), rng.random() < 0.4
        ceil = ceil and self.ceil
        module: nn.Module
        if rng.random() < 0.5:
            module = nn.MaxPool2d(k, stride, pad, ceil_mode=ceil)
        else:
            module = nn.AvgPool2d(k, stride, pad, ceil, count_include_pad=rng.random() < 0.5)
        return self._measured(module)

    def _measured(self, module: nn.Module) -> nn.Module:
        """Let torch say how a module without parameters changes the size."""
        shape = module(torch.zeros(1, self.s.channels, self.s.height, self.s.width)).shape
        self.s = _State(*shape[1:])
        return module

    def pad(self) -> nn.Module:
        rng = self.rng
        kinds = ["zero"] if self.integer else ["zero", "constant", "reflect", "replicate"]
        kind = rng.choice(kinds)
        sides = [rng.randint(0, 2) for _ in range(4)]
        if kind == "reflect":  # at most size - 1
            w, h = self.s.width - 1, self.s.height - 1
            sides = [min(n, most) for n, most in zip(sides, (w, w, h, h))]
        left, right, top, bottom = sides
        padding = (left, right, top, bottom)
        modules: dict[str, nn.Module] = {
            "zero": nn.ZeroPad2d(padding),
            "constant": nn.ConstantPad2d(padding, 0.75),
            "reflect": nn.ReflectionPad2d(padding),
            "replicate": nn.ReplicationPad2d(padding),
        }
        return self._measured(modules[kind])

    def upsample(self) -> nn.Module:
        rng = self.rng
        if max(self.s.height, self.s.width) > 16:
            return self.pool()
        if self.integer or rng.random() < 0.5:
            if rng.random() < 0.5:
                return self._measured(nn.Upsample(scale_factor=2))
            size = (self.s.height + rng.randint(0, 4), self.s.width + rng.randint(0, 4))
            if self.undisputed:
                size = (2 * self.s.height, 3 * self.s.width)
            return self._measured(nn.Upsample(size=size))
        corners = rng.random() < 0.5
        return self._measured(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=corners))

    def affine(self) -> nn.Module:
        return Affine(self.rng.uniform(0.5, 2.0), self.rng.uniform(-1.0, 1.0))

    def tokens(self) -> nn.Module:
        return Tokens(self.s.channels, self.rng.random() < 0.5)

    def head(self) -> list[nn.Module]:
        rng, s = self.rng, self.s
        kind = rng.choice(("mean", "pool", "max", "flatten", "none"))
        if kind == "none":
            return []
        layers: list[nn.Module]
        if kind == "mean":
            layers, features = [SpatialMean()], s.channels
        elif kind == "pool":
            layers, features = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1)], s.channels
        elif kind == "max":
            layers, features = [nn.AdaptiveMaxPool2d(1), nn.Flatten(1)], s.channels
        else:
            layers, features = [nn.Flatten(1)], s.channels * s.height * s.width
        if rng.random() < 0.3:
            layers.append(nn.Dropout(0.5))
        if rng.random() < 0.5:
            width = rng.randint(3, 12)
            layers += [nn.Linear(features, width), self.activation()]
            features = width
        layers.append(nn.Linear(features, rng.randint(2, 10), bias=rng.random() < 0.8))
        if not self.integer and rng.random() < 0.2:
            layers.append(nn.Softmax(1))
        return layers


def random_network(
    seed: int,
    *,
    quantizable_only: bool = False,
    blocks: int = 0,
    batch: int = 1,
    ceil_pools: bool = True,
    undisputed: bool = False,
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A small network in eval mode and one example input [batch, C, H, W], both by ``seed``.

    ``quantizable_only`` leaves out what stays float in an integer network (attention, layer norm,
    softmax, bilinear resize, pads other than zero, scalar arithmetic). ``blocks``: how many
    blocks (0: two to five, drawn). ``ceil_pools``: whether pools may round their size up.
    ``undisputed`` leaves out what torch and onnxruntime disagree about (nearest resize by
    fractions).
    Batch norms hold statistics near those of their real inputs.
    """
    rng = random.Random(seed)
    maker = _Maker(rng, quantizable_only, ceil_pools, undisputed)
    inputs = (maker.s.channels, maker.s.height, maker.s.width)
    makers: list[Callable[[], nn.Module]] = [
        maker.conv, maker.conv, maker.conv, maker.residual, maker.residual, maker.branches,
        maker.gate, maker.split, maker.shuffle, maker.pool, maker.pad, maker.upsample,
    ]  # fmt: skip
    if not quantizable_only:
        makers += [maker.affine, maker.tokens]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [maker.conv()]
        layers += [rng.choice(makers)() for _ in range(blocks or rng.randint(2, 5))]
        module = nn.Sequential(*layers, *maker.head())
        _initialise(module, rng, torch.randn(4, *inputs))
        example = torch.randn(batch, *inputs)
    return module.requires_grad_(False), (example,)


def _initialise(module: nn.Module, rng: random.Random, images: Tensor) -> None:
    """He weights, non-zero biases, batch norms that fit their inputs but not exactly."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            if m.bias is not None:
                nn.init.normal_(m.bias, std=0.2)
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
    with torch.no_grad():
        module.train()
        module(images)
    for norm in norms:
        norm.momentum = 0.1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
        # the floor keeps a dead channel from being blown up by 1 / sqrt(eps)
        norm.running_var.mul_(rng.uniform(0.8, 1.25)).add_(0.05)
    module.eval()
