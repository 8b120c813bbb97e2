# SPDX-License-Identifier: Apache-2.0
"""Kinds of activation."""

from __future__ import annotations

from typing import Literal

ACTIVATIONS = (
    "none", "relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid", "sigmoid", "silu",
    "gelu", "gelu_tanh", "tanh",
)  # fmt: skip
ActivationKind = Literal[
    "none", "relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid", "sigmoid", "silu",
    "gelu", "gelu_tanh", "tanh",
]  # fmt: skip
