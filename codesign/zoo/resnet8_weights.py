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
from codesign.zoo.resnet8 import CONVOLUTIONS


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of ``codesign.zoo.resnet8.ResNet8`` from one of the published files."""
    return _read_h5(path)


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


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
