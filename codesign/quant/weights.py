# SPDX-License-Identifier: Apache-2.0
"""Weights and biases as integers: symmetric, narrow range, one scale per output channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.ir.graph import Array
from codesign.quant.dyadic import FloatArray
from codesign.quant.options import WeightClip

_SHARES = np.linspace(1.0, 0.4, 37)
"""Clipping ranges that are tried, as shares of a channel's greatest magnitude."""
_BIAS_LIMIT = 1 << 30
"""Greatest magnitude of an integer bias: half of s32, the rest is left to the products."""
_DEAD_BIAS = 1 << 15
"""Magnitude that the bias of a channel without weights is brought to."""


def weight_limit(bits: int) -> int:
    """Greatest integer weight; the least is its negative.

    >>> [weight_limit(bits) for bits in (2, 4, 8)]
    [1, 7, 127]
    """
    return (1 << (bits - 1)) - 1


def weight_scales(weight: Array, bits: int, clip: WeightClip = "auto") -> FloatArray:
    """Scale of each output channel (axis 0), exact in float32; 0 for channels of zeros."""
    flat = weight.reshape(weight.shape[0], -1).astype(np.float64)
    limit = weight_limit(bits)
    full = np.abs(flat).max(axis=1, initial=0) / limit
    if clip == "mse" or (clip == "auto" and bits <= 4):
        best = np.full(len(full), np.inf)
        chosen = full.copy()
        for share in _SHARES:
            scale = _float32(full * share)
            error = ((_levels(flat, scale, limit) * scale[:, None] - flat) ** 2).sum(axis=1)
            better = error < best
            best, chosen = np.where(better, error, best), np.where(better, scale, chosen)
        full = chosen
    return _float32(full)


def _float32(values: FloatArray) -> FloatArray:
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def _levels(flat: FloatArray, scale: FloatArray, limit: int) -> FloatArray:
    step = np.where(scale > 0, scale, 1.0)[:, None]
    return np.clip(np.floor(flat / step + 0.5), -limit, limit)


def integer_weights(weight: Array, bits: int, scale: FloatArray) -> npt.NDArray[np.int8]:
    """clip(floor(w / scale + 1/2)) with each channel's scale; the shape of ``weight``."""
    flat = weight.reshape(weight.shape[0], -1).astype(np.float64)
    return _levels(flat, scale, weight_limit(bits)).astype(np.int8).reshape(weight.shape)


def rounded_weights(weight: Array, bits: int, clip: WeightClip = "auto") -> Array:
    """The float weights that ``bits`` bits can express (fake quantization); float32."""
    scale = weight_scales(weight, bits, clip)
    flat = weight.reshape(weight.shape[0], -1).astype(np.float64)
    levels = _levels(flat, scale, weight_limit(bits))
    return (levels * scale[:, None]).astype(np.float32).reshape(weight.shape)


def layer_scales(
    weight: Array,
    bias: FloatArray,
    bits: int,
    input_scale: float,
    clip: WeightClip,
    given: Array | None = None,
) -> FloatArray:
    """Weight scales that also keep every integer bias within 2^30.

    A channel whose weights are all zero (or tiny beside its bias) gets a greater scale.
    """
    scale = weight_scales(weight, bits, clip)
    if given is not None and bits == 8:
        scale = np.where(scale > 0, np.broadcast_to(given, scale.shape), 0.0)
    dead = scale == 0
    least = np.where(dead, np.abs(bias) / _DEAD_BIAS, np.abs(bias) / _BIAS_LIMIT) / input_scale
    raised = _float32(np.maximum(scale, least))
    floor = float(np.finfo(np.float32).tiny)
    return np.where(dead & (bias == 0), 1.0, np.maximum(raised, floor))


def integer_bias(layer: str, bias: FloatArray, scale: FloatArray) -> npt.NDArray[np.int32]:
    """floor(bias / scale + 1/2) as int32; raises InputError naming the layer if it does not fit."""
    values = np.floor(bias / scale + 0.5)
    if not np.all(np.abs(values) < 2**31):
        raise InputError(
            f"layer {layer!r}: bias {float(np.abs(bias).max()):g} needs more than 32 bits at "
            f"scale {float(scale.min()):g}; keep the layer in float"
        )
    return values.astype(np.int32)
