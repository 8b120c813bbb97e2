# SPDX-License-Identifier: Apache-2.0
"""Units: sets of layers whose formats are chosen together, with every combination allowed.

Layers of one chain form a unit because they may be fused; layers that read one tensor because they
share its activation bits; layers of a tie or a forbid because the user says so. What is left are
independent groups, as a multiple-choice knapsack takes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from codesign.errors import InfeasibleError, InputError
from codesign.space.workload import Workload

ABSENT = "-"
"""Stands for the format of a layer whose variant is not chosen."""
MAX_OPTIONS = 20_000
"""Combinations of one unit, at most."""


@dataclass(frozen=True)
class Unit:
    """Layers chosen together."""

    layers: tuple[int, ...]
    """Positions in the workload, ascending."""
    options: tuple[tuple[str, ...], ...]
    """Formats of the layers, one tuple for each combination; ABSENT for layers left out."""

    def chosen(self, option: tuple[str, ...]) -> dict[int, str]:
        """The layers that are there, with their formats."""
        return {p: f for p, f in zip(self.layers, option) if f != ABSENT}


def units_of(
    workload: Workload, formats: Sequence[str], activation_bits: Mapping[str, int],
    *, fused: bool = True, ties: Iterable[Sequence[str]] = (),
    forbid: Iterable[Sequence[tuple[str, str]]] = (),
    only: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Unit, ...]:  # fmt: skip
    """The units of a workload under ties (lists of layers), forbids (lists of (layer, format) that
    must not hold together) and ``only`` (formats that a layer may take).

    ``activation_bits`` gives those of every format. Raises InputError for unknown names and for
    units of too many combinations, InfeasibleError when a unit has none.
    """
    places = {layer.name: index for index, layer in enumerate(workload.layers)}
    tied = [[_place(places, name, "tie") for name in tie] for tie in ties]
    clauses = []
    for clause in forbid:
        pairs = []
        for name, chosen in clause:
            if chosen not in formats:
                raise InputError(f"forbid: unknown format {chosen!r} (offered: {_list(formats)})")
            pairs.append((_place(places, name, "forbid"), chosen))
        clauses.append(tuple(pairs))
    allowed = {index: tuple(formats) for index in range(len(workload.layers))}
    for name, some in (only or {}).items():
        unknown = [f for f in some if f not in formats]
        if unknown:
            raise InputError(f"layer {name!r}: unknown format {unknown[0]!r} ({_list(formats)})")
        allowed[_place(places, name, "layer")] = tuple(f for f in formats if f in some)
    for variants in workload.alternatives:
        for place in (p for variant in variants for p in variant):
            allowed[place] = (*allowed[place], ABSENT)
    shared = workload.shared_inputs()
    groups = [*map(list, shared), *tied, *([p for p, _ in clause] for clause in clauses)]
    if fused:
        groups += [list(chain.layers) for chain in workload.chains]
    groups += [[p for variant in variants for p in variant] for variants in workload.alternatives]
    found = []
    for component in _components(len(workload.layers), groups):
        members = set(component)
        rules = _Rules(
            same_bits={p: tuple(q for g in shared if p in g for q in g) for p in component},
            same={p: tuple(q for g in tied if p in g for q in g) for p in component},
            clauses=tuple(c for c in clauses if c and c[0][0] in members),
            bits=activation_bits,
            variants=tuple(v for v in workload.alternatives if any(set(x) & members for x in v)),
        )
        options = tuple(_enumerate(component, allowed, rules, workload))
        if not options:
            names = _list(workload.layers[p].name for p in component)
            raise InfeasibleError(f"ties, forbids and formats leave no choice for layers {names}")
        found.append(Unit(tuple(component), options))
    return tuple(found)


@dataclass(frozen=True)
class _Rules:
    same_bits: Mapping[int, tuple[int, ...]]
    same: Mapping[int, tuple[int, ...]]
    clauses: tuple[tuple[tuple[int, str], ...], ...]
    bits: Mapping[str, int]
    variants: tuple[tuple[tuple[int, ...], ...], ...]

    def allows(self, chosen: Mapping[int, str], place: int) -> bool:
        """Whether the choice of ``place`` agrees with those made before."""
        mine = chosen[place]
        if not all(_one_variant(chosen, variants) for variants in self.variants):
            return False
        for other in self.same[place] if mine != ABSENT else ():
            if chosen.get(other, mine) not in (mine, ABSENT):
                return False
        for other in self.same_bits[place] if mine != ABSENT else ():
            theirs = chosen.get(other, mine)
            if theirs != ABSENT and self.bits[theirs] != self.bits[mine]:
                return False
        return not any(all(chosen.get(p) == f for p, f in clause) for clause in self.clauses)


def _one_variant(chosen: Mapping[int, str], variants: Sequence[Sequence[int]]) -> bool:
    """Whether exactly one variant is there, or can still be."""
    there = out = 0
    for variant in variants:
        made = [chosen[p] != ABSENT for p in variant if p in chosen]
        if any(made) and not all(made):
            return False
        there += any(made)
        out += bool(made) and not any(made)
    if not variants:
        return True
    return there <= 1 and out < len(variants)


def _enumerate(
    members: Sequence[int], allowed: Mapping[int, Sequence[str]], rules: _Rules, workload: Workload
) -> list[tuple[str, ...]]:
    partial: list[dict[int, str]] = [{}]
    for place in members:
        following = []
        for chosen in partial:
            for option in allowed[place]:
                extended = {**chosen, place: option}
                if rules.allows(extended, place):
                    following.append(extended)
        partial = following
        if len(partial) > MAX_OPTIONS:
            names = _list(workload.layers[p].name for p in members)
            raise InputError(
                f"layers {names} must be chosen together and have more than {MAX_OPTIONS} "
                "combinations; offer fewer formats, or fuse no chains"
            )
    return [tuple(chosen[p] for p in members) for chosen in partial]


def _components(count: int, groups: Iterable[Sequence[int]]) -> list[list[int]]:
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for group in groups:
        for place in group[1:]:
            low, high = sorted((root(group[0]), root(place)))
            parent[high] = low
    found: dict[int, list[int]] = {}
    for place in range(count):
        found.setdefault(root(place), []).append(place)
    return list(found.values())


def _place(places: Mapping[str, int], name: str, what: str) -> int:
    if name not in places:
        raise InputError(f"{what}: unknown layer {name!r} (known: {_list(places)})")
    return places[name]


def _list(names: Iterable[str]) -> str:
    items = list(names)
    more = f" and {len(items) - 8} more" if len(items) > 8 else ""
    return ", ".join(items[:8]) + more
