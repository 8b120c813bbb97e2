# SPDX-License-Identifier: Apache-2.0
"""``quantize`` and ``lower_int8``: float Relax to integer operators, and those to kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from codesign.errors import InputError
from codesign.flow.artifact import Design
from codesign.flow.building import load_float, load_integer
from codesign.ir.graph import Array, Graph
from codesign.ir.same import computation
from codesign.passes import prepare
from codesign.quant import calibrate, load_calibration, load_format, quantize_graph
from codesign.quant.data import whole_batches
from codesign.targets.tvm_lower.compile import tvm_target
from codesign.targets.tvm_lower.lower import lower
from codesign.targets.tvm_lower.machine import Machine, host_machine
from codesign.targets.tvm_lower.tiles import Tiles, no_tiles
from codesign.tvm.read import read_function
from codesign.tvm.regions import relax_functions, rewrite_function
from codesign.tvm.write import Region, emit_graph, is_operator, label

Calib = Array | str | Path
_OPAQUE = 8
"""TVM's op_pattern of a kernel that must not be fused into another."""
_CALL_TIR = "relax.call_tir"


def quantize(
    design: Design | str | Path | None = None,
    *,
    formats: str | Mapping[str, str] | None = None,
    calib: Calib | None = None,
    function: str = "main",
) -> Any:
    """A pass that turns a float Relax function into the integer network of a design.

    ``design`` is a folder made by ``codesign design``, or its Design. Where the function is the
    network of the folder, value by value, its ``integer.ir`` is taken as it is. Else layers are
    matched in order, by their shapes, and activation ranges come from ``calib`` (array
    [samples, ...] or ``.npz`` with array ``x``), by default the design's own calibration file.
    Instead of a design, ``formats`` names one format for all layers, or one for each by the name
    of its Relax variable.

    Raises InputError for a design of another network, UnsupportedError for operators that have
    no form in the IR.
    """
    if (design is None) == (formats is None):
        raise InputError("codesign.tvm.quantize: give either a design or formats")

    def transform(module: Any, _: Any) -> Any:
        graph = prepare().run(read_function(module, function)).graph
        integer = _integer(graph, design, formats, calib)
        return _with_function(module, function, _function(module[function], integer))

    return _pass(transform, "codesign.quantize")


def target(machine: Machine | None = None) -> Any:
    """TVM's target with the instructions that ``lower_int8(machine)`` uses; by default this CPU."""
    return tvm_target(machine or host_machine())


def lower_int8(machine: Machine | None = None, tiles: Tiles = no_tiles) -> Any:
    """A pass that replaces integer operators by scheduled kernels (``call_tir``).

    Consecutive operators become one private function with packed weights and layouts of its
    own; other operators of the module are left to the passes that follow. ``machine`` describes
    the CPU, by default this one. ``tiles`` are what was tuned: ``HostTarget().tiles()`` gives those
    of this computer's database.
    """

    def transform(module: Any, _: Any) -> Any:
        made = module
        for variable, function in relax_functions(module):
            lowered = _Lowered(made, machine or host_machine(), variable.name_hint, tiles)
            changed = rewrite_function(function, lowered.replace)
            if changed is not None:
                made = lowered.builder.get()
                made.update_func(made.get_global_var(variable.name_hint), changed)
        return made

    return _pass(transform, "codesign.lower_int8")


def integer_graph(module: Any, function: str = "main") -> Graph:
    """The integer network of a function that ``quantize`` made: what it must compute."""
    body = module[function].body
    region = Region(function)
    for block in body.blocks:
        for binding in block.bindings:
            if is_operator(binding.value):
                region.add(binding.var, binding.value)
    results = _results(body)
    if not all(variable in region.names for variable in results):
        raise InputError(f"{function}: its results are no integer operators; run quantize first, "
                         "lower_int8 later")
    return region.finish(results)


def _results(body: Any) -> list[Any]:
    """Variables behind a function's result, tuples opened."""
    bound = {b.var: b.value for block in body.blocks for b in block.bindings}
    value = body.body
    while isinstance(value, relax.Var) and isinstance(bound.get(value), relax.Tuple | relax.Var):
        value = bound[value]
    return list(value.fields) if isinstance(value, relax.Tuple) else [value]


def _pass(transform: Any, name: str) -> Any:
    return tvm.transform.module_pass(transform, opt_level=0, name=name)


def _integer(
    graph: Graph,
    design: Design | str | Path | None,
    formats: str | Mapping[str, str] | None,
    calib: Calib | None,
) -> Graph:
    chosen: Mapping[str, str]
    names = [node.name for node in graph.layers()]
    if not names:
        raise InputError(
            f"{graph.name}: no layer with constant weights; bind the parameters first "
            "(keep_params_as_input=False, or relax.transform.BindParams)"
        )
    if isinstance(design, str | Path):
        if computation(load_float(Path(design))) == computation(graph):
            return load_integer(Path(design))
        design = Design.load(Path(design))
    if design is not None:
        chosen = _matched(graph, design)
        calib = calib if calib is not None else design.options.calib
    elif isinstance(formats, str):
        chosen = dict.fromkeys(names, formats)
    else:
        chosen = dict(formats or {})
    if calib is None:
        raise InputError("codesign.tvm.quantize: activation ranges come from data; give calib")
    array = load_calibration(calib) if isinstance(calib, str | Path) else np.asarray(calib)
    array = array[: whole_batches(graph, len(array))]
    ranges = calibrate(graph, [array], where="codesign.tvm.quantize: calib")
    return quantize_graph(graph, ranges, {k: load_format(v) for k, v in chosen.items()}).graph


