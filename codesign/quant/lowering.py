# SPDX-License-Identifier: Apache-2.0
"""State of a lowering from float to integers: which value exists in which form.

Every float value can exist as integers (its planned format) and as floats; a form that a reader
needs and nobody made is made on the spot by a Quantize or Dequantize node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from codesign.errors import UnsupportedError
from codesign.ir import ops
from codesign.ir.graph import Array, Graph, GraphBuilder, Node
from codesign.ir.types import S32, DType
from codesign.quant.calibrate import Calibration
from codesign.quant.dyadic import FloatArray, dyadic, round_half_up
from codesign.quant.formats import LayerFormat
from codesign.quant.options import QuantOptions
from codesign.quant.plan import Plan, TensorFormat

S16 = DType("signed", 16)


@dataclass(frozen=True, slots=True)
class Held:
    """A value of the integer graph: value ≈ integer · scale."""

    name: str
    dtype: DType
    scale: float


@dataclass(eq=False)
class Lowering:
    """One lowering in progress."""

    graph: Graph
    calibration: Calibration
    plan: Plan
    formats: Mapping[str, LayerFormat]
    options: QuantOptions
    biases: Mapping[str, FloatArray]
    """Corrections added to the layers' biases."""
    builder: GraphBuilder
    scales: dict[str, Array] = field(default_factory=dict)
    """Scale of every integer value made so far (per channel for weights and accumulators)."""
    integers: dict[str, Held] = field(default_factory=dict)
    floats: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    """Nodes that a former one has taken in."""

    def name(self, node: str, suffix: str) -> str:
        """A name for a helper of ``node`` that no operator of the float graph has."""
        name = f"{node}.{suffix}"
        while name in self.graph.nodes and name not in self.graph.constants:
            name += "_"
        return name

    def add(self, op: ops.Op, inputs: Sequence[str], name: str, node: Node) -> str:
        """Add a node that stands for (a part of) ``node``."""
        return self.builder.add(op, inputs, name, node.source)

    def constant(self, node: Node, suffix: str, value: Array, dtype: DType) -> str:
        """Add a constant that belongs to ``node``."""
        return self.builder.constant(value, self.name(node.name, suffix), dtype, node.source)

    def target(self, value: str) -> TensorFormat:
        """The planned format of a float value."""
        return self.plan.formats[value]

    def hold(self, value: str, name: str, form: TensorFormat) -> None:
        """Note that ``name`` holds the float value ``value`` as integers."""
        self.integers[value] = Held(name, form.dtype, form.scale)
        self.scales[name] = np.array(form.scale)

    def as_int(self, value: str) -> Held:
        """The integers of a float value, quantized here if it only exists in float."""
        if value not in self.integers:
            if value in self.graph.constants:
                self._constant_to_int(value)
            else:
                form = self.target(value)
                node = self.graph.nodes[value]
                scale = self.constant(
                    node, "scale", np.array(form.scale, np.float32), DType("float", 32)
                )
                op = ops.Quantize(form.dtype)
                made = self.add(op, [self.as_float(value), scale], self.name(value, "q"), node)
                self.hold(value, made, form)
        return self.integers[value]

    def _constant_to_int(self, value: str) -> None:
        array = self.graph.constants[value].astype(np.float64)
        scale = float(np.float32(np.abs(array).max(initial=0) / 127)) or 1.0
        integers = np.clip(round_half_up(array / scale), -127, 127).astype(np.int8)
        dtype = DType("signed", 8)
        made = self.constant(self.graph.nodes[value], "q", integers, dtype)
        self.hold(value, made, TensorFormat(dtype, scale))

    def as_float(self, value: str) -> str:
        """The float form of a value, dequantized here if it only exists as integers."""
        if value not in self.floats:
            node = self.graph.nodes[value]
            if value in self.graph.constants:
                array = self.graph.constants[value]
                self.floats[value] = self.builder.constant(
                    array, value, node.type.dtype, node.source
                )
            else:
                held = self.integers[value]
                scale = self.constant(
                    node, "scale", np.array(held.scale, np.float32), DType("float", 32)
                )
                name = self.name(value, "dequantize")
                self.floats[value] = self.add(ops.Dequantize(), [held.name, scale], name, node)
        return self.floats[value]

    def requantize(
        self,
        node: Node,
        x: str,
        factor: float | FloatArray,
        suffix: str,
        dtype: DType,
        limits: tuple[int, int] | None = None,
        axis: int = -1,
    ) -> str:
        """Add a Requantize of ``x`` by ``factor`` (per position of ``axis``, or one)."""
        try:
            m, e = dyadic(factor)
        except ValueError as error:
            raise UnsupportedError(
                f"{self.graph.name}: {node.name!r} ({node.op.name}) cannot be rescaled to its "
                f"calibrated range: {error}; keep it in float or calibrate on more data"
            ) from None
        lo, hi = limits or (dtype.min, dtype.max)
        inputs = [
            x,
            self.constant(node, f"{suffix}.m", m, S32),
            self.constant(node, f"{suffix}.e", e, S32),
        ]
        op = ops.Requantize(dtype, lo, hi, axis)
        return self.add(op, inputs, self.name(node.name, suffix), node)

    def rescale(self, node: Node, held: Held, form: TensorFormat, suffix: str) -> str:
        """``held`` brought to another format; itself if it is in it already."""
        if (held.dtype, held.scale) == (form.dtype, form.scale):
            return held.name
        return self.requantize(node, held.name, held.scale / form.scale, suffix, form.dtype)
