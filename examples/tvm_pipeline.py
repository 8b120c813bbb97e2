# SPDX-License-Identifier: Apache-2.0
"""codesign's passes inside a TVM pipeline of one's own.

    python examples/tvm_pipeline.py

A network is imported by TVM's torch frontend, quantized, two of its layers are given to an
accelerator (here: the reference interpreter in its place), the rest is lowered to our kernels,
and TVM's default pipeline builds it. The result equals the integer reference bit for bit.
"""

from __future__ import annotations

import numpy as np
import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

import codesign.tvm
from codesign import zoo
from codesign.ir.interpret import run


def main() -> None:
    """Build ResNet8 and compare."""
    loaded = zoo.load("resnet8", None, 0)
    x = loaded.example_inputs[0]
    program = torch.export.export(loaded.module.eval(), (x,))
    module = from_exported_program(program, keep_params_as_input=False)

    module = codesign.tvm.quantize(formats="w8a8", calib=x.numpy())(module)
    wanted = run(codesign.tvm.integer_graph(module), x.numpy())[0]
    layers = [node.name for node in codesign.tvm.integer_graph(module).layers()]

    module = tvm.transform.Sequential(
        [
            codesign.tvm.partition(layers[1:3], "demo"),
            codesign.tvm.lower_int8(),
        ]
    )(module)
    for symbol, part in codesign.tvm.partitions(module).items():
        print(f"{symbol}: {', '.join(node.name for node in part.layers())}")
    codesign.tvm.simulate(module)  # a driver registers its own functions under these names

    built = tvm.compile(module, codesign.tvm.target())
    result = relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.tensor(x.numpy()))
    print("equal to the integer reference:", np.array_equal(result[0].numpy(), wanted))


if __name__ == "__main__":
    main()
