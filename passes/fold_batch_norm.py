# SPDX-License-Identifier: Apache-2.0
"""Batch norm into the layer before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph, Node
from codesign.ir.ops import Add, BatchNorm, Mul
from codesign.passes.base import Pass
from codesign.passes.editor import Editor
from codesign.passes.layers import is_foldable, scale_and_shift


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold every batch norm with constant parameters into the convolution or linear before it.

    rewrite: y = batch_norm(conv(x, w) + b)  ->  y = conv(x, w · s) + (b · s + t)
    with s = gamma / sqrt(var + eps), t = beta − mean · s for each channel.

    The layer must have the batch norm as its only reader, constant weights and neither fused
    activation nor residual. A linear must give [N, C], where batch norm's axis 1 is its last.
    Arithmetic is float64, rounded once to the weight's format. The layer keeps its name.
    """

    name: ClassVar[str] = "fold-batch-norm"
    standalone: bool = True
    """Turn the batch norms that no layer can take into mul and add with one value a channel."""

    def run(self, graph: Graph) -> Graph:
        """The graph without batch norms, but for those whose parameters are computed."""
        editor = Editor(graph)
        for node in editor:
            if not isinstance(node.op, BatchNorm):
                continue
            factors = batch_norm_factors(editor, node)
            if factors is None:
                continue
            scale, shift = factors
            layer = editor.node(node.inputs[0])
            if node.type.rank in (2, 4) and is_foldable(editor, layer):
                scale_and_shift(editor, layer, scale, shift)
                editor.replace(node.name, layer.name)
            elif self.standalone:
                _split(editor, node, scale, shift)
        return editor.finish()


def batch_norm_factors(editor: Editor, node: Node) -> tuple[Array, Array] | None:
    """Scale and shift [C] in float64, or None if a parameter is computed.

    Raises InputError if the variance is negative or a parameter is not finite.
    """
    assert isinstance(node.op, BatchNorm)
    values = [editor.value(v) for v in node.inputs[1:]]
    if any(v is None for v in values):
        return None
    gamma, beta, mean, var = (np.asarray(v, np.float64) for v in values)
    where = f"{editor.name}: batch_norm {node.name!r}"
    where += f" from {node.source!r}" if node.source else ""
    for label, value in zip(node.op.operands[1:], (gamma, beta, mean, var)):
        if not np.isfinite(value).all():
            channel = int(np.flatnonzero(~np.isfinite(value))[0])
            raise InputError(f"{where}: {label} of channel {channel} is {value[channel]}")
    least = var + node.op.eps
    if least.min() <= 0:
        channel = int(least.argmin())
        raise InputError(
            f"{where}: var + eps must be positive, channel {channel} has {least[channel]:g}"
        )
    scale = gamma / np.sqrt(least)
    return scale, beta - mean * scale


def _split(editor: Editor, node: Node, scale: Array, shift: Array) -> None:
    shape = (1, -1, *(1,) * (node.type.rank - 2))
    kind = node.type.dtype
    factor = editor.constant(scale.reshape(shape), kind, f"{node.name}.scale", node.source)
    offset = editor.constant(shift.reshape(shape), kind, f"{node.name}.shift", node.source)
    scaled = editor.add(Mul(), (node.inputs[0], factor), f"{node.name}.mul", node.source)
    added = editor.add(Add(), (scaled, offset), node.name, node.source)
    editor.take_place(node.name, added)
