# SPDX-License-Identifier: Apache-2.0
"""Calibration: what range every value of a float network takes on real inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph
from codesign.quant.data import Batch, batches, checked_batches, whole_batches
from codesign.quant.dyadic import FloatArray
from codesign.quant.histogram import Histogram, Method, ValueStats

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int], None]
"""Called with the number of samples done so far."""
_PIECE = 32
"""Samples run at once: bounds memory for large inputs."""
KEEP_SAMPLES, _KEEP_ELEMENTS = 256, 1 << 24
"""How much of the data a calibration keeps."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Statistics of every float value (and ``NODE:pre``, the input of a fused activation)."""

    stats: Mapping[str, ValueStats]
    samples: int
    means: Mapping[str, FloatArray] = field(default_factory=dict)
    """Per layer the mean of each output channel over ``images``, before residual and
    activation."""
    images: Mapping[str, Array] = field(default_factory=dict)
    """The first samples of each input, for what needs to run the network again."""

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
    means: dict[str, _Mean] = {}
    kept: dict[str, list[Array]] = {name: [] for name in graph.inputs}
    share = max(1, max(graph.type(name).size for name in graph.inputs))
    keep = max(1, min(KEEP_SAMPLES, _KEEP_ELEMENTS // share))

    def observe(name: str, value: Tensor) -> None:
        if name in graph.constants:
            return
        if name.endswith(":acc"):
            each = value.shape[0] // current  # rows of axis 0 that one sample fills
            if (part := value[: max(0, keep - started) * each]).numel():
                means.setdefault(name.removesuffix(":acc"), _Mean()).add(part)
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

    done = started = current = 0  # samples in the pieces before the current one, and in it
    for batch in checked_batches(graph, data, where):
        size = len(next(iter(batch.values())))
        piece = whole_batches(graph, _PIECE) if module.batch is None else module.batch
        for parts in zip(*(batches(value, piece) for value in batch.values())):
            current = len(parts[0])
            with torch.no_grad():
                inputs = {k: torch.from_numpy(p) for k, p in zip(batch, parts)}
                module.run(inputs, observe=observe)
            started += current
        for name, value in batch.items():
            kept[name].append(value[: max(0, keep - done)].copy())
        done += size
        if progress is not None:
            progress(done)
    return Calibration(
        stats={name: histogram.freeze() for name, histogram in seen.items()},
        samples=done,
        means={name: mean.total / mean.count for name, mean in means.items()},
        images={name: np.concatenate(parts) for name, parts in kept.items()},
    )


class _Mean:
    """Running mean of each channel: axis 1 of images, else the last axis."""

    def __init__(self) -> None:
        self.total: FloatArray = np.zeros(1)
        self.count = 0

    def add(self, value: Tensor) -> None:
        axes = channel_axes(value.dim())
        self.total = self.total + value.detach().double().sum(axes).numpy()
        self.count += value.numel() // value.shape[1 if value.dim() == 4 else -1]


def channel_axes(rank: int) -> tuple[int, ...]:
    """All axes of a layer's result but that of its channels."""
    return (0, 2, 3) if rank == 4 else tuple(range(rank - 1))
