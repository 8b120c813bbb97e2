# SPDX-License-Identifier: Apache-2.0
"""A small network with real images, shared by the tests of the main path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from codesign.data import digits
from codesign.frontend import load_network
from codesign.quant.torch_exec import run_torch


@dataclass(frozen=True)
class Files:
    """Data files for ``zoo:digits`` with its random weights."""

    calib: Path
    eval: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Scikit-learn's digits; labels are what the float network says, so its accuracy is 100 %."""
    folder = tmp_path_factory.mktemp("data")
    data = digits()
    graph = load_network("zoo:digits", batch=64).graph
    x = data.test_x[:256]
    y = np.concatenate([run_torch(graph, [x[i : i + 64]])[0].argmax(1) for i in range(0, 256, 64)])
    np.savez(folder / "calib.npz", x=data.calib_x[:64])
    np.savez(folder / "eval.npz", x=x, y=y)
    return Files(folder / "calib.npz", folder / "eval.npz")