def _matched(graph: Graph, design: Design) -> dict[str, str]:
    """Formats of the design's layers for those of ``graph``, in order."""
    ours = [(node.name, node.op.name, node.type.shape) for node in graph.layers()]
    theirs = [(facts.name, facts.op, facts.output_shape) for facts in design.layers]
    for index, (mine, other) in enumerate(zip(ours, theirs)):
        if mine[1:] != other[1:]:
            raise InputError(
                f"the design of {design.name!r} is of another network: its layer {index} is "
                f"{other[0]} ({other[1]}, {list(other[2])}), the module's is {mine[0]} "
                f"({mine[1]}, {list(mine[2])})"
            )
    if len(ours) != len(theirs):
        raise InputError(
            f"the design of {design.name!r} is of another network: it has {len(theirs)} layers, "
            f"the module has {len(ours)}"
        )
    return {mine[0]: design.choices[other[0]] for mine, other in zip(ours, theirs)}


def _function(old: Any, graph: Graph) -> Any:
    """A function with the parameters and the result of ``old`` that computes ``graph``."""
    builder = relax.BlockBuilder()
    parameters = [relax.Var(p.name, p.ty) for p in old.params]
    with builder.function("made", parameters):
        with builder.dataflow():
            values = emit_graph(builder, graph, parameters)
            single = not isinstance(old.ret_ty, relax.TupleType)
            result = builder.emit_output(values[0] if single else relax.Tuple(values))
        builder.emit_func_output(result)
    made = builder.finalize()["made"]
    return relax.Function(made.params, made.body, made.ret_ty, made.is_pure, old.attrs)


def _with_function(module: Any, name: str, made: Any) -> Any:
    """The module with ``made`` as its function ``name``.

    TVM's torch frontend leaves the type of ``main`` as it was before weights were bound, and
    only a new variable gets a new type; other functions may hold the old one.
    """
    variable = module.get_global_var(name)
    if len(relax_functions(module)) > 1:
        module = module.clone()
        module.update_func(variable, made)
        return module
    rest = {v: f for v, f in module.functions_items() if v.name_hint != name}
    builder = relax.BlockBuilder(tvm.IRModule(rest, attrs=module.attrs))
    builder.add_func(made, name)
    return builder.get()


class _Lowered:
    """A module that grows by the kernels of one function's regions."""

    def __init__(self, module: Any, machine: Machine, name: str, tiles: Tiles) -> None:
        self.builder = relax.BlockBuilder(module.clone())
        self.machine, self.tiles = machine, tiles
        self.name = name
        self.count = 0

    def replace(
        self, graph: Graph, inputs: Sequence[Any], results: Sequence[Any], dataflow: bool
    ) -> list[Any]:
        """Bindings of the results to a call of the region's function."""
        prefix = f"codesign_{label(self.name)}_{self.count}"
        self.count += 1
        function = self._add(lower(graph, self.machine, self.tiles), prefix)
        variable = relax.DataflowVar if dataflow else relax.Var
        called = variable(f"{prefix}_results", self.builder.get()[function].ret_ty)
        bindings = [relax.VarBinding(called, relax.Call(function, list(inputs)))]
        for index, result in enumerate(results):
            bindings.append(relax.VarBinding(result, relax.TupleGetItem(called, index)))
        return bindings

    def _add(self, lowered: Any, prefix: str) -> Any:
        """Take the functions of ``lowered`` in under names of their own; returns main's."""
        kernels = {}
        for variable, function in lowered.functions_items():
            if not isinstance(function, relax.Function):
                name = f"{prefix}_{variable.name_hint}"
                function = function.with_attrs({"global_symbol": name, "op_pattern": _OPAQUE})
                kernels[variable.name_hint] = self.builder.add_func(function, name)
        main = lowered["main"]
        blocks = [
            relax.DataflowBlock([_renamed(binding, kernels) for binding in block.bindings])
            for block in main.body.blocks
        ]
        body = relax.SeqExpr(blocks, main.body.body)
        made = relax.Function(main.params, body, main.ret_ty, main.is_pure)  # private
        return self.builder.add_func(made, prefix)


def _renamed(binding: Any, kernels: Mapping[str, Any]) -> Any:
    """A binding whose kernel is called by its name in the module it moved to."""
    call = binding.value
    if not isinstance(call, relax.Call) or str(getattr(call.op, "name", "")) != _CALL_TIR:
        return binding
    kernel = kernels[call.args[0].name_hint]
    moved = relax.call_tir(kernel, call.args[1], call.ty_args[0])
    return relax.VarBinding(binding.var, moved)
