# SPDX-License-Identifier: Apache-2.0
"""Calibration: what range every value of a float network takes on real inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.quant.data import Batch, batches, checked_batches
from codesign.quant.histogram import Histogram, Method, ValueStats

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int], None]
"""Called with the number of samples done so far."""
_PIECE = 32
"""Samples run at once: bounds memory for large inputs."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Statistics of every float value (and ``NODE:pre``, the input of a fused activation)."""

    stats: Mapping[str, ValueStats]
    samples: int

    def __getitem__(self, value: str) -> ValueStats:
        if value not in self.stats:
            raise InputError(f"calibration has seen no value {value!r}")
        return self.stats[value]

    def scale(self, value: str, bits: int, signed: bool, method: Method = "mse") -> float:
        """Step for ``value`` in ``bits`` bits (exact in float32)."""
        return self[value].scale(bits, signed, method)


def calibrate(
    graph: Graph,
    data: Iterable[Batch],
    *,
    progress: Progress | None = None,
    where: str = "calibration data",
) -> Calibration:
    """Run ``graph`` (float) on all batches and keep statistics, one pass, in bounded memory.

    Raises InputError for wrong shapes or types, NaN or infinities in the data or in the
    network's own values, and for no data; ``where`` names the data in the message.
    """
    import torch

    from codesign.quant.torch_exec import GraphModule

    module = GraphModule(graph)
    seen: dict[str, Histogram] = {}

    def observe(name: str, value: Tensor) -> None:
        if name in graph.constants:
            return
        array = value.detach().numpy()
        if array.dtype != np.float32:
            return
        histogram = seen.setdefault(name, Histogram())
        histogram.add(array)
        if not (np.isfinite(histogram.least) and np.isfinite(histogram.most)):
            raise InputError(
                f"{graph.name}: value {name!r} becomes NaN or infinite on {where}; "
                "check the weights and the scale of the inputs"
            )

    done = 0
    for batch in checked_batches(graph, data, where):
        size = len(next(iter(batch.values())))
        piece = _PIECE if module.batch is None else module.batch
        for parts in zip(*(batches(value, piece) for value in batch.values())):
            with torch.no_grad():
                inputs = {k: torch.from_numpy(p) for k, p in zip(batch, parts)}
                module.run(inputs, observe=observe)
        done += size
        if progress is not None:
            progress(done)
    return Calibration({name: h.freeze() for name, h in seen.items()}, done)
