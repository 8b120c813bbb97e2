# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 (Krizhevsky, 2009) from tar archives of JPEG files, decoded once and cached."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codesign.data.root import cache_dir, data_root
from codesign.errors import InputError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""In label order."""

_MAX_BYTES = 1 << 16
"""No JPEG of 32x32 pixels is larger; a larger member is refused."""
_MEMBER = re.compile(r"(train|test)/([a-z]+)/(\d{4})\.jpg")

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def cifar10(
    split: Literal["train", "test"], root: Path | None = None, cache: bool = True
) -> tuple[Images, Labels]:
    """Images (N, 3, 32, 32) uint8 RGB and labels (N,) int64 of one split.

    Classes alternate, so that any prefix is balanced: image 0 of each class, then image 1, ...
    The first call decodes the archive (some ten seconds) and caches the arrays.
    """
    archive = (root if root is not None else data_root() / "cifar10") / f"{split}.tar.gz"
    if split not in ("train", "test"):
        raise InputError(f"CIFAR-10 has no split {split!r}; expected 'train' or 'test'")
    if not archive.is_file():
        raise InputError(f"CIFAR-10 archive {str(archive)!r} not found; see CODESIGN_DATA")
    if not cache:
        return read_archive(archive, split)
    stat = archive.stat()
    key = f"{archive.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    name = f"cifar10-{split}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"
    cached = cache_dir() / name
    try:
        with np.load(cached, allow_pickle=False) as file:
            return file["x"], file["y"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        cached.unlink(missing_ok=True)  # damaged: decode again
    x, y = read_archive(archive, split)
    handle, temporary = tempfile.mkstemp(dir=cached.parent, suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, x=x, y=y)
        Path(temporary).replace(cached)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return x, y


def read_archive(archive: Path, split: str) -> tuple[Images, Labels]:
    """Decode the JPEG files of ``archive`` in memory; nothing is unpacked to disk."""
    found: list[tuple[int, int, Images]] = []
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                match = _MEMBER.fullmatch(member.name)
                if not member.isfile() or match is None or match[1] != split:
                    continue
                if match[2] not in CLASSES:
                    raise InputError(f"{archive.name}: {member.name} is of no CIFAR-10 class")
                if member.size > _MAX_BYTES:
                    raise InputError(f"{archive.name}: {member.name} has {member.size} bytes")
                stream = tar.extractfile(member)
                assert stream is not None
                image = _decode(stream.read(), f"{archive.name}: {member.name}")
                found.append((int(match[3]), CLASSES.index(match[2]), image))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{str(archive)!r} is not a readable .tar.gz: {error}") from error
    if not found:
        raise InputError(f"{str(archive)!r} holds no file {split}/<class>/<nnnn>.jpg")
    found.sort(key=lambda item: item[:2])
    x = np.stack([image for _, _, image in found])
    y = np.array([label for _, label, _ in found], np.int64)
    return x, y


def _decode(data: bytes, where: str) -> Images:
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if image.size != (32, 32):
                raise InputError(f"{where} is {image.size[0]}x{image.size[1]} pixels, not 32x32")
            pixels = np.asarray(image.convert("RGB"), np.uint8)
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{where} is not a readable JPEG file: {error}") from error
    return pixels.transpose(2, 0, 1)
