# SPDX-License-Identifier: Apache-2.0
"""Readers of MLPerf Tiny's published ResNet8 weight files (Keras ``.h5``, ``.tflite``)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codesign.errors import InputError
from codesign.zoo.resnet8 import CONVOLUTIONS, EPSILON
from codesign.zoo.tflite import read_tflite


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of ``codesign.zoo.resnet8.ResNet8`` from one of the published files."""
    return _read_h5(path) if path.suffix.lower() == ".h5" else _read_tflite(path)


def _read_h5(path: Path) -> dict[str, Tensor]:
    """Keras layers are named conv2d, conv2d_1, ...; kernels lie HWIO and are turned to OIHW."""
    state: dict[str, Tensor] = {}
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"]

            def array(layer: str, item: str) -> NDArray[np.float32]:
                return np.asarray(root[f"{layer}/{layer}/{item}:0"], np.float32)

            norm = 0
            for index, (conv, bn) in enumerate(CONVOLUTIONS):
                layer = "conv2d" + (f"_{index}" if index else "")
                state[f"{conv}.weight"] = _tensor(array(layer, "kernel").transpose(3, 2, 0, 1))
                state[f"{conv}.bias"] = _tensor(array(layer, "bias"))
                if not bn:
                    continue
                layer = "batch_normalization" + (f"_{norm}" if norm else "")
                norm += 1
                for ours, theirs in (
                    ("weight", "gamma"),
                    ("bias", "beta"),
                    ("running_mean", "moving_mean"),
                    ("running_var", "moving_variance"),
                ):
                    state[f"{bn}.{ours}"] = _tensor(array(layer, theirs))
            state["fc.weight"] = _tensor(array("dense", "kernel").T)
            state["fc.bias"] = _tensor(array("dense", "bias"))
    except (OSError, KeyError) as error:
        raise InputError(
            f"weights file {path.name!r} is not MLPerf Tiny's Keras ResNet8: {error}"
        ) from error
    return state


def _read_tflite(path: Path) -> dict[str, Tensor]:
    """TFLite kernels lie OHWI with the batch norms folded in, so ours become the identity.

    An int8 file gives its dequantized weights: its rounding, in a float network.
    """
    model = read_tflite(path)
    try:
        found = [
            [model.tensors[index].values() for index in operator.inputs[1:3] if index >= 0]
            for operator in model.operators
            if operator.kind in ("CONV_2D", "FULLY_CONNECTED")
        ]
    except IndexError as error:
        raise InputError(f"weights file {path.name!r}: {error}") from error
    expected = len(CONVOLUTIONS) + 1
    if len(found) != expected or any(
        len(pair) != 2 or pair[0].ndim not in (2, 4) for pair in found
    ):
        raise InputError(
            f"weights file {path.name!r} is not MLPerf Tiny's ResNet8: {len(found)} biased "
            f"convolutions and linear layers, expected {expected}"
        )
    state: dict[str, Tensor] = {}
    for (conv, bn), (kernel, bias) in zip(CONVOLUTIONS, found[:-1], strict=True):
        if kernel.ndim != 4:
            raise InputError(f"weights file {path.name!r}: {conv} has shape {kernel.shape}")
        state[f"{conv}.weight"] = _tensor(kernel.transpose(0, 3, 1, 2))
        state[f"{conv}.bias"] = _tensor(bias)
        if bn:
            ones, zeros = torch.ones(len(bias)), torch.zeros(len(bias))
            state[f"{bn}.weight"] = ones
            state[f"{bn}.bias"] = zeros
            state[f"{bn}.running_mean"] = zeros.clone()
            state[f"{bn}.running_var"] = ones - EPSILON
    state["fc.weight"], state["fc.bias"] = (_tensor(array) for array in found[-1])
    return state


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32, order="C"))
