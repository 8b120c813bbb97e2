# SPDX-License-Identifier: Apache-2.0
"""Where data sets and their caches lie."""

from __future__ import annotations

import os
from pathlib import Path

from codesign.errors import InputError


def data_root() -> Path:
    """The folder with ``cifar10/`` and ``mlperf_tiny/``.

    ``CODESIGN_DATA`` if set, else ``../shared/data`` beside the checkout of the repository.
    """
    chosen = os.environ.get("CODESIGN_DATA")
    root = (
        Path(chosen).expanduser()
        if chosen
        else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    )
    if not root.is_dir():
        origin = "named by CODESIGN_DATA" if chosen else "the default"
        raise InputError(
            f"data folder {str(root)!r} ({origin}) not found; set CODESIGN_DATA to the folder "
            "that holds cifar10/ and mlperf_tiny/"
        )
    return root


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/codesign``, by default ``~/.cache/codesign``; made if missing."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "codesign"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
