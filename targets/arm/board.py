# SPDX-License-Identifier: Apache-2.0
"""Boards as TOML files: what a network is built for, with the source of every figure."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.targets.deploy.arch import get_arch

FORMAT = "codesign-board/1"
FOLDER_VARIABLE = "CODESIGN_BOARDS"
"""Folder with a user's own boards, one ``NAME.toml`` each."""
FEATURES = {"dotprod": "sdot and udot"}
"""CPU features that kernels ask for and the runner checks on the device."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Board:
    """One board. Figures are its documents' own, not measured."""

    name: str
    description: str
    arch: str
    mcpu: str
    """LLVM's name of the CPU."""
    features: tuple[str, ...]
    """Of ``FEATURES``."""
    cores: int
    clock_mhz: float
    l2_kib: float
    memory_gb_per_s: float
    """Peak rate of the memory."""
    qemu_cpu: str
    """QEMU's name of a CPU with the same instructions."""
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False)


def read_board(path: Path) -> Board:
    """The board in a TOML file; InputError names the file, the key and what was expected."""
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise InputError(f"board file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"board file {path} is no TOML: {error}") from error
    return _Reader(path, data).board()


def builtin_boards() -> dict[str, Path]:
    """Files of the boards that come with the package, by name."""
    return _boards(Path(__file__).parent / "boards")


def user_boards() -> dict[str, Path]:
    """Files in the folder that ``CODESIGN_BOARDS`` names, by name; empty without it."""
    given = os.environ.get(FOLDER_VARIABLE)
    if not given:
        return {}
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise InputError(f"{FOLDER_VARIABLE}={given!r} is no folder; correct or unset it")
    return _boards(folder)


def _boards(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


@dataclass(frozen=True)
class _Reader:
    path: Path
    data: Mapping[str, Any]

    def board(self) -> Board:
        if self.data.get("format") != FORMAT:
            raise self._wrong("format", f"{FORMAT!r}", self.data.get("format"))
        name = self._text("", "name")
        if not _NAME.fullmatch(name):
            raise self._wrong("name", "lower-case letters, digits, '-' and '_'", name)
        features = self._get("cpu", "features")
        if not isinstance(features, list) or any(f not in FEATURES for f in features):
            known = ", ".join(FEATURES)
            raise self._wrong("cpu.features", f"a list of these: {known}", features)
        cores = self._number("cpu", "cores")
        if cores != int(cores):
            raise self._wrong("cpu.cores", "a whole number", cores)
        arch = self._text("cpu", "arch")
        try:
            get_arch(arch)
        except InputError as error:
            raise InputError(f"board file {self.path}: cpu.arch: {error}") from None
        sources = self.data.get("sources", {})
        if not isinstance(sources, dict) or not all(isinstance(v, str) for v in sources.values()):
            raise self._wrong("sources", "texts that say where the figures are from", sources)
        return Board(
            name=name,
            description=self._text("", "description"),
            arch=arch,
            mcpu=self._text("cpu", "mcpu"),
            features=tuple(features),
            cores=int(cores),
            clock_mhz=self._number("cpu", "clock_mhz"),
            l2_kib=self._number("cpu", "l2_kib"),
            memory_gb_per_s=self._number("memory", "gb_per_s"),
            qemu_cpu=self._text("emulation", "qemu_cpu"),
            sources=tuple(sorted(sources.items())),
        )

    def _get(self, table: str, key: str) -> Any:
        place = self.data.get(table, {}) if table else self.data
        if not isinstance(place, dict) or key not in place:
            name = f"{table}.{key}" if table else key
            raise InputError(
                f"board file {self.path}: {name} is missing; see docs/arm.md for the keys"
            )
        return place[key]

    def _text(self, table: str, key: str) -> str:
        value = self._get(table, key)
        if not isinstance(value, str) or not value:
            raise self._wrong(f"{table}.{key}" if table else key, "a text", value)
        return value

    def _number(self, table: str, key: str) -> float:
        value = self._get(table, key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._wrong(f"{table}.{key}", "a number above 0", value)
        return float(value)

    def _wrong(self, key: str, expected: str, found: object) -> InputError:
        return InputError(f"board file {self.path}: {key}: expected {expected}, got {found!r}")
