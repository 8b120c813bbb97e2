# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalisation of weight ranges."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from codesign.ir.graph import Array, Graph, Node
from codesign.ir.ops import Activation, Conv2d, Linear, Pad, Pool2d, Reduce, Reshape, Resize
from codesign.passes.base import Pass
from codesign.passes.editor import Editor
from codesign.passes.layers import is_layer_op, weight_and_bias


@dataclass(frozen=True)
class Equalise(Pass):
    """Scale channels between consecutive layers so that their weight ranges agree.

    For layers 1 and 2 with a positively homogeneous function f between (f(s·x) = s·f(x) for
    s > 0), channel i of the first is divided by s_i = sqrt(r1_i / r2_i) and column i of the
    second multiplied by it, where r are the largest absolute weights: Nagel et al.,
    Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, eq. 11.
    Chains (convolution, depthwise, convolution) converge by repetition. What the network
    computes stays the same up to float rounding; intermediate values are scaled.

    Between the layers may stand relu or leaky_relu (fused or not), pools, means over H and W,
    zero padding, resize and the flattening before a linear, each with one reader.
    """

    name: ClassVar[str] = "equalise"
    iterations: int = 40
    """At most so many sweeps over all pairs."""
    tolerance: float = 1e-3
    """Sweeps end when no factor is further than this from 1."""
    relu6: bool = False
    """Turn relu6 between two layers into relu and equalise there too. This changes what the
    network computes where activations exceed 6."""

    def run(self, graph: Graph) -> Graph:
        """The graph with rescaled weights."""
        editor = Editor(graph)
        pairs = [pair for node in editor if (pair := self._pair(editor, node)) is not None]
        names = dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second))
        weights = {name: weight_and_bias(editor, editor.node(name)) for name in names}
        initial = dict(weights)
        for _ in range(self.iterations):
            largest = max((_equalise(pair, weights) for pair in pairs), default=1.0)
            if largest <= 1 + self.tolerance:
                break
        for name in names:
            for index, (new, old) in enumerate(zip(weights[name], initial[name])):
                if not np.array_equal(new, old):
                    editor.set_constant(name, 1 + index, new)
        for pair in pairs:
            for name in pair.relu6:
                op = editor.node(name).op
                if isinstance(op, Activation):
                    editor.update(name, dataclasses.replace(op, kind="relu"))
                elif is_layer_op(op):
                    editor.update(name, dataclasses.replace(op, activation="relu"))
        return editor.finish()

    def _pair(self, editor: Editor, node: Node) -> _Pair | None:
        """The pair that starts at ``node``, or None."""
        if not _has_constants(editor, node) or not is_layer_op(node.op) or node.op.residual:
            return None
        relu6: list[str] = []
        if not self._passes(node.op.activation, node.name, node.op.alpha, relu6):
            return None
        value = node
        while (user := editor.only_user(value.name)) is not None:
            if is_layer_op(user.op):
                return _match(editor, node, value, user, relu6)
            if isinstance(user.op, Activation):
                if not self._passes(user.op.kind, user.name, user.op.alpha, relu6):
                    return None
            elif not isinstance(node.op, Conv2d) or not _is_homogeneous(user, editor):
                return None
            value = user
        return None

    def _passes(self, kind: str, name: str, alpha: float, relu6: list[str]) -> bool:
        if kind == "relu6" and self.relu6:
            relu6.append(name)
            return True
        return kind in ("none", "relu", "leaky_relu")


@dataclass(frozen=True)
class _Pair:
    first: str
    second: str
    groups: int
    """Groups of the second layer."""
    block: int
    """Columns of the second for each channel of the first (a flattened image has several)."""
    relu6: tuple[str, ...]
    """Nodes whose relu6 becomes relu."""


def _has_constants(editor: Editor, node: Node) -> bool:
    bias = editor.operand(node, "bias")
    constant = is_layer_op(node.op) and editor.value(node.inputs[1]) is not None
    return (
        constant
        and node.type.dtype.is_float
        and all(editor.used_once(v) for v in node.inputs[1:2] + ((bias,) if bias else ()))
        and (bias is None or editor.value(bias) is not None)
    )


def _is_homogeneous(node: Node, editor: Editor) -> bool:
    """Whether scaling a channel before the node scales the same channel after it."""
    op, x = node.op, editor.type(node.inputs[0])
    if isinstance(op, Pool2d | Resize):
        return True
    if isinstance(op, Reduce):
        return op.keepdims and x.rank == 4 and not set(op.axes) & {0, 1}
    if isinstance(op, Pad):
        plain = op.mode != "constant" or op.value == 0
        return plain and x.rank == 4 and not op.before[1] and not op.after[1]
    if isinstance(op, Reshape):  # [N, C, H, W] to [N, C·H·W]
        return x.rank == 4 and op.shape == (x.shape[0], x.size // x.shape[0])
    return False


def _match(
    editor: Editor, first: Node, value: Node, second: Node, relu6: list[str]
) -> _Pair | None:
    """The pair, if the second layer reads the value as its input and channels correspond."""
    reads = second.inputs[0] == value.name and second.inputs.count(value.name) == 1
    if not reads or not _has_constants(editor, second):
        return None
    channels = editor.type(first.inputs[1]).shape[0]
    if isinstance(second.op, Conv2d):
        if not isinstance(first.op, Conv2d):
            return None
        return _Pair(first.name, second.name, second.op.groups, 1, tuple(relu6))
    columns = editor.type(second.inputs[1]).shape[1]
    flat = isinstance(first.op, Linear) or value.type.rank == 2
    if not flat or columns % channels:
        return None
    return _Pair(first.name, second.name, 1, columns // channels, tuple(relu6))


def _equalise(pair: _Pair, weights: dict[str, tuple[Array, Array]]) -> float:
    """Scale one pair in ``weights``; returns the largest factor (or its inverse)."""
    w1, b1 = weights[pair.first]
    w2, b2 = weights[pair.second]
    channels = w1.shape[0]
    # Column i of the second, as [groups, outputs a group, channels a group, rest].
    groups = pair.groups
    columns = w2.reshape(groups, w2.shape[0] // groups, channels // groups, -1)
    r1 = np.abs(w1).reshape(channels, -1).max(1)
    r2 = np.abs(columns).max((1, 3)).reshape(channels)
    alive = (r1 > 0) & (r2 > 0)  # a dead channel has no range to balance
    factor = np.ones(channels)
    factor[alive] = np.sqrt(r1[alive] / r2[alive])
    weights[pair.first] = (w1 / factor.reshape(-1, *(1,) * (w1.ndim - 1)), b1 / factor)
    scaled = columns * factor.reshape(groups, 1, channels // groups, 1)
    weights[pair.second] = (scaled.reshape(w2.shape), b2)
    return float(np.maximum(factor, 1 / factor).max())
