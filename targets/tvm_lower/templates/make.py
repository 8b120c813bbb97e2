# SPDX-License-Identifier: Apache-2.0
"""From a kernel's workload to its TensorIR function."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as build

from codesign.ir.graph import Graph
from codesign.targets.tvm_lower.dense import make_finish, make_product, sample
from codesign.targets.tvm_lower.groups import Group
from codesign.targets.tvm_lower.isa import instruction_set
from codesign.targets.tvm_lower.kernel import (
    NHWC,
    BufferKernel,
    Expr,
    Index,
    Kernel,
    Perm,
    Reader,
    identity,
)
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.templates.choose import default_tile, dots_for, suits
from codesign.targets.tvm_lower.templates.depthwise import depthwise
from codesign.targets.tvm_lower.templates.depthwise_bytes import depthwise_bytes
from codesign.targets.tvm_lower.templates.direct import direct
from codesign.targets.tvm_lower.templates.epilogue import (
    Epilogue,
    constant_bias,
    fused_requantize,
    scaled_reader,
    scaling_tables,
    short_lift,
)
from codesign.targets.tvm_lower.templates.request import Request, correction
from codesign.targets.tvm_lower.templates.winograd import winograd
from codesign.targets.tvm_lower.templates.workload import Workload
from codesign.targets.tvm_lower.tiles import (
    DefaultTile,
    DepthwiseTile,
    DirectTile,
    Tile,
    WinogradTile,
)

Chain = Callable[[Kernel, Group, dict[str, Reader]], Reader]


@dataclass(frozen=True)
class Written:
    """A kernel that a template wrote."""

    kernel: BufferKernel
    function: Any
    perm: Perm


def write_kernel(
    graph: Graph, layouts: Mapping[str, Perm], group: Group, workload: Workload,
    machine: Machine, chain: Chain, chosen: Tile | None = None, wide: Container[str] = frozenset(),
) -> Written | None:  # fmt: skip
    """The kernel of ``group``, or None if the instruction set has no exact dot for it.

    A ``chosen`` tile that does not suit the workload gives way to the fixed rules.
    """
    isa = instruction_set(machine.isa)
    head, tail = graph.nodes[group.head], graph.nodes[group.tail]
    weights = graph.constants[head.inputs[1]]
    if weights.ndim == 2:
        weights = weights[:, :, None, None]
    stride, workload = workload.stride, workload.sampled()
    dots = dots_for(workload, isa, weights)
    tile = chosen
    if tile is None or not suits(tile, workload, dots):
        tile = default_tile(workload, isa, dots, machine.threads)
    if tile is None or isinstance(tile, DefaultTile):
        return None
    perm = NHWC if head.op.name == "conv2d" else identity(tail.type.rank)
    kernel = BufferKernel(graph, layouts, wide=wide)
    with IRBuilder() as builder:
        with build.prim_func(is_private=False):
            build.func_name("main")

            def epilogue(offset: int, lanes: int) -> Epilogue:
                fix = correction(weights, offset)
                values: list[Expr] = []
                fast = isa.pairs or isa.scaling is not None
                requantize = fused_requantize(graph, group) if fast else None
                bias = constant_bias(kernel, head, fix, weights.shape[0])
                tables, scaling, lift = None, isa.scaling, 0
                if requantize is not None and bias is not None:
                    m, e = (graph.constants[v] for v in requantize.inputs[1:])
                    exact = constant_bias(kernel, head, None, weights.shape[0])
                    if exact is not None and isa.short_scaling is not None:
                        able = short_lift(workload.data, weights, exact, e)
                        if able is not None:
                            scaling, lift = isa.short_scaling, able
                    pack = scaling.pack if scaling is not None else scaling_tables
                    found = pack(m, e + lift, bias << lift, lanes).reshape(-1)
                    tables = kernel.array(found, "scaling").buffer
                    done = {head.name: _never, requantize.name: scaled_reader(requantize, values)}
                else:
                    last = make_finish(kernel, head, fix)
                    done = {head.name: lambda index: last(values[-1], index)}
                read = chain(kernel, group, done)

                def finish(total: Expr, index: Index) -> Expr:
                    values.append(total)
                    return read(index)

                return Epilogue(finish, tables, scaling, lift)

            product = make_product(kernel, head)
            sampled = workload.stride != stride
            if sampled:
                product = sample(product, stride)
            last = kernel.innermost(head.inputs[0]) == (1 if head.op.name == "conv2d" else -1)
            request = Request(
                kernel, product, weights, workload.data, epilogue,
                tail.type.shape, perm, kernel.stored(group.tail),
                kernel.buffers.get(head.inputs[0]) if last and not sampled else None,
                machine.threads if getattr(tile, "parallel", False) else 1,
            )  # fmt: skip
            if isinstance(tile, WinogradTile):
                winograd(request, dots.winograd[tile.high, tile.wide][0], tile)
            elif isinstance(tile, DepthwiseTile) and dots.lanewise is not None:
                depthwise_bytes(request, dots.lanewise, tile)
            elif isinstance(tile, DepthwiseTile):
                depthwise(request, dots.each[0], tile)
            else:
                assert isinstance(tile, DirectTile)
                direct(request, dots.direct[tile.dot], tile)
        function = builder.get()
    return Written(kernel, function, perm)


def _never(index: Index) -> Expr:
    raise AssertionError("the sum is scaled before anything reads it")
