# SPDX-License-Identifier: Apache-2.0
"""Strict JSON text to Python values: exact decimals, no duplicate keys, errors with their place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from codesign.solvers.validate import Checker, key_path, near

MAX_FILE_BYTES = 100 * 2**20
"""Larger files are refused before they are parsed (10 million options would need gigabytes)."""


class _DuplicateError(Exception):
    """A key given twice in one object; carries the key."""


def read_text(path: str | Path, what: str) -> str:
    """The file's text (UTF-8). Raises InputError for a file that is missing, too large or not
    text."""
    file = Path(path)
    check = Checker(str(path))
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            check.fail(
                "",
                f"{size} bytes, but a {what} file may have at most {MAX_FILE_BYTES}; drop "
                "dominated options first, or build it from arrays with Problem.build",
            )
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        check.fail("", f"not UTF-8 text (byte {error.start}); expected a {what} in JSON")
    except OSError as error:
        check.fail("", f"cannot read the {what} file: {error.strerror or error}")


def parse_json(text: str, source: str) -> Any:
    """The value of a JSON text; numbers with a point or exponent are Decimal.

    NaN and Infinity become floats, for the caller to refuse at their place.
    Raises InputError with line and column for malformed text, and for duplicate keys.
    """
    check = Checker(source)
    try:
        return json.loads(
            text,
            parse_float=_decimal,
            parse_constant=float,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        check.fail(f"line {error.lineno}, column {error.colno}", f"not JSON: {error.msg}")
    except _DuplicateError as error:
        place, line, column = _second(text, str(error))
        check.fail(
            f"line {line}, column {column}", f"key {place} is given twice; keep one of them"
        )
    except RecursionError:
        check.fail("", "nested too deeply to be a problem or solution")
    except (ValueError, InvalidOperation):
        check.fail("", "holds a number with too many digits (thousands); at most 100 are taken")


def expect_format(check: Checker, data: object, tag: str) -> Mapping[str, Any]:
    """``data`` as the top-level object when it carries the format ``tag``."""
    table = check.table(data, "", f"a file of format {tag!r}")
    if "format" not in table:
        check.fail("", f'no "format"; expected "format": "{tag}" at the top')
    found = table["format"]
    if found != tag:
        shown = repr(found) if isinstance(found, str) else "something else"
        hint = near(found, [tag])
        check.fail("format", f"expected {tag!r}, got {shown}{hint}")
    return table


def _decimal(text: str) -> Decimal:
    return Decimal(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateError(key)
            seen.add(key)
    return table


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]')


def _second(text: str, wanted: str) -> tuple[str, int, int]:
    """Path, line and column of the first key given twice in its object (text is valid JSON)."""
    stack: list[tuple[set[str], list[str | int]]] = []
    path: list[str | int] = []
    tokens = list(_TOKEN.finditer(text))
    for index, match in enumerate(tokens):
        token = match.group()
        if token == "{":
            stack.append((set(), list(path)))
        elif token == "[":
            stack.append((set(), list(path)))
            path = [*path, 0]
        elif token in "]}":
            path = stack.pop()[1]
        elif token == "," and path and isinstance(path[-1], int):
            path = [*path[:-1], path[-1] + 1]
        elif token[0] == '"' and index + 1 < len(tokens) and tokens[index + 1].group() == ":":
            keys, above = stack[-1]
            key = json.loads(token)
            path = [*above, key]
            if key in keys:
                line = text.count("\n", 0, match.start()) + 1
                column = match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1
                return key_path(*path), line, column
            keys.add(key)
    return wanted, 1, 1
