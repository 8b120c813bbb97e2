# SPDX-License-Identifier: Apache-2.0
"""Writes small TFLite files (schema version 3) for tests, with the ``flatbuffers`` package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np

from codesign.zoo.tflite import _OPERATORS, _TYPES

TYPE_CODES = {np.dtype(kind): code for code, kind in _TYPES.items()}
OPTIONS = {
    "CONV_2D": (1, "biibii"), "DEPTHWISE_CONV_2D": (2, "biiibii"), "MAX_POOL_2D": (5, "biiiib"),
    "AVERAGE_POOL_2D": (5, "biiiib"), "FULLY_CONNECTED": (8, "bbbb"), "SOFTMAX": (9, "f"),
    "CONCATENATION": (10, "ib"), "ADD": (11, "b"), "RESIZE_BILINEAR": (15, "iibb"),
    "RESHAPE": (17, "v"), "MUL": (21, "b"), "MEAN": (27, "b"), "SUM": (27, "b"),
    "REDUCE_MAX": (27, "b"), "SUB": (28, "b"), "DIV": (29, "b"), "SQUEEZE": (30, "v"),
    "STRIDED_SLICE": (32, "iiiiib"), "SPLIT": (35, "i"), "SHAPE": (55, "b"), "PACK": (59, "ii"),
    "RESIZE_NEAREST_NEIGHBOR": (74, "bb"), "LEAKY_RELU": (75, "f"), "MIRROR_PAD": (77, "b"),
    "SPLIT_V": (79, "i"), "BATCH_MATMUL": (101, "bbb"), "GELU": (116, "b"),
}  # fmt: skip
"""Number in the union BuiltinOptions, and the fields: byte, int, float, vector of int."""


@dataclass
class Net:
    """Tensors and operators of a file; the last operator's results are the outputs."""

    tensors: list[dict[str, Any]] = field(default_factory=list)
    operators: list[tuple[str, list[int], list[int], tuple[Any, ...]]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def tensor(
        self, shape: Sequence[int], dtype: Any = np.float32, data: Any = None,
        scale: Any = (), zero: Any = (), axis: int = 0, name: str = "",
        signature: Sequence[int] = (),
    ) -> int:  # fmt: skip
        name = name or f"t{len(self.tensors)}"
        self.tensors.append({
            "shape": tuple(shape), "dtype": np.dtype(dtype), "data": data, "name": name,
            "scale": np.atleast_1d(np.asarray(scale, np.float32)), "axis": axis,
            "zero": np.atleast_1d(np.asarray(zero, np.int64)), "signature": tuple(signature),
        })  # fmt: skip
        return len(self.tensors) - 1

    def input(self, shape: Sequence[int], dtype: Any = np.float32, **more: Any) -> int:
        self.inputs.append(self.tensor(shape, dtype, **more))
        return self.inputs[-1]

    def const(self, data: Any, dtype: Any = None, **more: Any) -> int:
        array = np.asarray(data, dtype)
        return self.tensor(array.shape, array.dtype, array, **more)

    def ints(self, *values: int) -> int:
        return self.const(values, np.int32)

    def op(
        self, kind: str, inputs: Sequence[int], shape: Sequence[int], options: Sequence[Any] = (),
        **result: Any,
    ) -> int:  # fmt: skip
        """Add an operator with one result; returns the result's number."""
        return self.ops(kind, inputs, [shape], options, **result)[0]

    def ops(
        self, kind: str, inputs: Sequence[int], shapes: Sequence[Sequence[int]],
        options: Sequence[Any] = (), **result: Any,
    ) -> list[int]:  # fmt: skip
        self.outputs = [self.tensor(shape, **result) for shape in shapes]
        self.operators.append((kind, list(inputs), self.outputs, tuple(options)))
        return self.outputs

    def save(self, path: Path) -> Path:
        path.write_bytes(self.bytes())
        return path

    def bytes(self) -> bytes:
        b = flatbuffers.Builder(1024)
        kinds = list(dict.fromkeys(kind for kind, *_ in self.operators))
        buffers = [_table(b, {})]
        tensors = []
        for t in self.tensors:
            place = 0
            if t["data"] is not None and t["data"].size:
                raw = np.frombuffer(t["data"].tobytes(), np.uint8)
                place = len(buffers)
                buffers.append(_table(b, {0: ("o", b.CreateNumpyVector(raw))}))
            quantization = {}
            if t["scale"].size:
                quantization = {
                    2: ("o", b.CreateNumpyVector(t["scale"])),
                    3: ("o", b.CreateNumpyVector(t["zero"])),
                    6: ("i", t["axis"]),
                }
            fields = {
                0: ("o", _ints(b, t["shape"])), 1: ("b", TYPE_CODES[t["dtype"]]),
                2: ("I", place), 3: ("o", b.CreateString(t["name"])),
                4: ("o", _table(b, quantization)),
            }  # fmt: skip
            if t["signature"]:
                fields[7] = ("o", _ints(b, t["signature"]))
            tensors.append(_table(b, fields))
        operators = []
        for kind, inputs, outputs, options in self.operators:
            fields = {
                0: ("I", kinds.index(kind)), 1: ("o", _ints(b, inputs)),
                2: ("o", _ints(b, outputs)),
            }  # fmt: skip
            if options:
                union, forms = OPTIONS[kind]
                values = [_ints(b, v) if f == "v" else v for f, v in zip(forms, options)]
                slots = {
                    slot: ("o" if f == "v" else f, v)
                    for slot, (f, v) in enumerate(zip(forms, values))
                }
                fields |= {3: ("B", union), 4: ("o", _table(b, slots))}
            operators.append(_table(b, fields))
        graph = _table(b, {
            0: ("o", _offsets(b, tensors)), 1: ("o", _ints(b, self.inputs)),
            2: ("o", _ints(b, self.outputs)), 3: ("o", _offsets(b, operators)),
        })  # fmt: skip
        codes = [_code(b, kind) for kind in kinds]
        root = _table(b, {
            0: ("I", 3), 1: ("o", _offsets(b, codes)), 2: ("o", _offsets(b, [graph])),
            4: ("o", _offsets(b, buffers)),
        })  # fmt: skip
        b.Finish(root, b"TFL3")
        return bytes(b.Output())


def _code(b: Any, kind: str) -> int:
    if kind not in _OPERATORS:
        return _table(b, {0: ("b", 32), 1: ("o", b.CreateString(kind)), 3: ("i", 32)})
    code = _OPERATORS.index(kind)
    return _table(b, {0: ("b", min(code, 127)), 2: ("i", 1), 3: ("i", code)})


def _table(b: Any, fields: dict[int, tuple[str, Any]]) -> int:
    slots: dict[str, Callable[[int, Any, Any], None]] = {
        "b": b.PrependInt8Slot, "B": b.PrependUint8Slot, "i": b.PrependInt32Slot,
        "I": b.PrependUint32Slot, "f": b.PrependFloat32Slot, "o": b.PrependUOffsetTRelativeSlot,
    }  # fmt: skip
    b.StartObject(max(fields, default=-1) + 1)
    for slot, (form, value) in fields.items():
        slots[form](slot, value, 0)
    end: int = b.EndObject()
    return end


def _ints(b: Any, values: Sequence[int]) -> int:
    made: int = b.CreateNumpyVector(np.asarray(values, np.int32))
    return made


def _offsets(b: Any, items: Sequence[int]) -> int:
    b.StartVector(4, len(items), 4)
    for item in reversed(items):
        b.PrependUOffsetTRelative(item)
    made: int = b.EndVector()
    return made
