# SPDX-License-Identifier: Apache-2.0
"""How much each layer suffers in each number format: the additive loss table of the solver.

A layer's loss in wNaM is the harm of its weights in N bits plus its share of the harm of the
tensor it reads in M bits (layers that read one tensor have equal shares, so that the sum over
them counts it once).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph
from codesign.quant.calibrate import Calibration, calibrate
from codesign.quant.data import Batch, check_batch
from codesign.quant.formats import LayerFormat
from codesign.quant.integer import check_weights
from codesign.quant.options import QuantOptions
from codesign.quant.sensitivity.cache import Cache, array_digest, graph_digest
from codesign.quant.sensitivity.weight_error import (
    relative_activation_error,
    relative_weight_error,
    weight_error,
)

if TYPE_CHECKING:
    from codesign.quant.sensitivity.probe import Distance, Probe

SensitivityMethod = Literal["hessian", "measured", "noise", "weight-only"]
METHODS: tuple[SensitivityMethod, ...] = get_args(SensitivityMethod)
SAMPLES = 256
HESSIAN_DRAWS = 100
Table = dict[str, dict[LayerFormat, float]]


def sensitivity(
    graph: Graph,
    data: Batch | None,
    formats: Sequence[LayerFormat],
    method: SensitivityMethod = "measured",
    *,
    labels: Array | None = None,
    calibration: Calibration | None = None,
    options: QuantOptions | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    cache_dir: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Loss of every layer of a prepared float network in every format; 0 for ``float``.

    Methods: ``hessian`` (½ · Tr(H)/n · ‖Q(w) − w‖², in nats), ``measured`` (increase of the
    cross entropy with ``labels``, else Kullback-Leibler divergence from the float outputs, in
    nats), ``noise`` (mean squared error of the outputs), ``weight-only`` (relative squared
    error, needs no data). The first ``samples`` of ``data`` are used.

    With ``cache_dir`` every single figure is kept under the hash of network, data and options,
    so an interrupted run goes on where it was. ``progress`` gets (done, total) figures.
    """
    if method not in METHODS:
        raise InputError(f"unknown sensitivity method {method!r} (known: {', '.join(METHODS)})")
    check_weights(graph)
    options = options or QuantOptions()
    if method == "weight-only":
        return _weight_only(graph, formats)
    if data is None:
        raise InputError(
            f"sensitivity method {method!r} needs calibration data; without any use 'weight-only'"
        )
    images = {k: v[:samples] for k, v in check_batch(graph, data, "sensitivity data").items()}
    count = len(next(iter(images.values())))
    labels = None if labels is None else labels[:samples]
    if labels is not None and len(labels) != count:
        raise InputError(f"sensitivity data: {count} samples, but {len(labels)} labels")
    calibration = calibration or calibrate(graph, [images])
    context = repr((
        graph_digest(graph), [array_digest(v) for v in images.values()], array_digest(labels),
        options.method, options.weight_clip, options.bias_correction,
        sorted(options.scales.items()), seed,
    ))  # fmt: skip

    from codesign.quant.sensitivity.probe import Probe, divergence, square_error

    work = _Work(
        probe=Probe(graph, calibration, images, labels, options),
        cache=Cache(None if cache_dir is None else Path(cache_dir), context),
        formats=[form for form in formats if not form.is_float],
        progress=progress,
    )
    if method == "hessian":
        parts = work.hessian(seed)
    else:
        parts = work.probed(method, divergence if method == "measured" else square_error)
    return work.table(formats, parts)


def _weight_only(graph: Graph, formats: Sequence[LayerFormat]) -> Table:
    table: Table = {}
    for node in graph.layers():
        weight = graph.constants[node.inputs[1]]
        errors = {
            bits: relative_weight_error(weight, bits)
            for bits in {f.weight_bits for f in formats if f.weight_bits is not None}
        }
        table[node.name] = {
            f: 0.0 if f.weight_bits is None or f.act_bits is None
            else errors[f.weight_bits] + relative_activation_error(f.act_bits)
            for f in formats
        }  # fmt: skip
    return table


Parts = Mapping[tuple[str, int], float]
"""Harm of a layer's weights, or of a root's activations, at a number of bits."""


@dataclass
class _Work:
    """One run of a method that needs data."""

    probe: Probe
    cache: Cache
    formats: Sequence[LayerFormat]
    progress: Callable[[int, int], None] | None

    def __post_init__(self) -> None:
        graph = self.probe.graph
        self.root_of = {n.name: self.probe.roots[n.inputs[0]] for n in graph.layers()}
        self.roots = list(dict.fromkeys(self.root_of.values()))
        self.weight_bits = sorted({f.weight_bits for f in self.formats if f.weight_bits})
        self.act_bits = sorted({f.act_bits for f in self.formats if f.act_bits})

    def _jobs(self) -> list[tuple[str, str, int]]:
        jobs = [("weights", layer, b) for layer in self.root_of for b in self.weight_bits]
        return jobs + [("activations", root, b) for root in self.roots for b in self.act_bits]

    def _step(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def probed(self, method: str, distance: Distance) -> Parts:
        """Each figure from running the network with one tensor rounded."""
        jobs = self._jobs()
        parts: dict[tuple[str, int], float] = {}
        for index, (kind, name, bits) in enumerate(jobs):
            run = self.probe.weights if kind == "weights" else self.probe.activations

            def compute(run: Any = run, name: str = name, bits: int = bits) -> float:
                return float(run(name, bits, distance))

            key = (method, kind, name, bits)
            parts[self._place(kind, name), bits] = float(self.cache.remember(key, compute))
            self._step(index + 1, len(jobs))
        return parts

    @staticmethod
    def _place(kind: str, name: str) -> str:
        return name if kind == "weights" else f"{name}:input"

    def hessian(self, seed: int) -> Parts:
        """Each figure from the mean curvature and the squared error."""
        from codesign.quant.sensitivity.hessian import activation_errors, mean_curvatures

        probe, total = self.probe, len(self.probe.pieces) + len(self.roots)
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            self._step(done, total)

        curvature = self.cache.remember(
            ("hessian", "mean curvature", HESSIAN_DRAWS),
            lambda: mean_curvatures(
                probe, list(self.root_of), self.roots, HESSIAN_DRAWS, seed, step
            ),
        )
        parts: dict[tuple[str, int], float] = {}
        for layer in self.root_of:
            weight = probe.graph.constants[probe.graph.nodes[layer].inputs[1]]
            for bits in self.weight_bits:
                harm = 0.5 * curvature["weights"][layer] * weight_error(weight, bits)
                parts[layer, bits] = max(0.0, harm)
        for root in self.roots:

            def errors(root: str = root) -> dict[str, float]:
                found = activation_errors(probe, root, self.act_bits)
                return {str(b): e for b, e in found.items()}

            error = self.cache.remember(("hessian", "error", root, self.act_bits), errors)
            for bits in self.act_bits:
                harm = 0.5 * curvature["activations"][root] * error[str(bits)]
                parts[f"{root}:input", bits] = max(0.0, harm)
            step()
        return parts

    def table(self, formats: Sequence[LayerFormat], parts: Parts) -> Table:
        """Losses per layer and format from the parts."""
        sharing = {root: list(self.root_of.values()).count(root) for root in self.roots}
        return {
            layer: {
                f: 0.0 if f.weight_bits is None or f.act_bits is None
                else parts[layer, f.weight_bits]
                + parts[f"{root}:input", f.act_bits] / sharing[root]
                for f in formats
            }
            for layer, root in self.root_of.items()
        }  # fmt: skip
