# SPDX-License-Identifier: Apache-2.0
"""TFLite files (float, int8, uint8 and 16-bit activations) to the graph IR.

Images are [N, C, H, W] in the graph: inputs and outputs with four axes too. Quantized networks
become float networks with Quantize and Dequantize around what the file stores as integers, as
in an imported ONNX network, for ``codesign.quant.absorb_qdq``. TFLite rounds halves away from
zero, the IR up; the file's integer arithmetic is not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# the handlers fill the table when imported
from codesign.errors import InputError, ParseError, UnsupportedError, VerifyError
from codesign.frontend import tflite_layers, tflite_shape  # noqa: F401
from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable, Unsupported, finish, raise_unsupported
from codesign.frontend.tflite_table import HANDLERS, MOVES, Call, Image, Known, Result
from codesign.frontend.tflite_values import (
    TO_PLAIN,
    Value,
    Values,
    check_scales,
    is_quantized,
    number_format,
    same_scales,
)  # fmt: skip
from codesign.ir import ops
from codesign.ir.batch import with_batch
from codesign.ir.graph import Graph
from codesign.ir.types import F32, TensorType
from codesign.zoo.tflite import TfliteOperator, TfliteTensor, read_tflite

_NEEDED = {
    "TRANSPOSE_CONV": "the IR has no transposed convolution; use a resize and a convolution",
    "SPACE_TO_BATCH_ND": "convert with dilated convolutions kept together",
    "BATCH_TO_SPACE_ND": "convert with dilated convolutions kept together",
}
_LONGEST_NAME = 80


def import_tflite(path: Path, batch: int = 1, name: str | None = None) -> Graph:
    """The graph of a TFLite file, with ``batch`` images at once where that is not 1.

    Raises ParseError (no TFLite file, or a damaged one), UnsupportedError that lists all
    operators that cannot be taken, InputError.
    """
    label = f"network file {str(path)!r}"
    try:
        graph = _Importer(path, name or path.stem).run()
    except VerifyError as error:
        raise InputError(f"{label}: {error}") from error
    return graph if batch == 1 else with_batch(graph, batch)


class _Importer:
    """Walks the operators once."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.model = read_tflite(path)
        self.lower = Lowering(name)
        self.values = Values(self.lower, self.model)
        self.found: list[Unsupported] = []
        self.names = _operator_names(self.model.tensors, self.model.operators)

    def run(self) -> Graph:
        label = f"network file {str(self.path)!r}"
        if not self.model.inputs or not self.model.outputs:
            raise InputError(f"{label} has no inputs or no outputs")
        for index in self.model.inputs:
            self._input(index, label)
        for number, operator in enumerate(self.model.operators):
            self._operator(number, operator)
        raise_unsupported(self.name, self.found)
        outputs = [self._output(index) for index in self.model.outputs]
        return finish(self.lower.builder, outputs, self.name)

    def _input(self, index: int, label: str) -> None:
        tensor = self.model.tensors[index]
        where = f"{label}: input {tensor.name!r}"
        for axis, dynamic in enumerate(tensor.dynamic):
            if dynamic and axis:
                raise InputError(
                    f"{where}: dimension {axis} is dynamic; only the batch (dimension 0) may be; "
                    "convert with fixed sizes"
                )
        if tensor.dtype != np.float32 and not is_quantized(tensor):
            raise InputError(f"{where} is {tensor.dtype}, expected float32 or a quantized integer")
        shape = tensor.shape
        if 0 in shape:
            raise InputError(f"{where} has an empty dimension: {list(shape)}")
        self.lower.at(tensor.name, tensor.name)
        image = len(shape) == 4 and not self._is_channels_first(index)
        if image:
            n, h, w, c = shape
            shape = (n, c, h, w)
        value = self.lower.builder.input(tensor.name, TensorType(shape, F32))
        try:
            value = self._quantized(tensor, value)
        except NotLowerable as error:
            raise InputError(f"{where}: {error}") from error
        self.values.computed[index] = Value(image=value) if image else Value(plain=value)

    def _is_channels_first(self, index: int) -> bool:
        """Whether the network itself takes [N, C, H, W] and turns it round at once."""
        users = [o for o in self.model.operators if index in o.inputs]
        perms = [
            self.values.constant(o.inputs[1])
            for o in users if o.kind == "TRANSPOSE" and len(o.inputs) > 1 and o.inputs[1] >= 0
        ]  # fmt: skip
        return 0 < len(users) == len(perms) and all(
            perm is not None and perm.reshape(-1).tolist() == list(TO_PLAIN) for perm in perms
        )

    def _output(self, index: int) -> str:
        tensor = self.model.tensors[index]
        made = {i: o.kind for o in self.model.operators for i in o.outputs}
        self.lower.at(tensor.name or "output", tensor.name)
        try:
            if len(self.values.shape(index)) == 4 and made.get(index) != "TRANSPOSE":
                return self.values.image(index)
            return self.values.plain(index)
        except NotLowerable as error:
            raise UnsupportedError(
                f"network {self.name!r}: output {tensor.name!r}: {error}"
            ) from error
        except ParseError as error:
            raise self._damaged(f"output: {error}") from error

    def _damaged(self, message: str) -> ParseError:
        return ParseError(f"{str(self.path)!r} is a damaged TFLite file: {message}")

    def _operator(self, number: int, operator: TfliteOperator) -> None:
        name = self.names[number]
        where = f"{name} (operator {number})"
        skipped = any(index in self.values.skipped for index in operator.inputs)
        try:
            if operator.kind not in HANDLERS:
                raise NotLowerable(
                    _NEEDED.get(operator.kind, "the IR has no such operator; replace it")
                )
            if not skipped:
                self.lower.at(name.replace("/", "."), name)
                self._take(operator)
                return
        except (NotLowerable, VerifyError, ops.OpError) as error:
            self.found.append(Unsupported(operator.kind, where, str(error)))
        except ParseError as error:
            raise self._damaged(f"{operator.kind} at {where!r}: {error}") from error
        self.values.skipped.update(operator.outputs)

    def _take(self, operator: TfliteOperator) -> None:
        made = HANDLERS[operator.kind](Call(operator, self.values))
        results = made if isinstance(made, list) else [made]
        if len(results) != len(operator.outputs):
            raise NotLowerable(f"{len(operator.outputs)} results, expected {len(results)}")
        for index, result in zip(operator.outputs, results):
            self._result(operator, index, result)

    def _result(self, operator: TfliteOperator, index: int, result: Result) -> None:
        tensor, values = self.model.tensors[index], self.values
        if isinstance(result, Known):
            values.folded[index] = result.value
            return
        known = self.lower.known(result.value)
        if known is not None and not is_quantized(tensor):
            values.folded[index] = known
            return
        value = result.value
        if not self._passes(operator, tensor):
            value = self._quantized(tensor, value)
        image = isinstance(result, Image)
        values.computed[index] = Value(image=value) if image else Value(plain=value)
        found = values.shape(index)
        wanted = tuple(n for axis, n in enumerate(tensor.shape) if not _open(tensor, axis))
        if wanted != tuple(n for axis, n in enumerate(found) if not _open(tensor, axis)):
            raise NotLowerable(
                f"its result has shape {list(found)}, the file says {list(tensor.shape)}"
            )

    def _passes(self, operator: TfliteOperator, result: TfliteTensor) -> bool:
        """Whether the result has the scale of all that it is moved from."""
        tensors = [self.model.tensors[i] for i in operator.inputs if i in self.values.computed]
        return (
            operator.kind in MOVES and bool(tensors)
            and all(same_scales(tensor, result) for tensor in tensors)
        )  # fmt: skip

    def _quantized(self, tensor: TfliteTensor, value: str) -> str:
        """``value`` as the file's integers hold it: a Quantize and a Dequantize."""
        if not is_quantized(tensor):
            if tensor.dtype.kind != "f":
                raise NotLowerable(f"its result {tensor.name!r} is {tensor.dtype} without scale")
            return value
        check_scales(tensor)
        if tensor.scales.size > 1:
            raise NotLowerable(f"tensor {tensor.name!r} has {tensor.scales.size} scales; one only")
        dtype, zero = number_format(tensor)
        lower = self.lower
        scale = lower.constant(tensor.scales.astype(np.float32).reshape(()), "scale")
        integers = lower.emit(ops.Quantize(dtype, -1, zero), [value, scale], "quantize")
        return lower.emit(ops.Dequantize(-1, zero), [integers, scale], "dequantize")


def _open(tensor: TfliteTensor, axis: int) -> bool:
    return axis < len(tensor.dynamic) and tensor.dynamic[axis]


def _operator_names(
    tensors: Sequence[TfliteTensor], operators: Sequence[TfliteOperator]
) -> list[str]:
    """Names after the results: ``model/conv2d/BiasAdd;model/...`` becomes ``conv2d``.

    Converters join the names of all that they fused; the one with the bias names the layer.
    """
    names = []
    for operator in operators:
        parts = tensors[operator.outputs[0]].name.split(";") if operator.outputs else [""]
        layer = next((p for p in parts if p.endswith("/BiasAdd")), parts[0])
        name = layer.removesuffix("/BiasAdd")[:_LONGEST_NAME].strip("/")
        names.append(name or operator.kind.lower())
    tops = {name.split("/")[0] for name in names if "/" in name}
    if len(tops) == 1:
        names = [name.removeprefix(f"{next(iter(tops))}/") for name in names]
    return names
