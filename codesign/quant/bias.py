# SPDX-License-Identifier: Apache-2.0
"""Bias correction: every layer's mean output on calibration data stays what it is in float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from codesign.ir.graph import Array, Graph
from codesign.quant.calibrate import Calibration, channel_axes
from codesign.quant.dyadic import FloatArray
from codesign.quant.formats import LayerFormat

if TYPE_CHECKING:
    from codesign.quant.torch_exec import Edit

_ELEMENTS = 1 << 25
"""Limit on the elements of the largest tensor in the run."""


def bias_shifts(
    graph: Graph,
    scales: Mapping[str, Array],
    formats: Mapping[str, LayerFormat],
    calibration: Calibration,
) -> dict[str, FloatArray]:
    """What to add to each integer layer's float bias, per channel.

    ``graph`` is the integer network. One run over the kept images: as soon as a layer's
    accumulators are there, their mean is compared with that in float and corrected, so that
    later layers see corrected inputs. Empty for networks bound to one batch size.
    """
    import torch

    from codesign.quant.torch_exec import GraphModule

    module = GraphModule(graph)
    if module.batch is not None or not calibration.images:
        return {}
    shifts: dict[str, FloatArray] = {}

    def corrected(layer: str) -> Edit:
        def edit(acc: torch.Tensor) -> torch.Tensor:
            scale = np.asarray(scales[layer], dtype=np.float64)
            mean = acc.double().mean(channel_axes(acc.dim())).numpy() * scale
            steps = np.floor((calibration.means[layer] - mean) / scale + 0.5)
            shifts[layer] = steps * scale
            shape = (1, -1, 1, 1) if acc.dim() == 4 else (-1,)
            return acc + torch.from_numpy(steps).to(acc.dtype).view(shape)

        return edit

    edits = {
        name: corrected(name)
        for name, form in formats.items()
        if not form.is_float and name in calibration.means
    }
    largest = max(node.type.size for node in graph.nodes.values())
    batch = graph.type(graph.inputs[0]).shape[0]
    count = max(1, _ELEMENTS // largest) * batch
    inputs = {k: torch.from_numpy(v[:count].copy()) for k, v in calibration.images.items()}
    with torch.no_grad():
        module.run(inputs, edits=edits)
    return shifts
