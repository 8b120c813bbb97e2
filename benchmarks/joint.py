#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The joint problem on FPGA boards: certified optima, seconds with tables, peak memory, growth.

For every network and board: least modelled latency over all accelerators that fit, formats of
every layer, tilings, loop orders and fused chains, under a loss limit between the least and the
greatest total loss. The loss is weight-only (relative quantization error of the zoo's weights, with
a stand-in for activations); seconds include generating accelerators and filling tables, and leave
out reading the network. Growth: the same with fewer accelerators, and with the network repeated.

    python benchmarks/joint.py --networks mobilenetv2,resnet18 --boards ultra96,pynq-z2 --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from dataclasses import replace
from typing import Any

from codesign.flow.joint import JointResult, joint_problem
from codesign.flow.joint import solve as solve_joint
from codesign.frontend import load_network
from codesign.passes import prepare
from codesign.quant.formats import parse_formats
from codesign.quant.sensitivity import sensitivity
from codesign.space.generate import SpaceOptions
from codesign.space.workload import Chain, Workload, workload_of

NETWORKS = "resnet8,resnet18,mobilenetv2,mnasnet_a1,fbnet_c"
FORMATS = "w8a8,w8a4,w4a8,w4a4"
Loss = dict[str, dict[str, float]]


def load(name: str, formats: str) -> tuple[Workload, Loss]:
    """The workload of a zoo network and its weight-only losses."""
    network = load_network(f"zoo:{name}")
    graph = prepare().run(network.graph).graph
    table = sensitivity(graph, None, parse_formats(formats), "weight-only")
    loss = {layer: {str(f): value for f, value in row.items()} for layer, row in table.items()}
    return workload_of(graph, name), loss


def repeated(workload: Workload, loss: Loss, times: int) -> tuple[Workload, Loss]:
    """The network ``times`` in a row."""
    layers, chains, ops = [], [], []
    losses: Loss = {}
    count = len(workload.layers)
    for n in range(times):

        def move(place: int | None, by: int = n * count) -> int | None:
            return None if place is None else place + by

        for layer in workload.layers:
            layers.append(replace(layer, name=f"{n}.{layer.name}", reads=f"{n}.{layer.reads}"))
            losses[f"{n}.{layer.name}"] = loss[layer.name]
        for c in workload.chains:
            chains.append(
                Chain(move(c.expand), c.depthwise + n * count, move(c.project), c.local_residual)
            )
        ops += [replace(op, name=f"{n}.{op.name}") for op in workload.vector_ops]
    return Workload(workload.name, tuple(layers), tuple(chains), tuple(ops)), losses


def row(result: JointResult, seconds: float) -> dict[str, Any]:
    """What is printed of one solve."""
    proof = result.certificate
    found: dict[str, Any] = {
        "status": str(proof.status),
        "gap": None if proof.gap is None else float(proof.gap),
        "accelerators": proof.generated,
        "undominated": proof.undominated,
        "solved": proof.solved,
        "pruned": proof.pruned,
        "tabled": proof.tabled,
        "seconds": seconds,
        "seconds_tables": proof.seconds_tables,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    if result.accelerator is not None and result.resources is not None:
        counts: dict[str, int] = {}
        for layer in result.layers:
            counts[layer.format] = counts.get(layer.format, 0) + 1
        found |= {
            "latency_ms_modelled": result.latency_ms,
            "fps_modelled": result.fps,
            "fused_chains": len(result.chains),
            "formats": counts,
            "accelerator": result.accelerator.name,
            "dsp_modelled": result.resources.dsp,
            "lut_modelled": result.resources.lut,
            "ramb18_modelled": result.resources.ramb18,
        }
    return found


def solve(
    workload: Workload, loss: Loss, board: str, budget: float, formats: str = FORMATS,
    space: SpaceOptions | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One certified solve."""
    start = time.perf_counter()
    problem = joint_problem(
        workload, board, formats=formats, loss=loss, loss_budget=budget, space=space
    )
    result = solve_joint(problem)
    return row(result, time.perf_counter() - start)


def growth(name: str, board: str, budget: float) -> dict[str, Any]:
    """Seconds against accelerators and against layers."""
    workload, loss = load(name, FORMATS)
    full = SpaceOptions()
    spaces = {
        "quarter": replace(full, weight_depths=(512, 1024), activation_depths=(512, 2048, 8192)),
        "half": replace(full, activation_depths=(512, 2048, 8192)),
        "full": full,
        "more": replace(full, post=(4, 8, 16, 32)),
    }
    accelerators = [
        {"space": label, **solve(workload, loss, board, budget, space=options)}
        for label, options in spaces.items()
    ]
    layers = [
        {"layers": n * len(workload.layers), **solve(*repeated(workload, loss, n), board, budget)}
        for n in (1, 2, 4)
    ]
    return {"network": name, "board": board, "accelerators": accelerators, "layers": layers}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--boards", default="ultra96,pynq-z2")
    parser.add_argument("--formats", default=FORMATS)
    parser.add_argument("--loss-budget", type=float, default=0.5)
    parser.add_argument("--growth", default="", help="network for the growth figures")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    boards = options.boards.split(",")
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
        "formats": options.formats,
        "loss": "weight-only",
        "loss_budget": options.loss_budget,
        "networks": {},
    }
    if not options.json:
        print(f"{report['machine']}, {report['date']}; latency modelled, loss weight-only")
    for name in filter(None, options.networks.split(",")):
        workload, loss = load(name, options.formats)
        report["networks"][name] = {}
        for board in boards:
            found = solve(workload, loss, board, options.loss_budget, options.formats)
            report["networks"][name][board] = found
            if not options.json:
                print(
                    f"{name:13} {board:9} {found['status']:9} "
                    f"{found.get('latency_ms_modelled', float('nan')):9.3f} ms "
                    f"{found['seconds']:6.2f} s (tables {found['seconds_tables']:.2f}) "
                    f"{found['accelerators']:>8} accelerators, {found['undominated']} undominated, "
                    f"{found['solved']} solved, {found['pruned']} pruned, "
                    f"{found['peak_gib']:.2f} GiB"
                )
    if options.growth:
        report["growth"] = growth(options.growth, boards[0], options.loss_budget)
        if not options.json:
            for item in report["growth"]["accelerators"]:
                print(f"{item['accelerators']:>8} accelerators {item['seconds']:6.2f} s")
            for item in report["growth"]["layers"]:
                print(f"{item['layers']:>8} layers       {item['seconds']:6.2f} s")
    if options.json:
        print(json.dumps(report, indent=2))
    solved = [found for rows in report["networks"].values() for found in rows.values()]
    return 0 if all(found["status"] == "optimal" for found in solved) else 1


if __name__ == "__main__":
    sys.exit(main())
