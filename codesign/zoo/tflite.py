# SPDX-License-Identifier: Apache-2.0
"""A reader of TFLite files: tensors with their data and scales, operators with their options.

TFLite is a FlatBuffers schema (tensorflow/lite/schema/schema.fbs, version 3). A table is a signed
offset to its vtable, which holds a 16-bit offset per field (0: absent); strings, vectors and
sub-tables lie behind unsigned 32-bit offsets. Every access is checked against the file's size.
What an operator's options mean is the reader's business (``TfliteOptions``, by field number).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from codesign.errors import ParseError, UnsupportedError

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
    12: np.uint64,
    15: np.uint32,
    16: np.uint16,
}
_OTHER_TYPES = {
    5: "STRING", 8: "COMPLEX64", 11: "COMPLEX128", 13: "RESOURCE", 14: "VARIANT", 17: "INT4",
    18: "BFLOAT16", 19: "INT2",
}  # fmt: skip
"""Types of the format that cannot be read."""
_NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D
LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6
RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL
CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST
PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN
TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW
ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK
REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR
LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS
WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
BATCH_MATMUL PLACEHOLDER CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM
MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1
"""
_OPERATORS = _NAMES.split()
"""Names of the built-in operators in order of their codes."""
_CUSTOM = 32


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
    dynamic: tuple[bool, ...] = ()
    """Which dimensions the file leaves open; empty: none."""

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
    options: TfliteOptions = field(default_factory=lambda: TfliteOptions(None), compare=False)


@dataclass(frozen=True)
class TfliteOptions:
    """The options of an operator: fields by their number in the schema's table."""

    table: _Table | None

    def integer(self, field: int, default: int = 0) -> int:
        """A 32-bit field."""
        return int(self._scalar(field, "i", default))

    def byte(self, field: int) -> int:
        """A field of a bool or a small enumeration."""
        return int(self._scalar(field, "b", 0))

    def real(self, field: int) -> float:
        """A float field."""
        return float(self._scalar(field, "f", 0.0))

    def integers(self, field: int) -> tuple[int, ...]:
        """A vector of 32-bit integers; empty if absent."""
        if self.table is None:
            return ()
        with _damage("an operator's options: {}"):
            return tuple(int(n) for n in self.table.array(field, np.int32))

    def _scalar(self, field: int, form: str, default: float) -> float:
        if self.table is None:
            return default
        with _damage("an operator's options: {}"):
            return self.table.scalar(field, form, default)


@dataclass(frozen=True)
class TfliteModel:
    """The first subgraph of a file."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(path: Path) -> TfliteModel:
    """Read ``path``; raises ParseError where the file is malformed, UnsupportedError for tensors
    of types that cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ParseError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if len(content) < 8 or content[4:8] != b"TFL3":
        raise ParseError(f"{str(path)!r} is not a TFLite file (no identifier TFL3)")
    with _damage(repr(str(path)) + " is a damaged TFLite file: {}"):
        return _read_model(_Buffer(content).root())


@contextlib.contextmanager
def _damage(message: str) -> Iterator[None]:
    """What a read of wrong offsets raises becomes one ParseError; {} stands for what it says."""
    try:
        yield
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise ParseError(message.replace("{}", str(error))) from error


class _Buffer:
    """Checked reads of little-endian numbers."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def number(self, form: str, at: int) -> int:
        return int(self.real(form, at))

    def real(self, form: str, at: int) -> float:
        if at < 0:
            raise ValueError(f"offset {at} before the start of the file")
        value: float = struct.unpack_from("<" + form, self.content, at)[0]
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

    def scalar(self, index: int, form: str, default: float = 0) -> float:
        at = self._field(index)
        return self.buffer.real(form, at) if at else default

    def integer(self, index: int, form: str) -> int:
        return int(self.scalar(index, form))

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
    codes = model.tables(1, _operator_name)
    buffers = model.tables(4, _buffer)
    graphs = model.tables(2, lambda table: _subgraph(table, codes, buffers))
    if not graphs:
        raise ValueError("it holds no subgraph")
    return graphs[0]


def _operator_name(table: _Table) -> str:
    code = max(table.integer(0, "b"), table.integer(3, "i"))
    if code == _CUSTOM:
        return f"CUSTOM:{table.text(1)}"
    return _OPERATORS[code] if 0 <= code < len(_OPERATORS) else f"BUILTIN_{code}"


def _buffer(table: _Table) -> NDArray[Any]:
    if table.integer(1, "Q") > 1:
        raise ValueError("its buffers lie behind the flat buffer (files over 2 GB are not read)")
    return table.array(0, np.uint8)


def _subgraph(table: _Table, codes: Sequence[str], buffers: Sequence[NDArray[Any]]) -> TfliteModel:
    tensors = tuple(table.tables(0, lambda t: _tensor(t, buffers)))

    def indices(table: _Table, field: int, least: int) -> tuple[int, ...]:
        found = tuple(int(i) for i in table.array(field, np.int32))
        if found and not (least <= min(found) and max(found) < len(tensors)):
            raise ValueError(f"tensor numbers {found} of {len(tensors)} tensors")
        return found

    def operator(table: _Table) -> TfliteOperator:
        code, options = codes[table.integer(0, "I")], TfliteOptions(table.table(4))
        return TfliteOperator(code, indices(table, 1, -1), indices(table, 2, 0), options)

    operators = tuple(table.tables(3, operator))
    return TfliteModel(tensors, operators, indices(table, 1, 0), indices(table, 2, 0))


def _tensor(table: _Table, buffers: Sequence[NDArray[Any]]) -> TfliteTensor:
    name, code = table.text(3), table.integer(1, "b")
    if code in _OTHER_TYPES:
        raise UnsupportedError(f"tensor {name!r} is {_OTHER_TYPES[code]}, which cannot be read")
    if code not in _TYPES:
        raise ValueError(f"tensor {name!r} has unknown type code {code}")
    if table.table(6) is not None:
        raise UnsupportedError(f"tensor {name!r} is stored sparse, which cannot be read")
    dtype = np.dtype(_TYPES[code])
    shape = tuple(int(n) for n in table.array(0, np.int32))
    if min(shape, default=0) < 0:
        raise ValueError(f"tensor {name!r} has shape {list(shape)}")
    raw = buffers[table.integer(2, "I")]
    quantization = table.table(4)
    scales, zeros, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
    if quantization is not None:
        scales = quantization.array(2, np.float32)
        zeros = quantization.array(3, np.int64)
        axis = quantization.integer(6, "i")
    if scales.size > 1 and (not 0 <= axis < len(shape) or shape[axis] != scales.size):
        raise ValueError(f"tensor {name!r}: {scales.size} scales for shape {shape}")
    if zeros.size not in (0, 1, scales.size):
        raise ValueError(f"tensor {name!r}: {zeros.size} zero points for {scales.size} scales")
    data = raw.view(dtype).reshape(shape) if raw.size else None
    dynamic = tuple(int(n) < 0 for n in table.array(7, np.int32))
    if len(dynamic) not in (0, len(shape)):
        raise ValueError(f"tensor {name!r}: its shape and shape signature differ in length")
    return TfliteTensor(name, shape, dtype, data, scales, zeros, axis, dynamic)
