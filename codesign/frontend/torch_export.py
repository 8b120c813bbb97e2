# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules and exported programs (``.pt2``) to the graph IR, through ``torch.export``."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from codesign.errors import InputError, VerifyError

# the handlers fill the table when imported
from codesign.frontend import aten_elementwise, aten_layers, aten_shape  # noqa: F401
from codesign.frontend.aten import HANDLERS, NEEDED, Args, Value, as_float
from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable, Unsupported, finish, raise_unsupported
from codesign.ir.graph import Graph
from codesign.ir.types import F32, TensorType

_IGNORED = (
    "aten._assert_tensor_metadata.default", "aten._assert_scalar.default",
    "aten.sym_constrain_range_for_size.default", "aten.sym_constrain_range.default",
)  # fmt: skip
_ARITHMETIC: dict[Any, Any] = {
    operator.add: operator.add, operator.sub: operator.sub, operator.mul: operator.mul,
    operator.floordiv: operator.floordiv, operator.truediv: operator.truediv,
    operator.mod: operator.mod, operator.neg: operator.neg, operator.pow: operator.pow,
}  # fmt: skip
"""Arithmetic on sizes of a dynamic batch, which is a plain number here."""


class _Skipped:
    """Result of an unsupported operator: what reads it is not looked at."""


_SKIPPED = _Skipped()


def export_module(module: nn.Module, inputs: Sequence[Tensor], name: str) -> ExportedProgram:
    """``torch.export`` in eval mode; the module is left as it was. Raises InputError."""
    for index, value in enumerate(inputs):
        if not isinstance(value, Tensor):
            raise InputError(
                f"network {name!r}: example input {index} is {type(value).__name__}, not a tensor"
            )
    with _evaluating(module), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(module, tuple(inputs))
        except Exception as error:  # whatever tracing of the user's code raises
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"network {name!r} cannot be exported by torch.export: {first}"
            ) from error


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    states = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in states:
            part.training = training


def load_pt2(path: Path) -> ExportedProgram:
    """Read a ``.pt2`` file; raises InputError if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # zip, pickle, schema: anything may be damaged
        raise InputError(
            f"network file {str(path)!r} is damaged or no .pt2 file of this torch version "
            f"({type(error).__name__}); write it again with torch.export.save"
        ) from error


def from_program(program: ExportedProgram, name: str, batch: int = 1) -> Graph:
    """The graph of an exported program; a dynamic batch becomes ``batch``.

    Raises UnsupportedError with every operator that cannot be taken, InputError for weights that
    are NaN or infinite and for dynamic dimensions other than the first.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = _decomposed(program)
    return _Importer(program, name, batch).run()


def _changed_in_place(program: ExportedProgram) -> list[Unsupported]:
    signature = program.graph_signature
    changed = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    needed = "it changes this tensor, and networks keep no state; compute a new tensor instead"
    return [Unsupported("an operator in place", target, needed) for target in changed]


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    """In-place operators replaced; operators without a handler decomposed where torch can.

    Operators with a handler stay whole: the IR has them as such.
    """
    program = program.run_decompositions({})
    known = torch.export.default_decompositions()
    for _ in range(4):  # a decomposition may use operators that need one themselves
        unknown = {
            n.target for n in program.graph.nodes
            if n.op == "call_function" and str(n.target) not in HANDLERS.keys() | NEEDED.keys()
        }  # fmt: skip
        chosen = {target: known[target] for target in unknown if target in known}
        if not chosen:
            break
        program = program.run_decompositions(chosen)
    return program


