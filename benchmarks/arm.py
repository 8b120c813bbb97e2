#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Integer networks on ARM boards without a board: exactness under QEMU and modelled figures.

Each network is quantized (calibrated on real images), cross-compiled for each board, run on real
images under QEMU and compared with the reference interpreter. ``--counts`` adds the instructions
of one call, ``--loops`` what llvm-mca says of each layer's inner loop. Nothing here is measured on
a board: instruction counts and cycles are labelled modelled.

Images are CIFAR-10's test images; networks for 224 pixels get them enlarged and cropped. ResNet8
has MLPerf Tiny's weights, the others random ones, so for them this says nothing of accuracy.

    python benchmarks/arm.py --networks resnet8,resnet18 --boards rpi3,rpi4,rpi5 --images 4 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.data import cifar10, data_root
from codesign.frontend import load_network
from codesign.ir.graph import Graph
from codesign.ir.interpret import run
from codesign.passes import prepare
from codesign.quant import calibrate, load_format, quantize_graph
from codesign.targets import TARGETS
from codesign.targets.arm.icount import count_instructions
from codesign.targets.arm.mca import layer_loop
from codesign.targets.arm.target import ArmTarget

Array = npt.NDArray[Any]
MEAN, SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""What ImageNet networks expect their images to be normalised with."""


def images(count: int, shape: tuple[int, ...], split: Any = "test") -> Array:
    """Real images [count, 1, 3, h, w]; raw pixels for 32, normalised and enlarged for more."""
    pixels = cifar10(split)[0][:count].astype(np.float32)
    side = shape[-1]
    if side == pixels.shape[-1]:
        return pixels[:, None]
    times = -(-side // pixels.shape[-1])
    pixels = (pixels / 255 - MEAN[:, None, None]) / SPREAD[:, None, None]
    large = pixels.repeat(times, axis=2).repeat(times, axis=3)[:, None, :, :side, :side]
    return np.ascontiguousarray(large, np.float32)


def integer_network(name: str, format: str) -> Graph:
    """A zoo network in one number format, calibrated on training images."""
    weights = data_root() / "mlperf_tiny" / "resnet8_cifar10.h5" if name == "resnet8" else None
    floats = prepare().run(load_network(f"zoo:{name}", weights=weights).graph).graph
    shape = floats.type(floats.inputs[0]).shape
    samples = images(32 if shape[-1] <= 32 else 4, shape, "train")
    calibration = calibrate(floats, list(samples))
    formats = {node.name: load_format(format) for node in floats.layers()}
    return quantize_graph(floats, calibration, formats).graph


def check(graph: Graph, target: ArmTarget, folder: Path, count: int) -> dict[str, Any]:
    """Build ``graph`` for a board and compare it with the reference on ``count`` real images."""
    start = time.perf_counter()
    target.build(graph, folder)
    built = time.perf_counter()
    runner = target.load(folder)
    wrong = size = 0
    seconds = 0.0
    for x in images(count, graph.type(graph.inputs[0]).shape):
        expected = run(graph, x)
        before = time.perf_counter()
        found = runner.run(x)
        seconds += time.perf_counter() - before
        wrong += sum(int((a != b).sum()) for a, b in zip(found, expected, strict=True))
        size += sum(a.size for a in expected)
    return {
        "board": target.name, "images": count, "outputs": size, "mismatches": wrong,
        "build_s": round(built - start, 2), "qemu_s_per_image": round(seconds / count, 2),
    }  # fmt: skip


def main() -> int:
    """Print a table or JSON; exit code 1 if an output differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default="resnet8,resnet18,mobilenetv2")
    parser.add_argument("--boards", default="rpi3,rpi4,rpi5")
    parser.add_argument("--format", default="w8a8")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--counts", action="store_true", help="count instructions of one call")
    parser.add_argument("--loops", action="store_true", help="llvm-mca over every layer")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = []
    for name in asked.networks.split(","):
        graph = integer_network(name, asked.format)
        for board in asked.boards.split(","):
            target = TARGETS.load(board)()
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / board
                row = {"network": name, "format": asked.format}
                row |= check(graph, target, folder, asked.images)
                if asked.counts:
                    counts = count_instructions(folder, target.board, calls=1)
                    row["modelled_instructions"] = counts.total
                    row["modelled_counts"] = asdict(counts)
            if asked.loops:
                row["modelled_loops"] = loops(graph, target)
            rows.append(row)
            if not asked.json:
                print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
    if asked.json:
        json.dump({"arm": rows}, sys.stdout, indent=2)
        print()
    return 1 if any(row["mismatches"] for row in rows) else 0


def loops(graph: Graph, target: ArmTarget) -> dict[str, float]:
    """Modelled multiply-accumulates a cycle of each layer's inner loop, one core."""
    return {
        node.name: round(layer_loop(graph, node.name, target.board, target.machine()).rate, 2)
        for node in graph.layers()
    }


if __name__ == "__main__":
    sys.exit(main())
