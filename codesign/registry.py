# SPDX-License-Identifier: Apache-2.0
"""Lazy registries of passes, targets, solvers and number formats.

A registry maps a name to ``"module:attribute"`` and imports only what is asked for. Third
parties add entries through the entry points ``codesign.passes``, ``codesign.targets``,
``codesign.solvers`` and ``codesign.formats``.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from codesign.errors import CodesignError, InputError


@dataclass(frozen=True)
class Registry:
    """One kind of named thing: built-in entries merged with entry points of ``group``."""

    kind: str
    """What an entry is called in messages, e.g. ``"pass"``."""
    group: str
    """Entry-point group, e.g. ``"codesign.passes"``."""
    builtin: Mapping[str, str] = field(hash=False)
    """Name to ``"module:attribute"``."""

    @cached_property
    def _entries(self) -> dict[str, tuple[str, str]]:
        entries = {name: (spec, "codesign") for name, spec in self.builtin.items()}
        for point in entry_points(group=self.group):
            owner = point.dist.name if point.dist is not None else "unknown package"
            if point.name in entries:
                raise CodesignError(
                    f"{self.kind} {point.name!r} is defined twice: by {entries[point.name][1]} "
                    f"and by {owner}; rename or uninstall one of them"
                )
            entries[point.name] = (point.value, owner)
        return entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def owner(self, name: str) -> str:
        """The distribution that defines ``name``."""
        self._require(name)
        return self._entries[name][1]

    def load(self, name: str) -> Any:
        """Import and return the entry; raises InputError with near matches if unknown."""
        self._require(name)
        module, _, attribute = self._entries[name][0].partition(":")
        loaded: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            loaded = getattr(loaded, part)
        return loaded

    def _require(self, name: str) -> None:
        if name in self._entries:
            return
        near = difflib.get_close_matches(name, self._entries, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"unknown {self.kind} {name!r}{hint} (known: {', '.join(sorted(self._entries))})"
        )
