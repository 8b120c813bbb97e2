# SPDX-License-Identifier: Apache-2.0
"""``codesign verify``: the ladder of DESIGN section 3, one rung after the other.

float network → fake-quantized torch → integer reference → TVM on this host → … → board.
From the integer reference on, equal means bit for bit, on real and on random inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codesign.errors import CodesignError, ToolNotFoundError
from codesign.flow.artifact import Design
from codesign.flow.building import is_built, load_float, load_integer, load_runner
from codesign.flow.choose import FLOAT_IR, INTEGER_IR
from codesign.flow.prepare import load_target, noise_inputs
from codesign.flow.progress import SILENT, Progress
from codesign.flow.store import digest, file_digest, write_json
from codesign.ir.analysis import has_float_islands
from codesign.ir.batch import run_batched
from codesign.ir.graph import Graph
from codesign.quant import load_calibration
from codesign.quant.data import check_batch, whole_batches
from codesign.quant.torch_exec import run_batches

Array = npt.NDArray[Any]
Outputs = tuple[Array, ...]
"""Every output of a network, in its order."""
Status = Literal["exact", "within", "failed", "skipped"]
LADDER_FORMAT = "codesign-ladder/1"
NEEDS = {
    "tvm-host": "target host",
    "tvm-aarch64": "an ARM target",
    "rtl": "an FPGA target",
    "gate": "an ECP5's netlist; the tests alone simulate one, of a small network, for minutes",
    "board": "a board",
}
"""Rungs after the integer reference, and what they are for."""
RUNGS = ("fake-quant", "reference", *NEEDS)

REAL_INPUTS = 16
RANDOM_INPUTS = 4
PIECE = 8
"""Images that run at once."""
LEAST_SQNR_DB = 0.0
"""Below this the quantized outputs hold more noise than signal."""
FLOAT_SQNR_DB = 80.0
"""Two back ends of a network with float operators: a relative error of 1e-4 at most, or ..."""
MARGIN_DB = 10.0
"""... a tenth of the noise that quantization itself makes, where that is more."""


@dataclass(frozen=True)
class Rung:
    """One rung: what was compared and how it came out."""

    rung: str
    status: Status
    why: str


def verify(
    folder: Path, progress: Progress = SILENT, *, data: Path | None = None, seed: int = 0
) -> tuple[Rung, ...]:
    """Climb every rung that this target has; writes ``ladder.json``.

    Real inputs are those of ``data`` (array ``x``), else of the design's eval or calibration
    file; random ones come from ``seed``.

    Failed rungs are results, not exceptions: the caller decides (the command line exits 1).
    """
    chosen = Design.load(folder)
    inputs, real = _inputs(chosen, folder, data, seed)
    rungs = []
    with progress.task("Climbing the ladder") as step:
        for index, rung in enumerate(_climb(folder, chosen, inputs, real)):
            rungs.append(rung)
            step(index + 1, len(RUNGS))
    result = tuple(rungs)
    write_json(
        folder / "ladder.json",
        {
            "format": LADDER_FORMAT,
            "networks": networks_digest(folder),
            "ladder": [asdict(r) for r in result],
        },
    )
    return result


def networks_digest(folder: Path) -> str:
    """What rungs are about: the float and the integer network of a design."""
    return digest(file_digest(folder / FLOAT_IR), file_digest(folder / INTEGER_IR))


def _inputs(chosen: Design, folder: Path, data: Path | None, seed: int) -> tuple[Array, int]:
    """Real inputs where the design had data, then random ones that reach the formats' ends.

    Returns them in one array, and how many of them are real.
    """
    graph = load_float(folder)
    options = chosen.options
    real: Array | None = None
    data = data or options.eval or options.calib
    if data is not None:
        real = load_calibration(data)
        real = real[: whole_batches(graph, min(REAL_INPUTS, len(real)))]
        check_batch(graph, real, str(data))
    noise = noise_inputs(graph, whole_batches(graph, RANDOM_INPUTS), seed)
    if real is None:
        return noise, 0
    noise *= np.float32(2 * np.abs(real).max() or 1.0)  # saturates the input format
    return np.concatenate([real, noise]), len(real)


def _climb(folder: Path, chosen: Design, inputs: Array, real: int) -> Iterator[Rung]:
    floats, integer = load_float(folder), load_integer(folder)
    fake = _torch(integer, inputs)
    # random inputs leave the calibrated range: they prove equality, not quality
    judged = slice(0, real or None)
    what = f"{real} real inputs" if real else f"{len(inputs)} random inputs"
    sqnr = _sqnr_db(_torch(floats, inputs[judged]), tuple(a[judged] for a in fake))
    yield _fake_quant(sqnr, what)
    what = f"{real} real and {len(inputs) - real} random inputs" if real else what
    reference = run_batched(integer, inputs)
    least = min(FLOAT_SQNR_DB, sqnr + MARGIN_DB) if has_float_islands(integer) else None
    yield _equal("reference", fake, reference, what, least)
    target = load_target(chosen.options.target)
    for rung, needed in NEEDS.items():
        if rung != target.rung:
            why = f"the design is for {target.name!r}; this rung needs {needed}"
            yield Rung(rung, "skipped", why)
        elif not is_built(folder):
            yield Rung(rung, "skipped", f"not built yet; make it with `codesign build {folder}`")
        else:
            some = _some(len(inputs), real, target.rung_inputs(integer))
            yield _build_rung(folder, rung, inputs, reference, some, real, least)


def _build_rung(
    folder: Path, rung: str, inputs: Array, reference: Outputs, some: list[int], real: int,
    least: float | None,
) -> Rung:  # fmt: skip
    """The build against the reference on some of the inputs."""
    there = sum(place < real for place in some)
    what = f"{there} real and {len(some) - there} random inputs" if real else (
        f"{len(some)} random inputs"
    )  # fmt: skip
    kept = tuple(a[some] for a in reference)
    return _attempt(
        rung, lambda: _equal(rung, _run_build(folder, inputs[some]), kept, what, least)
    )


def _some(count: int, real: int, most: int | None) -> list[int]:
    """Places of the inputs that a slow rung runs: the first ones, and one random one if there is
    room for two."""
    if most is None or most >= count:
        return list(range(count))
    if most < 2 or real in (0, count):
        return list(range(most))
    return [*range(min(most - 1, real)), real]


def _torch(graph: Graph, inputs: Array) -> Outputs:
    """Fake-quantized (or float) execution in torch; any number of inputs."""
    return _joined(run_batches(graph, _pieces(graph, inputs)))


def _joined(pieces: Iterable[Outputs]) -> Outputs:
    return tuple(np.concatenate(column) for column in zip(*pieces))


def _pieces(graph: Graph, inputs: Array) -> Iterator[dict[str, Array]]:
    name = graph.inputs[0]
    size = whole_batches(graph, PIECE)
    for start in range(0, len(inputs), size):
        yield {name: inputs[start : start + size]}


def _attempt(rung: str, climb: Callable[[], Rung]) -> Rung:
    try:
        return climb()
    except ToolNotFoundError:
        raise  # says nothing of the network
    except CodesignError as error:
        return Rung(rung, "failed", str(error))


def _run_build(folder: Path, inputs: Array) -> Outputs:
    """Outputs of the built network, which takes the batch it was designed for."""
    runner = load_runner(folder)
    size = load_integer(folder).type(load_integer(folder).inputs[0]).shape[0]
    return _joined(
        tuple(a[: len(inputs) - start] for a in runner.run(_filled(inputs[start:][:size], size)))
        for start in range(0, len(inputs), size)
    )


def _filled(piece: Array, size: int) -> Array:
    """A last, smaller piece filled up with zeros to the full batch."""
    if len(piece) == size:
        return np.ascontiguousarray(piece)
    rest = np.zeros((size - len(piece), *piece.shape[1:]), piece.dtype)
    return np.concatenate([piece, rest])


def _fake_quant(sqnr: float, what: str) -> Rung:
    status: Status = "within" if sqnr > LEAST_SQNR_DB else "failed"
    text = f"signal to quantization noise {sqnr:.1f} dB against the float network on {what}"
    if status == "failed":
        text += "; quantization destroys the signal: offer wider formats or real --calib data"
    return Rung("fake-quant", status, text)


def _sqnr_db(signals: Outputs, found: Outputs) -> float:
    """Signal over the difference, in decibels; the least of all outputs."""

    def one(signal: Array, other: Array) -> float:
        noise = float(((signal.astype(np.float64) - other.astype(np.float64)) ** 2).sum())
        power = float((signal.astype(np.float64) ** 2).sum())
        if noise == 0:
            return float("inf")
        return float(10 * np.log10(power / noise)) if power else float("-inf")

    return min(one(a, b) for a, b in zip(signals, found, strict=True))


def _equal(
    rung: str, found: Outputs, reference: Outputs, what: str, least_db: float | None
) -> Rung:
    """Bit for bit; with float islands at least ``least_db`` of signal over the difference.

    The last bit of a float operator may turn a rounding behind it the other way, and that one
    step of a format spreads through the layers that follow.
    """
    shapes, wanted = [a.shape for a in found], [a.shape for a in reference]
    if shapes != wanted:
        return Rung(rung, "failed", f"outputs of shapes {shapes}, expected {wanted}")
    wrong = sum(int((a != b).sum()) for a, b in zip(found, reference))
    if wrong == 0:
        return Rung(rung, "exact", f"equal bit for bit on {what}")
    apart = [
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        for a, b in zip(found, reference)
    ]
    size = sum(a.size for a in found)
    text = f"{wrong} of {size} outputs differ, by at most {max(apart):.3g}, on {what}"
    if least_db is None:
        return Rung(rung, "failed", text)
    sqnr = _sqnr_db(reference, found)
    text += f": {sqnr:.1f} dB, at least {least_db:.1f} dB wanted (float operators inside)"
    return Rung(rung, "within" if sqnr >= least_db else "failed", text)
