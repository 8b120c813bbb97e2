# SPDX-License-Identifier: Apache-2.0
"""Checks of what a problem file (or a caller) gives, each ending in one clear InputError.

A message says where (file and key), what was found, what was expected, and the way out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from codesign.errors import InputError
from codesign.solvers.decimals import MAX_EXPONENT, Number, in_range, plain

MAX_OPTIONS = 1_000_000
"""Options of all groups together."""
MAX_ENTRIES = 50_000_000
"""Numbers in one table over architectures and options (400 MB as 64-bit integers)."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_LISTED = 12


def key_path(*keys: str | int, under: str = "") -> str:
    """The place of a value in a file, as one would write it.

    >>> key_path("metrics", "loss", "layer1.0", 3)
    'metrics.loss["layer1.0"][3]'
    """
    text = under
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _IDENTIFIER.match(key):
            text += f".{key}" if text else key
        else:
            text += f'["{key}"]'
    return text


def listed(names: Iterable[object]) -> str:
    """Names in quotes, the first few when there are many."""
    items = [repr(name) for name in names]
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def near(name: object, known: Collection[str]) -> str:
    """'; did you mean …?' when a known name is close, else nothing."""
    if not isinstance(name, str):
        return ""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def kind(value: object) -> str:
    """What a JSON value is called in messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, float):
        return f"the float {value!r}"
    return str(value)


@dataclass(frozen=True)
class Checker:
    """Raises InputError prefixed with ``source`` (a file name, or nothing)."""

    source: str = ""

    def fail(self, path: str, message: str) -> NoReturn:
        raise InputError(": ".join(part for part in (self.source, path, message) if part))

    def table(self, value: object, path: str, expected: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.fail(path, f"expected an object ({expected}), got {kind(value)}")
        return value

    def sequence(self, value: object, path: str, expected: str) -> Sequence[Any]:
        if not isinstance(value, list | tuple):
            self.fail(path, f"expected a list ({expected}), got {kind(value)}")
        return value

    def name(self, value: object, path: str, what: str) -> str:
        if not isinstance(value, str) or not value:
            self.fail(path, f"expected the name of {what} as a text, got {kind(value)}")
        return value

    def known(self, value: object, path: str, what: str, names: Collection[str]) -> str:
        """``value`` when it is one of ``names``."""
        if not isinstance(value, str) or value not in names:
            shown = repr(value) if isinstance(value, str) else kind(value)
            hint = f"{near(value, names)} (known: {listed(names) or 'none'})"
            self.fail(path, f"unknown {what} {shown}{hint}")
        return value

    def number(self, value: object, path: str) -> Number:
        """``value`` when it is an integer or a finite decimal in range."""
        if isinstance(value, bool) or not isinstance(value, int | Decimal | float):
            self.fail(path, f"expected a number, got {kind(value)}")
        if isinstance(value, float):
            if value != value or value in (float("inf"), float("-inf")):
                shown = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
                self.fail(path, f"{shown} is not a number; every value must be finite")
            self.fail(path, f"{value!r} is a float, which is rounded; pass an int or a Decimal")
        if isinstance(value, Decimal) and not value.is_finite():
            self.fail(path, f"{value} is not a number; every value must be finite")
        if not in_range(value):
            self.fail(
                path,
                f"{'a number' if isinstance(value, int) else value} is out of range; at most "
                f"{MAX_EXPONENT} digits either side of the decimal point are taken",
            )
        return value

    def keys(self, given: Iterable[str], known: Collection[str], path: str) -> None:
        """Every given key is known."""
        for key in given:
            if key not in known:
                self.fail(
                    path, f"unknown key {key!r}{near(key, known)} (known: {listed(known)})"
                )

    def unique(self, names: Sequence[Any], path: str, what: str) -> tuple[str, ...]:
        """Names that are texts and differ from each other."""
        seen: set[str] = set()
        for position, name in enumerate(names):
            self.name(name, f"{path}[{position}]", what)
            if name in seen:
                self.fail(path, f"{what} {name!r} is listed twice")
            seen.add(name)
        return tuple(names)

    def choices(self, value: object) -> dict[str, tuple[str, ...]]:
        """Group name to its options; at least one group, each with at least one option."""
        table = self.table(value, "choices", "group to its options")
        if not table:
            self.fail("choices", "empty; give at least one group with at least one option")
        total = 0
        for group, options in table.items():
            self.name(group, "choices", "a group")
            path = key_path("choices", group)
            if not self.sequence(options, path, "the options of the group"):
                self.fail(path, "empty; a group needs at least one option to pick")
            total += len(options)
        if total > MAX_OPTIONS:
            self.fail(
                "choices",
                f"{total} options, but at most {MAX_OPTIONS} are taken; drop dominated options "
                "first (those no better in any metric than another one of their group)",
            )
        return {
            group: self.unique(options, key_path("choices", group), "option")
            for group, options in table.items()
        }

    def architectures(self, value: object) -> tuple[str, ...]:
        """At least one name, all different."""
        names = self.sequence(value, "architectures", "names")
        if not names:
            self.fail("architectures", "empty; leave the key out or name at least one")
        return self.unique(names, "architectures", "architecture")

    def bounds(self, metric: str, value: object) -> list[tuple[str, Number]]:
        """The one-sided limits on ``metric``: pairs of "min"/"max" and value."""
        path = key_path("limits", metric)
        if not isinstance(value, Mapping):
            return [("max", self.number(value, path))]
        self.keys(value, ("min", "max"), path)
        if not value:
            self.fail(path, 'empty; give a number (at most), or "min", "max" or both')
        pairs = [
            (side, self.number(value[side], f"{path}.{side}"))
            for side in ("min", "max")
            if side in value
        ]
        if len(pairs) == 2 and pairs[0][1] > pairs[1][1]:
            low, high = plain(pairs[0][1]), plain(pairs[1][1])
            self.fail(path, f"min {low} is above max {high}; no value can meet both")
        return pairs
