# SPDX-License-Identifier: Apache-2.0
"""Which nodes of an integer network become jobs of the accelerator, and which stay on the ARM.

A job ends in a value of up to 16 bits: sums, requantisation, residual and clips that follow one
another are one job. Everything that has no such form is left to the ARM cores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np

from codesign.ir import ops
from codesign.ir.graph import Graph, Node
from codesign.targets.fpga.compile.jobs import Finish, Job, aligned_groups
from codesign.targets.fpga.compile.moves import move, place_concats
from codesign.targets.fpga.compile.places import image_sizes
from codesign.targets.fpga.compile.selection import (
    MOST_STRIDE,
    MOST_TAPS,
    S16,
    Selection,
    element_wise,
    unchanged,
    why_unreadable,
)
from codesign.targets.fpga.isa import BLOCK

CHOSEN = "the partition puts it there: cheaper, transfers counted (modelled)"
"""Why a node that the accelerator has a form for is on the ARM cores."""


def select(graph: Graph, arm: Collection[str] = ()) -> Selection:
    """Match every node but those of ``arm``; see the module."""
    found = Selection(graph)
    taken = _residual_adds(graph)
    for node in graph.nodes.values():
        sizes = image_sizes(node.type)
        if sizes is not None:
            found.sizes[node.name] = sizes
    for node in graph.nodes.values():
        if isinstance(node.op, ops.Input | ops.Constant):
            continue
        reason = CHOSEN if node.name in arm else _match(found, taken, node)
        if reason is not None:
            found.why[node.name] = reason
    _drop_absorbed(found)
    place_concats(found)
    return found


def _drop_absorbed(found: Selection) -> None:
    """Keep what something needs: nodes that a job computes on the way are no work of their own,
    unless an operator on the ARM cores reads them; then they are computed there, too."""
    graph = found.graph
    needed = set(graph.outputs)
    for name in reversed(list(graph.nodes)):
        node = graph.nodes[name]
        if isinstance(node.op, ops.Input | ops.Constant):
            continue
        if name not in needed:
            for table in (found.jobs, found.why, found.inside):
                table.pop(name, None)
            found.free.discard(name)
        elif name in found.jobs:
            for job in found.jobs[name]:
                needed.add(job.source)
                if job.finish.residual is not None:
                    needed.add(job.finish.residual)
        else:
            if name not in found.free:
                found.why.setdefault(name, "an operator on the ARM cores reads its exact sums")
            needed.update(node.inputs)


def nodes_of_job(found: Selection, value: str) -> tuple[str, ...]:
    """Nodes of the graph that the jobs which make ``value`` compute, sorted."""
    jobs = found.jobs[value]
    stops = {v for job in jobs for v in (job.source, job.finish.residual) if v is not None}
    stops -= {value}
    inside, waiting = set(), [value]
    while waiting:
        name = waiting.pop()
        if name in stops or name in inside or name in found.graph.constants:
            continue
        node = found.graph.nodes[name]
        if not isinstance(node.op, ops.Input):
            inside.add(name)
            waiting.extend(node.inputs)
    return tuple(sorted(inside))


def needs_of(found: Selection) -> dict[str, set[str]]:
    """Every value that jobs or the ARM cores make, in the graph's order, with those among them that
    must be there before. Views and concats by addressing are looked through."""
    graph = found.graph

    def producers(value: str) -> set[str]:
        if value in found.free:
            node = graph.nodes[value]
            needed = {value} if value in found.jobs else set()
            return needed.union(*(producers(v) for v in node.inputs))
        return {value} if value in found.jobs or value in found.why else set()

    items: dict[str, set[str]] = {}
    for name in graph.nodes:
        if name in found.why:
            items[name] = set().union(*(producers(v) for v in graph.nodes[name].inputs))
        elif name in found.jobs:
            made = {job.result for job in found.jobs[name]}
            read = {v for job in found.jobs[name] for v in (job.source, job.finish.residual)
                    if v is not None and v not in made}  # fmt: skip
            items[name] = set().union(*(producers(v) for v in read))
    return items


def _match(found: Selection, taken: Mapping[str, Node], node: Node) -> str | None:
    """Add what makes ``node``; returns why it cannot be done, or None."""
    graph = found.graph
    op = node.op
    if any(d.is_float for d in (node.type.dtype, *(graph.type(v).dtype for v in node.inputs[:1]))):
        return "works on floating-point values"
    if isinstance(op, ops.Clip) and node.name in taken:
        return _match_sum(found, node, taken[node.name])
    if isinstance(op, ops.Requantize):
        return _finish(found, node, node.inputs[0], (op.lo, op.hi), node, None)
    if node.type.dtype.bits > 16:
        return "an operator on the ARM cores reads its exact sums"
    if isinstance(op, ops.Clip | ops.Activation):
        return _clip(found, node)
    if isinstance(op, ops.Pool2d | ops.Reduce):
        return _maximum(found, node)
    if isinstance(op, ops.Reshape | ops.Slice | ops.Pad | ops.Resize | ops.Concat):
        return move(found, node)
    return f"the accelerator has no {op.name}"


# Element-wise sums


def _residual_adds(graph: Graph) -> dict[str, Node]:
    """Clip nodes that end clip(requantize(a) + requantize(b)), with the Add."""
    found = {}
    for node in graph.nodes.values():
        if not isinstance(node.op, ops.Clip):
            continue
        add = graph.nodes[node.inputs[0]]
        if not isinstance(add.op, ops.Add):
            continue
        sides = [graph.nodes[v] for v in add.inputs]
        good = all(
            isinstance(s.op, ops.Requantize) and (s.op.lo, s.op.hi) == S16 for s in sides
        ) and all(s.type.shape == add.type.shape for s in sides)
        if good:
            found[node.name] = add
    return found


def _match_sum(found: Selection, node: Node, add: Node) -> str | None:
    """clip(requantize(main) + requantize(other)): a job of main with other as its residual."""
    graph = found.graph
    reason: str | None = None
    sides = [graph.nodes[v] for v in add.inputs]
    # the side that comes out of a layer is the main one; of two the later, as in the workload
    order = sorted((1, 0), key=lambda i: not _is_sum(graph, sides[i].inputs[0]))
    for index in order:
        main, other = sides[index], sides[1 - index]
        source = graph.nodes[other.inputs[0]]
        assert isinstance(other.op, ops.Requantize)
        m, e = (graph.constants.get(v) for v in other.inputs[1:])
        if source.type.dtype.bits > 8 or m is None or e is None or m.size != 1:
            reason = reason or "adds a value of more than 8 bits"
            continue
        if source.name in graph.constants or found.image(source.name) is None:
            reason = reason or "adds a constant or a value that is no image"
            continue
        extra = (source.name, int(m.reshape(-1)[0]), int(e.reshape(-1)[0]))
        assert isinstance(node.op, ops.Clip)
        limits = (node.op.lo, node.op.hi)
        reason = _finish(found, main, main.inputs[0], limits, node, extra)
        if reason is None:
            return None
    return reason


def _is_sum(graph: Graph, value: str) -> bool:
    node = graph.nodes[value]
    return node.type.dtype.bits == 32 and len(graph.users[value]) == 1


# From sums to results


def _finish(
    found: Selection, requantize: Node, source: str, limits: tuple[int, int], end: Node,
    residual: tuple[str, int, int] | None,
) -> str | None:  # fmt: skip
    """A job that ends in ``end``: ``source`` (sums or a narrow value) requantised by
    ``requantize``, with a residual (value, m, e) perhaps."""
    graph = found.graph
    sizes = found.image(end.name)
    if sizes is None:
        return f"its result {end.type} is no image of batch 1"
    if end.type.dtype.bits > 16:
        return "its result has more than 16 bits"
    if end.type.dtype.bits > 8 and end.type.dtype.kind != "signed":
        return "its result is unsigned and has more than 8 bits"
    op = requantize.op
    assert isinstance(op, ops.Requantize)
    factors = [graph.constants.get(v) for v in requantize.inputs[1:]]
    if any(f is None for f in factors):
        return "its factors are computed"
    if op.axis not in (-1, 1):
        return f"its factors run along axis {op.axis}"
    lo, hi = limits
    nodes = [end.name, requantize.name]
    if residual is not None:
        nodes.append(end.inputs[0])
        nodes += list(graph.nodes[end.inputs[0]].inputs)
    acc = graph.nodes[source]
    while isinstance(acc.op, ops.Activation) and acc.type.dtype.bits > 8:
        if residual is not None or acc.op.kind != "relu":
            return "an activation stands between its sums and an addition"
        lo = min(max(lo, 0), hi)
        nodes.append(acc.name)
        acc = graph.nodes[acc.inputs[0]]
    m, e = (
        np.broadcast_to(f.reshape(-1).astype(np.int64), (sizes[0],))
        for f in factors
        if f is not None
    )
    zero = np.zeros(sizes[0], np.int64)
    finish = Finish(m, e, zero, lo, hi)
    if residual is not None:
        if found.image(residual[0]) != sizes:
            return "the added value has another shape"
        finish = replace(finish, residual=residual[0], res_m=residual[1], res_e=residual[2])
    maker = _MAKERS.get(type(acc.op), _narrow) if acc.type.dtype.bits > 16 else _narrow
    job = maker(found, acc, end, finish)
    if isinstance(job, str):
        return job
    found.jobs[end.name] = (replace(job, nodes=(*nodes, *job.nodes)),)
    return None


def _narrow(found: Selection, acc: Node, end: Node, finish: Finish) -> Job | str:
    """The value itself is what is requantised: a depthwise 1 x 1 of ones."""
    if acc.type.dtype.bits > 8:
        return f"requantises the result of {acc.op.name}, {acc.type}"
    if acc.name in found.graph.constants:
        return "works on a constant"
    if found.image(acc.name) != found.image(end.name):
        return "its operand is no image of batch 1"
    return element_wise(found, acc.name, end.name, finish)


def _conv(found: Selection, acc: Node, end: Node, finish: Finish) -> Job | str:
    op = acc.op
    assert isinstance(op, ops.Conv2d)
    graph = found.graph
    x = graph.type(acc.inputs[0])
    weights = graph.constants.get(acc.inputs[1])
    if weights is None:
        return "its weights are computed"
    bits = graph.type(acc.inputs[1]).dtype
    sizes = found.image(acc.inputs[0])
    if sizes is None or x.dtype.bits > 8 or acc.inputs[0] in graph.constants:
        return f"reads {x}, which is no image of batch 1 with up to 8 bits"
    if bits.bits > 8 or bits.kind != "signed":
        return f"its weights are {bits}"
    if max(op.stride) > MOST_STRIDE:
        return f"its stride {op.stride} is more than {MOST_STRIDE}"
    if op.residual or op.activation not in ("none", "relu"):
        return "its sums have an activation or residual of their own"
    if op.activation == "relu":
        finish = replace(finish, lo=min(max(finish.lo, 0), finish.hi))
    finish, reason = _with_bias(graph, acc, finish)
    if reason is not None:
        return reason
    depthwise = op.groups > 1 and op.groups == sizes[0] == len(weights)
    shared = (op.stride, op.dilation, op.padding[:2], sizes[1:], _out_size(acc))
    if depthwise and weights.shape[2] * weights.shape[3] <= MOST_TAPS:
        return Job(
            acc.name, "depthwise", acc.inputs[0], end.name, weights[:, 0], bits.bits, *shared,
            finish, activation_bits=x.dtype.bits, nodes=(acc.name,),
        )  # fmt: skip
    full, groups = aligned_groups(weights, op.groups)
    return Job(
        acc.name, "dense", acc.inputs[0], end.name, full, bits.bits, *shared, finish,
        activation_bits=x.dtype.bits, groups=groups, nodes=(acc.name,),
    )  # fmt: skip


def _linear(found: Selection, acc: Node, end: Node, finish: Finish) -> Job | str:
    """A linear layer over a flattened image is a convolution with a kernel of the image's size."""
    op = acc.op
    assert isinstance(op, ops.Linear)
    graph = found.graph
    x = graph.type(acc.inputs[0])
    weights = graph.constants.get(acc.inputs[1])
    sizes = found.image(acc.inputs[0])
    bits = graph.type(acc.inputs[1]).dtype
    if weights is None:
        return "its weights are computed"
    if sizes is None or x.rank != 2 or x.dtype.bits > 8 or acc.inputs[0] in graph.constants:
        return f"reads {x}, which is no vector [1, K] with up to 8 bits"
    if bits.bits > 8 or bits.kind != "signed":
        return f"its weights are {bits}"
    if op.residual or op.activation not in ("none", "relu"):
        return "its sums have an activation or residual of their own"
    if op.activation == "relu":
        finish = replace(finish, lo=min(max(finish.lo, 0), finish.hi))
    finish, reason = _with_bias(graph, acc, finish)
    if reason is not None:
        return reason
    kernel = weights.reshape(len(weights), *sizes)
    return Job(
        acc.name, "dense", acc.inputs[0], end.name, kernel, bits.bits, (1, 1), (1, 1), (0, 0),
        sizes[1:], (1, 1), finish, activation_bits=x.dtype.bits, nodes=(acc.name,),
    )  # fmt: skip


