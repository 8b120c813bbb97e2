# SPDX-License-Identifier: Apache-2.0
"""What stands around drain and depthwise in the benches: memory, residual reads, buffers written on
chip, all with random stalls; and what results should be, by docs/accelerator.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.buffers import ActLayout
from codesign.targets.fpga.hw.ports import ActShape
from codesign.targets.fpga.isa import BLOCK, Param, Unit
from tests.fpga.hw.bench import Bench
from tests.fpga.hw.parts import encode

Fields = dict[str, int]
CHIP_WORDS = 1 << 14


def random_destination(
    rng: np.random.Generator, target: Engine, rows: int, width: int, blocks: int, param_blocks: int
) -> Fields:
    """Write fields of a command."""
    lo, hi = sorted(int(v) for v in rng.integers(-200, 256, 2))
    wide, to_chip = int(rng.random() < 0.2), int(rng.random() < 0.4)
    step = (rows * width + int(rng.integers(0, 3))) * 8
    stride = int(rng.integers(1, 4))
    even = 2 if target.kind == "dense" and target.pi == 4 else 1
    nibbles = int(target.double and rng.random() < 0.5)
    lanes = target.px * (1 + nibbles)
    group = even * 5  # no two pixels in one place
    columns = -(-width // stride)
    residue = group * -(-columns // lanes) + even * int(rng.integers(0, 2))
    found = {
        "to_chip": to_chip, "address": 8 * int(rng.integers(0, 1 << 12)), "block_step": step,
        "param_base": int(rng.integers(0, param_blocks - blocks + 1)),
        "lo": -32768 if wide else lo, "hi": 32767 if wide else hi,
        "wide": wide and not to_chip, "place_base": even * int(rng.integers(0, 9)),
        "place_row_words": residue * stride, "place_residue_words": residue, "place_group": group,
        "place_stride": stride, "place_block": int(rng.integers(0, 40)),
        "place_nibbles": nibbles,
        "residual": int(rng.random() < 0.4), "res_address": 8 * int(rng.integers(0, 1 << 12)),
        "res_m": int(rng.integers(0, 1 << 16)), "res_e": int(rng.integers(10, 18)),
        "res_signed": int(rng.integers(0, 2)),
    }  # fmt: skip
    if rng.random() < 0.3:
        found |= {"res_m": 40000, "res_e": 15, "res_signed": 0}  # the table is kept
    return found


def random_params(rng: np.random.Generator, blocks: int, magnitude: int) -> list[Param]:
    """Factors that bring sums of about ``magnitude`` to 8 bits, and some extreme ones."""
    found = []
    for _ in range(blocks * BLOCK):
        e = int(rng.integers(1, 63)) if rng.random() < 0.1 else 15 + magnitude.bit_length() - 7
        bias = int(rng.integers(-magnitude, magnitude))
        if rng.random() < 0.05:
            bias = int(rng.choice([-(1 << 31), (1 << 31) - 1])) // 2
        found.append(Param(bias, int(rng.integers(1 << 15, 1 << 16)), e))
    return found


def scaled(v: int, m: int, e: int) -> int:
    """round(v · m / 2^e), half up, exact."""
    return (v * m + (1 << e - 1)) >> e


def result(f: Fields, param: Param, total: int, byte: int) -> int:
    """One result."""
    y = scaled(total + param.bias, param.m, param.e)
    if f["residual"]:
        r = byte - 256 if f["res_signed"] and byte >= 128 else byte
        y = max(-32768, min(32767, y))
        y += max(-32768, min(32767, scaled(r, f["res_m"], f["res_e"])))
    return max(f["lo"], min(f["hi"], y))


class Outside:
    """Runs commands on a bench; keeps what is stored and placed."""

    def __init__(self, bench: Bench, target: Engine, port_bits: int, seed: int) -> None:
        self.bench, self.target, self.port_bits = bench, target, port_bits
        self.rng = np.random.default_rng(seed)
        self.input = self.rng.integers(0, 256, 1 << 17)
        self.memory: dict[int, int] = {}
        self.chip: dict[tuple[int, int, int], int] = {}
        self.pending: list[int] = []
        self.finished = 0

    def word(self, address: int) -> int:
        """8 bytes of the input tensor's memory."""
        data = self.input[address % len(self.input) :][:8]
        return int.from_bytes(bytes(data.astype(np.uint8)), "little")

    def run(self, unit: Unit, commands: list[Fields], calm: bool) -> int:
        """Cycles until all are finished; ``calm``: no stalls."""
        b, rng = self.bench, self.rng
        waiting, spent, started, room = list(commands), 0, self.finished, 0
        after = 2  # the last placed pixel comes an edge behind its command's end
        while self.finished < started + len(commands) or after:
            after -= self.finished == started + len(commands)
            draws = rng.random(4)
            b["command__valid"] = bool(waiting) and (calm or draws[0] < 0.7)
            if waiting:
                b["command__payload"] = encode(unit, waiting[0])
            b["store__ready"] = calm or draws[1] < 0.6
            b["residual__run__ready"] = calm or draws[2] < 0.7
            there = min(2 if calm else int(3 * draws[3]), len(self.pending)) if room else 0
            b["residual__count"] = there
            words = [*self.pending[:there], 0, 0][:2]
            b["residual__words"] = words[0] | words[1] << 64
            b.settle()
            if b["command__valid"] and b["command__ready"]:
                waiting.pop(0)
            del self.pending[:there]
            room = b["residual__room"]
            if b["residual__run__valid"] and b["residual__run__ready"]:
                run = b["residual__run__payload"]
                at, words_of = run & 0xFFFFFFFF, run >> 32
                self.pending += [self.word(at + 8 * k) for k in range(words_of)]
            if b["store__valid"] and b["store__ready"]:
                self._store(b["store__payload"])
            if b["placed__valid"]:
                self._place(b["placed__payload"])
            spent += 1
            assert spent < 400000, "no end"
            b.tick()
        assert not self.pending, "residual words that nobody took"
        return spent

    def _store(self, unit: int) -> None:
        address, data = unit & 0xFFFFFFFF, unit >> 32 & (1 << 128) - 1
        for k in range(8 * (unit >> 160 & 3)):
            assert address + k not in self.memory, "stored twice"
            self.memory[address + k] = data >> 8 * k & 255
        self.finished += unit >> 162 & 1

    def _place(self, payload: int) -> None:
        shape = ActShape.of(self.target, self.port_bits)
        at = 1
        fields = []
        lanes = max(1, (shape.lanes - 1).bit_length())
        for bits in (1, shape.memory_bits, shape.address_bits, lanes, shape.block_bits):
            fields.append(payload >> at & (1 << bits) - 1)
            at += bits
        valid, memory, word, lane, data = fields
        assert valid
        if payload & 1:  # the upper half of the data is not used
            data &= (1 << shape.block_bits // 2) - 1
        self.chip[memory, word, lane] = data


class Expected:
    """What a command leaves behind."""

    def __init__(self, outside: Outside, params: list[Param]) -> None:
        self.outside, self.params = outside, params
        self.memory: dict[int, int] = {}
        self.chip: dict[tuple[int, int, int], int] = {}

    def add(self, f: Fields, total: Callable[[int, int, int, int], int]) -> None:
        """``total``: sum of (block, row, x, channel of the block)."""
        size = 2 if f["wide"] else 1
        for b in range(f["blocks"]):
            for y in range(f["rows"]):
                for x in range(f["width"]):
                    offset = b * f["block_step"] + (y * f["width"] + x) * 8
                    old = self.outside.word(f["res_address"] + offset)
                    values = [
                        result(
                            f, self.params[(f["param_base"] + b) * BLOCK + c], total(b, y, x, c),
                            old >> 8 * c & 255,
                        )
                        for c in range(BLOCK)
                    ]  # fmt: skip
                    if f["to_chip"]:
                        self._place(f, b, y, x, values)
                    else:
                        for c, value in enumerate(values):
                            for k in range(size):
                                at = f["address"] + (offset + c) * size + k
                                self.memory[at] = value >> 8 * k & 255

    def _place(self, f: Fields, b: int, y: int, x: int, values: list[int]) -> None:
        target = self.outside.target
        layout = ActLayout.of(target)
        lanes = target.px * (2 if f["place_nibbles"] else 1)
        q, r = divmod(x, f["place_stride"])
        n = f["place_block"] + b
        word = (
            f["place_base"] + y * f["place_row_words"] + r * f["place_residue_words"]
            + (q // lanes) * f["place_group"]
        )  # fmt: skip
        bits = 4 if f["place_nibbles"] else 8
        narrow = [v & (1 << bits) - 1 for v in values]
        depth = 1 << ActShape.of(target, self.outside.port_bits).address_bits
        if layout.channels == 4:
            for k in range(2):
                data = sum(v << bits * i for i, v in enumerate(narrow[4 * k :][:4]))
                self.chip[q % lanes, (word + 2 * n + k) % depth, 0] = data
        else:
            data = sum(v << bits * i for i, v in enumerate(narrow))
            self.chip[q % lanes, (word + n // layout.lanes) % depth, n % layout.lanes] = data
