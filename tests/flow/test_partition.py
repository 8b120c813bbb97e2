# SPDX-License-Identifier: Apache-2.0
"""Networks whose middle the accelerator cannot do: the cut, its proof, the ARM side's build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codesign.flow.partition import partition, times
from codesign.ir import Graph, run_values
from codesign.ir.graph import Array
from codesign.space.accelerator import Accelerator
from codesign.space.device import load_device
from codesign.targets.fpga.arm_side import ArmSide, arm_graph, build_arm_side
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.compile.select import select
from codesign.targets.fpga.cores import cores_of
from codesign.targets.fpga.design import Hardware
from codesign.targets.fpga.model.run import Checked, compare_values, run_program
from tests.support.fpga import accelerator, random_inputs

torch = pytest.importorskip("torch")
DEVICE = load_device("ultra96")


@pytest.fixture(scope="module")
def gated() -> Graph:
    """A convolution, a squeeze-and-excitation gate with a sigmoid, a convolution, softmax."""
    from codesign.frontend.torch_export import import_module
    from codesign.passes.standard import prepare
    from codesign.quant import calibrate, quantize_graph
    from codesign.quant.formats import parse_formats

    class Gated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (torch.nn.Conv2d(i, 16, 3, padding=1) for i in (3, 16))
            self.squeeze, self.excite = torch.nn.Conv2d(16, 8, 1), torch.nn.Conv2d(8, 16, 1)

        def forward(self, x):
            x = torch.relu(self.a(x))
            gate = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
            x = torch.relu(self.b(x * torch.sigmoid(self.excite(gate))))
            return torch.softmax(x.mean((2, 3)), 1)

    torch.manual_seed(0)
    raise NotImplementedError