def _with_bias(graph: Graph, acc: Node, finish: Finish) -> tuple[Finish, str | None]:
    name = graph.operand(acc, "bias")
    if name is None:
        return finish, None
    bias = graph.constants.get(name)
    if bias is None:
        return finish, "its bias is computed"
    return replace(finish, bias=bias.astype(np.int64)), None


def _window_sum(found: Selection, acc: Node, end: Node, finish: Finish) -> Job | str:
    """Sums over windows: kernels of ones."""
    graph = found.graph
    x = graph.type(acc.inputs[0])
    sizes = found.image(acc.inputs[0])
    if sizes is None or x.rank != 4 or x.dtype.bits > 8 or acc.inputs[0] in graph.constants:
        return f"reads {x}, which is no image of batch 1 with up to 8 bits"
    window = _window(acc, sizes)
    if isinstance(window, str):
        return window
    kernel, stride, padding, dilation = window
    shared = (stride, dilation, padding, sizes[1:], _out_size(acc))
    if kernel[0] * kernel[1] <= MOST_TAPS:
        ones = np.ones((sizes[0], *kernel), np.int8)
        return Job(acc.name, "depthwise", acc.inputs[0], end.name, ones, 2, *shared, finish,
                   activation_bits=x.dtype.bits, nodes=(acc.name,))  # fmt: skip
    # more taps than a command has: the dense engine adds up over several, one channel a lane
    channels = -(-sizes[0] // BLOCK) * BLOCK
    spread = np.zeros((channels, BLOCK, *kernel), np.int8)
    for lane in range(BLOCK):
        spread[lane::BLOCK, lane] = 1
    extra = channels - sizes[0]
    padded = replace(
        finish, m=np.pad(finish.m, (0, extra)), e=np.pad(finish.e, (0, extra), constant_values=1),
        bias=np.pad(finish.bias, (0, extra)),
    )  # fmt: skip
    return Job(acc.name, "dense", acc.inputs[0], end.name, spread, 2, *shared, padded,
               activation_bits=x.dtype.bits, groups=channels // BLOCK,
               nodes=(acc.name,))  # fmt: skip


def _out_size(node: Node) -> tuple[int, int]:
    """Rows and columns of an image, 1 x 1 of a reduction over it."""
    if isinstance(node.op, ops.Reduce):
        return (1, 1)
    return (node.type.shape[2], node.type.shape[3])


Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]


