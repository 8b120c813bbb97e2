# SPDX-License-Identifier: Apache-2.0
"""The integer format of every value of a float network, before anything is lowered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError
from codesign.ir import ops
from codesign.ir.graph import Graph, Node
from codesign.ir.types import DType
from codesign.quant.calibrate import Calibration
from codesign.quant.formats import LayerFormat
from codesign.quant.groups import non_negative, passes_through, roots
from codesign.quant.options import QuantOptions

DEFAULT_BITS = 8
"""Of tensors that no layer with weights reads."""
OUTPUT_HEADROOM = 2.0
"""Results of 16 bits are given this multiple of the calibrated range: saturation would tie
classes, and a bit of 16 is cheap."""


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """How a value is held as integers: value ≈ integer · scale."""

    dtype: DType
    scale: float


@dataclass(frozen=True, eq=False)
class Plan:
    """Formats of all values (by name), and what the analysis found."""

    formats: Mapping[str, TensorFormat]
    non_negative: Mapping[str, bool]
    roots: Mapping[str, str]


def check_formats(graph: Graph, formats: Mapping[str, LayerFormat]) -> None:
    """Raise InputError unless ``formats`` names every layer, nothing else, with equal M where
    layers read one tensor."""
    layers = {node.name for node in graph.layers()}
    missing, unknown = sorted(layers - set(formats)), sorted(set(formats) - layers)
    if missing:
        raise InputError(f"{graph.name}: no format for layers {', '.join(missing)}")
    if unknown:
        raise InputError(
            f"{graph.name}: formats for {', '.join(unknown)}, which are no layers with weights"
        )


def plan(
    graph: Graph,
    calibration: Calibration,
    formats: Mapping[str, LayerFormat],
    options: QuantOptions,
) -> Plan:
    """Bits, sign and scale of every value; raises InputError for formats that do not fit."""
    check_formats(graph, formats)
    least = {name: calibration[name].least for name in graph.inputs}
    signs = non_negative(graph, least)
    group_of = roots(graph, signs)
    bits = _bits(graph, formats, options, group_of, signs)
    chosen: dict[str, TensorFormat] = {}
    for name in graph.nodes:
        if name in graph.constants:
            continue
        root = group_of[name]
        if root not in chosen:
            signed = not signs[root]
            dtype = DType("signed" if signed else "unsigned", bits[root])
            if dtype.bits > DEFAULT_BITS:
                dtype = DType("signed", dtype.bits)
            chosen[root] = TensorFormat(dtype, _scale(calibration, root, dtype, options))
        chosen[name] = chosen[root]
    return Plan(chosen, signs, group_of)


def _scale(calibration: Calibration, root: str, dtype: DType, options: QuantOptions) -> float:
    if root in options.scales:
        return float(np.float32(options.scales[root]))
    signed = dtype.kind == "signed"
    if dtype.bits > DEFAULT_BITS:
        step = calibration.scale(root, dtype.bits, signed, "minmax") * OUTPUT_HEADROOM
        return float(np.float32(step))
    return calibration.scale(root, dtype.bits, signed, options.method)


def _bits(
    graph: Graph,
    formats: Mapping[str, LayerFormat],
    options: QuantOptions,
    group_of: Mapping[str, str],
    signs: Mapping[str, bool],
) -> Mapping[str, int]:
    """Bits of each group, by root."""
    readers: dict[str, dict[str, int]] = {}
    wide: set[str] = {group_of[name] for name in graph.outputs}
    for node in graph.nodes.values():
        if node.name in formats and (bits := formats[node.name].act_bits) is not None:
            readers.setdefault(group_of[node.inputs[0]], {})[node.name] = bits
        elif node.name in formats or is_float_island(graph, node):
            wide.update(group_of[v] for v in node.inputs)
    narrow = {
        group_of[v]
        for node in graph.nodes.values()
        if not passes_through(graph, node, signs) and not is_float_island(graph, node)
        for v in node.inputs
        if node.op.name in _NARROW and node.name not in formats
    }
    bits_of: dict[str, int] = {}
    for root in set(group_of.values()):
        wanted = readers.get(root, {})
        if len(set(wanted.values())) > 1:
            listed = ", ".join(f"{layer}: {n}" for layer, n in wanted.items())
            raise InputError(
                f"{graph.name}: layers that read one tensor must have the same activation "
                f"bits ({listed})"
            )
        if wanted:
            bits_of[root] = next(iter(wanted.values()))
        elif root in wide and root not in narrow:
            bits_of[root] = options.output_bits
        else:
            bits_of[root] = DEFAULT_BITS
    return bits_of


_NARROW = ("mul", "matmul", "activation")
"""Operators whose integer form takes 8-bit operands (products, tables)."""


def is_float_island(graph: Graph, node: Node) -> bool:
    """Whether the operator has no integer form here and runs in float between Dequantize
    and Quantize (layers aside: their format says)."""
    op = node.op
    if isinstance(op, ops.Softmax | ops.LayerNorm | ops.BatchNorm):
        return True
    if isinstance(op, ops.Resize):
        return op.kind == "bilinear"
    if isinstance(op, ops.Pad):
        return op.mode == "constant" and op.value != 0
    if isinstance(op, ops.Pool2d):
        return op.kind == "avg" and not op.count_include_pad and any(op.padding)
    if isinstance(op, ops.Conv2d | ops.Linear):
        return node.inputs[1] not in graph.constants
    return False
