# SPDX-License-Identifier: Apache-2.0
"""The contract of a target: what it offers, what it cannot take, how it builds, runs and times."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError, UnsupportedError
from codesign.ir.graph import Graph
from codesign.ir.types import TensorType
from codesign.quant.formats import LayerFormat
from codesign.space.device import Device

Array = npt.NDArray[Any]
TargetKind = Literal["cpu", "fpga"]
LatencyKind = Literal["measured", "simulated", "modelled"]


@dataclass(frozen=True)
class Unsupported:
    """One operator that a target cannot take."""

    node: str
    op: str
    why: str
    source: str = ""

    def __str__(self) -> str:
        where = f" from {self.source!r}" if self.source else ""
        return f"{self.node} ({self.op}){where}: {self.why}"


@dataclass(frozen=True)
class Timing:
    """Latencies of single calls, measured one after another in one process."""

    samples_ms: tuple[float, ...]
    """One figure a repeat, in milliseconds, in the order they were taken."""

    def __post_init__(self) -> None:
        if not self.samples_ms:
            raise ValueError("a timing needs at least one sample")

    @property
    def median_ms(self) -> float:
        """The figure that is reported."""
        return statistics.median(self.samples_ms)

    @property
    def min_ms(self) -> float:
        """The least disturbed call."""
        return min(self.samples_ms)

    @property
    def samples(self) -> int:
        """Number of repeats."""
        return len(self.samples_ms)


@dataclass(frozen=True)
class BuildResult:
    """What a build wrote."""

    directory: Path
    files: tuple[str, ...]
    """Names inside ``directory``; ``manifest.json`` holds their checksums."""
    seconds: float
    size_bytes: int
    """Bytes of all files together."""


class Runner(ABC):
    """A built network, loaded and ready to run."""

    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]

    def run(self, *arrays: Array) -> tuple[Array, ...]:
        """The network's results, in logical (row-major) order.

        Raises InputError if the arrays do not have the declared shapes, types and ranges.
        """
        return self._run(tuple(check_arrays(self.inputs, arrays)))

    @abstractmethod
    def _run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """Run on checked arrays."""

    @abstractmethod
    def time(self, arrays: Sequence[Array], repeats: int = 10, warmup: int = 3) -> Timing:
        """Latency of one call: ``warmup`` calls that do not count, then ``repeats`` samples."""


@dataclass(frozen=True)
class Target(ABC):
    """A machine, board or device that networks are designed and built for.

    Subclasses are frozen dataclasses whose fields are the target's options.
    """

    name: ClassVar[str]
    """Name on the command line."""
    description: ClassVar[str]
    """One line for ``codesign list targets``."""
    kind: ClassVar[TargetKind]
    formats: ClassVar[tuple[str, ...]]
    """Number formats the target runs; the first is the default of a uniform design."""
    rung: ClassVar[str] = ""
    """The rung of the verification ladder that its builds are compared on; empty for none."""
    latency_kind: ClassVar[LatencyKind] = "measured"
    """What ``layer_latency`` is. If it is not measured, networks are not timed here."""

    def rung_inputs(self, graph: Graph) -> int | None:
        """Inputs that its rung can compare in reasonable time; None for as many as there are."""
        return None

    def with_design(self, folder: Path) -> Target:
        """The target with what a design's folder says of it beside the network (FPGA boards: the
        accelerator). Raises InputError if that is missing."""
        return self

    def unavailable(self) -> str | None:
        """Why the target cannot be used here and how to change that; None if it can."""
        return None

    @property
    def device(self) -> Device | None:
        """The FPGA that an accelerator is chosen for with the formats; None for processors."""
        return None

    @abstractmethod
    def unsupported(self, graph: Graph) -> tuple[Unsupported, ...]:
        """Every operator of ``graph`` that the target cannot take, in graph order."""

    @abstractmethod
    def build(self, graph: Graph, out: Path) -> BuildResult:
        """Compile ``graph`` into the folder ``out``, which appears whole or not at all.

        Raises UnsupportedError (all operators at once), InputError if the folder cannot be
        written, ToolNotFoundError if something outside is missing.
        """

    @abstractmethod
    def load(self, directory: Path) -> Runner:
        """The network built into ``directory``; InputError if files are missing or changed."""

    @abstractmethod
    def layer_latency(self, graph: Graph) -> dict[str, Timing]:
        """Latency of each layer of ``graph`` alone, by name; ``latency_kind`` says what it is."""

    def modelled_counts(self, directory: Path) -> dict[str, int]:
        """What is counted of one call of the build in ``directory`` where it cannot be timed."""
        return {}

    def network_latency(self, graph: Graph, beside: Graph | None = None) -> dict[str, Timing]:
        """Each layer's share of the latency of ``graph``: they add up to the network's.

        ``beside``: a network that was measured before; figures are brought to the speed that the
        machine had then. By default what the layers take alone, as far as a target knows no better.
        """
        return self.layer_latency(graph)

    def layer_codes(self, graph: Graph) -> dict[str, str]:
        """What code each layer of ``graph`` runs, with the operators that are counted to it.

        Layers of one code take the same time, whatever their weights and formats, so that one
        measurement serves. Empty where a target cannot tell.
        """
        return {}

    def latency_bound_ms(self, macs: int) -> float:
        """Milliseconds that no layer of ``macs`` multiply-accumulates can beat here.

        Stands for latencies that were not measured yet; 0 is always right, more saves work.
        """
        return 0.0

    def least_ratio(self, one: LayerFormat, other: LayerFormat) -> float:
        """What share of its latency in ``one`` a layer takes in ``other`` at least.

        0 is always right, more saves measurements.
        """
        return 1.0 if one == other else 0.0

    def relative_cost(self, form: LayerFormat) -> float:
        """About how long products take in a format, relative to other formats. A guess that says
        what is worth measuring; nothing rests on it."""
        return 1.0

    def same_code(self, one: LayerFormat, other: LayerFormat) -> bool:
        """Whether a layer runs the same code in both formats, so that one measurement serves."""
        return one == other

    def check(self, graph: Graph) -> None:
        """Raise UnsupportedError that lists everything ``unsupported`` finds."""
        found = self.unsupported(graph)
        if found:
            lines = "\n".join(f"  {item}" for item in found)
            raise UnsupportedError(
                f"target {self.name!r} cannot take {len(found)} of the "
                f"{len(graph.nodes)} operators of {graph.name!r}:\n{lines}"
            )


def check_arrays(
    declared: Sequence[tuple[str, TensorType]], arrays: Sequence[Array]
) -> list[Array]:
    """The arrays in C order, checked against the declared inputs; raises InputError."""
    if len(arrays) != len(declared):
        names = ", ".join(name for name, _ in declared)
        raise InputError(f"the network takes {len(declared)} inputs ({names}), got {len(arrays)}")
    return [_check_array(name, kind, array) for (name, kind), array in zip(declared, arrays)]


def _check_array(name: str, kind: TensorType, array: Array) -> Array:
    dtype = kind.dtype
    array = np.asarray(array)
    if array.shape != kind.shape or array.dtype != dtype.numpy:
        raise InputError(
            f"input {name!r} takes {dtype.numpy}{list(kind.shape)} ({kind}), "
            f"got {array.dtype}{list(array.shape)}"
        )
    if dtype.is_integer and dtype.bits < dtype.numpy.itemsize * 8 and array.size:
        least, most = int(array.min()), int(array.max())
        if least < dtype.min or most > dtype.max:
            raise InputError(f"input {name!r} takes {dtype.min}..{dtype.max} ({dtype}), "
                             f"got values {least}..{most}")
    return np.ascontiguousarray(array)
