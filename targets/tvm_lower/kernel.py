# SPDX-License-Identifier: Apache-2.0
"""Reading graph values inside a TensorIR kernel under construction."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from codesign.ir.graph import Graph, Node
from codesign.ir.types import DType, TensorType

Expr = Any
"""A TVM expression; TVM has no type stubs."""
Index = tuple[Expr, ...]
Reader = Callable[[Index], Expr]
Perm = tuple[int, ...]

NHWC: Perm = (0, 2, 3, 1)


def storage(dtype: DType) -> str:
    """TVM's name of the type that stores ``dtype``: sub-byte formats take a whole byte."""
    return str(dtype.numpy)


def const(value: float, dtype: str) -> Expr:
    """A scalar."""
    return tirx.const(value, dtype)


def type_of(value: Expr) -> str:
    """TVM's name of the type of an expression."""
    return str(value.ty)


def clamp(value: Expr, low: float, high: float) -> Expr:
    """``value`` within [low, high], which are exact in its type."""
    dtype = type_of(value)
    return tirx.Max(tirx.Min(value, const(high, dtype)), const(low, dtype))


def identity(rank: int) -> Perm:
    """Row-major order."""
    return tuple(range(rank))


def physical(shape: Sequence[int], perm: Perm) -> tuple[int, ...]:
    """Shape in memory; a scalar is stored as one element."""
    return tuple(shape[axis] for axis in perm) or (1,)


def reader(tensor: Any, perm: Perm) -> Reader:
    """Reads ``tensor``, whose axes are in ``perm`` order, at logical indices."""
    if not perm:
        return lambda index: tensor(0)
    return lambda index: tensor(*(index[axis] for axis in perm))


@dataclass
class Kernel:
    """Placeholders of one kernel, in the order of its arguments."""

    graph: Graph
    layouts: Mapping[str, Perm]
    """Order in memory of the values computed so far and of the inputs."""
    arguments: list[str | npt.NDArray[Any]] = field(default_factory=list)
    """What to pass: the name of a value, or a constant."""
    placeholders: list[Any] = field(default_factory=list)
    wide: Container[str] = frozenset()
    """Values that are stored in 16 bits, see ``wide``."""
    _values: dict[str, Reader] = field(default_factory=dict)

    def value(self, name: str) -> Reader:
        """Reads a value of the graph that is computed outside this kernel."""
        if name not in self._values:
            self._values[name] = self._read(name)
        return self._values[name]

    def _read(self, name: str) -> Reader:
        kind = self.graph.type(name)
        dtype = self.stored(name)
        array = self.graph.constants.get(name)
        if array is not None:
            if array.ndim == 0:
                scalar = const(array.item(), dtype)
                return lambda index: scalar
            return reader(self.array(array, name), identity(array.ndim))
        perm = self.layouts[name]
        self.arguments.append(name)
        return reader(self._placeholder(physical(kind.shape, perm), dtype, name), perm)

    def stored(self, name: str) -> str:
        """TVM's name of the type that a value lies in memory as."""
        return "int16" if name in self.wide else storage(self.graph.type(name).dtype)

    def _placeholder(self, shape: tuple[int, ...], dtype: str, name: str) -> Any:
        """An argument of the kernel; calling it with an index reads an element."""
        tensor = te.placeholder(shape, dtype, name=_label(name))
        self.placeholders.append(tensor)
        return tensor

    def innermost(self, name: str) -> int:
        """The logical axis whose neighbours are neighbours in memory; -1 for the last."""
        rank = len(self.graph.type(name).shape)
        axis = self.layouts[name][-1] if name in self.layouts else rank - 1
        return -1 if axis == rank - 1 else axis

    def array(self, array: npt.NDArray[Any], name: str) -> Any:
        """A constant array as a tensor."""
        self.arguments.append(np.ascontiguousarray(array))
        return self._placeholder(array.shape, str(array.dtype), name)

    def scale(self, name: str) -> Reader:
        """Reads a scale, always from memory.

        A scale known to the compiler could be turned into a multiplication by its inverse.
        """
        array = self.graph.constants.get(name)
        if array is not None and array.ndim == 0:
            tensor = self.array(array.reshape(1), name)
            return lambda index: tensor(0)
        return self.value(name)

    def type(self, name: str) -> TensorType:
        """Type of a value."""
        return self.graph.type(name)

    def node(self, name: str) -> Node:
        """A node of the graph."""
        return self.graph.nodes[name]


@dataclass(frozen=True)
class Memory:
    """An argument or a local array of a kernel that is written as loops and buffer accesses."""

    buffer: Any

    def __call__(self, *index: Expr) -> Expr:
        return tirx.BufferLoad(self.buffer, list(index))


class BufferKernel(Kernel):
    """A kernel for the templates, which write loops and buffer accesses: its placeholders are
    arguments of the function under construction."""

    @cached_property
    def buffers(self) -> dict[str, Any]:
        """Buffers of the arguments so far, by the name of the value."""
        return {}

    def _placeholder(self, shape: tuple[int, ...], dtype: str, name: str) -> Any:
        from tvm.script.ir_builder import tirx as build

        memory = Memory(build.arg(_label(name), build.buffer(shape, dtype)))
        self.placeholders.append(memory)
        self.buffers[name] = memory.buffer
        return memory


def _label(name: str) -> str:
    return "v_" + name.replace(".", "_")
