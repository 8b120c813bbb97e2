# SPDX-License-Identifier: Apache-2.0
"""Engines and buffers played by a test, around ``hw.system.System``."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.commands import UNITS, command_layout
from codesign.targets.fpga.hw.ports import (
    ActShape,
    Port,
    act_slot,
    weights_of_word,
    word_granules,
)
from codesign.targets.fpga.isa import Command, Unit


def fields(layout: Any, value: int) -> dict[str, int]:
    """A value of a struct layout taken apart."""
    found = {}
    for name, field_ in layout:
        width = field_.width
        found[name] = value >> field_.offset & (1 << width) - 1
    return found


@dataclass
class FakeBuffers:
    """What the loader wrote: weights (words, weights), act {(memory, word, lane): data}."""

    engine: Engine
    name: str
    port: Port
    weights: np.ndarray[Any, Any] = field(init=False)
    params: dict[int, int] = field(default_factory=dict)
    taps: dict[int, int] = field(default_factory=dict)
    act: dict[tuple[int, int, int], int] = field(default_factory=dict)
    conflicts: int = 0

    def __post_init__(self) -> None:
        e = self.engine
        depth = e.weight.depth * e.weight.banks
        self.weights = np.zeros((depth, weights_of_word(e)), np.int64)

    def sample(self, dut: Any) -> None:
        """One cycle's writes."""
        e, name = self.engine, self.name
        if dut[f"{name}_weight__valid"]:
            granule, chunk = word_granules(weights_of_word(e), self.port.bits)
            mask, value = dut[f"{name}_weight__mask"], dut[f"{name}_weight__data"]
            at = dut[f"{name}_weight__address"]
            for k in range(weights_of_word(e)):
                if mask >> k // granule & 1:
                    weight = value >> k % chunk * e.weight_bits & (1 << e.weight_bits) - 1
                    if weight >> e.weight_bits - 1:
                        weight -= 1 << e.weight_bits
                    self.weights[at, k] = weight
        for kind, target in (("param", self.params), ("tap", self.taps)):
            if dut[f"{name}_{kind}__valid"]:
                target[dut[f"{name}_{kind}__index"]] = dut[f"{name}_{kind}__data"]
        if dut[f"{name}_act__valid"] and dut[f"{name}_act__ready"]:
            shape = ActShape.of(e, self.port.bits)
            layout = act_slot(shape)
            payload = dut[f"{name}_act__payload"]
            used = set()
            for k in range(shape.slots):
                slot = fields(layout, payload >> 1 + k * layout.size)
                if slot["valid"]:
                    assert slot["memory"] not in used, "two writes to one memory"
                    used.add(slot["memory"])
                    kept = shape.block_bits // (2 if payload & 1 else 1)  # nibbles: lower half
                    place = slot["memory"], slot["address"], slot["lane"]
                    self.act[place] = slot["data"] & (1 << kept) - 1


@dataclass
class FakeDense:
    """Takes dense commands; each takes a random time."""

    rng: Random
    seen: list[dict[str, int]] = field(default_factory=list)
    left: int = 0
    ready: int = 0

    def drive(self, dut: Any) -> None:
        self.ready = int(self.left == 0 and self.rng.random() < 0.5)
        dut["dense__ready"] = self.ready
        dut["dense_done"] = int(self.left == 1)

    def sample(self, dut: Any) -> None:
        self.left = max(0, self.left - 1)
        if self.ready and dut["dense__valid"]:
            self.seen.append(fields(command_layout(Unit.DENSE), dut["dense__payload"]))
            self.left = self.rng.randrange(2, 60)


@dataclass
class FakeDrain:
    """Takes drain or depthwise commands and stores what ``work`` says, adding residual words.

    ``work``: for each command the store units (address, words, residual address or None).
    """

    name: str
    unit: Unit
    rng: Random
    double: bool
    """Whether two words may go in one unit."""
    work: list[list[tuple[int, list[int]]]]
    """For each command runs of (address, words to store)."""
    residuals: list[list[tuple[int, int]]]
    """For each command runs of (address, words) to read first."""
    pace: float = 0.7
    read: list[list[int]] = field(default_factory=list)
    units: deque[tuple[int, int, int, int]] = field(default_factory=deque)
    runs: deque[tuple[int, int]] = field(default_factory=deque)
    want: int = 0
    busy: bool = False
    taken: int = 0
    came: deque[int] = field(default_factory=deque)
    offer: bool = False
    ready: int = 0

    def drive(self, dut: Any) -> None:
        n = self.name
        self.ready = int(not self.busy and self.rng.random() < 0.5)
        dut[f"{n}__ready"] = self.ready
        dut[f"{n}_residual__run__valid"] = int(bool(self.runs))
        if self.runs:
            address, words = self.runs[0]
            dut[f"{n}_residual__run__payload"] = address | words << 32
        can = self.busy and self.want == 0 and bool(self.units)
        self.offer = can and (self.offer or self.rng.random() < self.pace)
        dut[f"{n}_store__valid"] = int(self.offer)
        if self.offer:
            address, value, words, last = self.units[0]
            dut[f"{n}_store__payload"] = address | value << 32 | words << 160 | last << 162
        dut[f"{n}_residual__room"] = int(len(self.came) < 8 and self.rng.random() < 0.8)

    def sample(self, dut: Any) -> None:
        n = self.name
        if self.runs and dut[f"{n}_residual__run__ready"]:
            self.runs.popleft()
        words = dut[f"{n}_residual__words"]
        for k in range(dut[f"{n}_residual__count"]):
            self.came.append(words >> 64 * k & (1 << 64) - 1)
        limit = 2 if self.double else 1
        for _ in range(self.rng.randrange(0, min(limit, len(self.came), self.want) + 1)):
            self.read[-1].append(self.came.popleft())
            self.want -= 1
        if self.offer and dut[f"{n}_store__ready"]:
            self.units.popleft()
            self.offer = False
            if not self.units:
                self.busy = False
        if self.ready and dut[f"{n}__valid"]:
            self.begin()

    def begin(self) -> None:
        index = self.taken
        self.taken += 1
        self.busy = True
        self.read.append([])
        self.runs.extend(self.residuals[index])
        self.want = sum(words for _, words in self.residuals[index])
        for address, words in self.work[index]:
            k = 0
            while k < len(words):
                two = self.double and k + 1 < len(words) and self.rng.random() < 0.7
                value = words[k] | (words[k + 1] << 64 if two else 0)
                self.units.append((address + 8 * k, value, 1 + two, 0))
                k += 1 + two
        if self.units:
            self.units[-1] = (*self.units[-1][:3], 1)
        else:
            self.units.append((self.rng.randrange(1 << 20) * 8, 0, 0, 1))


def with_waits(commands: list[Command], rng: Random) -> list[Command]:
    """Random waits for commands earlier in the list."""
    counts = dict.fromkeys(UNITS, 0)
    found = []
    for command in commands:
        waits = {
            f"wait_{unit.name.lower()}": rng.randrange(max(0, count - 3), count + 1)
            for unit, count in counts.items()
        }
        if command.unit == Unit.END:
            waits = {f"wait_{unit.name.lower()}": count for unit, count in counts.items()}
        found.append(Command(command.unit, {**command.values, **waits}))
        if command.unit in counts:
            counts[command.unit] += 1
    return found
