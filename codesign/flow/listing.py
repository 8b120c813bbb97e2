# SPDX-License-Identifier: Apache-2.0
"""``codesign list``: passes, targets, solvers and formats, with availability and why not."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.errors import InputError
from codesign.flow.prepare import load_target
from codesign.passes import PASSES
from codesign.quant.formats import FORMATS, load_format
from codesign.registry import Registry
from codesign.solvers import registry as SOLVERS
from codesign.targets import TARGETS


@dataclass(frozen=True)
class Entry:
    """One named thing."""

    name: str
    description: str
    available: bool
    why_not: str
    owner: str
    """The package that defines it."""


def listing(kind: str) -> tuple[Entry, ...]:
    """All entries of ``kind``: passes, targets, solvers or formats."""
    registries: dict[str, Registry] = {
        "passes": PASSES,
        "targets": TARGETS,
        "solvers": SOLVERS,
        "formats": FORMATS,
    }
    if kind not in registries:
        raise InputError(f"cannot list {kind!r}; expected one of {', '.join(registries)}")
    registry = registries[kind]
    return tuple(_entry(kind, name, registry) for name in registry)


def _entry(kind: str, name: str, registry: Registry) -> Entry:
    why_not = ""
    if kind == "targets":
        target = load_target(name)
        description, why_not = target.description, target.unavailable() or ""
    elif kind == "solvers":
        solver = registry.load(name)
        availability = solver.availability()
        description, why_not = _first_line(solver), availability.why
    elif kind == "passes":
        description = _first_line(registry.load(name))
    else:
        description = str(load_format(name))
    return Entry(name, description, not why_not, why_not, registry.owner(name))


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
