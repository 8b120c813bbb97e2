# SPDX-License-Identifier: Apache-2.0
"""From what dynamo hands a backend to the graph IR.

Dynamo lifts parameters and buffers to inputs. Here they are bound again, as constants, so that
passes can fold them; whoever runs the result must notice when they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import traceback

from codesign.errors import CodesignError, UnsupportedError
from codesign.frontend.torch_export import export_module, from_program, outermost
from codesign.ir.graph import Graph


class FallbackWarning(UserWarning):
    """A graph runs in eager torch; the message names operator and place."""


class CannotTake(Exception):
    """Why a graph cannot be compiled, in one sentence."""


@dataclass(frozen=True)
class Signature:
    """Which of dynamo's inputs are the graph's own, by position."""

    names: tuple[str, ...]
    data: tuple[int, ...]
    """Tensors that the caller gives."""
    weights: tuple[int, ...]
    """Parameters and buffers."""
    sizes: tuple[int, ...]
    """Numbers, where a dimension is dynamic."""

    @classmethod
    def of(cls, module: fx.GraphModule, inputs: Sequence[Any]) -> Signature:
        """The signature of dynamo's graph for its example inputs."""
        nodes = [node for node in module.graph.nodes if node.op == "placeholder"]
        kinds = [_kind(node, value) for node, value in zip(nodes, inputs)]
        data, weights, sizes = (
            tuple(i for i, kind in enumerate(kinds) if kind == wanted)
            for wanted in ("data", "weight", "size")
        )
        return cls(tuple(node.name for node in nodes), data, weights, sizes)


def _kind(node: fx.Node, value: Any) -> str:
    if not isinstance(value, Tensor):
        return "size"
    static = (node.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type")
    return "weight" if static or isinstance(value, nn.Parameter) else "data"


class _Bound(nn.Module):
    """Dynamo's graph as a module of its data inputs alone."""

    module: fx.GraphModule

    def __init__(
        self, module: fx.GraphModule, signature: Signature, inputs: Sequence[Any]
    ) -> None:
        super().__init__()
        self.__dict__["module"] = module  # no submodule: paths stay those of the user's model
        self.signature = signature
        self.fixed = {i: inputs[i] for i in signature.sizes}
        for i in signature.weights:
            self.register_buffer(signature.names[i], inputs[i].detach().clone())

    def forward(self, *data: Tensor) -> Any:
        values: dict[int, Any] = dict(self.fixed)
        values |= dict(zip(self.signature.data, data))
        values |= {i: getattr(self, self.signature.names[i]) for i in self.signature.weights}
        with traceback.preserve_node_meta():  # where in the user's model each operator stands
            return fx.Interpreter(self.module).run(*(values[i] for i in sorted(values)))


def import_subgraph(
    module: fx.GraphModule, signature: Signature, inputs: Sequence[Any], name: str = "network"
) -> Graph:
    """The float graph of dynamo's ``module`` for ``inputs``; raises CannotTake."""
    _refuse_gradients(inputs)
    _refuse_training(module)
    if not signature.data:
        raise CannotTake("the graph has no tensor inputs")
    for i in (*signature.data, *signature.weights):
        if inputs[i].device.type != "cpu":
            raise CannotTake(
                f"tensor {signature.names[i]!r} is on {inputs[i].device}; move the model and its "
                "inputs to the CPU"
            )
    data = [torch.empty_like(inputs[i], requires_grad=False) for i in signature.data]
    try:
        with torch.inference_mode(False), torch.no_grad():
            program = export_module(_Bound(module, signature, inputs), data, name)
            return from_program(program, name)
    except UnsupportedError as error:
        raise CannotTake(first_reason(error)) from error
    except CodesignError as error:
        raise CannotTake(str(error)) from error


def first_reason(error: UnsupportedError) -> str:
    """The first operator that an error lists, and how many more there are."""
    head, *items = str(error).splitlines()
    if not items:
        return head
    more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
    return items[0].strip() + more


def _refuse_gradients(inputs: Sequence[Any]) -> None:
    wanted = any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
    if torch.is_grad_enabled() and wanted:
        raise CannotTake(
            "gradients are asked for, and compiled code has none; call the model under "
            "torch.no_grad() or torch.inference_mode()"
        )


_TRAINING = {"batch_norm": 5, "dropout": 2, "instance_norm": 5}
"""Functions with an argument that says whether the model is being trained, and its position."""


def _refuse_training(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if node.op != "call_function" or name not in _TRAINING:
            continue
        at = _TRAINING[name]
        training = node.args[at] if len(node.args) > at else node.kwargs.get("training", False)
        if training is True:
            raise CannotTake(
                f"{name} at {place(node)!r} is in training mode; call model.eval() first"
            )


def place(node: fx.Node) -> str:
    """Module path of a node in the user's model."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return outermost(path) or node.name
