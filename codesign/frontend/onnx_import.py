# SPDX-License-Identifier: Apache-2.0
"""ONNX models (operator set 13 and later; float and QDQ) to the graph IR."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import onnx

# the handlers fill the table when imported
from codesign.errors import InputError, VerifyError
from codesign.frontend import onnx_elementwise, onnx_layers, onnx_shape  # noqa: F401
from codesign.frontend.lowering import Lowering
from codesign.frontend.onnx_read import check_model, read_model, tensor_value
from codesign.frontend.onnx_table import HANDLERS, NEEDED, Call, Item, Known, Part, Result
from codesign.frontend.report import NotLowerable, Unsupported, finish, raise_unsupported
from codesign.ir.graph import Graph
from codesign.ir.types import F32, S8, S32, U8, TensorType

_INPUT_TYPES = {
    onnx.TensorProto.FLOAT: F32, onnx.TensorProto.UINT8: U8, onnx.TensorProto.INT8: S8,
    onnx.TensorProto.INT32: S32,
}  # fmt: skip
_FOLDED = frozenset((
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos",
    "Div", "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
    "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "MatMul", "Max",
    "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "ScatterND",
    "Sign", "Sin", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Trilu",
    "Unsqueeze", "Where",
))  # fmt: skip
"""Operators computed at import when all operands are known."""


class _Skipped:
    """Result of an unsupported operator: what reads it is not looked at."""


_SKIPPED = _Skipped()


def import_model(
    model: str | Path | onnx.ModelProto, batch: int = 1, name: str | None = None
) -> Graph:
    """The graph of an ONNX file or model; see ``codesign.frontend.from_onnx``."""
    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)  # external data and the like must not change the caller's model
        name = name or model.graph.name or "network"
        return _Importer(check_model(copy, f"network {name!r}", None), name, batch).run()
    path = Path(model)
    checked = check_model(read_model(path), f"network file {str(path)!r}", path.parent)
    return _Importer(checked, name or path.stem, batch).run()


class _Importer:
    """Walks the graph once."""

    def __init__(self, model: onnx.ModelProto, name: str, batch: int) -> None:
        self.graph = model.graph
        self.opset = next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx"))
        self.name = name
        self.label = f"network {name!r}"
        self.batch = batch
        self.lower = Lowering(name)
        self.env: dict[str, Item | _Skipped] = {}
        self.found: list[Unsupported] = []

    def run(self) -> Graph:
        for proto in self.graph.initializer:
            tensor = tensor_value(proto, self.label)
            self._check_tensor(proto.name, tensor.value)
            self.env[proto.name] = Known(tensor.value, tensor.dtype, proto.name)
        for value in self.graph.input:
            if value.name not in self.env:
                self.env[value.name] = self._input(value)
        for sparse in self.graph.sparse_initializer:
            self._reject("sparse initialiser", sparse.values.name, "store it as a dense tensor")
            self.env[sparse.values.name] = _SKIPPED
        for node in self.graph.node:
            self._node(node)
        raise_unsupported(self.name, self.found)
        outputs = [self._output(value.name) for value in self.graph.output]
        return finish(self.lower.builder, outputs, self.name)

    def _check_tensor(self, name: str, value: np.ndarray[Any, Any]) -> None:
        """Unfit weights, found before anything is computed from them."""
        users = [n for n in self.graph.node if name in n.input]
        layer = users[0].name or users[0].output[0] if users else "nothing"
        # an empty roi or list of axes is no weight
        if value.size == 0 and value.ndim > 1:
            raise InputError(
                f"{self.label}: tensor {name!r} of layer {layer!r} has an empty dimension: "
                f"{list(value.shape)}"
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            # bounds of Clip, Max and Min and the value of Pad may be infinite
            if value.size == 1 and not np.isnan(value).any():
                return
            bad = value.size - int(np.isfinite(value).sum())
            raise InputError(
                f"{self.label}: tensor {name!r} of layer {layer!r} holds NaN or infinite values "
                f"({bad} of {value.size}); retrain or repair the weights"
            )

    def _input(self, value: onnx.ValueInfoProto) -> str:
        where = f"{self.label}: input {value.name!r}"
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type not in _INPUT_TYPES:
            found = onnx.TensorProto.DataType.Name(kind.elem_type)
            known = ", ".join(onnx.TensorProto.DataType.Name(t) for t in _INPUT_TYPES)
            raise InputError(f"{where} is {found}, expected one of {known}")
        shape: list[int] = []
        for axis, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                shape.append(dim.dim_value)
            elif axis == 0:
                shape.append(self.batch)
            else:
                label = f" ({dim.dim_param!r})" if dim.dim_param else ""
                raise InputError(
                    f"{self.label}: dimension {axis}{label} of input {value.name!r} is dynamic; "
                    "only the batch (dimension 0) may be; export with fixed sizes"
                )
        if 0 in shape:
            raise InputError(f"{where} has an empty dimension: {shape}")
        type_ = TensorType(tuple(shape), _INPUT_TYPES[kind.elem_type])
        return self.lower.builder.input(value.name, type_)

    def _output(self, name: str) -> str:
        item = self.env.get(name)
        if isinstance(item, Known):
            return Call(self.lower, "", [item], [name], {}, 1, self.opset).tensor(0)
        if isinstance(item, str):
            return item
        if isinstance(item, Part):
            raise_unsupported(self.name, [Unsupported("output", name, item.complaint)])
        raise InputError(f"{self.label}: output {name!r} is computed by no node")

    def _reject(self, operator: str, where: str, needed: str) -> None:
        self.found.append(Unsupported(operator, where, needed))

    def _node(self, node: onnx.NodeProto) -> None:
        place, name = _location(node)
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        try:
            result = self._result(node, kind, place, name)
        except (NotLowerable, VerifyError) as error:
            self._reject(kind, place, str(error))
            result = _SKIPPED
        outputs = [o for o in node.output if o]
        if isinstance(result, list):
            self.env.update(zip(node.output, result))
        elif isinstance(result, _Skipped):
            self.env.update(dict.fromkeys(outputs, result))
        elif outputs:
            self.env[node.output[0]] = result

    def _result(self, node: onnx.NodeProto, kind: str, place: str, name: str) -> Result | _Skipped:
        attributes = {a.name: _attribute(a, self.label) for a in node.attribute}
        if kind == "Constant":
            return _constant(attributes)
        items = [self.env.get(v) if v else None for v in node.input]
        handler = HANDLERS.get(kind)
        if handler is None and kind not in _FOLDED:
            needed = NEEDED.get(kind, "the IR has no such operator; rewrite it with others")
            self._reject(kind, place, needed)
            return _SKIPPED
        if any(isinstance(item, _Skipped) for item in items):
            return _SKIPPED
        if kind in _FOLDED and all(item is None or isinstance(item, Known) for item in items):
            return self._fold(node, [i.value if isinstance(i, Known) else None for i in items])
        if handler is None:
            raise NotLowerable("it can be computed at import only, from constants")
        self.lower.at(name, place)
        present: list[Item | None] = [i for i in items if not isinstance(i, _Skipped)]
        outputs = sum(1 for o in node.output if o)
        call = Call(self.lower, kind, present, list(node.input), attributes, outputs, self.opset)
        return handler(self.lower, call)

    def _fold(self, node: onnx.NodeProto, values: list[Any]) -> Result:
        """Compute a node of known operands with ONNX's own reference implementation."""
        from onnx.reference import ReferenceEvaluator

        feeds = {n: v for n, v in zip(node.input, values) if n}
        try:
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(node, opsets={"": self.opset}).run(None, feeds)
        except Exception as error:  # whatever the reference raises on operands it does not take
            raise NotLowerable(f"it cannot be computed at import: {error}") from None
        for output, value in zip(node.output, results):
            self.env[output] = Known(np.asarray(value), name=output)
        return self.env[node.output[0]]  # type: ignore[return-value]


