# SPDX-License-Identifier: Apache-2.0
"""How activations are quantized."""

from __future__ import annotations

CLAMPS = ("none", "relu", "relu6")
"""Activations that are a clamp of the requantised value; the others go through a table."""

NON_NEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid")
"""Activations whose result is never below zero."""
