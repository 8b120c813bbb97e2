# SPDX-License-Identifier: Apache-2.0
"""The integer form of a graph under the backend's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph
from codesign.quant import Calibration, LayerFormat, calibrate, load_calibration, quantize_graph
from codesign.quant.data import whole_batches
from codesign.quant.formats import load_format
from codesign.torch_compile.options import CompileOptions


def layer_formats(graph: Graph, options: CompileOptions) -> dict[str, LayerFormat]:
    """The format of each layer of ``graph``; raises InputError naming layers without one."""
    names = [node.name for node in graph.layers()]
    formats = _wanted(options)
    if isinstance(formats, str):
        return dict.fromkeys(names, load_format(formats))
    missing = [name for name in names if name not in formats and "*" not in formats]
    if missing:
        raise InputError(
            f"torch.compile: no format for layers {', '.join(missing)}; name them, or give a "
            f"format for '*' (named: {', '.join(formats) or 'none'})"
        )
    return {name: load_format(formats.get(name) or formats["*"]) for name in names}


def _wanted(options: CompileOptions) -> str | Mapping[str, str]:
    if options.design is not None:
        from codesign.flow.artifact import Design

        design = options.design
        return (design if isinstance(design, Design) else Design.load(Path(design))).choices
    assert options.formats is not None
    return options.formats


def finished_graph(prepared: Graph, options: CompileOptions) -> Graph | None:
    """The integer network of a design's folder, where it was made from just this float network.

    None where there is no folder, or where weights or shapes differ from the design's.
    """
    from codesign.flow.artifact import Design
    from codesign.flow.building import load_float, load_integer
    from codesign.ir.same import computation

    if options.design is None or isinstance(options.design, Design):
        return None
    folder = Path(options.design)
    if computation(load_float(folder)) != computation(prepared):
        return None
    return load_integer(folder)


def quantized(prepared: Graph, options: CompileOptions, seen: Sequence[Sequence[Array]]) -> Graph:
    """The integer graph of a prepared float graph; itself if it has no layers.

    ``seen`` holds one array for each input from each observed call; it counts where the options
    bring no calibration data.
    """
    if not prepared.layers():
        return prepared
    formats = layer_formats(prepared, options)
    return quantize_graph(prepared, _calibration(prepared, options, seen), formats).graph


def _calibration(
    graph: Graph, options: CompileOptions, seen: Sequence[Sequence[Array]]
) -> Calibration:
    data = options.calib
    if data is None and options.design is not None:
        from codesign.flow.artifact import Design

        design = options.design
        chosen = design if isinstance(design, Design) else Design.load(Path(design))
        data = chosen.options.calib
    if data is None:
        calls = [dict(zip(graph.inputs, arrays)) for arrays in seen]
        return calibrate(graph, calls, where="the inputs of observed calls")
    parts = list(data) if isinstance(data, list | tuple) else [data]
    arrays = [_array(part) for part in parts]
    if len(arrays) != len(graph.inputs):
        raise InputError(
            f"torch.compile option 'calib': {len(arrays)} arrays for a graph of "
            f"{len(graph.inputs)} inputs; where the model is compiled in several graphs, leave "
            "calib out and let observe=N take ranges from N calls"
        )
    whole = whole_batches(graph, min(len(array) for array in arrays))
    batch = {name: array[:whole] for name, array in zip(graph.inputs, arrays)}
    return calibrate(graph, [batch], where="torch.compile option 'calib'")


def _array(data: Any) -> Array:
    if isinstance(data, str | Path):
        return load_calibration(data)
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    return np.asarray(data, dtype=np.float32)