class _Importer:
    """Walks the exported graph once."""

    def __init__(self, program: ExportedProgram, name: str, batch: int) -> None:
        self.program = program
        self.name = name
        self.batch = batch
        self.lower = Lowering(name)
        self.env: dict[fx.Node, Any] = {}
        self.found: list[Unsupported] = []
        self.parameters = _parameters(program)

    def run(self) -> Graph:
        outputs: list[str] = []
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.env[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.env[node] = self._call(node)
            elif node.op == "output":
                raise_unsupported(self.name, self.found or _changed_in_place(self.program))
                outputs = self._outputs(node)
        return finish(self.lower.builder, outputs, self.name)

    def _placeholder(self, node: fx.Node) -> Any:
        if node.name in self.parameters:
            return node.name  # made a constant when first read
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            raise InputError(
                f"network {self.name!r}: input {node.name!r} is {type(value).__name__}, "
                "not a tensor"
            )
        if value.dtype != torch.float32:
            raise InputError(
                f"network {self.name!r}: input {node.name!r} is {value.dtype}, "
                "expected torch.float32"
            )
        shape = []
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int) and axis > 0:
                raise InputError(
                    f"network {self.name!r}: dimension {axis} of input {node.name!r} is dynamic; "
                    "only the batch (dimension 0) may be; export with fixed sizes"
                )
            shape.append(size if isinstance(size, int) else self.batch)
        if 0 in shape:
            raise InputError(
                f"network {self.name!r}: input {node.name!r} has an empty dimension: {shape}"
            )
        return Value(self.lower.builder.input(node.name, TensorType(tuple(shape), F32)))

    def _outputs(self, node: fx.Node) -> list[str]:
        names = []
        for item in _flat(node.args[0]):
            value = self._read(item)
            if not isinstance(value, Value):
                raise InputError(f"network {self.name!r}: an output is {value!r}, not a tensor")
            names.append(value.name)
        return names

    def _read(self, item: Any) -> Any:
        """An argument: nodes become values, sizes numbers; lists are followed."""
        if isinstance(item, fx.Node):
            value = self.env[item]
            if isinstance(value, str):
                value = self.env[item] = self._parameter(value)
            return value
        if isinstance(item, list | tuple):
            return [self._read(part) for part in item]
        return item

    def _parameter(self, placeholder: str) -> Value:
        path, tensor = self.parameters[placeholder]
        array = as_float(tensor.detach().cpu().float().numpy() if tensor.is_floating_point()
                         else tensor.detach().cpu().numpy())  # fmt: skip
        if array.dtype == np.bool_:
            array = array.astype(np.uint8)
        return Value(self.lower.builder.constant(array, path, source=path))

    def _call(self, node: fx.Node) -> Any:
        target = str(node.target)
        if target in _IGNORED:
            return None
        arguments = [self._read(a) for a in node.args]
        keywords = {key: self._read(value) for key, value in node.kwargs.items()}
        if node.target is operator.getitem:
            source, index = arguments
            if isinstance(source, Value) and index == 0:
                return source
            return source if source is _SKIPPED else source[index]
        if node.target in _ARITHMETIC:
            return _ARITHMETIC[node.target](*arguments)
        if target == "aten.sym_size.int":
            return self.lower.shape(arguments[0].name)[arguments[1]]
        path, name = _location(node)
        handler = HANDLERS.get(target)
        if handler is None:
            needed = NEEDED.get(target, "the IR has no such operator; rewrite it with others")
            self.found.append(Unsupported(target, path or name, needed))
            return _SKIPPED
        if any(value is _SKIPPED for value in _flat([arguments, list(keywords.values())])):
            return _SKIPPED
        self.lower.at(name, path or name)
        try:
            result = handler(self.lower, self._bound(node, arguments, keywords))
        except (NotLowerable, VerifyError) as error:
            self.found.append(Unsupported(target, path or name, str(error)))
            return _SKIPPED
        if isinstance(result, list):
            return [Value(item) for item in result]
        return Value(result)

    def _bound(self, node: fx.Node, arguments: list[Any], keywords: dict[str, Any]) -> Args:
        """Arguments by the names of the operator's schema."""
        values = dict(keywords)
        for index, declared in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            if index < len(arguments):
                values[declared.name] = arguments[index]
            elif declared.name not in values:
                values[declared.name] = declared.default_value
        return Args(values, self.lower)


def _parameters(program: ExportedProgram) -> dict[str, tuple[str, Tensor]]:
    """Placeholder name to (name in the module, tensor)."""
    signature = program.graph_signature
    found: dict[str, tuple[str, Tensor]] = {}
    for placeholder, path in (
        *signature.inputs_to_parameters.items(), *signature.inputs_to_buffers.items(),
    ):  # fmt: skip
        tensor = program.state_dict.get(path)
        found[placeholder] = (path, program.constants[path] if tensor is None else tensor)
    for placeholder, path in signature.inputs_to_lifted_tensor_constants.items():
        found[placeholder] = (path, program.constants[path])
    return found


def _location(node: fx.Node) -> tuple[str, str]:
    """Module path of a node and the name for its result.

    A node inside a module of torch.nn is named like the module, one in the user's own forward
    like the module and the operator.
    """
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    path = outermost(re.sub(r"@\d+", "", str(path)))
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    if path and kind.startswith("torch.nn.modules"):
        return path, path
    return path, f"{path}.{node.name}" if path else node.name


def outermost(path: str) -> str:
    """A module path without the name that dynamo gives the whole model."""
    return re.sub(r"^L\['\w+'\]", "", path).strip(".")


def _flat(item: Any) -> Iterator[Any]:
    if isinstance(item, list | tuple):
        for part in item:
            yield from _flat(part)
    elif isinstance(item, dict):
        yield from _flat(list(item.values()))
    else:
        yield item
