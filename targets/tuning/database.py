# SPDX-License-Identifier: Apache-2.0
"""The tuning database: the best tile of a kernel on a machine, in one SQLite file.

Keys are the kernel's structure and the machine with its compiler and kernel version, so that what
no longer holds is not found. Writers of several processes wait for one another (WAL); what was
committed survives a killed tuner. Candidates that crashed, hung or gave wrong results are kept,
too, and not tried again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.targets.tvm_lower.tiles import Tile, parse_tile, tile_text

FORMAT = "codesign-tuning/1"
_WAIT_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS best (
  key TEXT NOT NULL, machine TEXT NOT NULL, tile TEXT NOT NULL, median_ms REAL NOT NULL,
  default_ms REAL NOT NULL, layer TEXT NOT NULL, tuned_at REAL NOT NULL,
  PRIMARY KEY (key, machine));
CREATE TABLE IF NOT EXISTS trials (
  key TEXT NOT NULL, machine TEXT NOT NULL, tile TEXT NOT NULL, status TEXT NOT NULL,
  least_ms REAL, PRIMARY KEY (key, machine, tile));
"""


@dataclass(frozen=True)
class Best:
    """The tile that was chosen, with figures taken after the choice."""

    tile: Tile
    median_ms: float
    default_ms: float
    """Of the fixed rules' tile, measured in turn with the chosen one."""
    layer: str


@dataclass(frozen=True)
class Trial:
    """One candidate: ``measured`` with a time, or why there is none."""

    tile: Tile
    status: str
    least_ms: float | None = None


@dataclass(frozen=True)
class TuningDatabase:
    """Tiles by structure and machine."""

    path: Path

    def best(self, key: str, machine: str) -> Best | None:
        """What was chosen for a kernel, or None."""
        return self.all_best(machine).get(key)

    def all_best(self, machine: str) -> dict[str, Best]:
        """Everything chosen for a machine; rows that cannot be read are left out."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT key, tile, median_ms, default_ms, layer FROM best WHERE machine = ?",
                (machine,),
            ).fetchall()
        found = {}
        for key, tile, median, default, layer in rows:
            try:
                found[key] = Best(parse_tile(tile), median, default, layer)
            except InputError:
                continue
        return found

    def keep_best(self, key: str, machine: str, best: Best) -> None:
        """Keep a choice unless another process found one that gains more meanwhile.

        Gains over the fixed rules' tile are compared, not times: the machine may have been slower.
        """
        row = (key, machine, tile_text(best.tile), best.median_ms, best.default_ms, best.layer,
               time.time())  # fmt: skip
        with self._open() as connection, connection:
            connection.execute(
                "INSERT INTO best VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, machine) "
                "DO UPDATE SET tile = excluded.tile, median_ms = excluded.median_ms, "
                "default_ms = excluded.default_ms, layer = excluded.layer, "
                "tuned_at = excluded.tuned_at "
                "WHERE excluded.median_ms / excluded.default_ms < best.median_ms / best.default_ms",
                row,
            )

    def trials(self, key: str, machine: str) -> dict[Tile, Trial]:
        """Every candidate that was tried."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT tile, status, least_ms FROM trials WHERE key = ? AND machine = ?",
                (key, machine),
            ).fetchall()
        found = {}
        for text, status, least in rows:
            try:
                tile = parse_tile(text)
            except InputError:
                continue
            found[tile] = Trial(tile, status, least)
        return found

    def keep_trial(self, key: str, machine: str, trial: Trial) -> None:
        """Keep what became of a candidate."""
        row = (key, machine, tile_text(trial.tile), trial.status, trial.least_ms)
        with self._open() as connection, connection:
            connection.execute("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?)", row)

    def export(self, path: Path) -> int:
        """Write all choices as JSON; their number."""
        with self._open() as connection:
            rows = connection.execute("SELECT * FROM best ORDER BY machine, key").fetchall()
        names = ("key", "machine", "tile", "median_ms", "default_ms", "layer", "tuned_at")
        data = {"format": FORMAT, "best": [dict(zip(names, row)) for row in rows]}
        aside = path.with_name(path.name + ".part")
        try:
            aside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            os.replace(aside, path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise InputError(f"cannot write {path}: {error}") from error
        return len(rows)

    def take(self, path: Path) -> int:
        """Merge a file that ``export`` wrote; the number of choices in it. All or nothing."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.get("format") != FORMAT:
                raise ValueError(f"format is {data.get('format')!r}")
            rows = [_checked(row) for row in data["best"]]
        except OSError as error:
            raise InputError(f"cannot read {path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is no exported tuning database ({FORMAT}): {error}"
            ) from error
        for key, machine, best in rows:
            self.keep_best(key, machine, best)
        return len(rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            raise InputError(f"cannot open the tuning database {self.path}: {error}; name another "
                             "or free the folder") from error
        with closing(connection):
            try:
                yield connection
            except sqlite3.OperationalError as error:
                raise InputError(f"the tuning database {self.path} cannot be used: {error}; what "
                                 "was kept before is not lost") from error

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._ready()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # no database: set aside, never written over
            os.replace(self.path, self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}"))
            return self._ready()

    def _ready(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection


def _checked(row: dict[str, Any]) -> tuple[str, str, Best]:
    tile = parse_tile(row["tile"])
    best = Best(tile, float(row["median_ms"]), float(row["default_ms"]), str(row["layer"]))
    return str(row["key"]), str(row["machine"]), best


def default_tuning() -> TuningDatabase:
    """The database in the user's cache folder."""
    from codesign.data.root import cache_dir

    return TuningDatabase(cache_dir() / "tuning.sqlite")
