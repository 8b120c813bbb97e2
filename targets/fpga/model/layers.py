# SPDX-License-Identifier: Apache-2.0
"""Cycles of each layer of a run, by the same definitions for what is simulated and modelled.

``layer_cycles`` shares the run out, so that layers add up to it; where layers overlap, a few cycles
more of one are as many less of the next. ``layer_spans`` are latencies: how long a layer is under
way, beside others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codesign.targets.fpga.isa import Command, Unit
from codesign.targets.fpga.model.cycles import UNITS, Cycles


def ends_of(cycles: Cycles) -> dict[Unit, list[float]]:
    """Modelled ends of each unit's commands, in their order."""
    return {u: [s.end for s in cycles.spans if s.unit is u] for u in UNITS}


def layer_cycles(
    commands: Sequence[Command], ends: Mapping[Unit, Sequence[float]],
    group: Mapping[str, str] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Layer to its cycles: from the end of the last layer before it in the list to its own end, so
    that they add up to the run's. ``ends``: of each unit's commands; ``group``: layers that are
    counted as one (a fused chain), by name."""
    named = group or {}
    count = dict.fromkeys(UNITS, 0)
    last: dict[str, float] = {}
    for command in commands:
        if command.unit in count:
            end = float(ends[command.unit][count[command.unit]])
            count[command.unit] += 1
            name = named.get(command.layer, command.layer)
            last[name] = max(last.get(name, 0.0), end)
    found, before = {}, 0.0
    for name, end in last.items():
        found[name] = max(0.0, end - before)
        before = max(before, end)
    return found


def starts_of(cycles: Cycles) -> dict[Unit, list[float]]:
    """Modelled starts of each unit's commands, in their order."""
    return {u: [s.start for s in cycles.spans if s.unit is u] for u in UNITS}


def layer_spans(
    commands: Sequence[Command], starts: Mapping[Unit, Sequence[float]],
    ends: Mapping[Unit, Sequence[float]], group: Mapping[str, str] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Layer to the cycles from its first command's start to its last one's end."""
    named = group or {}
    count = dict.fromkeys(UNITS, 0)
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for command in commands:
        if command.unit in count:
            place = count[command.unit]
            count[command.unit] += 1
            name = named.get(command.layer, command.layer)
            start, end = float(starts[command.unit][place]), float(ends[command.unit][place])
            first[name] = min(first.get(name, start), start)
            last[name] = max(last.get(name, end), end)
    return {name: last[name] - start for name, start in first.items()}
