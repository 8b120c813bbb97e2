# SPDX-License-Identifier: Apache-2.0
"""Parser of the text form that ``codesign.ir.text`` prints.

Errors carry file, line and column, the line with a caret, and what was expected.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import difflib
import json
import re
import typing
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from codesign.errors import InputError, ParseError, VerifyError
from codesign.ir.graph import Array, Graph, Node
from codesign.ir.ops import OPS, Constant, Input, Op, OpError
from codesign.ir.types import DType, TensorType

_SPACE = re.compile(r"(?:\s+|//[^\n]*)*")
_VALUE = re.compile(r"%([A-Za-z_][A-Za-z0-9_.]*)")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRING = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"')
_NUMBER = re.compile(r"[-+]?(?:inf|nan|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![A-Za-z0-9_.])")
_INTEGER = re.compile(r"[-+]?\d{1,20}(?![A-Za-z0-9_.])")
_TYPE = re.compile(r"\w+\[[^\]\n]*\](?:@\w*)?")
_TOKEN = re.compile(r'%?[\w.]+|"[^"\n]{0,40}"?|\S')


def parse_graph(text: str, filename: str = "<text>") -> Graph:
    """Read the text form; raises ParseError ("file:line:column: …") if it is not well-formed.

    >>> parse_graph('graph "g" { %x = input : f32[2] return %x }').type("x").shape
    (2,)
    """
    return _Parser(text, filename).graph()


def parse_file(path: str | Path) -> Graph:
    """Read a graph from a text file; raises InputError or ParseError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ParseError(f"{path}: not a text file (byte {error.start} is not UTF-8)") from None
    return parse_graph(text, str(path))


