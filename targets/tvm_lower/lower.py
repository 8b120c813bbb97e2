# SPDX-License-Identifier: Apache-2.0
"""An IR graph as a TVM Relax module: one scheduled TensorIR function a kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvm import relax, te
from tvm_ffi import structural_equal, structural_hash

from codesign.ir.graph import Graph, Node
from codesign.targets.tvm_lower.anchor import Anchor
from codesign.targets.tvm_lower.dense import make_dense
from codesign.targets.tvm_lower.elementwise import make_elementwise
from codesign.targets.tvm_lower.groups import (
    COMPUTE,
    ELEMENTWISE,
    Group,
    kernel_name,
    make_groups,
)
from codesign.targets.tvm_lower.kernel import (
    NHWC,
    Index,
    Kernel,
    Perm,
    Reader,
    identity,
    physical,
    storage,
)
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.others import ANCHORS
from codesign.targets.tvm_lower.schedule import schedule
from codesign.targets.tvm_lower.templates.make import write_kernel
from codesign.targets.tvm_lower.templates.workload import find_workload
from codesign.targets.tvm_lower.templates.write import with_own_threads
from codesign.targets.tvm_lower.tiles import Tiles, TraceTile, no_tiles
from codesign.targets.tvm_lower.trace import Loose, arguments_of, function_key, traced
from codesign.targets.tvm_lower.wide import tuned_tile, wide_values

_IMAGES = frozenset({"conv2d", "pool2d", "resize"})
"""Operators that like their images channels-last."""

_SEARCHED = COMPUTE | {"pool2d", "reduce", "softmax", "layer_norm", "resize"}
"""Operators whose loops may be searched for where no template writes them; others move data."""


def lower(
    graph: Graph, machine: Machine, tiles: Tiles = no_tiles, as_stored: bool = False,
    calls: dict[str, list[str]] | None = None,
) -> Any:  # fmt: skip
    """The Relax module of ``graph`` with one function ``main``, which returns a tuple.

    Inputs and results are row-major in logical order; sub-byte formats take a byte an element.
    ``tiles`` gives the tile of a kernel by its key. With ``as_stored`` images come and go as they
    lie inside a network, channels last: to measure a layer without the change of order.
    Kernels of the same code are compiled once: ``calls`` is filled with the names of the kernels
    that each function stands for, in the order of its calls.
    """
    lowering = _Lowering(graph, machine, tiles, as_stored)
    module = lowering.module()
    if calls is not None:
        calls.update(lowering.calls)
    return module


def kernel_codes(graph: Graph, machine: Machine, tiles: Tiles = no_tiles) -> dict[str, str]:
    """What code each kernel of ``graph`` is, as a hash: of equal ones only the arguments differ
    (weights, scales, images)."""
    lowering = _Lowering(graph, machine, tiles, False)
    lowering.module()
    return {
        kernel: f"{code & (1 << 64) - 1:016x}.{place}"
        for code, alike in lowering.functions.items()
        for place, (_, _, name) in enumerate(alike)
        for kernel in lowering.calls[name]
    }


def loose_kernels(
    graph: Graph, machine: Machine, tiles: Tiles = no_tiles, as_stored: bool = False
) -> list[Loose]:
    """The kernels of ``graph`` that no template writes and that compute more than element by
    element, in order; alike ones share a key."""
    lowering = _Lowering(graph, machine, tiles, as_stored)
    lowering.loose = []
    lowering.module()
    return lowering.loose


@dataclass
class _Written:
    """A kernel before it is scheduled."""

    out: Any
    anchor: Anchor | None
    perm: Perm


class _Lowering:
    def __init__(self, graph: Graph, machine: Machine, tiles: Tiles, as_stored: bool) -> None:
        self.graph = graph
        self.machine = machine
        self.tiles, self.as_stored = tiles, as_stored
        self.builder = relax.BlockBuilder()
        self.groups = make_groups(graph)
        self.wide = wide_values(graph, self.groups, machine, tiles)
        self.values: dict[str, Any] = {}
        """Relax variables of the values, in memory order."""
        self.layouts: dict[str, Perm] = {}
        self.calls: dict[str, list[str]] = {}
        """Kernels that each function computes, in order."""
        self.functions: dict[int, list[tuple[Any, Any, str]]] = {}
        """By the hash of its code: a function, its symbol in the module and its name."""
        self.loose: list[Loose] | None = None
        """Kernels that no template writes, if they are asked for."""

    def module(self) -> Any:
        graph, builder = self.graph, self.builder
        parameters = []
        for name in graph.inputs:
            kind = graph.type(name)
            info = relax.TensorType(self._interface(name), storage(kind.dtype))
            parameters.append(relax.Var(f"in_{name.replace('.', '_')}", info))
        with builder.function("main", parameters):
            with builder.dataflow():
                for name, parameter in zip(graph.inputs, parameters):
                    kind = graph.type(name)
                    stored = self.as_stored and kind.rank == 4
                    self.layouts[name] = NHWC if stored else identity(kind.rank)
                    self.values[name] = self._reshaped(
                        parameter, self._memory(name), self._interface(name)
                    )
                for group in self.groups:
                    self._group(group)
                results = [builder.emit_output(self._output(name)) for name in graph.outputs]
            builder.emit_func_output(relax.Tuple(results))
        return builder.finalize()

    def _interface(self, name: str) -> tuple[int, ...]:
        """Shape of an input as it is handed over."""
        shape = self.graph.type(name).shape
        return physical(shape, NHWC) if self.as_stored and len(shape) == 4 else shape

    def _reshaped(self, value: Any, shape: tuple[int, ...], given: tuple[int, ...]) -> Any:
        if tuple(shape) == tuple(given):
            return value
        return self.builder.emit(relax.op.reshape(value, shape))

    def _memory(self, name: str) -> tuple[int, ...]:
        return physical(self.graph.type(name).shape, self.layouts[name])

    def _group(self, group: Group) -> None:
        head = self.graph.nodes[group.head]
        if head.op.name == "reshape" and group.head == group.tail and self._is_view(head):
            source = head.inputs[0]
            self.layouts[head.name] = identity(head.type.rank)
            self.values[head.name] = self._reshaped(
                self.values[source], self._memory(head.name), self._memory(source)
            )
            return
        if self._template(group):
            return
        kernel = Kernel(self.graph, self.layouts, wide=self.wide)
        written = self._write(kernel, group)
        function = te.create_prim_func([*kernel.placeholders, written.out])
        if head.op.name in _SEARCHED:
            function = self._searched(function, kernel, written, kernel_name(group.tail))
        else:
            function = with_own_threads(schedule(function, written.anchor, self.machine))
        shape = tuple(int(n) for n in written.out.shape)
        self._call(group.tail, kernel, function, shape, written.perm)

    def _searched(self, function: Any, kernel: Kernel, written: _Written, name: str) -> Any:
        """The loops of a kernel that no template writes: as they were tuned, or by fixed rules."""
        key = "" if self.tiles is no_tiles and self.loose is None else function_key(function)
        tile = self.tiles(key)
        if isinstance(tile, TraceTile) and self.loose is None:
            found = traced(function, tile)
            if found is not None:
                return found
        scheduled = with_own_threads(schedule(function, written.anchor, self.machine))
        if self.loose is not None:
            out, anchor = written.out, written.anchor
            self.loose.append(Loose(
                key, name, function, scheduled, arguments_of(kernel),
                (tuple(int(n) for n in out.shape), str(out.dtype)),
                anchor is not None and anchor.vnni,
            ))  # fmt: skip
        return scheduled

    def _template(self, group: Group) -> bool:
        """Write the kernel with a template; False if there is none for it."""
        workload = find_workload(self.graph, group)
        if workload is None:
            return False
        tile = tuned_tile(self.graph, group, self.tiles)
        read = self.graph.nodes[group.head].inputs[0]
        workload = replace(workload, wide=read in self.wide)
        found = write_kernel(
            self.graph, self.layouts, group, workload, self.machine, self._chain, tile, self.wide
        )
        if found is None:
            return False
        shape = physical(self.graph.type(group.tail).shape, found.perm)
        self._call(group.tail, found.kernel, found.function, shape, found.perm)
        return True

    def _is_view(self, node: Node) -> bool:
        """Whether a reshape leaves the elements where they are in memory."""
        name = node.inputs[0]
        if name not in self.values:
            return False
        shape, perm = self.graph.type(name).shape, self.layouts[name]
        moving = [axis for axis in perm if shape[axis] > 1]
        return moving == sorted(moving)

    def _write(self, kernel: Kernel, group: Group) -> _Written:
        head, tail = self.graph.nodes[group.head], self.graph.nodes[group.tail]
        anchor, stored = None, kernel.stored(group.tail)
        inner: dict[str, Reader] = {}
        if head.op.name in COMPUTE:
            anchor = make_dense(kernel, head, self.machine)
        elif head.op.name in ANCHORS:
            anchor = ANCHORS[head.op.name](kernel, head)
        perm = self._perm(head, tail)
        direct = anchor.direct if anchor is not None else None
        if anchor is not None and direct is not None and anchor.finish is not None:
            finish = anchor.finish
            at: list[Index] = []
            inner[head.name] = lambda index: finish(direct.sums(at[-1]), index)
            read = self._chain(kernel, group, inner)

            def stage(*position: Any) -> Any:
                at.append(position)
                return read(direct.index(position)).astype(stored)

            out = te.compute(direct.shape, stage, name="out")
            perm = NHWC if anchor.kind == "window" or head.op.name in _IMAGES else identity(
                tail.type.rank
            )
            return _Written(out, anchor, perm)
        if anchor is not None:
            inner[head.name] = anchor.read
        read = self._chain(kernel, group, inner)
        place = {axis: p for p, axis in enumerate(perm)}

        def element(*position: Any) -> Any:
            index = tuple(position[place[axis]] for axis in range(len(perm)))
            return read(index).astype(stored)

        out = te.compute(physical(tail.type.shape, perm), element, name="out")
        return _Written(out, anchor, perm)

    def _chain(self, kernel: Kernel, group: Group, inner: dict[str, Reader]) -> Reader:
        for name in group.members:
            node = self.graph.nodes[name]
            if node.op.name in ELEMENTWISE and name not in inner:
                inner[name] = make_elementwise(kernel, node, inner)
        return inner[group.tail]

    def _perm(self, head: Node, tail: Node) -> Perm:
        """Order in memory of a kernel's result."""
        rank = tail.type.rank
        if rank != 4 or tail.name in self.graph.outputs:
            return identity(rank)
        if head.op.name in _IMAGES:
            return NHWC
        if head.op.name in ("reshape", "transpose", "matmul", "linear"):
            return NHWC if self._feeds_image(tail) else identity(rank)
        images = [v for v in head.inputs if v in self.values and self.graph.type(v).rank == 4]
        images.sort(key=lambda v: self.graph.type(v).shape != head.type.shape)
        like_source = bool(images) and self.layouts[images[0]] == NHWC
        return NHWC if like_source or self._feeds_image(tail) else identity(rank)

    def _feeds_image(self, node: Node) -> bool:
        return any(self.graph.nodes[r].op.name in _IMAGES for r in self.graph.users[node.name])

    def _call(
        self, name: str, kernel: Kernel, function: Any, shape: tuple[int, ...], perm: Perm
    ) -> None:
        kind = self.graph.type(name)
        arguments = [
            self.values[a] if isinstance(a, str) else relax.const(a, str(a.dtype))
            for a in kernel.arguments
        ]
        symbol = self._symbol(function, kernel_name(name))
        info = relax.TensorType(shape, kernel.stored(name))
        value = self.builder.emit(relax.call_tir(symbol, arguments, info))
        self.layouts[name] = perm
        self.values[name] = self._reshaped(value, physical(kind.shape, perm), shape)

    def _symbol(self, function: Any, label: str) -> Any:
        """The symbol of a function of this code: one that is there already, or a new one."""
        function = function.with_attr("global_symbol", "kernel")
        alike = self.functions.setdefault(structural_hash(function), [])
        for other, symbol, name in alike:
            if structural_equal(function, other):
                self.calls[name].append(label)
                return symbol
        symbol = self.builder.add_func(function.with_attr("global_symbol", label), label)
        alike.append((function, symbol, label))
        self.calls[label] = [label]
        return symbol

    def _output(self, name: str) -> Any:
        kind = self.graph.type(name)
        if name in self.graph.constants:
            value = self.graph.constants[name]
            return relax.const(value, str(value.dtype))
        if self.as_stored:
            return self._reshaped(self.values[name], self._memory(name), self._memory(name))
        moving = [axis for axis in self.layouts[name] if kind.shape[axis] > 1]
        if moving != sorted(moving):
            return self._row_major(name)
        if self._memory(name) != kind.shape:
            return relax.op.reshape(self.values[name], kind.shape)
        return self.values[name]

    def _row_major(self, name: str) -> Any:
        kernel = Kernel(self.graph, self.layouts)
        kind = self.graph.type(name)
        read = kernel.value(name)
        out = te.compute(kind.shape, lambda *i: read(i), name="out")
        function = te.create_prim_func([*kernel.placeholders, out])
        label = f"{kernel_name(name)}_row_major"
        function = with_own_threads(schedule(function, None, self.machine))
        symbol = self._symbol(function, label)
        info = relax.TensorType(kind.shape, storage(kind.dtype))
        return self.builder.emit(relax.call_tir(symbol, [self.values[name]], info))

