# SPDX-License-Identifier: Apache-2.0
"""Results of slow tools, kept by the content they were made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from codesign.data.root import cache_dir

LOCK = ".lock"
"""Held in a folder aside by the process that fills it; the system frees it with the process."""
FORSAKEN = 86_400.0
"""Seconds after which a folder aside without a lock is nobody's."""


def key(*parts: str | bytes) -> str:
    """Checksum of all parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def kept(name: str, make: Callable[[Path], None], folder: Path | None = None) -> tuple[Path, bool]:
    """The folder ``name`` of the cache, made by ``make(folder)`` if it is not there, and whether it
    was there. It is made aside and renamed; what a killed run left aside the next one removes.
    """
    base = folder if folder is not None else cache_dir() / "fpga"
    base.mkdir(parents=True, exist_ok=True)
    place = base / name
    if place.is_dir():
        return place, True
    # nobody sweeps between a folder's making and its lock
    with open(base / LOCK, "w", encoding="utf-8") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        sweep(base)
        aside = Path(tempfile.mkdtemp(prefix=f".{name[:16]}.", dir=base))
        lock = open(aside / LOCK, "w", encoding="utf-8")  # noqa: SIM115
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with lock:
            make(aside)
            (aside / LOCK).unlink()
            aside.chmod(0o755)
            try:
                os.replace(aside, place)
            except OSError:
                if not place.is_dir():  # another process was first otherwise
                    raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place, False


def sweep(base: Path) -> int:
    """Remove the folders aside in ``base`` that no process fills any more; how many."""
    found = 0
    for aside in base.glob(".*.*"):
        try:
            with open(aside / LOCK, "r+", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:  # not locked yet, or about to be renamed
            if not aside.is_dir() or time.time() - aside.stat().st_mtime < FORSAKEN:
                continue
        except OSError:
            continue
        shutil.rmtree(aside, ignore_errors=True)
        found += 1
    return found