def _window(node: Node, sizes: tuple[int, int, int]) -> Window | str:
    """Kernel, stride, padding and dilation of a pool or a reduction over the image."""
    op = node.op
    if isinstance(op, ops.Reduce):
        if sorted(op.axes) != [2, 3]:
            return f"reduces axes {list(op.axes)}, not the image"
        return sizes[1:], (1, 1), (0, 0), (1, 1)
    assert isinstance(op, ops.Pool2d)
    if max(op.stride) > MOST_STRIDE:
        return f"its stride {op.stride} is more than {MOST_STRIDE}"
    return op.kernel, op.stride, op.padding[:2], op.dilation


_MAKERS: dict[type, Callable[[Selection, Node, Node, Finish], Job | str]] = {
    ops.Conv2d: _conv,
    ops.Linear: _linear,
    ops.Pool2d: _window_sum,
    ops.Reduce: _window_sum,
}


# Operators on narrow values


def _clip(found: Selection, node: Node) -> str | None:
    """A clip or relu: taken into the job that makes its operand where that has no other reader."""
    graph = found.graph
    x = node.inputs[0]
    reason = why_unreadable(found, x)
    if reason is not None:
        return reason
    op = node.op
    if isinstance(op, ops.Clip):
        lo, hi = op.lo, op.hi
    elif isinstance(op, ops.Activation) and op.kind == "relu":
        lo, hi = 0, node.type.dtype.max
    else:
        return f"the accelerator has no {getattr(op, 'kind', op.name)}"
    if graph.users[x] == (node.name,) and x not in graph.outputs and x in found.jobs:
        *before, last = found.jobs.pop(x)
        first, end = (min(max(v, lo), hi) for v in (last.finish.lo, last.finish.hi))
        finish = replace(last.finish, lo=first, hi=end)
        last = replace(last, result=node.name, finish=finish, nodes=(*last.nodes, node.name))
        found.jobs[node.name] = (*before, last)
        return None
    finish = unchanged(node, found.sizes[x][0], lo, hi)
    found.jobs[node.name] = (replace(element_wise(found, x, node.name, finish),
                                     nodes=(node.name,)),)
    return None


