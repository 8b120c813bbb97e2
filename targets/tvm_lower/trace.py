# SPDX-License-Identifier: Apache-2.0
"""Kernels that no template writes: what a search may change of them, and what it found applied.

``lower`` writes such a kernel as stages without a schedule (float products, pooling, softmax,
integer products of two computed values). Fixed rules arrange its loops, or a trace does that
TVM's MetaSchedule found (``codesign.targets.tuning.search``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace
from tvm_ffi import structural_hash

from codesign.ir.types import DType
from codesign.targets.tvm_lower.kernel import Kernel
from codesign.targets.tvm_lower.templates.write import with_own_threads
from codesign.targets.tvm_lower.tiles import TraceTile

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Value:
    """An argument that the network computes."""

    shape: tuple[int, ...]
    stored: str
    """TVM's name of the type in memory."""
    dtype: DType

    def random(self, rng: np.random.Generator) -> Array:
        """A value over the whole range of its format; floats around zero."""
        if self.dtype.is_float:
            return rng.standard_normal(self.shape).astype(self.stored)
        low, high = self.dtype.min, self.dtype.max
        return rng.integers(low, high, self.shape, endpoint=True).astype(self.stored)


@dataclass(frozen=True)
class Loose:
    """A kernel that no template writes."""

    key: str
    name: str
    """The kernel in the network."""
    function: Any
    """Its stages, without a schedule."""
    scheduled: Any
    """By the fixed rules, as it is compiled."""
    arguments: tuple[Array | Value, ...]
    """Constants, and what the network computes."""
    result: tuple[tuple[int, ...], str]
    """Shape and stored type of the result, the last argument."""
    vnni: bool
    """Whether its sums have the form that the AVX-512 VNNI intrinsic replaces."""

    def arrays(self, seed: int = 0) -> tuple[Array, ...]:
        """Arguments to call it with: constants as they are, the rest random. Without the result."""
        rng = np.random.default_rng(seed)
        return tuple(a.random(rng) if isinstance(a, Value) else a for a in self.arguments)


def arguments_of(kernel: Kernel) -> tuple[Array | Value, ...]:
    """The arguments of ``kernel`` in order."""
    found: list[Array | Value] = []
    for argument, placeholder in zip(kernel.arguments, kernel.placeholders, strict=True):
        if isinstance(argument, str):
            shape = tuple(int(n) for n in placeholder.shape)
            found.append(Value(shape, kernel.stored(argument), kernel.type(argument).dtype))
        else:
            found.append(argument)
    return tuple(found)


def function_key(function: Any) -> str:
    """Key in the tuning database of a function without a schedule: its structural hash."""
    return f"function-{structural_hash(function) & (1 << 64) - 1:016x}"


def trace_tile(schedule: Any) -> TraceTile:
    """What was done to a schedule, as a tile."""
    steps = schedule.trace.simplified(remove_postproc=False).as_json()
    return TraceTile(json.dumps(steps, separators=(",", ":"), default=_plain))


def _plain(number: Any) -> int | float:
    """Of one of TVM's constants."""
    value: int | float = number.value
    return value


def traced(function: Any, tile: TraceTile) -> Any | None:
    """``function`` with the loops that ``tile`` says; None if it is a trace of something else."""
    schedule = Schedule(IRModule({"main": function}))
    try:
        Trace.apply_json_to_schedule(json.loads(tile.trace), schedule)
    except Exception:  # TVM raises what it likes; the fixed rules always do
        return None
    return with_own_threads(schedule.mod["main"])


def same_results(ours: Sequence[Array], others: Sequence[Array]) -> bool:
    """Whether results are equal: integers bit for bit, floats within rounding (1e-4 of the
    largest, since sums are taken in another order)."""
    return len(ours) == len(others) and all(map(_same, ours, others))


def _same(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not np.issubdtype(one.dtype, np.floating):
        return bool(np.array_equal(one, other))
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return False
    a, b = (np.where(np.isfinite(one), x, 0).astype(np.float64) for x in (one, other))
    return bool(np.max(np.abs(a - b), initial=0.0) <= 1e-4 * np.max(np.abs(b), initial=0.0))
