# SPDX-License-Identifier: Apache-2.0
"""The registry of targets, which also finds a user's boards: files and a folder of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codesign.errors import InputError
from codesign.registry import Registry


class TargetRegistry(Registry):
    """Built-in targets, entry points, boards in ``CODESIGN_BOARDS``, and ``path/to/board.toml``."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*super().__iter__(), *self._boards()}))

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name) or name in self._boards():
            return True
        return isinstance(name, str) and _is_file(name)

    def owner(self, name: str) -> str:
        """The distribution that defines ``name``, or the file of a user's board."""
        path = self._file(name)
        return super().owner(name) if path is None else str(path)

    def load(self, name: str) -> Any:
        """The target's class; a board's is made from its file."""
        path = self._file(name)
        if path is None:
            return super().load(name)
        from codesign.targets.arm.target import board_class

        target = board_class(path)
        if super().__contains__(target.name):
            raise InputError(
                f"board file {path}: name {target.name!r} is taken by a target of "
                f"{super().owner(target.name)}; choose another name"
            )
        return target

    def _file(self, name: str) -> Path | None:
        if _is_file(name):
            return Path(name)
        if super().__contains__(name):
            if name in self._boards():
                raise InputError(
                    f"target {name!r} is defined twice: by {super().owner(name)} and by "
                    f"{self._boards()[name]}; rename the board"
                )
            return None
        return self._boards().get(name)

    def _require(self, name: str) -> None:
        if not super().__contains__(name) and name.endswith(".toml"):
            raise InputError(f"board file {name}: no such file")
        super()._require(name)

    def _boards(self) -> dict[str, Path]:
        from codesign.targets.arm.board import user_boards

        return user_boards()


def _is_file(name: str) -> bool:
    return name.endswith(".toml") and Path(name).is_file()
