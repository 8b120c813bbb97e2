# SPDX-License-Identifier: Apache-2.0
"""Operators that move values: views, addressing, or a job that copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codesign.ir import kernels, ops
from codesign.ir.graph import Node
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.compile.places import image_sizes
from codesign.targets.fpga.compile.selection import (
    MOST_STRIDE,
    Selection,
    element_wise,
    unchanged,
    why_unreadable,
)
from codesign.targets.fpga.isa import BLOCK


def move(found: Selection, node: Node) -> str | None:
    graph = found.graph
    op = node.op
    if isinstance(op, ops.Concat):
        return _concat(found, node)
    x = node.inputs[0]
    if x in graph.constants:
        return "works on a constant"
    sizes = found.image(x)
    if isinstance(op, ops.Reshape):
        return _reshape(found, node, x)
    if sizes is None or node.type.rank != 4 or graph.type(x).dtype.bits > 8:
        return f"moves {graph.type(x)}, which is no image of batch 1 with up to 8 bits"
    if isinstance(op, ops.Slice):
        return _slice(found, node, x, op)
    if isinstance(op, ops.Pad):
        rest = (*op.before[:2], *op.after[:2])
        if any(rest) or op.mode != "constant" or op.value != 0:
            return "pads other than rows and columns with 0"
        finish = unchanged(node, sizes[0])
        padding = (op.before[2], op.before[3])
        job = element_wise(found, x, node.name, finish, padding)
        found.jobs[node.name] = (replace(job, nodes=(node.name,)),)
        return None
    assert isinstance(op, ops.Resize)
    return _resize(found, node, x, op)


def _reshape(found: Selection, node: Node, x: str) -> str | None:
    """A view where channels stay channels, or the image becomes a vector in its own order."""
    sizes = found.image(x)
    if sizes is None:
        return f"reshapes {found.graph.type(x)}, which is no image of batch 1"
    mine = image_sizes(node.type)
    if mine is None or node.type.shape[0] != 1:
        return f"its result {node.type} is no image of batch 1"
    if mine[0] == sizes[0]:
        found.sizes[node.name] = mine
    elif node.type.rank == 2:
        found.sizes[node.name] = sizes  # a linear layer takes its channels and pixels apart again
    else:
        return f"moves elements between channels and pixels ({found.graph.type(x)} to {node.type})"
    found.inside[node.name] = (x, 0)
    found.free.add(node.name)
    return None


def _slice(found: Selection, node: Node, x: str, op: ops.Slice) -> str | None:
    if op.axis == 1:
        if op.step != 1 or op.start % BLOCK:
            return f"takes channels {op.start}:{op.stop}:{op.step}, not whole blocks of {BLOCK}"
        found.inside[node.name] = (x, op.start // BLOCK)
        found.free.add(node.name)
        return None
    if op.axis not in (2, 3):
        return f"slices axis {op.axis}"
    if op.step > MOST_STRIDE:
        return f"its step {op.step} is more than {MOST_STRIDE}"
    finish = unchanged(node, found.sizes[x][0])
    rows = op.axis == 2
    padding = (-op.start, 0) if rows else (0, -op.start)
    stride = (op.step, 1) if rows else (1, op.step)
    job = element_wise(found, x, node.name, finish, padding, stride)
    found.jobs[node.name] = (replace(job, nodes=(node.name,)),)
    return None


def _resize(found: Selection, node: Node, x: str, op: ops.Resize) -> str | None:
    """Nearest resize by whole factors: pixels are repeated as they are read."""
    _, rows, columns = found.sizes[x]
    factors = []
    for size, out in ((rows, op.size[0]), (columns, op.size[1])):
        index = kernels.nearest_index(op, size, out)
        factor = out // size
        whole = out % size == 0 and bool((index == np.arange(out) // max(factor, 1)).all())
        if not whole or not 1 <= factor <= MOST_STRIDE:
            return f"resizes {rows} x {columns} to {op.size}, not by whole factors up to 7"
        factors.append(factor)
    finish = unchanged(node, found.sizes[x][0])
    job = element_wise(found, x, node.name, finish)
    job = replace(job, in_size=op.size, repeat=(factors[0], factors[1]), nodes=(node.name,))
    found.jobs[node.name] = (job,)
    return None


def _concat(found: Selection, node: Node) -> str | None:
    if not isinstance(node.op, ops.Concat) or node.op.axis != 1 or node.type.rank not in (2, 4):
        return f"joins along axis {getattr(node.op, 'axis', '?')}"
    if found.image(node.name) is None:
        return f"its result {node.type} is no image of batch 1"
    for value in node.inputs[:-1]:
        sizes = found.image(value)
        if sizes is None or sizes[0] % BLOCK or sizes != image_sizes(found.graph.type(value)):
            return f"joins {found.graph.type(value)}, not whole blocks of {BLOCK} channels"
    for value in node.inputs:
        reason = why_unreadable(found, value)
        if reason is not None:
            return reason
    found.free.add(node.name)
    return None


def place_concats(found: Selection) -> None:
    """Parts of a concat are made inside its memory; those that stand elsewhere are copied.

    Outer concats first, so that an inner one may stand inside an outer one.
    """
    graph = found.graph
    copies: dict[str, list[Job]] = {}
    for name in reversed(list(graph.nodes)):
        node = graph.nodes[name]
        if name not in found.free or not isinstance(node.op, ops.Concat):
            continue
        block = 0
        for index, value in enumerate(node.inputs):
            channels = found.sizes[value][0]
            owned = value not in found.inside and value not in graph.inputs
            if owned:
                found.inside[value] = (name, block)
            else:
                part = f"{name}.part{index}"
                found.sizes[part] = found.sizes[value]
                finish = unchanged(graph.nodes[value], channels)
                job = element_wise(found, value, value, finish)
                job = replace(job, name=part, result=part, nodes=(name,))
                found.inside[part] = (name, block)
                copies.setdefault(name, []).append(job)
            block += -(-channels // BLOCK)
    for name, jobs in copies.items():
        found.jobs[name] = (*jobs, *found.jobs.get(name, ()))
