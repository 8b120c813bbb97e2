# SPDX-License-Identifier: Apache-2.0
"""The drain against the rules of docs/accelerator.md: random commands, with and without stalls."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from codesign.space.accelerator import Buffer, Engine
from codesign.targets.fpga.isa import BLOCK, Unit
from tests.fpga.hw.bench import Bench
from tests.fpga.hw.outside import Expected, Fields, Outside, random_destination, random_params
from tests.fpga.hw.parts import DrainPart, packed, write_items

SUMS, PARAM_BLOCKS = 256, 12
TARGET = Engine("depthwise", 1, 16, 3, Buffer(32), Buffer(1024))


def engine(po: int, px: int, **more: Any) -> Engine:
    return Engine("dense", 8, po, px, Buffer(32), Buffer(64), Buffer(SUMS // 2), **more)


def random_command(rng: np.random.Generator, e: Engine, target: Engine) -> Fields:
    double = int(e.double and rng.random() < 0.5)
    rows, blocks = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    lanes = e.px * (1 + double)
    width = int(rng.integers(1, 3 * lanes + 1))
    steps = -(-width // lanes) + int(rng.random() < 0.2)
    found = random_destination(rng, target, rows, width, blocks, PARAM_BLOCKS)
    found |= {
        "sum_base": int(rng.integers(0, 20)), "blocks": blocks, "rows": rows, "width": width,
        "steps": steps, "double": double,
    }  # fmt: skip
    return found


def check(e: Engine, target: Engine, commands: int, seed: int, port_bits: int = 64) -> None:
    rng = np.random.default_rng(seed)
    bench = Bench(DrainPart(e, target, port_bits))
    bits = e.accumulator_bits
    magnitude = 1 << 20
    sums = rng.integers(-magnitude, magnitude, (SUMS, e.px, e.po))
    sums[rng.random(sums.shape) < 0.02] = -(1 << bits - 1)
    sums[rng.random(sums.shape) < 0.02] = (1 << bits - 1) - 1
    sums //= 2  # sum and bias fit in 32 bits
    for word in range(SUMS):
        bench["sums__valid"] = 1
        bench["sums__address"] = word
        bench["sums__data"] = packed(sums[word].reshape(-1).tolist(), bits)
        bench.settle()
        bench.tick()
    bench["sums__valid"] = 0
    params = random_params(rng, PARAM_BLOCKS, magnitude)
    write_items(bench, "param", [param.encode() for param in params])
    for calm in (True, False):
        outside = Outside(bench, target, port_bits, seed)
        for start in range(0, commands, 6):
            expected = Expected(outside, params)
            listed = [random_command(rng, e, target) for _ in range(6)]
            for k, f in enumerate(listed):  # apart from each other
                f["address"] += k << 16
                f["place_base"] = f["place_base"] % 4 + 2048 // 6 * k // 2 * 2
                expected.add(f, partial(_sum, sums, e, f))
            outside.memory.clear()
            outside.chip.clear()
            outside.run(Unit.DRAIN, listed, calm)
            same(outside, expected, f"{start} {listed}")


def same(outside: Outside, expected: Expected, where: str) -> None:
    pairs: list[tuple[dict[Any, int], dict[Any, int]]] = [
        (outside.memory, expected.memory), (outside.chip, expected.chip),
    ]  # fmt: skip
    for found, wanted in pairs:
        assert found.keys() == wanted.keys(), where
        wrong = {k: (v, wanted[k]) for k, v in found.items() if v != wanted[k]}
        assert not wrong, (where, wrong)


def _sum(sums: Any, e: Engine, f: Fields, b: int, y: int, x: int, c: int) -> int:
    lanes = e.px * (2 if f["double"] else 1)
    g, k = divmod(b, e.po // BLOCK)
    s = (g * f["rows"] + y) * f["steps"] + x // lanes
    i = x % lanes
    word = 2 * s + i // e.px if f["double"] else s
    return int(sums[f["sum_base"] + word, i % e.px, k * BLOCK + c])


@pytest.mark.parametrize(
    ("e", "target"),
    [
        (engine(16, 2, post=4), TARGET),
        pytest.param(
            engine(8, 3, post=16, double=True, accumulator_bits=24), TARGET,
            marks=pytest.mark.soak,
        ),
    ],
    ids=("half", "two"),
)
def test_random_commands(e: Engine, target: Engine) -> None:
    check(e, target, 36, 1)


@pytest.mark.soak
@pytest.mark.parametrize("po", [8, 16, 24])
@pytest.mark.parametrize("px", [1, 2, 4, 7])
@pytest.mark.parametrize("post", [4, 8, 16])
def test_many_sizes(po: int, px: int, post: int) -> None:
    check(engine(po, px, post=post, double=px == 2), TARGET, 120, po + px + post, 128)
