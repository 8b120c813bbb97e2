# SPDX-License-Identifier: Apache-2.0
"""Files of a design folder: written aside and renamed, so that none is ever half there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from codesign.errors import InputError


def make_folder(path: Path) -> Path:
    """Create ``path`` if need be and prove that it can be written; raises InputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"output folder {path}: cannot be written ({error.strerror}); "
            "choose another with --out or change its permissions"
        ) from None
    return path


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well."""
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".part", dir=path.parent
        )
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}: folder {path.parent}); create the "
            "folder, change its permissions or choose another"
        ) from None
    os.close(descriptor)
    aside = Path(name)
    try:
        yield aside
        # mkstemp makes the file private; a result is as readable as any other file
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o666 & ~mask)
        aside.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another place"
        ) from None
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


class _Encoder(json.JSONEncoder):
    def default(self, value: Any) -> Any:
        if isinstance(value, Decimal):
            return int(value) if value == value.to_integral_value() else float(value)
        if isinstance(value, Path):
            return str(value)
        if hasattr(value, "item"):  # NumPy scalars
            return value.item()
        return super().default(value)


def to_json(data: Mapping[str, Any]) -> str:
    """Readable JSON text; refuses NaN, which is no JSON."""
    return json.dumps(data, indent=1, cls=_Encoder, allow_nan=False) + "\n"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file in one step."""
    write_text(path, to_json(data))


def read_json(path: Path, format: str, made_by: str) -> dict[str, Any]:
    """Read a JSON file whose ``format`` field must be ``format``; raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with `{made_by}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}); "
            f"make it anew with `{made_by}`"
        ) from None
    found = data.get("format") if isinstance(data, dict) else None
    if found != format:
        raise InputError(f"{path}: expected format {format!r}, got {found!r}")
    result: dict[str, Any] = data
    return result


def digest(*parts: object) -> str:
    """SHA-256 of the parts' text; the key under which finished work is found again."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(str(part).encode())
        sha.update(b"\0")
    return sha.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
