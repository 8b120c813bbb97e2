# SPDX-License-Identifier: Apache-2.0
"""Results on disk by content hash: each entry a file of its own, never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph

VERSION = 1
"""Part of every key; raised when what is computed changes."""


def graph_digest(graph: Graph) -> str:
    """Hash of a graph: operators, types, connections and the bytes of its constants."""
    digest = hashlib.sha256(repr((graph.name, graph.outputs)).encode())
    for node in graph.nodes.values():
        digest.update(repr((node.name, node.op, node.inputs)).encode())
    for name, value in graph.constants.items():
        digest.update(repr((name, value.dtype.str, value.shape)).encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def array_digest(array: Array | None) -> str:
    """Hash of an array's type, shape and bytes."""
    if array is None:
        return "none"
    head = repr((array.dtype.str, array.shape)).encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


@dataclass(frozen=True)
class Cache:
    """Entries under ``folder`` (None: nothing is kept), all of one ``context``."""

    folder: Path | None
    context: str

    def remember(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """The stored JSON value of ``key``, or ``compute()``, stored.

        Raises InputError if the folder cannot be written. An unreadable entry is made again.
        """
        if self.folder is None:
            return compute()
        text = json.dumps([VERSION, self.context, *key])
        name = hashlib.sha256(text.encode()).hexdigest()
        path = self.folder / f"{name}.json"
        try:
            stored = json.loads(path.read_text())
            if stored["key"] == text:
                return stored["value"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        value = compute()
        self._write(path, json.dumps({"key": text, "value": value}))
        return value

    def _write(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(text)
                os.replace(aside, path)
            except BaseException:
                os.unlink(aside)
                raise
        except OSError as error:
            raise InputError(
                f"cannot write the sensitivity cache {path.parent}: {error.strerror}; "
                "give another folder"
            ) from None
