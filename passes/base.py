# SPDX-License-Identifier: Apache-2.0
"""What a pass is: a frozen dataclass whose fields are its options.

``str(pass)`` is its spec, e.g. ``fuse{add=false}``; options at their defaults are left out.
``codesign.passes.pipeline.parse_pipeline`` reads specs back.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.graph import Graph

BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
"""Strings that a spec may hold without quotes."""


@dataclass(frozen=True)
class Pass(ABC):
    """A pure function from graph to graph.

    Subclasses are frozen dataclasses; every field has a default and an attribute docstring.
    Fields may be bool, int, float, str, tuples of these, or any of these or None.
    """

    name: ClassVar[str]
    """Name in specs, kebab-case."""
    keeps_interface: ClassVar[bool] = True
    """Whether names and types of inputs and types of outputs stay as they are (checked)."""

    @abstractmethod
    def run(self, graph: Graph) -> Graph:
        """The transformed graph; ``graph`` itself is left as it is."""

    def __str__(self) -> str:
        """The spec that ``parse_pipeline`` reads back."""
        options = [
            f"{field.name.replace('_', '-')}={format_option(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{self.name}{{{','.join(options)}}}" if options else self.name


def format_option(value: object) -> str:
    """An option value as a spec writes it.

    >>> format_option(("a", True, 0.5, None))
    '[a,true,0.5,none]'
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        plain = BARE.fullmatch(value) and value not in ("true", "false", "none")
        return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return f"[{','.join(format_option(item) for item in value)}]"
    return repr(value)
