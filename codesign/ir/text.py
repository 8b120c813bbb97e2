# SPDX-License-Identifier: Apache-2.0
"""Text form of the IR: the printer (the parser is ``codesign.ir.parse``).

One line a node, attributes that have their default left out::

    graph "tiny" {
      %x = input : f32[1,4]
      %fc.weight = constant resource : f32[2,4]
      %fc = linear(%x, %fc.weight) {bias = false, activation = "relu"} : f32[1,2] loc("fc")
      return %fc
    }
    resources {
      %fc.weight = "AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8="
    }

Constants of up to 16 elements stand in the line (row-major), larger ones under ``resources``
as base64 of their little-endian bytes. The text of a graph is always the same, and it reads
back as an equal graph. ``//`` starts a comment.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator

import numpy as np

from codesign.ir.graph import Array, Graph, Node
from codesign.ir.ops import Constant, Input, Op
from codesign.ir.parse import parse_file, parse_graph
from codesign.ir.types import DType, TensorType

__all__ = ["parse_file", "parse_graph", "print_graph"]

_INLINE = 16
"""Constants with more elements are resources."""


def print_graph(graph: Graph, resources: bool = True) -> str:
    """Print ``graph``; with ``resources`` the large constants follow and the text reads back.

    >>> from codesign.ir import GraphBuilder
    >>> from codesign.ir.ops import Activation
    >>> b = GraphBuilder("tiny")
    >>> y = b.add(Activation("relu"), [b.input("x", TensorType((1, 4)))], "y", source="act.0")
    >>> print(print_graph(b.finish([y])), end="")
    graph "tiny" {
      %x = input : f32[1,4]
      %y = activation(%x) {kind = "relu"} : f32[1,4] loc("act.0")
      return %y
    }
    """
    large = {name for name, value in graph.constants.items() if not _is_inline(value)}
    lines = [f"graph {json.dumps(graph.name)} {{"]
    for node in graph.nodes.values():
        lines.append(f"  {_node(graph, node, large, resources)}")
    lines.append(f"  return {', '.join('%' + name for name in graph.outputs)}")
    lines.append("}")
    if resources and large:
        lines.append("resources {")
        for name in graph.nodes:
            if name in large:
                value = graph.constants[name]
                data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
                lines.append(f'  %{name} = "{base64.b64encode(data).decode("ascii")}"')
        lines.append("}")
    return "\n".join(lines) + "\n"


def _node(graph: Graph, node: Node, large: set[str], resources: bool) -> str:
    text = f"%{node.name} = {node.op.name}"
    if isinstance(node.op, Constant):
        if node.name in large:
            text += " resource" if resources else " elided"
        else:
            text += f" {_literal(graph.constants[node.name])}"
    elif not isinstance(node.op, Input):
        text += f"({', '.join('%' + value for value in node.inputs)})"
        attributes = ", ".join(f"{key} = {value}" for key, value in _attributes(node.op))
        text += f" {{{attributes}}}" if attributes else ""
    text += f" : {node.type}"
    return text + (f" loc({json.dumps(node.source)})" if node.source else "")


def _attributes(op: Op) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if value != field.default:
            yield field.name, _value(value)


def _value(value: object) -> str:
    match value:
        case bool() | np.bool_():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case DType() | TensorType():
            return str(value)
        case tuple():
            return f"[{', '.join(map(_value, value))}]"
        case int() | np.integer():
            return str(int(value))
        case float() | np.floating():
            return repr(float(value))
    raise TypeError(f"no text form for attribute value {value!r}")


def _is_inline(value: Array) -> bool:
    if value.size > _INLINE:
        return False
    if value.dtype.kind != "f":
        return True
    # NaNs with another bit pattern than the usual one have no decimal form.
    nans = value[np.isnan(value)]
    return bool(nans.tobytes() == np.full_like(nans, np.nan).tobytes())


def _literal(value: Array) -> str:
    """Elements in row-major order, floats as the shortest decimal that reads back exactly."""
    parts = [str(element) for element in value.ravel()]
    return parts[0] if value.ndim == 0 else f"[{', '.join(parts)}]"