def _maximum(found: Selection, node: Node) -> str | None:
    """Max pooling; a large window goes row-wise, then column-wise."""
    op = node.op
    if getattr(op, "kind", "") != "max":
        return "an operator on the ARM cores reads its exact sums"
    x = node.inputs[0]
    reason = why_unreadable(found, x)
    if reason is not None:
        return reason
    sizes = found.sizes[x]
    if found.image(node.name) is None:
        return f"its result {node.type} is no image of batch 1"
    window = _window(node, sizes)
    if isinstance(window, str):
        return window
    kernel, stride, padding, dilation = window
    out = _out_size(node)
    bits = found.graph.type(x).dtype.bits
    finish = unchanged(node, sizes[0])

    def job(
        source: str, result: str, axis: int | None, in_size: tuple[int, int],
        out_size: tuple[int, int],
    ) -> Job:  # fmt: skip
        pick = [i in (axis, None) or axis is None for i in (0, 1)]
        k, s, d, p = (
            tuple(v if on else neutral for v, on in zip(values, pick))
            for values, neutral in ((kernel, 1), (stride, 1), (dilation, 1), (padding, 0))
        )
        return Job(
            result, "depthwise", source, result, np.ones((sizes[0], *k), np.int8), 2,
            (s[0], s[1]), (d[0], d[1]), (p[0], p[1]), in_size, out_size, finish, maximum=True,
            activation_bits=bits, nodes=(node.name,),
        )  # fmt: skip

    if kernel[0] * kernel[1] <= MOST_TAPS:
        found.jobs[node.name] = (job(x, node.name, None, sizes[1:], out),)
        return None
    if max(kernel) > MOST_TAPS:
        return f"its window {kernel} has a side of more than {MOST_TAPS}"
    between = f"{node.name}.rows"
    found.sizes[between] = (sizes[0], out[0], sizes[2])
    found.jobs[node.name] = (
        job(x, between, 0, sizes[1:], (out[0], sizes[2])),
        job(between, node.name, 1, (out[0], sizes[2]), out),
    )
    return None