class _Parser:
    """Recursive descent over the text; ``pos`` is the offset of the next character."""

    def __init__(self, text: str, filename: str) -> None:
        self.text = text
        self.filename = filename
        self.pos = 0
        self.nodes: dict[str, Node] = {}
        self.constants: dict[str, Array] = {}
        self.wanted: dict[str, int] = {}
        """Constants whose value is a resource, with the place that says so."""

    # Errors and tokens

    def fail(self, message: str, pos: int | None = None) -> NoReturn:
        """Raise ParseError for the place ``pos`` (default: the next token)."""
        if pos is None:
            self.skip()
            pos = self.pos
        line = self.text.count("\n", 0, pos) + 1
        start = self.text.rfind("\n", 0, pos) + 1
        end = self.text.find("\n", start)
        source = self.text[start : end if end >= 0 else len(self.text)]
        column = pos - start
        cut = max(0, column - 60)  # lines with data may be megabytes long
        shown = ("…" if cut else "") + source[cut : cut + 100]
        shown += "…" if len(source) > cut + 100 else ""
        caret = " " * (column - cut + (1 if cut else 0)) + "^"
        raise ParseError(
            f"{self.filename}:{line}:{column + 1}: {message}\n"
            f"  {shown.replace(chr(9), ' ')}\n  {caret}"
        )

    def skip(self) -> None:
        """Skip blanks and comments."""
        match = _SPACE.match(self.text, self.pos)
        assert match is not None
        self.pos = match.end()

    def found(self) -> str:
        """The next token as messages show it."""
        self.skip()
        match = _TOKEN.match(self.text, self.pos)
        return f"'{match[0]}'" if match else "the end of the text"

    def accept(self, literal: str) -> bool:
        """Read ``literal`` if it comes next."""
        self.skip()
        if not self.text.startswith(literal, self.pos):
            return False
        end = self.pos + len(literal)
        if literal[-1].isalnum() and re.match(r"\w", self.text[end : end + 1]):
            return False  # only the start of a longer word
        self.pos = end
        return True

    def expect(self, literal: str, where: str) -> None:
        """Read ``literal`` or fail."""
        if not self.accept(literal):
            self.fail(f"expected '{literal}' {where}, got {self.found()}")

    def take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        """Read a token of ``pattern`` or fail."""
        self.skip()
        match = pattern.match(self.text, self.pos)
        if match is None:
            self.fail(f"expected {what}, got {self.found()}")
        self.pos = match.end()
        return match

    def string(self, what: str) -> str:
        """Read a quoted string."""
        self.skip()
        start = self.pos
        match = self.take(_STRING, what)
        try:
            return str(json.loads(match[0]))
        except ValueError:
            self.fail(f"{what} has an unknown escape sequence", start)

    # Grammar

    def graph(self) -> Graph:
        """graph "name" { nodes return values } [resources { … }]"""
        self.expect("graph", "at the start")
        name = self.string("the graph's name in quotes")
        self.expect("{", "after the graph's name")
        while not self.accept("return"):
            self.skip()
            if not self.text.startswith("%", self.pos):
                self.fail(f"expected '%name = …' or 'return', got {self.found()}")
            self.node()
        outputs = [self.value("a result")]
        while self.accept(","):
            outputs.append(self.value("a result"))
        self.expect("}", "after the results")
        if self.accept("resources"):
            self.resources()
        for missing, place in self.wanted.items():
            self.fail(f"the resource of constant %{missing} is missing", place)
        self.skip()
        if self.pos < len(self.text):
            self.fail(f"expected the end of the text, got {self.found()}")
        graph = Graph(name, self.nodes, tuple(outputs), self.constants)
        try:
            graph.verify()
        except VerifyError as error:  # every rule has its own message above; this is the net
            raise ParseError(f"{self.filename}: {error}") from None
        return graph

    def value(self, what: str) -> str:
        """A value that is defined above."""
        self.skip()
        start = self.pos
        name = self.take(_VALUE, f"{what} (%name)")[1]
        if name not in self.nodes:
            near = difflib.get_close_matches(name, self.nodes, n=1)
            hint = f"; did you mean %{near[0]}?" if near else ""
            self.fail(f"%{name} is not defined above{hint}", start)
        return name

    def node(self) -> None:
        """%name = operator[(operands)] [{attributes}] : type [loc("source")]"""
        start = self.pos
        name = self.take(_VALUE, "a value (%name)")[1]
        if name in self.nodes:
            self.fail(f"%{name} is defined twice", start)
        self.expect("=", f"after %{name}")
        self.skip()
        place = self.pos
        word = self.take(_WORD, "an operator")[0]
        if word not in OPS:
            near = difflib.get_close_matches(word, OPS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(OPS)})"
            self.fail(f"unknown operator '{word}'{hint}", place)
        cls = OPS[word]
        inputs: list[str] = []
        if cls is Constant:
            self.constant_node(name)
            return
        if cls is Input:
            self.expect(":", "and the type of the input")
            declared = self.tensor_type()
            self.finish_node(name, Input(declared), inputs, declared, place)
            return
        self.expect("(", f"and the operands of '{word}'")
        while not self.accept(")"):
            if inputs:
                self.expect(",", "or ')' after an operand")
            inputs.append(self.value("an operand"))
        op = self.attributes(cls, place)
        self.expect(":", "and the type of the result")
        self.finish_node(name, op, inputs, self.tensor_type(), place)

    def finish_node(
        self, name: str, op: Op, inputs: list[str], declared: TensorType, place: int
    ) -> None:
        """Check the types of a node whose text is read up to its location, and keep it."""
        try:
            found = op.infer([self.nodes[v].type for v in inputs])
        except OpError as error:
            self.fail(str(error), place)
        if found != declared:
            self.fail(f"the result of '{op.name}' is {found}, the text says {declared}", place)
        source = ""
        if self.accept("loc"):
            self.expect("(", "after 'loc'")
            source = self.string("the location in quotes")
            self.expect(")", "after the location")
        self.nodes[name] = Node(name, op, tuple(inputs), declared, source)

    def tensor_type(self) -> TensorType:
        """A tensor type such as f32[1,3,8,8]."""
        self.skip()
        start = self.pos
        match = self.take(_TYPE, "a tensor type such as f32[1,3,8,8]")
        try:
            return TensorType.parse(match[0])
        except ValueError as error:
            self.fail(str(error), start)

    # Attributes

    def attributes(self, cls: type[Op], place: int) -> Op:
        """The operator with its attributes."""
        hints = typing.get_type_hints(cls)
        fields = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        if self.accept("{"):
            while True:
                self.skip()
                start = self.pos
                key = self.take(_WORD, "an attribute's name")[0]
                if key not in fields:
                    known = ", ".join(fields) or "none"
                    self.fail(f"'{cls.name}' has no attribute '{key}' (known: {known})", start)
                if key in values:
                    self.fail(f"attribute '{key}' is given twice", start)
                self.expect("=", f"after '{key}'")
                values[key] = self.attribute(key, fields[key])
                if self.accept("}"):
                    break
                self.expect(",", "or '}' after an attribute")
        for field in dataclasses.fields(cls):
            if field.default is dataclasses.MISSING and field.name not in values:
                self.fail(f"'{cls.name}' needs the attribute '{field.name}'", place)
        return cls(**values)

    def attribute(self, key: str, hint: Any) -> Any:
        """An attribute's value, read as its field is declared."""
        self.skip()
        start = self.pos
        if hint is bool:
            return self.take(re.compile(r"(true|false)\b"), f"true or false for '{key}'")[0] == (
                "true"
            )
        if hint is int:
            return int(self.take(_INTEGER, f"an integer for '{key}'")[0])
        if hint is float:
            return float(self.take(_NUMBER, f"a number for '{key}'")[0])
        if hint is DType:
            word = self.take(_WORD, f"a number format (f32, s8, u4, …) for '{key}'")[0]
            try:
                return DType.parse(word)
            except ValueError as error:
                self.fail(str(error), start)
        if typing.get_origin(hint) is typing.Literal:
            choices = typing.get_args(hint)
            text = self.string(f"a string for '{key}'")
            if text not in choices:
                expected = ", ".join(f'"{choice}"' for choice in choices)
                self.fail(f"'{key}' must be one of {expected}, got \"{text}\"", start)
            return text
        assert typing.get_origin(hint) is tuple, f"no text form for attributes of type {hint}"
        return self.integers(key, typing.get_args(hint), start)

    def integers(self, key: str, kinds: tuple[Any, ...], start: int) -> tuple[int, ...]:
        """A list of integers, of the declared length if there is one."""
        self.expect("[", f"and the integers of '{key}'")
        items: list[int] = []
        while not self.accept("]"):
            if items:
                self.expect(",", f"or ']' in '{key}'")
            items.append(int(self.take(_INTEGER, f"an integer in '{key}'")[0]))
        if Ellipsis not in kinds and len(items) != len(kinds):
            self.fail(f"'{key}' takes {len(kinds)} integers, got {len(items)}", start)
        return tuple(items)

    # Constants

    def constant_node(self, name: str) -> None:
        """%name = constant (values | resource | elided) : type"""
        self.skip()
        start = self.pos
        numbers: list[tuple[str, int]] = []
        if self.accept("elided"):
            self.fail(
                f"the value of constant %{name} was left out when this text was printed; "
                "print the graph with its resources to read it back",
                start,
            )
        if self.accept("resource"):
            self.wanted[name] = start
        elif self.accept("["):
            while not self.accept("]"):
                if numbers:
                    self.expect(",", "or ']' after a number")
                numbers.append(self.number())
        else:
            numbers.append(self.number())
        self.expect(":", "and the type of the constant")
        kind = self.tensor_type()
        if name not in self.wanted:
            if len(numbers) != kind.size:
                self.fail(f"{kind} has {kind.size} elements, got {len(numbers)}", start)
            self.constants[name] = self.array(numbers, kind)
        self.finish_node(name, Constant(kind), [], kind, start)

    def number(self) -> tuple[str, int]:
        """A number as it is written, and its place."""
        self.skip()
        return self.take(_NUMBER, "a number, a list of numbers or 'resource'")[0], self.pos

    def array(self, numbers: list[tuple[str, int]], kind: TensorType) -> Array:
        """Numbers as an array of the type."""
        value = np.empty(len(numbers), kind.dtype.numpy)
        for i, (text, end) in enumerate(numbers):
            start = end - len(text)
            if kind.dtype.is_float:
                value[i] = kind.dtype.numpy.type(text)
            elif not _INTEGER.fullmatch(text):
                self.fail(f"expected an integer for {kind.dtype}, got '{text}'", start)
            elif not kind.dtype.min <= int(text) <= kind.dtype.max:
                least, most = kind.dtype.min, kind.dtype.max
                self.fail(f"{text} does not fit {kind.dtype} ({least}..{most})", start)
            else:
                value[i] = int(text)
        value = value.reshape(kind.shape)
        value.setflags(write=False)
        return value

    def resources(self) -> None:
        """resources { %name = "base64" … }"""
        self.expect("{", "after 'resources'")
        while not self.accept("}"):
            self.skip()
            start = self.pos
            name = self.take(_VALUE, "a resource (%name) or '}'")[1]
            if name not in self.wanted:
                twice = name in self.constants
                self.fail(
                    f"the resource of %{name} is given twice" if twice
                    else f"no constant %{name} asks for a resource", start
                )  # fmt: skip
            self.expect("=", f"after %{name}")
            self.skip()
            place = self.pos
            text = self.take(_STRING, "the data in quotes")[0]
            self.constants[name] = self.data(text[1:-1], self.nodes[name].type, place)
            del self.wanted[name]

    def data(self, text: str, kind: TensorType, place: int) -> Array:
        """The array that base64 ``text`` holds."""
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            self.fail(f"the data is no base64: {error}", place)
        storage = kind.dtype.numpy
        if len(data) != kind.size * storage.itemsize:
            self.fail(f"{kind} takes {kind.size * storage.itemsize} bytes, got {len(data)}", place)
        little = np.frombuffer(data, storage.newbyteorder("<"))
        value: Array = little.astype(storage, copy=False).reshape(kind.shape)
        if kind.dtype.is_integer and value.size:
            least, most = int(value.min()), int(value.max())
            if least < kind.dtype.min or most > kind.dtype.max:
                self.fail(f"values {least}..{most} do not fit {kind.dtype}", place)
        return value
