# SPDX-License-Identifier: Apache-2.0
"""Measured latencies of layers, kept in a database that processes share.

An entry belongs to a layer's structure (operators, shapes, formats as stored), a target with
its options and machine, and the version of the compiler: any of them new, and the layer is
measured again. Writers may come at once; SQLite's journal keeps what was committed when a
process is killed. A file that is no database is set aside, never written over.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.ir.types import DType
from codesign.targets.base import Runner, Timing
from codesign.targets.layers import extract_layers, random_inputs, structure_key

REPEATS = 20
WARMUP = 5
_WAIT_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS measured (
  key TEXT NOT NULL, machine TEXT NOT NULL, samples_ms TEXT NOT NULL,
  layer TEXT NOT NULL, measured_at REAL NOT NULL, PRIMARY KEY (key, machine))
"""

Progress = Callable[[str, int, int], None]
"""Called with the layer, how many are done, and how many there are."""


@dataclass(frozen=True)
class MeasuredDatabase:
    """Timings by structure and machine in one SQLite file."""

    path: Path

    def get(self, key: str, machine: str) -> Timing | None:
        """The timing of a structure on a machine, or None if it was never measured."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT samples_ms FROM measured WHERE key = ? AND machine = ?", (key, machine)
            ).fetchone()
        if row is None:
            return None
        try:
            return Timing(tuple(float(sample) for sample in json.loads(row[0])))
        except (ValueError, TypeError):
            return None  # a damaged row is measured again

    def put(self, key: str, machine: str, layer: str, timing: Timing) -> None:
        """Keep a timing; the later one stays if two processes measured the same."""
        row = (key, machine, json.dumps(timing.samples_ms), layer, time.time())
        with self._open() as connection, connection:
            connection.execute("INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?, ?)", row)

    def __len__(self) -> int:
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM measured").fetchone()[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            raise InputError(
                f"cannot open the database of measured layers {self.path}: {error}; name "
                "another or free the folder"
            ) from error
        with closing(connection):
            try:
                yield connection
            except sqlite3.OperationalError as error:
                raise InputError(
                    f"the database of measured layers {self.path} cannot be used: {error}; what "
                    "was kept before is not lost"
                ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            connection.close()
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._set_aside()
            connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
            connection.execute(_SCHEMA)
        return connection

    def _set_aside(self) -> None:
        kept = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        os.replace(self.path, kept)


class Measurable(Protocol):
    """A target whose layers can be run by themselves."""

    def machine_key(self) -> str:
        """What figures belong to besides the layer."""

    def runner(self, graph: Graph) -> Runner:
        """A graph compiled and ready to run."""


@runtime_checkable
class Particular(Protocol):
    """A target that runs a layer alone as inside a network, and knows when layers are alike."""

    def layer_key(self, layer: Graph) -> str:
        """What layers have in common that run the same code."""

    def layer_runner(self, graph: Graph) -> Runner:
        """As ``Measurable.runner``, with images as they lie inside a network."""


@runtime_checkable
class Tunable(Protocol):
    """A target whose code depends on what was tuned."""

    def tuned_code(self, graph: Graph) -> str:
        """What the kernels of ``graph`` take of it; empty for nothing."""


def default_database() -> MeasuredDatabase:
    """The database in the user's cache folder."""
    from codesign.data.root import cache_dir

    return MeasuredDatabase(cache_dir() / "measured.sqlite")


def measure_layers(
    target: Measurable,
    graph: Graph,
    database: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Timing]:
    """Latency of every layer of ``graph`` alone, each structure built and measured once.

    What the database knows is not measured again; what is measured is kept at once, so an
    interrupted run goes on where it stopped.
    """
    kept = MeasuredDatabase(database) if database else default_database()
    machine = target.machine_key()
    layers = extract_layers(graph)
    known: dict[str, Timing] = {}
    timings: dict[str, Timing] = {}
    for done, (name, layer) in enumerate(layers.items()):
        if progress is not None:
            progress(name, done, len(layers))
        key = target.layer_key(layer) if isinstance(target, Particular) else stored_key(layer)
        timing = known.get(key) or kept.get(key, machine)
        if timing is None:
            timing = _measure(target, layer)
            kept.put(key, machine, name, timing)
        known[key] = timings[name] = timing
    return timings


def stored_key(layer: Graph) -> str:
    """Structure, with formats that are stored alike counted as one."""
    return structure_key(layer, _stored)


def _stored(dtype: DType) -> str:
    return str(dtype.numpy)


def _measure(target: Measurable, layer: Graph) -> Timing:
    alone = target.layer_runner if isinstance(target, Particular) else target.runner
    runner = alone(layer)
    arrays = [
        array.transpose(0, 2, 3, 1) if array.shape != kind.shape else array
        for array, (_, kind) in zip(random_inputs(layer), runner.inputs)
    ]
    return runner.time(arrays, repeats=REPEATS, warmup=WARMUP)
