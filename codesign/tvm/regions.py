# SPDX-License-Identifier: Apache-2.0
"""Rewriting runs of our calls inside a Relax function; everything else stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax

from codesign.ir.graph import Graph
from codesign.tvm.write import Region, is_operator

Replace = Callable[[Graph, Sequence[Any], Sequence[Any], bool], list[Any]]
"""(graph of a run, its input variables, its result variables, in a dataflow block) → bindings
that define the result variables."""


def relax_functions(module: Any) -> list[tuple[Any, Any]]:
    """Every Relax function of a module with its global variable."""
    return [
        (variable, function)
        for variable, function in module.functions_items()
        if isinstance(function, relax.Function)
    ]


def rewrite_function(function: Any, replace: Replace) -> Any:
    """``function`` with every run of consecutive operator calls replaced; None if it has none."""
    body = function.body
    if not isinstance(body, relax.SeqExpr):
        return None
    bindings = [b for block in body.blocks for b in block.bindings]
    if not any(isinstance(b, relax.VarBinding) and is_operator(b.value) for b in bindings):
        return None
    readers = _readers(bindings, body.body)
    blocks = []
    for block in body.blocks:
        dataflow = isinstance(block, relax.DataflowBlock)
        made: list[Any] = []
        for run in _runs(block.bindings):
            if isinstance(run, list):
                made += _replaced(run, readers, dataflow, replace)
            else:
                made.append(run)
        blocks.append(relax.DataflowBlock(made) if dataflow else relax.BindingBlock(made))
    new = relax.SeqExpr(blocks, body.body)
    return relax.Function(
        function.params, new, function.ret_ty, function.is_pure, function.attrs
    )


def _runs(bindings: Sequence[Any]) -> list[Any]:
    """Bindings, with consecutive operator calls in one list."""
    found: list[Any] = []
    for binding in bindings:
        if isinstance(binding, relax.VarBinding) and is_operator(binding.value):
            if not found or not isinstance(found[-1], list):
                found.append([])
            found[-1].append(binding)
        else:
            found.append(binding)
    return found


def _replaced(
    run: Sequence[Any], readers: dict[Any, set[Any]], dataflow: bool, replace: Replace
) -> list[Any]:
    region = Region("region")
    for binding in run:
        region.add(binding.var, binding.value)
    inside = {binding.var for binding in run}
    results = [b.var for b in run if readers.get(b.var, set()) - inside]
    return replace(region.finish(results), region.inputs, results, dataflow)


def _readers(bindings: Sequence[Any], result: Any) -> dict[Any, set[Any]]:
    """For each variable the variables bound to what reads it; ``None`` for the result."""
    found: dict[Any, set[Any]] = {}

    def note(value: Any, reader: Any) -> None:
        def visit(part: Any) -> None:
            if isinstance(part, relax.Var):
                found.setdefault(part, set()).add(reader)

        relax.analysis.post_order_visit(value, visit)

    for binding in bindings:
        note(binding.value, binding.var)
    note(result, None)
    return found
