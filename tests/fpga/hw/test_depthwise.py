# SPDX-License-Identifier: Apache-2.0
"""The depthwise engine against docs/accelerator.md: random commands, with and without stalls."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.space.accelerator import Buffer, Engine
from codesign.targets.fpga.hw.depthwise import DepthwiseEngine, step_cycles
from codesign.targets.fpga.isa import BLOCK, Tap, Unit
from tests.fpga.hw.bench import Bench
from tests.fpga.hw.outside import Expected, Fields, Outside, random_destination, random_params
from tests.fpga.hw.parts import (
    DepthwisePart,
    operands,
    write_activations,
    write_items,
    write_weights,
)
from tests.fpga.hw.test_dense import random_taps
from tests.fpga.hw.test_drain import same

DEPTH, WEIGHTS, PARAM_BLOCKS = 64, 48, 12
TARGET = Engine("dense", 8, 8, 3, Buffer(32), Buffer(1024), Buffer(32))


def engine(po: int, px: int, **more: Any) -> Engine:
    return Engine("depthwise", 1, po, px, Buffer(WEIGHTS // 2), Buffer(DEPTH // 2), **more)


def random_command(rng: np.random.Generator, e: Engine, target: Engine) -> Fields:
    rows, groups = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    width = int(rng.integers(1, 3 * e.px + 1))
    per = e.po // BLOCK
    blocks = (groups - 1) * per + int(rng.integers(1, per + 1))
    taps = int(rng.choice([1, 1, 2, 4, 9]))
    return random_destination(rng, target, rows, width, blocks, PARAM_BLOCKS) | {
        "act_base": int(rng.integers(8, 24)), "act_row_step": int(rng.integers(0, 6)),
        "act_group": int(rng.integers(0, 5)), "act_rows": int(rng.integers(3, 9)),
        "act_y0": int(rng.integers(-3, 3)), "act_y_step": int(rng.integers(1, 3)),
        "act_signed": int(rng.integers(0, 2)), "weight_base": int(rng.integers(0, 4)),
        "tap_base": int(rng.integers(0, 24 - taps + 1)), "taps": taps, "rows": rows,
        "width": width, "steps": -(-width // e.px), "groups": groups, "blocks": blocks,
        "maximum": int(rng.random() < 0.3),
    }  # fmt: skip


def totals(e: Engine, f: Fields, taps: list[Tap], act: Any, weights: Any) -> Any:
    """Sums, or greatest values, [block][row][x][channel of the block]."""
    per = e.po // BLOCK
    found = np.zeros((f["groups"] * per, f["rows"], f["steps"] * e.px, BLOCK), dtype=np.int64)
    for g in range(f["groups"]):
        for y in range(f["rows"]):
            for p in range(f["steps"]):
                best = np.full((e.px, e.po), -(1 << e.activation_bits), dtype=np.int64)
                total = np.zeros((e.px, e.po), dtype=np.int64)
                for t in range(f["taps"]):
                    values, pad = operands(f, taps, act, g, y, p, t, g, e.activation_bits)
                    total += values * weights[(f["weight_base"] + g * f["taps"] + t) % WEIGHTS]
                    best = np.where(pad[:, None], best, np.maximum(best, values))
                value = best if f["maximum"] else total
                part = value.reshape(e.px, per, BLOCK).transpose(1, 0, 2)
                found[g * per :, y, p * e.px :][:per, : e.px] = part
    return found


def _at(found: Any, b: int, y: int, x: int, c: int) -> int:
    return int(found[b, y, x, c])


def check(e: Engine, target: Engine, commands: int, seed: int, port_bits: int = 64) -> None:
    rng = np.random.default_rng(seed)
    bench = Bench(DepthwisePart(e, target, port_bits))
    taps = random_taps(rng, e.px, 24)
    least = -(1 << e.weight_bits - 1)
    weights = rng.integers(least, -least, (WEIGHTS, e.po))
    act = rng.integers(0, 1 << e.activation_bits, (e.px, DEPTH, e.po))
    params = random_params(rng, PARAM_BLOCKS, 1 << 14)
    write_activations(bench, e, port_bits, act)
    write_weights(bench, e, port_bits, weights)
    write_items(bench, "tap", [tap.encode() for tap in taps])
    write_items(bench, "param", [param.encode() for param in params])
    for calm in (True, False):
        outside = Outside(bench, target, port_bits, seed)
        for start in range(0, commands, 6):
            expected = Expected(outside, params)
            listed = [random_command(rng, e, target) for _ in range(6)]
            for k, f in enumerate(listed):  # apart from each other
                f["address"] += k << 16
                f["place_base"] = f["place_base"] % 4 // 2 * 2 + 2048 // 6 * k // 2 * 2
                found = totals(e, f, taps, act, weights)
                expected.add(f, partial(_at, found))
            outside.memory.clear()
            outside.chip.clear()
            spent = outside.run(Unit.DEPTHWISE, listed, calm)
            same(outside, expected, f"{start} {listed}")
            steps = [f["groups"] * f["rows"] * f["steps"] for f in listed]
            least_cycles = sum(s * max(f["taps"], step_cycles(e)) for s, f in zip(steps, listed))
            assert spent >= least_cycles


@pytest.mark.parametrize(
    ("e", "target"),
    [
        (engine(16, 2, post=4), TARGET),
        pytest.param(
            engine(8, 3, post=16, weight_bits=4),
            Engine("dense", 4, 8, 2, Buffer(32), Buffer(1024), Buffer(32)),
            marks=pytest.mark.soak,
        ),
        pytest.param(
            engine(24, 1, post=8),
            Engine("dense", 24, 8, 2, Buffer(32), Buffer(1024), Buffer(32), double=True),
            marks=pytest.mark.soak,
        ),
    ],
    ids=("half", "two", "one"),
)
def test_random_commands(e: Engine, target: Engine) -> None:
    check(e, target, 36, 1)


@pytest.mark.soak
@pytest.mark.parametrize("po", [8, 16, 32])
@pytest.mark.parametrize("px", [1, 2, 4, 7])
@pytest.mark.parametrize("post", [4, 8, 16])
def test_many_sizes(po: int, px: int, post: int) -> None:
    check(engine(po, px, post=post), TARGET, 120, po + px + post, 128)


def test_steps_whose_results_find_no_room_are_refused() -> None:
    """Three steps' entries stand in the queue of 64: one more would never be granted."""
    dense = Engine("dense", 8, 8, 1, Buffer(512), Buffer(512), Buffer(512))
    wide = Engine("depthwise", 1, 64, 4, Buffer(512), Buffer(512), post=8)
    with pytest.raises(InputError, match="makes 32 entries of results; expected at most 21"):
        DepthwiseEngine(wide, dense, 64)
