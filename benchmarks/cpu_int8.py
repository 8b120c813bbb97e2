#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whole int8 networks on this CPU against onnxruntime and torch, interleaved in one process.

Batch 1, one thread a core for everyone. In every round each program runs in turn: calls that do not
count, then timed calls; reported are medians over all timed calls. onnxruntime's int8 is measured
with u8 and with s8 activations (per-channel s8 weights), and the best one counts. Weights
and calibration data are seeded random numbers: the figures are about time alone. Ours equals the
integer reference bit for bit (``--check``). onnxruntime's u8 · s8 saturates on CPUs without VNNI;
its documentation advises 7-bit weights there (``u8s7``, its option ``reduce_range``). Both are
measured, and how far their outputs are from the same file computed in floating point is told.

With ``--formats w8a8,w7a8`` our network is measured with 7-bit weights, too: they are multiplied by
the same instruction as onnxruntime's, without saturating.

    python benchmarks/cpu_int8.py --networks resnet18,mobilenetv2 --formats w8a8,w7a8 --json
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
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign import zoo
from codesign.errors import CodesignError
from codesign.frontend import load_network
from codesign.ir import interpret
from codesign.ir.graph import Graph
from codesign.passes import prepare
from codesign.quant import calibrate, load_format, quantize_graph
from codesign.targets.host import HostTarget

INT8 = ("u8s8", "u8s7", "s8s8")
"""onnxruntime's integer forms: types of activations and weights."""
NETWORKS = ("resnet18", "mobilenetv2", "resnet8", "mobilenetv1", "resnet50", "efficientnet_lite0")
WARM_SECONDS = 0.05
"""Each round: calls that do not count, at least one, so that thread pools are awake."""
ROUND_SECONDS = 0.15


@dataclass
class Contender:
    """One program that runs the network."""

    name: str
    call: Callable[[], Any]
    samples: list[float] = field(default_factory=list)
    """Milliseconds a call."""

    def round(self) -> None:
        """Warm up, then time single calls."""
        start = time.perf_counter()
        self.call()
        while time.perf_counter() - start < WARM_SECONDS:
            self.call()
        start = last = time.perf_counter()
        while last - start < ROUND_SECONDS:
            self.call()
            now = time.perf_counter()
            self.samples.append((now - last) * 1e3)
            last = now

    @property
    def median(self) -> float:
        """Median milliseconds."""
        return statistics.median(self.samples)


def graphs(name: str, form: str) -> tuple[Graph, Graph, npt.NDArray[np.float32]]:
    """The float graph, its integer form, and an input."""
    graph = prepare().run(load_network(f"zoo:{name}").graph).graph
    x = zoo.load(name).example_inputs[0].numpy()
    chosen = {layer.name: load_format(form) for layer in graph.layers()}
    return graph, quantize_graph(graph, calibrate(graph, [x]), chosen).graph, x


def ours(options: argparse.Namespace, x: npt.NDArray[np.float32], integers: dict[str, Graph],
         floating: Graph) -> tuple[list[Contender], bool | None]:  # fmt: skip
    """Our integer networks by format and the float one; whether all integer ones were found exact.

    The first format goes by the name ``codesign_int8``, another by its own.
    """
    target = HostTarget(threads=options.threads)
    exact = True if options.check else None
    contenders = []
    for index, (form, integer) in enumerate(integers.items()):
        runner = target.runner(integer)
        if options.check:
            found, expected = runner.run(x), interpret.run(integer, x)
            same = all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
            exact = exact and same
        label = f"codesign_{form}" if index else "codesign_int8"
        contenders.append(Contender(label, runner.prepared(x)))
    if not options.no_torch:
        contenders.append(Contender("codesign_float", target.runner(floating).prepared(x)))
    return contenders, exact


def onnx_files(name: str, folder: Path) -> dict[str, Path]:
    """The network as ONNX: float, and quantized in each of ``INT8``."""
    import onnx
    import torch
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = zoo.load(name)
    files = {key: folder / f"{name}-{key}.onnx" for key in ("raw", "float", *INT8)}
    program = torch.onnx.export(model.module, model.example_inputs, dynamo=True, verbose=False)
    assert program is not None
    program.save(files["raw"])
    quant_pre_process(str(files["raw"]), str(files["float"]))
    feed = onnx.load(files["float"]).graph.input[0].name
    x = model.example_inputs[0].numpy()
    for key in INT8:

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            rows = iter([{feed: x}])

            def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
                return next(self.rows, None)

        kind = quantization.QuantType.QInt8 if key == "s8s8" else quantization.QuantType.QUInt8
        quantization.quantize_static(
            str(files["float"]), str(files[key]), Reader(), per_channel=True,
            activation_type=kind, weight_type=quantization.QuantType.QInt8,
            reduce_range=key == "u8s7",
        )  # fmt: skip
    return files


def onnxruntime_contenders(
    files: dict[str, Path], threads: int, x: npt.NDArray[np.float32]
) -> list[Contender]:
    """onnxruntime in float and in its int8 forms, all optimisations on."""
    import onnxruntime

    found = []
    for key, path in files.items():
        if key == "raw":
            continue
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
        feed = {session.get_inputs()[0].name: x}
        found.append(Contender(f"onnxruntime_{key}", lambda s=session, f=feed: s.run(None, f)))
    return found


