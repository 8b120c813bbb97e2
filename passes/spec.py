# SPDX-License-Identifier: Apache-2.0
"""Reader of pipeline specs: ``name{option=value,...},name,...``.

Values are ``true``/``false``, integers, decimals, ``none``, words, ``"quoted strings"`` and
``[lists,of,these]``. Space between tokens is free.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from typing import Any, NoReturn

from codesign.errors import InputError
from codesign.passes.base import Pass

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![A-Za-z_]))
    | (?P<word>-?[A-Za-z_][A-Za-z0-9_.-]*)
    | (?P<punct>[{}\[\],=])
    | (?P<end>$)
    )""",
    re.VERBOSE,
)


class SpecParser:
    """Recursive descent over one spec; errors carry the column (from 1)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.kind = self.token = ""
        self.start = 0
        self._advance()

    def passes(self) -> list[Pass]:
        """All passes of the spec; an empty spec is an empty pipeline."""
        found: list[Pass] = []
        while self.kind != "end":
            found.append(self._pass())
            if self.kind == "end":
                break
            self._expect(",", "',' or '{' after the name of a pass")
            if self.kind == "end":
                self._fail("expected the name of a pass after ','")
        return found

    def _pass(self) -> Pass:
        from codesign.passes import PASSES

        if self.kind != "word":
            self._fail(f"expected the name of a pass, got {self._shown()}")
        name, start = self.token, self.start
        try:
            kind = PASSES.load(name)
        except InputError as error:
            self._fail(str(error), start)
        self._advance()
        options: dict[str, Any] = {}
        if self.token == "{" and self.kind == "punct":
            self._advance()
            while self.token != "}":
                self._option(kind, options)
                if self.token == "}" and self.kind == "punct":
                    break
                self._expect(",", "',' or '}' after an option")
            self._advance()
        made = kind(**options)
        assert isinstance(made, Pass)
        return made

    def _option(self, kind: type[Pass], options: dict[str, Any]) -> None:
        from codesign.passes.pipeline import options_of

        if self.kind != "word":
            self._fail(f"expected an option of pass {kind.name!r}, got {self._shown()}")
        name, start = self.token.replace("_", "-"), self.start
        known = options_of(kind)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            has = f"(options: {', '.join(known)})" if known else "(it has no options)"
            self._fail(f"pass {kind.name!r} has no option {name!r}{hint} {has}", start)
        field = name.replace("-", "_")
        if field in options:
            self._fail(f"option {name!r} of pass {kind.name!r} is given twice", start)
        self._advance()
        self._expect("=", f"'=' after option {name!r}")
        start = self.start
        written = len(self.text[: self.start])
        value = self._value()
        given = self.text[written : self._last_end].strip()
        want = typing.get_type_hints(kind)[field]
        converted = convert(value, want)
        if converted is _WRONG:
            self._fail(
                f"option {name!r} of pass {kind.name!r}: expected {describe(want)}, got {given}",
                start,
            )
        options[field] = converted

    def _value(self) -> Any:
        kind, token = self.kind, self.token
        if kind == "punct" and token == "[":
            self._advance()
            items: list[Any] = []
            while self.token != "]":
                items.append(self._value())
                if self.token == "]" and self.kind == "punct":
                    break
                self._expect(",", "',' or ']' in a list")
            self._advance()
            return tuple(items)
        if kind not in ("string", "number", "word"):
            self._fail(f"expected a value, got {self._shown()}")
        self._advance()
        if kind == "string":
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        if kind == "number":
            return int(token) if re.fullmatch(r"[-+]?\d+", token) else float(token)
        words: dict[str, Any] = {"true": True, "false": False, "none": None}
        words |= {"inf": float("inf"), "-inf": float("-inf")}
        return words.get(token, token)

    def _expect(self, token: str, what: str) -> None:
        if self.kind != "punct" or self.token != token:
            self._fail(f"expected {what}, got {self._shown()}")
        self._advance()

    def _advance(self) -> None:
        self._last_end = self.position
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            rest = self.text[self.position :]
            self.start = self.position + len(rest) - len(rest.lstrip())
            self._fail(f"cannot read {self.text[self.start : self.start + 10]!r}")
        assert match.lastgroup is not None
        self.kind, self.token = match.lastgroup, match[match.lastgroup]
        self.start, self.position = match.start(match.lastgroup), match.end()

    def _shown(self) -> str:
        return "the end" if self.kind == "end" else repr(self.token)

    def _fail(self, message: str, start: int | None = None) -> NoReturn:
        column = (self.start if start is None else start) + 1
        raise InputError(f"pipeline {self.text!r}, column {column}: {message}")


_WRONG = object()
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a word or string"}


def convert(value: Any, want: Any) -> Any:
    """``value`` as the option type ``want``, or the marker for a wrong type."""
    origin, arguments = typing.get_origin(want), typing.get_args(want)
    if origin in (typing.Union, types.UnionType):
        tries = [convert(value, kind) for kind in arguments]
        return next((item for item in tries if item is not _WRONG), _WRONG)
    if want is type(None):
        return None if value is None else _WRONG
    if origin is typing.Literal:
        return value if value in arguments else _WRONG
    if origin is tuple:
        items = [convert(item, arguments[0]) for item in value] if type(value) is tuple else []
        return _WRONG if type(value) is not tuple or _WRONG in items else tuple(items)
    if want is float and type(value) is int:
        return float(value)
    return value if type(value) is want else _WRONG


def describe(want: Any) -> str:
    """An option type in words, for messages."""
    origin, arguments = typing.get_origin(want), typing.get_args(want)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(kind) for kind in arguments)
    if want is type(None):
        return "none"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"a list [...] of {describe(arguments[0])}"
    return _WORDS.get(want, str(want))
