# SPDX-License-Identifier: Apache-2.0
"""From a float network and a number format per layer to the integer network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph, GraphBuilder
from codesign.ir.types import F32
from codesign.quant.bias import bias_shifts
from codesign.quant.calibrate import Calibration
from codesign.quant.dyadic import FloatArray
from codesign.quant.formats import LayerFormat
from codesign.quant.lower_ops import lower_node
from codesign.quant.lowering import Lowering
from codesign.quant.options import QuantOptions
from codesign.quant.plan import plan


@dataclass(frozen=True, eq=False)
class Quantized:
    """An integer network and how its values relate to the float network's."""

    graph: Graph
    """float input → Quantize → integers → Dequantize → float output; layers keep their names."""
    scales: Mapping[str, Array]
    """For each integer value of ``graph`` its step: float64, () or one per channel."""
    formats: Mapping[str, LayerFormat]
    """Format of each layer."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Value of the float network to the integer value that stands for it."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights and biases of all layers (float ones: 4 a number)."""
        names = {
            value for node in self.graph.layers()
            for value in node.inputs[1:] if value in self.graph.constants
        }  # fmt: skip
        return sum(self.graph.type(name).bytes for name in names)


def quantize_graph(
    graph: Graph,
    calibration: Calibration,
    formats: Mapping[str, LayerFormat],
    options: QuantOptions | None = None,
) -> Quantized:
    """The integer network by the semantics of DESIGN, section 3.

    ``graph`` is a prepared float network (batch norm folded, activations and residuals fused),
    ``formats`` names each of its layers with weights. Operators without an integer form, and
    layers in format ``float``, run in float between Dequantize and Quantize.

    Raises InputError for formats that do not fit the network, UnsupportedError where integers
    cannot hold it (accumulators over 32 bits), naming the layer.
    """
    options = options or QuantOptions()
    check_weights(graph)
    first = _lower(graph, calibration, formats, options, {})
    if not options.bias_correction:
        return first
    shifts = bias_shifts(first.graph, first.scales, formats, calibration)
    return _lower(graph, calibration, formats, options, shifts) if shifts else first


def _lower(
    graph: Graph,
    calibration: Calibration,
    formats: Mapping[str, LayerFormat],
    options: QuantOptions,
    biases: Mapping[str, FloatArray],
) -> Quantized:
    low = Lowering(
        graph=graph,
        calibration=calibration,
        plan=plan(graph, calibration, formats, options),
        formats=formats,
        options=options,
        biases=biases,
        builder=GraphBuilder(graph.name),
    )
    for node in graph.nodes.values():
        lower_node(low, node)
    outputs = [low.as_float(name) for name in graph.outputs]
    made = low.builder.finish(outputs)
    values = {value: held.name for value, held in low.integers.items()}
    return Quantized(made, low.scales, dict(formats), values)


def check_weights(graph: Graph) -> None:
    """Raise InputError if a constant of ``graph`` is NaN or infinite; names the layer."""
    for name, value in graph.constants.items():
        if graph.type(name).dtype != F32 or np.isfinite(value).all():
            continue
        readers = ", ".join(graph.users[name]) or "nothing"
        bad = int(value.size - np.isfinite(value).sum())
        raise InputError(
            f"{graph.name}: {bad} of {value.size} values of {name!r} (read by {readers}) are "
            "NaN or infinite; the network cannot be quantized"
        )
