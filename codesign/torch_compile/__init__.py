# SPDX-License-Identifier: Apache-2.0
"""``torch.compile(model, backend="codesign")``: float or quantized, through any CPU target.

Torch finds ``backend`` through the entry point ``torch_dynamo_backends``; see
docs/torch-compile.md for the options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from codesign.torch_compile.options import CompileOptions
from codesign.torch_compile.subgraph import FallbackWarning

if TYPE_CHECKING:
    import torch

__all__ = ["CompileOptions", "FallbackWarning", "backend"]


def backend(
    graph: torch.fx.GraphModule,
    example_inputs: list[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """What ``torch.compile`` calls with each graph; returns what runs in its place.

    ``options`` are the fields of ``CompileOptions``; ``mode`` has no meaning here. Raises
    InputError for options that are wrong. A graph that cannot be taken runs in eager torch, and
    a FallbackWarning says why.
    """
    from codesign.torch_compile.compiled import compile_subgraph

    return compile_subgraph(graph, example_inputs, CompileOptions.parse(options or {}))
