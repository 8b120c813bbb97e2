# SPDX-License-Identifier: Apache-2.0
"""The dense engine against the loops of docs/accelerator.md, random commands back to back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from codesign.space.accelerator import Buffer, Engine
from codesign.targets.fpga.hw.walk import GAP
from codesign.targets.fpga.isa import Tap, Unit
from tests.fpga.hw.bench import Bench
from tests.fpga.hw.parts import (
    DensePart,
    encode,
    operands,
    write_activations,
    write_items,
    write_weights,
)

DEPTH, WEIGHTS, SUMS = 64, 48, 40


def engine(pi: int, po: int, px: int, **more: Any) -> Engine:
    return Engine(
        "dense", pi, po, px, Buffer(WEIGHTS // 2), Buffer(DEPTH // 2), Buffer(SUMS), **more
    )


def random_taps(rng: np.random.Generator, lanes: int, count: int) -> list[Tap]:
    return [
        Tap(
            int(rng.integers(-8, 8)), int(rng.integers(0, 7)), int(rng.integers(0, lanes)),
            int(rng.integers(0, 3)), int(rng.integers(1, 3 * lanes + 2)),
        )
        for _ in range(count)
    ]  # fmt: skip


def random_command(
    rng: np.random.Generator, double: bool, wide_weights: bool, taps: int
) -> dict[str, int]:
    rows, steps, groups = (int(rng.integers(1, 4)) for _ in range(3))
    count = int(rng.choice([1, 1, 2, 3, 9]))
    inputs = int(rng.choice([1, 1, 2, 3]))
    words = rows * steps * groups * (2 if double else 1)
    half = int(rng.integers(0, 2)) * SUMS
    return {
        "act_base": int(rng.integers(8, 24)), "act_row_step": int(rng.integers(0, 6)),
        "act_group": int(rng.integers(0, 5)), "act_rows": int(rng.integers(1, 9)),
        "act_y0": int(rng.integers(-3, 3)), "act_y_step": int(rng.integers(1, 3)),
        "act_signed": int(rng.integers(0, 2)), "weight_base": int(rng.integers(0, 4)),
        "tap_base": int(rng.integers(0, taps - count + 1)), "taps": count, "rows": rows,
        "width": 3, "steps": steps, "groups": groups, "inputs": inputs,
        "weight_step": int(rng.integers(0, 6)), "double": int(double),
        "sum_base": half + int(rng.integers(0, max(1, SUMS - words + 1))),
        "accumulate": int(rng.integers(0, 2)), "weight_bits": 8 if wide_weights else 4,
    }  # fmt: skip


@dataclass
class Golden:
    """Sums [pixel][word][output] after commands."""

    engine: Engine
    weights: Any
    taps: list[Tap]

    def __post_init__(self) -> None:
        e = self.engine
        self.sums = np.zeros((e.px, 2 * e.accumulator.depth, e.po), dtype=np.int64)

    def run(self, f: dict[str, int], act: Any) -> None:
        e = self.engine
        bits = 4 if f["double"] else e.activation_bits
        for g in range(f["groups"]):
            for y in range(f["rows"]):
                for p in range(f["steps"]):
                    s = (g * f["rows"] + y) * f["steps"] + p
                    total = np.zeros((act.shape[0], e.po), dtype=np.int64)
                    for t in range(f["taps"]):
                        for c in range(f["inputs"]):
                            values, _ = operands(f, self.taps, act, g, y, p, t, c, bits)
                            at = f["weight_base"] + g * f["weight_step"] + t * f["inputs"] + c
                            w = self.weights[at % WEIGHTS].reshape(e.po, e.pi)
                            total += values @ w.T
                    for half in range(2 if f["double"] else 1):
                        at = f["sum_base"] + (2 * s + half if f["double"] else s)
                        part = total[half * e.px :][: e.px]
                        old = self.sums[:, at] if f["accumulate"] else 0
                        self.sums[:, at] = part + old


def read_sums(bench: Bench, e: Engine) -> Any:
    found = np.zeros((e.px, 2 * e.accumulator.depth, e.po), dtype=np.int64)
    bits = e.accumulator_bits
    for word in range(2 * e.accumulator.depth):
        bench["drain__enable"] = 1
        bench["drain__address"] = word
        bench.settle()
        bench.tick()
        bench.tick()
        raw = bench["drain__data"]
        for x in range(e.px):
            for o in range(e.po):
                value = raw >> bits * (x * e.po + o) & (1 << bits) - 1
                found[x, word, o] = value - (value >> bits - 1 << bits)
    bench["drain__enable"] = 0
    bench.settle()
    return found


def check(e: Engine, commands: int, seed: int, port_bits: int = 64) -> None:
    rng = np.random.default_rng(seed)
    bench = Bench(DensePart(e, port_bits))
    for nibbles in (False, True) if e.double else (False,):
        lanes = 2 * e.px if nibbles else e.px
        taps = random_taps(rng, lanes, 24)
        least = -(1 << (4 if nibbles else e.weight_bits) - 1)
        weights = rng.integers(least, -least, (WEIGHTS, e.pi * e.po))
        weights[rng.random(weights.shape) < 0.1] = least
        act = rng.integers(0, 16 if nibbles else 256, (lanes, DEPTH, e.pi))
        write_activations(bench, e, port_bits, act, nibbles)
        write_weights(bench, e, port_bits, weights)
        write_items(bench, "tap", [tap.encode() for tap in taps])
        golden = Golden(e, weights, taps)
        listed = [random_command(rng, nibbles, not nibbles, 24) for _ in range(commands)]
        everything = {"rows": 1, "steps": SUMS // 2, "groups": 1, "accumulate": 0, "act_rows": 8}
        listed[:0] = [  # every word of both halves is written first
            {**listed[0], **everything, "groups": 2, "double": 0, "sum_base": half * SUMS}
            for half in range(2)
        ]
        spent = expected = done = 0
        waiting = [dict(f) for f in listed]
        bench["command__valid"] = 0
        while done < len(listed):
            bench["command__valid"] = bool(waiting)
            if waiting:
                bench["command__payload"] = encode(Unit.DENSE, waiting[0])
            bench.settle()
            taken = waiting and bench["command__ready"]
            done += bench["done"]
            spent += 1
            assert spent < 200000
            bench.tick()
            if taken:
                f = waiting.pop(0)
                beats = max(f["taps"] * f["inputs"], 2 if f["double"] else 1)
                expected += f["groups"] * f["rows"] * f["steps"] * beats
                golden.run(f, act if f["double"] == int(nibbles) else _joined(act))
        found = read_sums(bench, e)
        np.testing.assert_array_equal(found, golden.sums)
        # no bubbles: only the fixed gap between commands
        assert spent <= expected + (GAP + 1) * len(listed) + 40


def _joined(act: Any) -> Any:
    """4-bit memories read as memories of whole values."""
    px = act.shape[0] // 2
    return act[:px] | act[px:] << 4


@pytest.mark.parametrize(
    ("e", "port_bits"),
    [
        (engine(4, 8, 1), 64),
        (engine(8, 8, 2, double=True), 64),
        pytest.param(
            engine(16, 8, 3, multiplier="lut", weight_bits=4, accumulator_bits=24), 128,
            marks=pytest.mark.soak,
        ),
    ],
    ids=lambda v: str(v) if isinstance(v, int) else f"{v.pi}x{v.po}x{v.px}",
)
def test_random_commands(e: Engine, port_bits: int) -> None:
    check(e, 40, 1, port_bits)


@pytest.mark.soak
@pytest.mark.parametrize("pi", [4, 8, 16, 24])
@pytest.mark.parametrize("px", [1, 2, 4, 7])
@pytest.mark.parametrize("double", [False, True])
def test_many_sizes(pi: int, px: int, double: bool) -> None:
    check(engine(pi, 16 if pi == 8 else 8, px, double=double), 150, pi * 8 + px, 128)
