# SPDX-License-Identifier: Apache-2.0
"""Small accelerators and what runs networks on their functional model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from codesign.ir import Graph, run_values
from codesign.ir.graph import Array
from codesign.space.accelerator import Accelerator, Buffer, Engine
from codesign.targets.fpga.compile import Program, compile_network
from codesign.targets.fpga.model.run import Checked, compare_values, run_program


def accelerator(
    pi: int = 8, po: int = 16, px: int = 4, depths: tuple[int, int, int] = (512, 512, 256),
    lanes: tuple[int, int] = (16, 2), dw_depths: tuple[int, int] = (256, 512), post: int = 8,
    dw_post: int = 8, double: bool = False, port: int = 64,
) -> Accelerator:  # fmt: skip
    """A dense engine of pi x po x px and a depthwise one."""
    weight, act, sums = (Buffer(d) for d in depths)
    dense = Engine("dense", pi, po, px, weight, act, sums, double=double, post=post,
                   multiplier="lut")  # fmt: skip
    other = Engine("depthwise", 1, *lanes, Buffer(dw_depths[0]), Buffer(dw_depths[1]),
                   post=dw_post, multiplier="lut")  # fmt: skip
    return Accelerator(dense, other, port)


def random_accelerator(rng: np.random.Generator) -> Accelerator:
    """Any lanes and depths that hardware can be made for."""

    def one(values: Sequence[int]) -> int:
        return int(rng.choice(values))

    return accelerator(
        one((4, 8, 16)), one((8, 16, 24)), one((1, 2, 3, 4, 7)),
        (one((64, 128, 512)), one((128, 256, 512)), one((32, 64, 256))),
        (one((8, 16)), one((1, 2, 4))), (one((128, 256)), one((128, 256))),
        one((4, 8, 16)), one((4, 8)), port=one((64, 128)),
    )  # fmt: skip


def random_inputs(graph: Graph, rng: np.random.Generator) -> dict[str, Array]:
    """Inputs that reach the ends of their formats."""
    found = {}
    for name in graph.inputs:
        kind = graph.type(name)
        if kind.dtype.is_float:
            found[name] = (3 * rng.standard_normal(kind.shape)).astype(np.float32)
        else:
            lo, hi = kind.dtype.min, kind.dtype.max
            values = rng.integers(lo, hi, kind.shape, endpoint=True)
            found[name] = values.astype(kind.dtype.numpy)
    return found


def check_network(
    graph: Graph, machine: Accelerator, inputs: Mapping[str, Array], program: Program | None = None
) -> Program:
    """Compile, run under the race detector, and compare every job and output bit for bit."""
    made = compile_network(graph, machine) if program is None else program
    reference = run_values(graph, inputs, keep="all")
    device = Checked(made)
    outputs = run_program(made, inputs, device)
    assert compare_values(made, device, reference) == []
    for name, found in zip(graph.outputs, outputs, strict=True):
        assert found.dtype == reference[name].dtype
        np.testing.assert_array_equal(found, reference[name], err_msg=name)
    return made
