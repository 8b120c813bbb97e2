# SPDX-License-Identifier: Apache-2.0
"""Structural re-parameterisation: parallel linear branches become one convolution."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from codesign.ir.graph import Array, Graph, Node
from codesign.ir.ops import Add, BatchNorm, Conv2d, Mul, Pool2d
from codesign.passes.base import Pass
from codesign.passes.editor import Editor, channel_vector, split_constant
from codesign.passes.fold_batch_norm import batch_norm_factors
from codesign.passes.kernels import Kernel, merge_kernels
from codesign.passes.layers import is_linear_map, weight_and_bias


@dataclass(frozen=True)
class Reparameterise(Pass):
    """Merge the branches of an add that are linear in one value into one convolution.

    rewrite: y = bn(conv3x3(x)) + bn(conv1x1(x)) + bn(x)  ->  y = conv3x3'(x)
    (Ding et al., RepVGG: Making VGG-style ConvNets Great Again, CVPR 2021, section 3.3.)

    A branch is a convolution of any kernel, groups and dilation, an average pool, or the value
    itself, each followed by any number of batch norms and of muls and adds with one constant a
    channel. Branches merge when they read the same value with the same stride, at least one of
    them is a convolution, and nothing else reads what is inside them. Arithmetic is float64,
    rounded once. The convolution with the largest kernel keeps its name and source.

    Convolutions in sequence are not merged: with padding between them the product is not exact
    at the border.
    """

    name: ClassVar[str] = "reparameterise"
    grow: bool = False
    """Merge also where the merged convolution has more multiplications than the branches had
    together, as for a depthwise 3x3 beside a dense 1x1."""

    def run(self, graph: Graph) -> Graph:
        """The graph with merged branches."""
        editor = Editor(graph)
        for node in editor:
            if isinstance(node.op, Add) and _is_root(editor, node):
                self._merge(editor, node)
        return editor.finish()

    def _merge(self, editor: Editor, root: Node) -> None:
        terms = _terms(editor, root)
        if len(terms) < 2:
            return
        shift = np.zeros(root.type.shape[1])
        rest: list[str] = []
        groups: dict[tuple[str, tuple[int, int]], list[_Branch]] = {}
        for term in terms:
            value = editor.value(term)
            offset = None if value is None else channel_vector(value, root.type, 1)
            if offset is not None:
                shift = shift + offset
            else:
                branch = _branch(editor, term, root)
                groups.setdefault((branch.source, branch.kernel.stride), []).append(branch)
        made: list[tuple[_Branch, Kernel]] = []
        for branches in groups.values():
            convs = [b for b in branches if b.conv]
            kernel = merge_kernels([b.kernel for b in branches]) if len(branches) > 1 else None
            cost = sum(b.kernel.multiplications for b in convs)
            if not convs or kernel is None or (kernel.multiplications > cost and not self.grow):
                rest.extend(b.term for b in branches)
            else:
                host = max(convs, key=lambda b: b.kernel.weight[0, 0].size)
                made.append((host, kernel))
        if made:
            host, kernel = made[0]
            made[0] = host, dataclasses.replace(kernel, bias=kernel.bias + shift)
            _rebuild(editor, root, made, rest)


@dataclass(frozen=True)
class _Branch:
    term: str
    """The value that the add reads."""
    source: str
    """The value that the branch is linear in."""
    kernel: Kernel
    conv: str = ""
    """The convolution inside, if there is one."""


def _is_root(editor: Editor, node: Node) -> bool:
    """Whether the add is a float image and no part of another such add."""
    if node.type.rank != 4 or not node.type.dtype.is_float or node.type.layout:
        return False
    user = editor.only_user(node.name)
    return user is None or not isinstance(user.op, Add) or user.type != node.type


def _terms(editor: Editor, root: Node) -> list[str]:
    """What a tree of adds sums up, in order."""
    terms: list[str] = []
    stack = list(reversed(root.inputs))
    while stack:
        name = stack.pop()
        node = editor.node(name)
        inside = isinstance(node.op, Add) and editor.used_once(name) and node.type == root.type
        if inside:
            stack.extend(reversed(node.inputs))
        else:
            terms.append(name)
    full = all(editor.type(t) == root.type or editor.value(t) is not None for t in terms)
    return terms if full else []


def _branch(editor: Editor, term: str, root: Node) -> _Branch:
    """Read a term backwards as scale · core(source) + shift."""
    channels = root.type.shape[1]
    scale, shift = np.ones(channels), np.zeros(channels)
    name = term
    while editor.used_once(name):
        factors = _affine(editor, editor.node(name))
        if factors is None:
            break
        name, s, t = factors
        shift = shift + scale * t
        scale = scale * s
    node = editor.node(name)
    if editor.used_once(name) and editor.type(name) == root.type:
        core = _core(editor, node)
        if core is not None:
            source, kernel = core
            conv = name if isinstance(node.op, Conv2d) else ""
            return _Branch(term, source, kernel.scaled(scale, shift), conv)
    return _Branch(term, name, Kernel.identity(channels).scaled(scale, shift))


def _affine(editor: Editor, node: Node) -> tuple[str, Array, Array] | None:
    """For x·s + t with one value a channel: x, s and t; else None."""
    if node.type.rank != 4:
        return None
    channels = node.type.shape[1]
    if isinstance(node.op, BatchNorm):
        factors = batch_norm_factors(editor, node)
        return None if factors is None else (node.inputs[0], *factors)
    if not isinstance(node.op, (Add, Mul)):
        return None
    parts = split_constant(editor, node)
    value = channel_vector(parts[1], node.type, 1) if parts else None
    if parts is None or value is None or editor.type(parts[0]) != node.type:
        return None
    if isinstance(node.op, Mul):
        return parts[0], value, np.zeros(channels)
    return parts[0], np.ones(channels), value


def _core(editor: Editor, node: Node) -> tuple[str, Kernel] | None:
    """A convolution or average pool as a kernel over its source."""
    op = node.op
    if isinstance(op, Conv2d) and is_linear_map(editor, node):
        weight, bias = weight_and_bias(editor, node)
        kernel = Kernel(weight, bias, op.groups, op.stride, op.dilation, op.padding)
        return node.inputs[0], kernel
    if isinstance(op, Pool2d) and op.kind in ("avg", "sum"):
        if op.kind == "avg" and not op.count_include_pad and any(op.padding):
            return None
        channels, area = node.type.shape[1], op.kernel[0] * op.kernel[1]
        weight = np.full((channels, 1, *op.kernel), 1 / area if op.kind == "avg" else 1.0)
        bias = np.zeros(channels)
        kernel = Kernel(weight, bias, channels, op.stride, op.dilation, op.padding)
        return node.inputs[0], kernel
    return None


def _rebuild(
    editor: Editor, root: Node, made: list[tuple[_Branch, Kernel]], rest: list[str]
) -> None:
    """Let the merged convolutions plus ``rest`` stand for the root, under the old names."""
    names: list[tuple[str, str]] = []
    terms = [_build(editor, host, kernel, names) for host, kernel in made] + rest
    total = terms[0]
    for term in terms[1:]:
        total = editor.add(Add(), (total, term), root.name, root.source)
    if len(terms) > 1:
        names.append((total, root.name))
    editor.replace(root.name, total)
    for new, wanted in names:
        editor.rename_if_free(new, wanted)


def _build(editor: Editor, host: _Branch, kernel: Kernel, names: list[tuple[str, str]]) -> str:
    """A convolution with the merged kernel; ``names`` collects new names and wanted ones."""
    old = editor.node(host.conv)
    kind, weight_name = old.type.dtype, old.inputs[1]
    inputs = [host.source, editor.constant(kernel.weight, kind, weight_name, old.source)]
    names.append((inputs[1], weight_name))
    has_bias = bool((kernel.bias != 0).any()) or (isinstance(old.op, Conv2d) and old.op.bias)
    if has_bias:
        bias_name = editor.operand(old, "bias") or f"{old.name}.bias"
        inputs.append(editor.constant(kernel.bias, kind, bias_name, old.source))
        names.append((inputs[2], bias_name))
    op = Conv2d(kernel.stride, kernel.padding, kernel.dilation, kernel.groups, bias=has_bias)
    name = editor.add(op, inputs, old.name, old.source)
    names.append((name, old.name))
    return name
