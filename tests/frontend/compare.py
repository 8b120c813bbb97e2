# SPDX-License-Identifier: Apache-2.0
"""How tests of the frontends compare networks."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from codesign.frontend import from_onnx, from_torch
from codesign.ir import Graph
from codesign.ir.graph import Array
from codesign.ir.interpret import run

TOLERANCE = 1e-4


def difference(found: Array, wanted: Array) -> float:
    """The greater of: norm of the difference over the norm, greatest difference over greatest."""
    assert found.shape == wanted.shape
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    assert np.isfinite(a).all()
    if not b.any():  # nothing to be relative to
        return float("inf") if a.any() else 0.0
    norm = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    return max(norm, float(np.abs(a - b).max() / np.abs(b).max()))


def check(graph: Graph, inputs: Sequence[Array], wanted: Sequence[Array]) -> None:
    """The interpreter gives ``wanted``."""
    graph.verify()
    results = run(graph, *inputs)
    assert len(results) == len(wanted)
    for result, want in zip(results, wanted):
        assert difference(result, want) < TOLERANCE


def outputs(module: nn.Module, inputs: Sequence[Tensor]) -> list[Array]:
    """What torch computes."""
    with torch.no_grad():
        result = module(*inputs)
    return [y.numpy() for y in (result if isinstance(result, tuple) else (result,))]


def check_torch(module: nn.Module, *inputs: Tensor) -> Graph:
    """Torch to the IR gives what torch gives; returns the graph."""
    graph = from_torch(module, inputs)
    check(graph, [x.numpy() for x in inputs], outputs(module.eval(), inputs))
    return graph


def to_onnx(module: nn.Module, inputs: Sequence[Tensor], opset: int = 18) -> onnx.ModelProto:
    """``torch.onnx.export``, quietly."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, tuple(inputs), dynamo=True, opset_version=opset)
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def to_onnx_by_trace(module: nn.Module, inputs: Sequence[Tensor], opset: int) -> onnx.ModelProto:
    """The older exporter: other names, other patterns, operator sets from 13 on."""
    file: Any = io.BytesIO()  # not in the annotation of export, but taken
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, tuple(inputs), file, dynamo=False, opset_version=opset)
    return onnx.load_model_from_string(file.getvalue())


def runtime(model: onnx.ModelProto, inputs: Sequence[Array]) -> list[Array]:
    """What onnxruntime computes; its optimizer is left out, which breaks some valid models
    (it moves a Pad into a pooling whose window is smaller)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [i.name for i in session.get_inputs()]
    found: list[Array] = session.run(None, dict(zip(names, inputs, strict=True)))
    return found


def check_onnx(model: onnx.ModelProto, *inputs: Array) -> Graph:
    """ONNX to the IR gives what onnxruntime gives; returns the graph."""
    graph = from_onnx(model)
    check(graph, inputs, runtime(model, inputs))
    return graph
