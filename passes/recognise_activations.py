# SPDX-License-Identifier: Apache-2.0
"""Activations that a frontend wrote as arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from codesign.ir.graph import Graph, Node
from codesign.ir.ops import Activation, ActivationKind, Add, Mul
from codesign.passes.base import Pass
from codesign.passes.editor import Editor, split_constant

_TOLERANCE = 1e-6
"""Relative error of 1/6 that counts as 1/6: float32 holds seven digits."""


@dataclass(frozen=True)
class RecogniseActivations(Pass):
    """Give products the name of the activation that they compute.

    rewrite:
        x · sigmoid(x)          ->  silu(x)          (how ONNX writes it)
        x · hardsigmoid(x)      ->  hardswish(x)
        relu6(x + 3) / 6        ->  hardsigmoid(x)
        x · relu6(x + 3) / 6    ->  hardswish(x)     (in any order of the factors)

    The product's name and source stay. Inner values with other readers stay too.
    """

    name: ClassVar[str] = "recognise-activations"

    def run(self, graph: Graph) -> Graph:
        """The graph with named activations."""
        editor = Editor(graph)
        for node in editor:
            if isinstance(node.op, Mul) and node.type.dtype.is_float:
                self._recognise(editor, node)
        return editor.finish()

    def _recognise(self, editor: Editor, node: Node) -> None:
        factors, scale = _factors(editor, node)
        for kind, x in _candidates(editor, factors, scale):
            if editor.type(x) == node.type:
                op = Activation(cast(ActivationKind, kind))
                new = editor.add(op, (x,), node.name, node.source)
                editor.take_place(node.name, new)
                return


def _factors(editor: Editor, node: Node) -> tuple[list[str], float]:
    """The computed factors of a product, and the product of its scalar constants."""
    factors: list[str] = []
    scale = 1.0
    stack = list(node.inputs)
    while stack:
        name = stack.pop()
        value, inner = editor.value(name), editor.node(name)
        if value is not None and value.size == 1:
            scale *= float(value.reshape(()))
        elif isinstance(inner.op, Mul) and editor.used_once(name):
            stack.extend(inner.inputs)
        else:
            factors.append(name)
    return factors, scale


def _near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= _TOLERANCE * abs(wanted)


def _candidates(editor: Editor, factors: list[str], scale: float) -> list[tuple[str, str]]:
    """Activations that the product may be, with the value they apply to."""
    if len(factors) == 1 and _near(scale, 1 / 6):
        x = _shifted_relu6(editor, factors[0])
        return [("hardsigmoid", x)] if x else []
    found = []
    if len(factors) == 2:
        for x, gate in (factors, factors[::-1]):
            op, inputs = editor.node(gate).op, editor.node(gate).inputs
            if isinstance(op, Activation) and inputs == (x,) and _near(scale, 1):
                named = {"sigmoid": "silu", "hardsigmoid": "hardswish"}.get(op.kind)
                found += [(named, x)] if named else []
            if _near(scale, 1 / 6) and _shifted_relu6(editor, gate) == x:
                found.append(("hardswish", x))
    return found


def _shifted_relu6(editor: Editor, name: str) -> str | None:
    """x where ``name`` is relu6(x + 3), else None."""
    node = editor.node(name)
    if not isinstance(node.op, Activation) or node.op.kind != "relu6":
        return None
    add = editor.node(node.inputs[0])
    parts = split_constant(editor, add) if isinstance(add.op, Add) else None
    if parts is None or not (parts[1] == 3).all() or parts[1].size != 1:
        return None
    return parts[0]
