# SPDX-License-Identifier: Apache-2.0
"""Reading ONNX files: parsing, external data inside the model's folder, checks of the whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from codesign.errors import InputError
from codesign.ir.graph import Array
from codesign.ir.types import DType

OPSET = 13
"""The least operator set that is read."""
_CHECKER_LIMIT = 2**31 - 1
"""Protobuf cannot serialise more, so larger models are not given to onnx.checker."""


@dataclass(frozen=True)
class Tensor:
    """A constant of the model; 4-bit and smaller integers have a wider array."""

    value: Array
    dtype: DType | None
    """Number format where the array's own does not say it (4-bit integers)."""


def read_model(path: Path) -> onnx.ModelProto:
    """Parse ``path`` without its external data. Raises InputError."""
    if not path.is_file():
        raise InputError(f"network file {str(path)!r} not found")
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError):
        raise InputError(
            f"network file {str(path)!r} is damaged or no ONNX file: it cannot be parsed; "
            "copy or export it again"
        ) from None


def check_model(model: onnx.ModelProto, label: str, folder: Path | None) -> onnx.ModelProto:
    """Check version and validity, read external data in; returns the model to import.

    ``label`` names the model in messages. Raises InputError.
    """
    if not model.HasField("graph") or not model.graph.node:
        raise InputError(f"{label} holds no graph; export it again")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx"))
    if opset is None:
        raise InputError(f"{label} names no operator set of ONNX; export it again")
    if opset < OPSET:
        raise InputError(
            f"{label} uses ONNX operator set {opset}; {OPSET} or later is needed: "
            f"convert it with onnx.version_converter.convert_version(model, {OPSET})"
        )
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _read_external(tensor, label, folder)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and not kind.HasField("shape"):
            raise InputError(f"{label}: input {value.name!r} has no shape; export with fixed sizes")
    for value in model.graph.output:
        # many tools leave it out, the checker insists on it, the import does not need it
        value.type.tensor_type.shape.SetInParent()
    if model.ByteSize() < _CHECKER_LIMIT:
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            first = next(iter(str(error).strip().splitlines()), "no reason given")
            if "No Op registered" not in first:  # the import lists all such operators at once
                raise InputError(f"{label} is not valid ONNX: {first}") from None
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model, also inside attributes and subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for subgraph in attribute.graphs:
                yield from _tensors(subgraph)


def _read_external(tensor: onnx.TensorProto, label: str, folder: Path | None) -> None:
    """Bring external data into ``tensor``; never reads outside ``folder``."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    what = f"{label}: data of tensor {tensor.name!r}"
    if folder is None:
        raise InputError(f"{what} is in another file; give the model's path instead of the model")
    location = entries.get("location", "")
    root = folder.resolve()
    path = root / location
    if (
        not location
        or os.path.isabs(location)
        or "\\" in location
        or ".." in Path(location).parts
        or not path.resolve().is_relative_to(root)
    ):
        raise InputError(
            f"{what} is said to be in {location!r}, outside the model's folder; it is not read: "
            "save the model with its data beside it"
        )
    if not path.is_file():
        raise InputError(f"{what} is missing: file {location!r} is not in the model's folder")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError:
        raise InputError(f"{what} has an offset or length that is no number") from None
    size = path.stat().st_size
    if length < 0:
        length = size - offset
    if offset < 0 or length < 0 or offset + length > size:
        raise InputError(
            f"{what} needs bytes {offset} to {offset + length} of {location!r}, "
            f"which has {size}; the file is truncated"
        )
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


_NARROW = {
    onnx.TensorProto.INT4: DType("signed", 4), onnx.TensorProto.UINT4: DType("unsigned", 4),
    onnx.TensorProto.INT2: DType("signed", 2), onnx.TensorProto.UINT2: DType("unsigned", 2),
}  # fmt: skip


def tensor_value(proto: onnx.TensorProto, label: str) -> Tensor:
    """The value of a tensor whose data is inside the model. Raises InputError."""
    try:
        value: Any = onnx.numpy_helper.to_array(proto)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{label}: data of tensor {proto.name!r} does not fit its type and shape: {error}"
        ) from None
    narrow = _NARROW.get(proto.data_type)
    if narrow is not None:
        return Tensor(value.astype(narrow.numpy), narrow)
    if value.dtype.kind not in "fiubOSU":  # bfloat16 and the 8-bit floats
        value = value.astype(np.float32)
    return Tensor(value, None)
