# SPDX-License-Identifier: Apache-2.0
"""Results of slow tools, kept by the content they were made from."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from codesign.data.root import cache_dir


def key(*parts: str | bytes) -> str:
    """Checksum of all parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def kept(name: str, make: Callable[[Path], None], folder: Path | None = None) -> tuple[Path, bool]:
    """The folder ``name`` of the cache, made by ``make(folder)`` if it is not there, and whether it
    was there. It is made aside and renamed, so that a run that was killed leaves nothing behind.
    """
    base = folder if folder is not None else cache_dir() / "fpga"
    base.mkdir(parents=True, exist_ok=True)
    place = base / name
    if place.is_dir():
        return place, True
    aside = Path(tempfile.mkdtemp(prefix=f".{name[:16]}.", dir=base))
    try:
        make(aside)
        aside.chmod(0o755)
        try:
            os.replace(aside, place)
        except OSError:
            if not place.is_dir():  # another process was first otherwise
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place, False
