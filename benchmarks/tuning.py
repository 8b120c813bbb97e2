#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tuner on whole networks: what it takes, and what the network gains, on fresh timings.

Each network is tuned within a budget (``--budget 5m``; ``0`` tunes nothing and takes what the
database has), then the network by the fixed rules, the one from the database and onnxruntime's
float run in turns in one process. Reported: wall clock of the tuner, its trials, and medians and
least of all timed calls. Weights are seeded random numbers. ``--formats float`` or a number format.

    python benchmarks/tuning.py --networks resnet8 --formats float --budget 3m --database t.sqlite
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign import zoo
from codesign.errors import CodesignError
from codesign.frontend import load_network
from codesign.ir.graph import Graph
from codesign.passes import prepare
from codesign.quant import calibrate, load_format, quantize_graph
from codesign.targets.host import HostTarget
from codesign.targets.tuning.tune import Budget

ROUND_SECONDS = 0.2
WARM_SECONDS = 0.05


def graph_of(name: str, form: str) -> tuple[Graph, npt.NDArray[np.float32]]:
    """The network, float or with all layers in one format, and an input."""
    graph = prepare().run(load_network(f"zoo:{name}").graph).graph
    x = zoo.load(name).example_inputs[0].numpy()
    if form == "float":
        return graph, x
    chosen = {layer.name: load_format(form) for layer in graph.layers()}
    return quantize_graph(graph, calibrate(graph, [x]), chosen).graph, x


def onnxruntime_float(
    name: str, threads: int, x: npt.NDArray[np.float32]
) -> Callable[[], Any]:
    """The float network in onnxruntime, all optimisations on."""
    import onnxruntime
    import torch

    model = zoo.load(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        program = torch.onnx.export(model.module, model.example_inputs, dynamo=True, verbose=False)
        assert program is not None
        program.save(path)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median and least milliseconds of each, from rounds in which all take their turn."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            while time.perf_counter() - start < WARM_SECONDS:
                call()
            start = last = time.perf_counter()
            while last - start < ROUND_SECONDS:
                call()
                now = time.perf_counter()
                samples[name].append((now - last) * 1e3)
                last = now
    return {
        name: {"median_ms": statistics.median(found), "least_ms": min(found)}
        for name, found in samples.items()
    }


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Tune a network, then time it in turns with what it was."""
    graph, x = graph_of(name, options.formats)
    target = HostTarget(tuning=options.database, threads=options.threads)
    result: dict[str, Any] = {"formats": options.formats, "budget": options.budget}
    if options.budget != "0":
        def notice(line: str, done: int, whole: int) -> None:
            print(line, file=sys.stderr, flush=True)

        start = time.perf_counter()
        result["tuner"] = asdict(target.tune(graph, Budget.parse(options.budget), notice))
        result["tuner"]["wall_seconds"] = time.perf_counter() - start
    if options.rounds:
        plain = HostTarget(tuned=False, threads=options.threads).runner(graph)
        start = time.perf_counter()
        tuned = target.runner(graph)
        result["compile_seconds"] = time.perf_counter() - start
        found, expected = tuned.run(x)[0], plain.run(x)[0]
        result["largest_difference"] = float(np.max(np.abs(found - expected)))
        result["largest_output"] = float(np.max(np.abs(expected)))
        calls = {"fixed_rules": plain.prepared(x), "tuned": tuned.prepared(x)}
        if options.onnxruntime:
            calls["onnxruntime_float"] = onnxruntime_float(name, target.machine().threads, x)
        result["times"] = in_turns(calls, options.rounds)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if every network was measured, 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="resnet8,resnet18")
    parser.add_argument("--formats", default="float", help="float, or a format for all layers")
    parser.add_argument("--budget", default="5m", help="trials (200) or time (60s, 5m); 0: none")
    parser.add_argument("--database", type=Path, default=None, help="by default the user's own")
    parser.add_argument("--rounds", type=int, default=12, help="0: only tune")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--onnxruntime", action="store_true", help="time its float network, too")
    options = parser.parse_args(arguments)
    try:
        networks = {name: measure(name, options) for name in options.networks.split(",")}
    except CodesignError as error:
        print(error, file=sys.stderr)
        return 2
    from codesign.targets.tvm_lower.machine import cpu_model, host_machine

    about = {
        "machine": f"{cpu_model()}, {options.threads} threads, {host_machine().isa}",
        "date": date.today().isoformat(), "how": "measured; fresh timings, in turns, batch 1",
    }  # fmt: skip
    print(json.dumps({**networks, "about": about}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
