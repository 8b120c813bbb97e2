# SPDX-License-Identifier: Apache-2.0
"""Calibration and evaluation data: files, checks, batches."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph

Batch = Array | Mapping[str, Array]
"""Samples of the only input, or of each input by name."""


def load_calibration(path: Path | str) -> Array:
    """Array ``x`` of an .npz file, as float32 (N, ...); raises InputError."""
    return _floats(_load(path, ("x",))["x"], f"calibration file {path}: array 'x'")


def load_eval(path: Path | str) -> tuple[Array, Array]:
    """Arrays ``x`` (N, ...) as float32 and ``y`` (N,) as int64; raises InputError."""
    arrays = _load(path, ("x", "y"))
    where = f"evaluation file {path}"
    x = _floats(arrays["x"], f"{where}: array 'x'")
    y = arrays["y"]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise InputError(
            f"{where}: array 'y' must hold integer labels of shape [{len(x)}], "
            f"got {y.dtype}{list(y.shape)}"
        )
    if len(x) != len(y):
        raise InputError(f"{where}: 'x' has {len(x)} samples, 'y' has {len(y)} labels")
    return x, y.astype(np.int64)


def _load(path: Path | str, names: tuple[str, ...]) -> dict[str, Array]:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such data file: {path}")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            wanted = ", ".join(f"{name}=..." for name in names)
            raise InputError(f"{path} holds a single array; write it with np.savez(FILE, {wanted})")
        with archive:
            for name in names:
                if name not in archive.files:
                    found = ", ".join(archive.files) or "none"
                    raise InputError(f"{path} has no array {name!r} (arrays there: {found})")
            return {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no readable .npz file: {error}") from None


def _floats(x: Array, where: str) -> Array:
    if x.ndim == 0:
        raise InputError(f"{where} is a single number; expected one row a sample")
    if len(x) == 0:
        raise InputError(f"{where} has no samples")
    if x.dtype.kind not in "fiu":
        raise InputError(f"{where} must hold numbers, got {x.dtype}")
    values: Array = x.astype(np.float32)
    check_finite(values, where)
    return values


def check_finite(x: Array, where: str) -> None:
    """Raise InputError if ``x`` holds NaN or infinities."""
    good = np.isfinite(x)
    if not good.all():
        first = np.unravel_index(int(np.argmin(good)), x.shape)
        raise InputError(
            f"{where} holds {int(x.size - good.sum())} values that are NaN or infinite, "
            f"the first at {[int(i) for i in first]}"
        )


def check_batch(graph: Graph, batch: Batch, where: str) -> dict[str, Array]:
    """The samples of each input as float32; raises InputError naming expected and got."""
    if not isinstance(batch, Mapping):
        if len(graph.inputs) != 1:
            raise InputError(
                f"{where}: {graph.name} has {len(graph.inputs)} inputs "
                f"({', '.join(graph.inputs)}); give a mapping of arrays by name"
            )
        batch = {graph.inputs[0]: batch}
    checked: dict[str, Array] = {}
    for name in graph.inputs:
        if name not in batch:
            raise InputError(f"{where}: no array for input {name!r} of {graph.name}")
        value: Any = np.asarray(batch[name])
        shape = graph.type(name).shape
        if value.dtype.kind not in "fiu":
            raise InputError(f"{where}: input {name!r} must hold numbers, got {value.dtype}")
        if value.shape[1:] != shape[1:] or value.ndim != len(shape) or len(value) % shape[0]:
            count = "N" if shape[0] == 1 else f"N·{shape[0]}"
            wanted = ", ".join([count, *map(str, shape[1:])])
            raise InputError(
                f"{where}: input {name!r} of {graph.name} takes [{wanted}], "
                f"got {value.dtype}{list(value.shape)}"
            )
        if len(value) == 0:
            raise InputError(f"{where}: input {name!r} has no samples")
        value = value.astype(np.float32)
        check_finite(value, f"{where}: input {name!r}")
        checked[name] = value
    return checked


def whole_batches(graph: Graph, count: int) -> int:
    """``count`` inputs or a little less in whole batches of the graph; one batch at least."""
    batch = graph.type(graph.inputs[0]).shape[0]
    return max(1, count // batch) * batch


def batches(x: Array, size: int) -> Iterator[Array]:
    """``x`` in pieces of ``size`` samples (the last may be smaller)."""
    for start in range(0, len(x), size):
        yield x[start : start + size]


def checked_batches(
    graph: Graph, data: Iterable[Batch], where: str = "calibration data"
) -> Iterator[dict[str, Array]]:
    """Each batch checked; raises InputError also when there is none."""
    empty = True
    for index, batch in enumerate(data):
        empty = False
        yield check_batch(graph, batch, f"{where}, batch {index}")
    if empty:
        raise InputError(f"{where}: no samples")
