# SPDX-License-Identifier: Apache-2.0
"""Build folders: written aside and renamed, described by a manifest with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from codesign.errors import InputError

MANIFEST = "manifest.json"


@contextmanager
def build_folder(out: Path) -> Iterator[Path]:
    """A new folder that becomes ``out`` when the block ends well, and is removed otherwise.

    A folder that is there already is replaced if it is empty or holds a build of ours; anything
    else is left alone. Raises InputError if ``out`` cannot be written.
    """
    out = Path(out).absolute()
    _check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise unwritable(out, error) from error
    try:
        try:
            yield aside
            aside.chmod(0o755)  # mkdtemp makes private folders
            _replace(aside, out)
        except OSError as error:
            if error.filename is None or str(aside) in str(error.filename):
                raise unwritable(out, error) from error
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def unwritable(out: Path, error: OSError) -> InputError:
    """The error for a folder that cannot be written."""
    return InputError(
        f"cannot write the build folder {out}: {error.strerror or error}; "
        "choose another with --out or free it"
    )


def _check_replaceable(out: Path) -> None:
    if not out.exists():
        above = next(parent for parent in out.parents if parent.exists())
        if not above.is_dir():
            raise InputError(f"cannot write the build folder {out}: {above} is a file")
        return
    if not out.is_dir():
        raise InputError(f"cannot write the build folder {out}: a file of that name is there")
    if any(out.iterdir()) and not (out / MANIFEST).exists():
        raise InputError(
            f"cannot write the build folder {out}: it holds other files and no {MANIFEST}; "
            "empty it or choose another"
        )


def _replace(aside: Path, out: Path) -> None:
    if not out.exists():
        os.replace(aside, out)
        return
    # A folder with files cannot be renamed over: the old one steps aside first.
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    os.replace(out, old / "build")
    try:
        os.replace(aside, out)
    except OSError:
        with suppress(OSError):
            os.replace(old / "build", out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """Checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` with ``content`` and the checksums of all other files."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    sums = {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)}
        for p in files
    }
    text = json.dumps({**content, "files": sums}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path, format: str) -> dict[str, Any]:
    """The manifest of a build, once every file it names is there unchanged.

    Raises InputError that names the file that is missing, damaged or of another format.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "there is no such folder" if not folder.is_dir() else f"no {MANIFEST} in it"
        raise InputError(f"{folder} holds no build: {what}; run `codesign build` first") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; build again") from error
    if not isinstance(content, dict) or content.get("format") != format:
        found = content.get("format") if isinstance(content, dict) else content
        raise InputError(f"{path} is no {format} manifest (its format is {found!r}); build again")
    try:
        sums = {str(n): (int(f["bytes"]), str(f["sha256"])) for n, f in content["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} lists no files with checksums; build again") from error
    for name, (size, digest) in sums.items():
        _check_file(folder / name, size, digest)
    return content


def _check_file(path: Path, size: int, digest: str) -> None:
    try:
        found = path.stat().st_size
        same = found == size and sha256(path) == digest
    except OSError as error:
        raise InputError(f"{path} is missing from the build ({error.strerror}); build again"
                         ) from error
    if not same:
        raise InputError(
            f"{path} is not the file that was built: its checksum differs from the manifest's "
            f"({found} bytes, built with {size}); build again"
        )