def _constant(attributes: dict[str, Any]) -> Result:
    key, value = next(iter(attributes.items()))
    if isinstance(value, Known):
        return value
    if key in ("value_int", "value_ints"):
        return Known(np.array(value, np.int64))
    if key in ("value_float", "value_floats"):
        return Known(np.array(value, np.float32))
    raise NotLowerable(f"Constant with attribute {key!r}")


def _attribute(proto: onnx.AttributeProto, label: str) -> Any:
    """Value of an attribute: text decoded, tensors as Known."""
    if proto.type == onnx.AttributeProto.TENSOR:
        tensor = tensor_value(proto.t, label)
        return Known(tensor.value, tensor.dtype)
    value = onnx.helper.get_attribute_value(proto)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _location(node: onnx.NodeProto) -> tuple[str, str]:
    """Where the node is in the user's network, and the name for its result.

    torch.onnx records the module path; else it is the node's name, or its output's.
    """
    properties = {p.key: p.value for p in node.metadata_props}
    scopes = _names(properties.get("pkg.torch.onnx.name_scopes", ""))
    classes = _names(properties.get("pkg.torch.onnx.class_hierarchy", ""))
    if len(scopes) >= 2:
        path, last = scopes[-2], scopes[-1]
        if path and len(classes) == len(scopes) and classes[-2].startswith("torch.nn.modules"):
            return path, path
        return path or last, f"{path}.{last}" if path else last
    name = node.name or next((o for o in node.output if o), node.op_type)
    return name, name


def _names(text: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [str(part) for part in found] if isinstance(found, list) else []
