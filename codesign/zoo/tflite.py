# SPDX-License-Identifier: Apache-2.0
"""A reader of TFLite files: tensors with their data and scales, and the list of operators.

TFLite is a FlatBuffers schema (tensorflow/lite/schema/schema.fbs, version 3). A table is a signed
offset to its vtable, which holds a 16-bit offset per field (0: absent); strings, vectors and
sub-tables lie behind unsigned 32-bit offsets. Every access is checked against the file's size.
Only what a weights loader needs is read; operator options are not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from codesign.errors import ParseError

_T = TypeVar("_T")
_TYPES: dict[int, type[np.generic]] = {
    0: np.float32,
    1: np.float16,
    2: np.int32,
    3: np.uint8,
    4: np.int64,
    6: np.bool_,
    7: np.int16,
    9: np.int8,
    10: np.float64,
}
_OPERATORS = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    17: "MAX_POOL_2D",
    18: "MUL",
    22: "RESHAPE",
    25: "SOFTMAX",
    34: "PAD",
    40: "MEAN",
    114: "QUANTIZE",
}


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor; ``data`` is None for activations."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: NDArray[Any] | None
    scales: NDArray[np.float32]
    """One per tensor or one per slice of ``axis``; empty: not quantized."""
    zero_points: NDArray[np.int64]
    axis: int

    def values(self) -> NDArray[np.float32]:
        """The constant as float32, dequantized where it has scales: (q - zero) * scale."""
        if self.data is None:
            raise ParseError(f"tensor {self.name!r} is an activation and has no data")
        if not self.scales.size:
            return np.asarray(self.data, np.float32)
        shape = [1] * len(self.shape)
        if self.scales.size > 1:
            shape[self.axis] = self.scales.size
        zero = self.zero_points if self.zero_points.size else np.zeros(1, np.int64)
        zero = np.broadcast_to(zero, self.scales.shape)
        exact = (self.data.astype(np.float64) - zero.reshape(shape)) * self.scales.reshape(shape)
        return exact.astype(np.float32)


@dataclass(frozen=True)
class TfliteOperator:
    """One operator: its name (or ``BUILTIN_<code>``) and tensor indices (-1: absent)."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class TfliteModel:
    """The first subgraph of a file."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(path: Path) -> TfliteModel:
    """Read ``path``; raises ParseError where the file is malformed."""
    content = path.read_bytes()
    if len(content) < 8 or content[4:8] != b"TFL3":
        raise ParseError(f"{str(path)!r} is not a TFLite file (no identifier TFL3)")
    try:
        return _read_model(_Buffer(content).root())
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
        raise ParseError(f"{str(path)!r} is a damaged TFLite file: {error}") from error


class _Buffer:
    """Checked reads of little-endian numbers."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def number(self, form: str, at: int) -> int:
        if at < 0:
            raise ValueError(f"offset {at} before the start of the file")
        value: int = struct.unpack_from("<" + form, self.content, at)[0]
        return value

    def root(self) -> _Table:
        return _Table(self, self.number("I", 0))


class _Table:
    """One FlatBuffers table."""

    def __init__(self, buffer: _Buffer, at: int) -> None:
        self.buffer = buffer
        self.at = at
        self.vtable = at - buffer.number("i", at)
        self.slots = (buffer.number("H", self.vtable) - 4) // 2

    def _field(self, index: int) -> int:
        """Position of a field, 0 if absent."""
        if index >= self.slots:
            return 0
        offset = self.buffer.number("H", self.vtable + 4 + 2 * index)
        return self.at + offset if offset else 0

    def scalar(self, index: int, form: str) -> int:
        at = self._field(index)
        return self.buffer.number(form, at) if at else 0

    def _target(self, index: int) -> int:
        at = self._field(index)
        return at + self.buffer.number("I", at) if at else 0

    def array(self, index: int, dtype: type[np.generic]) -> NDArray[Any]:
        at = self._target(index)
        if not at:
            return np.zeros(0, dtype)
        count = self.buffer.number("I", at)
        return np.frombuffer(self.buffer.content, dtype, count, at + 4)

    def text(self, index: int) -> str:
        return bytes(self.array(index, np.uint8)).decode()

    def table(self, index: int) -> _Table | None:
        at = self._target(index)
        return _Table(self.buffer, at) if at else None

    def tables(self, index: int, read: Callable[[_Table], _T]) -> list[_T]:
        at = self._target(index)
        count = self.buffer.number("I", at) if at else 0
        if 4 * count > len(self.buffer.content):
            raise ValueError(f"a vector of {count} tables does not fit the file")
        places = (at + 4 + 4 * i for i in range(count))
        return [read(_Table(self.buffer, p + self.buffer.number("I", p))) for p in places]


def _read_model(model: _Table) -> TfliteModel:
    codes = model.tables(1, lambda t: max(t.scalar(0, "b"), t.scalar(3, "i")))
    buffers = model.tables(4, lambda t: t.array(0, np.uint8))

    def tensor(table: _Table) -> TfliteTensor:
        code = table.scalar(1, "b")
        if code not in _TYPES:
            raise ValueError(f"tensor {table.text(3)!r} has unknown type code {code}")
        dtype = np.dtype(_TYPES[code])
        shape = tuple(int(n) for n in table.array(0, np.int32))
        raw = buffers[table.scalar(2, "I")]
        quantization = table.table(4)
        scales, zeros, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
        if quantization is not None:
            scales = quantization.array(2, np.float32)
            zeros = quantization.array(3, np.int64)
            axis = quantization.scalar(6, "i")
        if scales.size > 1 and (not 0 <= axis < len(shape) or shape[axis] != scales.size):
            raise ValueError(f"tensor {table.text(3)!r}: {scales.size} scales for shape {shape}")
        data = np.frombuffer(raw.tobytes(), dtype).reshape(shape) if raw.size else None
        return TfliteTensor(table.text(3), shape, dtype, data, scales, zeros, axis)

    def operator(table: _Table) -> TfliteOperator:
        code = codes[table.scalar(0, "I")]
        return TfliteOperator(
            _OPERATORS.get(code, f"BUILTIN_{code}"),
            tuple(int(i) for i in table.array(1, np.int32)),
            tuple(int(i) for i in table.array(2, np.int32)),
        )

    def subgraph(table: _Table) -> TfliteModel:
        return TfliteModel(
            tuple(table.tables(0, tensor)),
            tuple(table.tables(3, operator)),
            tuple(int(i) for i in table.array(1, np.int32)),
            tuple(int(i) for i in table.array(2, np.int32)),
        )

    graphs = model.tables(2, subgraph)
    if not graphs:
        raise ValueError("it holds no subgraph")
    return graphs[0]
