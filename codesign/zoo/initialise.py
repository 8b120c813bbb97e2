# SPDX-License-Identifier: Apache-2.0
"""Seeded random weights that behave like trained ones as far as arithmetic goes.

He-initialised convolutions, uneven batch-norm gains, and batch-norm statistics taken from the
network's own activations on image-like input. Every layer then sees values of order one, at any
depth, and a relative error of the output means something.

The statistics are computed in float64 and rounded to 12 bits of mantissa, so that they do not
depend on the number of threads or on the convolution kernels of a machine.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from codesign.zoo.entry import Entry, example_images

_CALIBRATION_PIXELS = 3 * 224 * 224
"""Three images of ImageNet size, more of a smaller size; the full side, for the sake of borders."""
_CALIBRATION_IMAGES = 64
_SHRINK = 0.3
"""Part of a channel's variance that is replaced by the mean over channels (few samples)."""


def build(entry: Entry) -> nn.Module:
    """The module of ``entry`` on the CPU in eval mode, its parameters not yet written."""
    with torch.device("meta"):
        module = entry.build()
    return module.to_empty(device="cpu").eval()


def initialise(module: nn.Module, entry: Entry, seed: int) -> None:
    """Write all parameters and statistics of ``module``; equal seeds give equal weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        owned: set[int] = set()
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                fan_in = layer.weight[0].numel()
                gain = 2.0 if isinstance(layer, nn.Conv2d) else 1.0
                layer.weight.normal_(0.0, math.sqrt(gain / fan_in), generator=generator)
                if layer.bias is not None:
                    layer.bias.normal_(0.0, 0.1, generator=generator)
            elif isinstance(layer, (_BatchNorm, nn.LayerNorm)):
                layer.weight.log_normal_(0.0, 0.25, generator=generator)
                layer.bias.normal_(0.0, 0.2, generator=generator)
                if isinstance(layer, _BatchNorm):
                    layer.reset_running_stats()
            else:
                continue
            owned.update(id(parameter) for parameter in layer.parameters(recurse=False))
        for parameter in module.parameters():
            if id(parameter) not in owned:  # class token, position embedding
                parameter.normal_(0.0, 0.3, generator=generator)
    if any(isinstance(layer, _BatchNorm) for layer in module.modules()):
        _calibrate(module, entry, seed)


def _calibrate(module: nn.Module, entry: Entry, seed: int) -> None:
    """Set the running statistics from one batch, layer by layer in order of execution."""
    _, channels, height, width = entry.input_shape
    count = min(_CALIBRATION_IMAGES, max(1, _CALIBRATION_PIXELS // (height * width)))
    shape = (count, channels, height, width)
    batch = example_images(shape, entry.input_kind, seed + 1, torch.float64)

    def set_statistics(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(layer, _BatchNorm)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        variance = (1.0 - _SHRINK) * variance + _SHRINK * variance.mean()
        layer.running_mean.copy_(_round_mantissa(mean))
        layer.running_var.copy_(_round_mantissa(variance))

    hooks = [
        layer.register_forward_pre_hook(set_statistics)
        for layer in module.modules()
        if isinstance(layer, _BatchNorm)
    ]
    module.double()
    try:
        with torch.no_grad():
            module(batch)
    finally:
        module.float()
        for hook in hooks:
            hook.remove()


def _round_mantissa(values: Tensor, bits: int = 12) -> Tensor:
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2**bits).round(), exponent - bits)