def onnxruntime_errors(
    files: dict[str, Path], x: npt.NDArray[np.float32]
) -> dict[str, float]:
    """How far the integer kernels' outputs are from the same quantized network computed with
    quantize and dequantize in float32, where nothing saturates: root mean square of the
    difference over that of the output."""
    import onnxruntime

    found = {}
    for key in INT8:
        results = []
        for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
            settings = onnxruntime.SessionOptions()
            settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            session = onnxruntime.InferenceSession(
                str(files[key]), settings, providers=["CPUExecutionProvider"]
            )
            results.append(session.run(None, {session.get_inputs()[0].name: x})[0])
        fast, exact = results
        found[key] = float(np.sqrt(np.mean((fast - exact) ** 2) / np.mean(exact**2)))
    return found


def torch_contenders(
    name: str, options: argparse.Namespace, x: npt.NDArray[np.float32]
) -> list[Contender]:
    """torch eager, channels-last and, if asked for, inductor."""
    import torch

    torch.set_num_threads(options.threads)
    module, example = zoo.load(name).module.eval(), torch.from_numpy(x)
    last = zoo.load(name).module.eval().to(memory_format=torch.channels_last)
    swapped = example.to(memory_format=torch.channels_last)

    def guarded(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode():
                return function(*arguments)

        return call

    found = [
        Contender("torch", guarded(module, example)),
        Contender("torch_channels_last", guarded(last, swapped)),
    ]
    if options.inductor:
        compiled = torch.compile(zoo.load(name).module.eval())
        call = guarded(compiled, example)
        try:
            call()
        except Exception as error:  # whatever its code generator raised
            print(f"{name}: inductor does not work here: {error}", file=sys.stderr)
        else:
            found.append(Contender("torch_inductor", call))
    return found


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders on one network."""
    print(f"{name}: preparing", file=sys.stderr)
    forms = options.formats.split(",")
    found = {form: graphs(name, form) for form in forms}
    floating, _, x = found[forms[0]]
    integers = {form: integer for form, (_, integer, _) in found.items()}
    mine, exact = ours(options, x, integers, floating)
    with tempfile.TemporaryDirectory() as folder:
        files = onnx_files(name, Path(folder))
        contenders = [
            *mine,
            *onnxruntime_contenders(files, options.threads, x),
            *([] if options.no_torch else torch_contenders(name, options, x)),
        ]
        errors = onnxruntime_errors(files, x)
        print(f"{name}: {options.rounds} rounds of {len(contenders)} programs", file=sys.stderr)
        for _ in range(options.rounds):
            for contender in contenders:
                contender.round()
    times = {contender.name: contender.median for contender in contenders}
    result: dict[str, Any] = {f"{key}_ms": value for key, value in times.items()}
    result["onnxruntime_int8_ms"] = min(times[f"onnxruntime_{key}"] for key in INT8)
    result["onnxruntime_relative_error"] = errors
    result["least_ms"] = {c.name: min(c.samples) for c in contenders}
    result["samples"] = {c.name: len(c.samples) for c in contenders}
    result["exact"] = exact
    int8 = result["codesign_int8_ms"]
    shown = ", ".join(f"{key} {value:.2f}" for key, value in times.items())
    print(f"{name}: medians, ms: {shown}", file=sys.stderr, flush=True)
    result["times_faster_than"] = {
        key.removesuffix("_ms"): result[key] / int8
        for key in ("codesign_float_ms", "onnxruntime_int8_ms", "onnxruntime_float_ms", "torch_ms")
        if key in result
    }
    return result


def machine() -> str:
    """Processor, cores, and what is used of it."""
    from codesign.targets.tvm_lower.machine import cpu_model, host_machine

    return f"{cpu_model()}, {os.cpu_count()} cores, instruction set {host_machine().isa}"


def show(report: dict[str, Any]) -> None:
    """The report as text."""
    print(f"{report['machine']}, {report['date']}; {report['how']}")
    for name, row in report["networks"].items():
        times = {k.removesuffix("_ms"): v for k, v in row.items() if k.endswith("_ms")}
        del times["least"]
        print(f"{name}: exact: {row['exact']}")
        for key, value in row["onnxruntime_relative_error"].items():
            print(f"    onnxruntime {key}: off by {value:.1%} of its output")
        for key, value in sorted(times.items(), key=lambda item: item[1]):
            print(f"    {key:24}{value:9.2f} ms{value / row['codesign_int8_ms']:8.2f}x")


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if every network was measured (and exact, if checked), 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--formats", default="w8a8",
                        help="number formats of all layers: a network each; the first one counts")
    parser.add_argument("--no-torch", action="store_true", help="leave torch and our float out")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--inductor", action="store_true", help="torch.compile, too (minutes)")
    parser.add_argument("--check", action="store_true", help="compare with the reference, too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        networks = {name: measure(name, options) for name in options.networks.split(",")}
    except CodesignError as error:
        print(error, file=sys.stderr)
        return 2
    report = {
        "machine": machine(),
        "date": date.today().isoformat(),
        "how": f"measured; medians of {options.rounds} interleaved rounds, batch 1, "
               f"{options.threads} threads, {options.formats}",
        "networks": networks,
    }  # fmt: skip
    if options.json:
        print(json.dumps({**networks, "about": {k: report[k] for k in ("machine", "date", "how")}},
                         indent=2))
    else:
        show(report)
    return 0 if all(row["exact"] is not False for row in networks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
