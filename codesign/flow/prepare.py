# SPDX-License-Identifier: Apache-2.0
"""From the user's options to what every later step works on: graph, data, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from codesign import __version__
from codesign.errors import InputError, UnsupportedError
from codesign.flow.options import DesignOptions
from codesign.flow.progress import Progress
from codesign.flow.store import digest, file_digest
from codesign.frontend import load_network
from codesign.ir.analysis import layer_stats
from codesign.ir.graph import Graph
from codesign.ir.types import F32
from codesign.passes import prepare as prepare_pipeline
from codesign.quant import (
    Calibration,
    LayerFormat,
    QuantOptions,
    calibrate,
    load_calibration,
    load_eval,
)
from codesign.quant.data import batches, check_batch, whole_batches
from codesign.quant.formats import parse_formats
from codesign.quant.histogram import Method
from codesign.quant.qdq import QdqImport, absorb_qdq
from codesign.solvers import registry as SOLVERS
from codesign.targets import TARGETS
from codesign.targets.base import Target

Array = npt.NDArray[Any]

CALIBRATION_BATCH = 64


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network ready to be quantized, with its data."""

    name: str
    graph: Graph
    """Float graph after the standard passes."""
    imported: QdqImport
    """Scales that the network brought along (QDQ)."""
    network_hash: str
    options: DesignOptions
    formats: Mapping[str, LayerFormat]
    target: Target
    calib: Array | None
    """Calibration inputs [samples, ...]; None when the user gave none."""
    eval: tuple[Array, Array] | None
    input_digest: str
    """Key of everything the design depends on: network, data, options."""

    @cached_property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of each layer with weights."""
        layers = {node.name for node in self.graph.layers()}
        return {s.name: s.macs for s in layer_stats(self.graph) if s.name in layers}

    def range_data(self) -> Array:
        """What activation ranges are taken from: calibration inputs, or seeded noise.

        Noise gives a runnable integer network, not an accurate one; reports say so.
        """
        if self.calib is not None:
            return self.calib
        return noise_inputs(self.graph, whole_batches(self.graph, 16), self.options.seed)

    @property
    def quant_options(self) -> QuantOptions:
        """How networks are quantized; biases are corrected on calibration data only."""
        return QuantOptions(
            method=cast(Method, self.options.calibration),
            bias_correction=self.options.bias_correction and self.calib is not None,
            scales=self.imported.scales_in(self.graph),
            weight_scales=self.imported.weight_scales,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the inputs; stands in the design and the report."""
        missing = "no calibration data was given: activation ranges come from random inputs, so "
        missing += "the integer network runs but its accuracy means nothing (--calib)"
        return (*self.imported.notes, *(() if self.calib is not None else (missing,)))

    @property
    def data_name(self) -> str:
        """What messages call the calibration data."""
        return f"calibration file {self.options.calib}" if self.options.calib else "noise"

    def calibrate(self, progress: Progress) -> Calibration:
        """Activation ranges of every value over the calibration inputs."""
        data = self.range_data()
        with progress.task(f"Calibrating on {len(data)} inputs") as step:
            return calibrate(
                self.graph,
                batches(data, whole_batches(self.graph, CALIBRATION_BATCH)),
                progress=lambda done: step(done, len(data)),
                where=self.data_name,
            )


def prepare(options: DesignOptions, progress: Progress) -> Prepared:
    """Load and check network, data and target; run the standard passes."""
    options.require_files()
    target = device_target(options)
    if options.solver != "auto":
        SOLVERS.load(options.solver).require()  # now, not after minutes of measuring
    formats = parse_formats(",".join(options.formats))
    with progress.task(f"Loading {options.network}"):
        network = load_network(
            options.network, batch=options.batch, weights=options.weights, seed=options.seed
        )
    _require_float(network.graph, options.network)
    imported = absorb_qdq(network.graph)
    if imported.scales and options.equalise:
        raise InputError(
            f"--equalise: {options.network} brings its own activation scales, which equalisation "
            "would make wrong; leave one of the two out"
        )
    graph = prepare_pipeline(equalise=options.equalise).run(imported.graph).graph
    require_one_input(graph, options.network)
    if not graph.layers():
        raise UnsupportedError(
            f"{options.network}: no convolution or linear layer with constant weights, "
            "so there is no number format to choose"
        )
    missing = target.unsupported(graph)
    if missing:
        raise UnsupportedError(
            f"target {target.name!r} cannot take {len(missing)} operators of {options.network}:\n"
            + "\n".join(f"  {item}" for item in missing)
        )
    calib = None
    if options.calib is not None:
        calib = load_calibration(options.calib)
        calib = calib[: whole_batches(graph, min(options.samples, len(calib)))]
    labelled = None
    if options.eval is not None:
        labelled = load_eval(options.eval)
        check_batch(graph, labelled[0], f"{options.eval}")
    data = options.to_data()
    for path in ("weights", "calib", "eval"):
        data[path] = None if data[path] is None else file_digest(getattr(options, path))
    for path in ("jobs", "rpc", "explain"):  # how, not what: the device is told by its key
        data.pop(path)
    return Prepared(
        name=network.name,
        graph=graph,
        imported=imported,
        network_hash=network.content_hash,
        options=options,
        formats=dict(zip(options.formats, formats)),
        target=target,
        calib=calib,
        eval=labelled,
        input_digest=digest(__version__, network.content_hash, sorted(data.items(), key=str)),
    )


def load_target(name: str) -> Target:
    """The target of that name; raises InputError for an unknown one."""
    loaded = TARGETS.load(name)
    target: Target = loaded() if isinstance(loaded, type) else loaded
    return target


def device_target(options: DesignOptions) -> Target:
    """The options' target, on the device behind ``rpc`` where one is named."""
    target = load_target(options.target)
    if options.rpc is None:
        if options.rpc_key is not None:
            raise InputError(f"--rpc-key {options.rpc_key}: also give --rpc HOST:PORT")
        return target
    from codesign.targets.rpc import Device, RemoteTarget

    return RemoteTarget(target, Device.parse(options.rpc, options.rpc_key))


def _require_float(graph: Graph, source: str) -> None:
    """A design starts from float weights; an integer network has its formats already."""
    for node in graph.layers():
        kind = graph.type(node.inputs[1]).dtype
        if not kind.is_float:
            raise InputError(
                f"{source}: layer {node.name!r} has {kind} weights already; give the float "
                "network, or one quantized with QDQ pairs"
            )


def require_one_input(graph: Graph, source: str) -> None:
    """Data files hold one array ``x``, so the network must take one float input."""
    if len(graph.inputs) != 1 or graph.type(graph.inputs[0]).dtype != F32:
        found = ", ".join(f"{n}: {graph.type(n)}" for n in graph.inputs)
        raise InputError(
            f"{source}: expected one float32 input, got {len(graph.inputs)} ({found}); "
            "wrap the network so that it takes one tensor"
        )


def noise_inputs(graph: Graph, count: int, seed: int) -> Array:
    """Standard normal inputs [count, ...] for a graph with one input."""
    shape = graph.type(graph.inputs[0]).shape[1:]
    return np.random.default_rng(seed).standard_normal((count, *shape), np.float32)
