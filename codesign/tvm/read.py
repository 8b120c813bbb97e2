# SPDX-License-Identifier: Apache-2.0
"""A float Relax function as a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, tirx

from codesign.errors import InputError, VerifyError
from codesign.frontend.lowering import Lowering
from codesign.frontend.report import NotLowerable, Unsupported, finish, raise_unsupported
from codesign.ir.graph import Array, Graph
from codesign.ir.types import F32, TensorType
from codesign.tvm.operators import HANDLERS, Call


class _Skipped:
    """Result of an unsupported operator: what reads it is not looked at."""


_SKIPPED = _Skipped()
_CONSTANT = type(relax.const(0.0))


def read_function(module: Any, function: str = "main") -> Graph:
    """The graph of a Relax function of float32 tensors with fixed shapes.

    Weights must be bound (constants of the module): ``keep_params_as_input=False`` in TVM's
    torch frontend, ``relax.transform.BindParams`` else. Raises InputError, and UnsupportedError
    that lists every operator that has no form in the IR.
    """
    names = [v.name_hint for v in module.get_global_vars()]
    if function not in names or not isinstance(module[function], relax.Function):
        found = [n for n in names if isinstance(module[n], relax.Function)]
        raise InputError(
            f"the module has no Relax function {function!r} (it has {', '.join(found) or 'none'})"
        )
    return _Reader(module, function).run()


class _Reader:
    def __init__(self, module: Any, name: str) -> None:
        self.module = module
        self.function = module[name]
        self.name = name
        self.lower = Lowering(name)
        self.values: dict[Any, Any] = {}
        self.found: list[Unsupported] = []

    def run(self) -> Graph:
        for parameter in self.function.params:
            self.values[parameter] = self._parameter(parameter)
        body = self.function.body
        for block in body.blocks if isinstance(body, relax.SeqExpr) else []:
            for binding in block.bindings:
                if not isinstance(binding, relax.VarBinding):
                    raise InputError(f"{self.name}: {binding.var} is matched at run time; "
                                     "only fixed shapes can be taken")
                self.values[binding.var] = self._value(binding.value, str(binding.var.name))
        result = self._read(body.body if isinstance(body, relax.SeqExpr) else body, "result")
        raise_unsupported(self.name, self.found)
        outputs = result if isinstance(result, list) else [result]
        return finish(self.lower.builder, outputs, self.name)

    def _parameter(self, variable: Any) -> str:
        kind = variable.ty
        dims = getattr(kind, "shape", None)
        if not isinstance(kind, relax.TensorType) or not isinstance(dims, relax.ShapeExpr):
            raise InputError(f"{self.name}: parameter {variable.name} is no tensor of known shape")
        shape = [dim.value if isinstance(dim, tirx.IntImm) else None for dim in dims.values]
        if None in shape or str(kind.dtype) != "float32":
            raise InputError(
                f"{self.name}: parameter {variable.name} is {kind}; expected float32 with fixed "
                "sizes (relax.transform.BindSymbolicVars fixes a batch)"
            )
        fixed = tuple(int(n) for n in shape)  # type: ignore[arg-type]
        return self.lower.builder.input(str(variable.name), TensorType(fixed, F32))

    def _value(self, value: Any, name: str) -> Any:
        if isinstance(value, relax.Call):
            return self._call(value, name)
        return self._read(value, name)

    def _read(self, value: Any, name: str) -> Any:
        """A value: a name, a list of names, or plain numbers."""
        if isinstance(value, relax.Var):
            return self.values[value]
        if isinstance(value, relax.Tuple):
            return [self._read(field, name) for field in value.fields]
        if isinstance(value, relax.TupleGetItem):
            source = self._read(value.tuple_value, name)
            return source if source is _SKIPPED else source[int(value.index)]
        if isinstance(value, relax.ShapeExpr):
            return [int(dim) for dim in value.values]
        if isinstance(value, tirx.IntImm | tirx.FloatImm):
            return value.value
        if isinstance(value, relax.Call):
            return self._call(value, name)
        if isinstance(value, _CONSTANT):
            return self.lower.builder.constant(_array(value), f"{name}.constant", source=name)
        return value

    def _kernel(self, variable: Any) -> str:
        """The operator that a kernel of TVM's frontends stands for, or the kernel's name."""
        text = str(self.module[variable].script(show_meta=False))
        for name, block, function in (
            ("maximum", "T_maximum", "T.max("), ("minimum", "T_minimum", "T.min("),
        ):  # fmt: skip
            if variable.name_hint.startswith(name) and f'"{block}"' in text and function in text:
                return f"relax.{name}"
        return f"call_tir of {variable.name_hint}"

    def _call(self, call: Any, name: str) -> Any:
        operator = str(getattr(call.op, "name", call.op))
        self.lower.at(name, name)
        if operator == "relax.call_tir":
            operator = self._kernel(call.args[0])
            operands = self._read(call.args[1], name)
        else:
            operands = [self._read(argument, name) for argument in call.args]
        handler = HANDLERS.get(operator)
        if handler is None:
            needed = "it has no form in the graph IR; leave it outside, in another function"
            self.found.append(Unsupported(operator, name, needed))
            return _SKIPPED
        if _skipped(operands):
            return _SKIPPED
        try:
            return handler(Call(self.lower, operands, call.attrs))
        except (NotLowerable, VerifyError) as error:
            self.found.append(Unsupported(operator, name, str(error)))
            return _SKIPPED


def _skipped(operands: Any) -> bool:
    if isinstance(operands, list):
        return any(_skipped(item) for item in operands)
    return operands is _SKIPPED


def _array(constant: Any) -> Array:
    array: Array = np.array(constant.value.numpy())
    return array.astype(np.float32) if array.dtype.kind == "f" else array
