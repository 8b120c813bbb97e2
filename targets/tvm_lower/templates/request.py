# SPDX-License-Identifier: Apache-2.0
"""What a template is asked for: a product of known integer weights and what is fused behind it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.types import DType
from codesign.targets.tvm_lower.dense import Product
from codesign.targets.tvm_lower.isa.base import Dot, Range
from codesign.targets.tvm_lower.kernel import BufferKernel, Expr, Index, Perm, physical
from codesign.targets.tvm_lower.templates import write
from codesign.targets.tvm_lower.templates.epilogue import Epilogue

_PARTS = 12
"""Most pieces a thread that a loop is cut into: at the end half a piece is waited for."""
_PART = 40_000
"""Fewest multiply-accumulates of a piece: less takes no longer than handing it out."""


@dataclass(frozen=True)
class Request:
    """One kernel to be written."""

    kernel: BufferKernel
    product: Product
    weights: npt.NDArray[Any]
    """[outputs, inputs of a group, kh, kw], integers."""
    data: DType
    """Type of the input."""
    epilogue: Callable[[int, int], Epilogue]
    """From the offset that was added to every input and the lanes of a vector of sums, what turns
    sums into the kernel's results."""
    shape: tuple[int, ...]
    """Logical shape of the result."""
    perm: Perm
    """Order of its axes in memory."""
    dtype: str
    """TVM's type that stores it."""
    source: Any
    """Buffer of the input where it lies channels-last in memory, else None."""
    threads: int = 1
    """Threads that share the work."""

    def work(self, extent: int, macs: int) -> AbstractContextManager[Expr]:
        """A loop of ``extent`` steps and so many multiply-accumulates that threads share."""
        parts = max(self.threads, min(_PARTS * self.threads, macs // _PART))
        return write.work(extent, self.threads, parts)

    def out_index(self, index: Index) -> list[Expr]:
        """Where the result with a logical index is stored."""
        return [index[axis] for axis in self.perm]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the result in memory."""
        return physical(self.shape, self.perm)


def data_range(dtype: DType) -> Range:
    """All values of a format."""
    return Range(dtype.min, dtype.max)


def weight_range(weights: npt.NDArray[Any], dtype: DType) -> Range:
    """Values of a weight format; symmetric where the least value does not occur.

    Taken from the format, not from the values at hand, so that layers of one structure run the
    same code.
    """
    symmetric = not weights.size or int(weights.min()) > dtype.min
    return Range(-dtype.max if symmetric else dtype.min, dtype.max)


def correction(weights: npt.NDArray[Any], offset: int) -> npt.NDArray[np.int32] | None:
    """What to add to each output's sum when ``offset`` was added to every input."""
    if not offset:
        return None
    sums = weights.astype(np.int64).sum(axis=(1, 2, 3))
    wrapped: npt.NDArray[np.int32] = (-offset * sums).astype(np.int32)
    return wrapped


def padded_channels(request: Request, dot: Dot) -> int:
    """Output channels rounded up to whole vectors of ``dot``."""
    return -(-request.product.channels // dot.lanes) * dot.lanes
