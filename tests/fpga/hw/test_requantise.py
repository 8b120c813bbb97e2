# SPDX-License-Identifier: Apache-2.0
"""Requantiser lanes: hand-computed values, ties, every shift, extremes, random values."""

from __future__ import annotations

from functools import cache

import numpy as np

from codesign.targets.fpga.hw.buffers import PARAM
from codesign.targets.fpga.hw.requantise import LATENCY, LIMIT_STAGE, Requantisers
from tests.fpga.hw.bench import Bench

Case = tuple[int, int, int, int, int, int]
"""sum, bias, m, e, lo, hi"""
ANCHORS: tuple[tuple[Case, int], ...] = (
    ((5, 0, 1, 1, -128, 127), 3),  # 2.5 rounds up
    ((-5, 0, 1, 1, -128, 127), -2),  # -2.5 too
    ((3, 0, 1, 1, -128, 127), 2),
    ((-3, 0, 1, 1, -128, 127), -1),
    ((100, -36, 32768, 16, -128, 127), 32),
    ((1, 0, 32768, 16, -128, 127), 1),  # 0.5
    ((-1, 0, 32768, 16, -128, 127), 0),  # -0.5
    ((-1, 0, 32769, 16, -128, 127), -1),
    ((1000, 24, 65535, 17, -128, 127), 127),  # 511.99
    ((-1000, -24, 65535, 17, -128, 127), -128),
    ((2147483647, 0, 65535, 1, -32768, 32767), 32767),
    ((-2147483648, 0, 65535, 1, -32768, 32767), -32768),
    ((2147483647, 0, 65535, 62, -128, 127), 0),
    ((-2147483648, 0, 65535, 62, -128, 127), 0),
    ((-2147483648, 0, 65535, 48, -128, 127), 0),  # -0.49999
    ((-2147483648, 0, 65535, 47, -128, 127), -1),
    ((2147483647, 0, 0, 30, -128, 127), 0),
    ((7, 0, 40000, 18, 2, 127), 2),
)
LANES = 4


@cache
def bench() -> Bench:
    return Bench(Requantisers(LANES, "lut"))


def run(cases: list[Case]) -> list[int]:
    """Results; a case a lane a cycle."""
    b, found = bench(), []
    cases = cases + [(0, 0, 0, 1, 0, 0)] * (-len(cases) % LANES)
    rows = [cases[k : k + LANES] for k in range(0, len(cases), LANES)]
    for t in range(len(rows) + LATENCY):
        row = rows[t] if t < len(rows) else [(0, 0, 0, 1, 0, 0)] * LANES
        word = sums = 0
        for lane, (total, bias, m, e, _, _) in enumerate(row):
            sums |= (total & 0xFFFFFFFF) << 32 * lane
            param = (bias & 0xFFFFFFFF) | m << 32 | e << 48
            word |= param << PARAM.size * lane
        late = rows[min(max(0, t - LIMIT_STAGE), len(rows) - 1)]
        b["sums"], b["params"] = sums, word
        b["lo"], b["hi"] = late[0][4], late[0][5]
        b.settle()
        if t >= LATENCY:
            raw = b["results"]
            for lane in range(LANES):
                value = raw >> 16 * lane & 0xFFFF
                found.append(value - (value >> 15 << 16))
        b.tick()
    return found


def expected(case: Case) -> int:
    total, bias, m, e, lo, hi = case
    return max(lo, min(hi, ((total + bias) * m + (1 << e - 1)) >> e))


def spread(cases: list[Case]) -> list[Case]:
    """The limits are a row's: each case alone in its row."""
    return [case for case in cases for _ in range(LANES)]


def test_hand_computed() -> None:
    found = run(spread([case for case, _ in ANCHORS]))[::LANES]
    assert found[: len(ANCHORS)] == [value for _, value in ANCHORS]


def test_every_shift_and_random_values() -> None:
    rng = np.random.default_rng(3)
    cases: list[Case] = []
    for e in range(1, 63):
        for _ in range(40):
            # about half of the values end within 16 bits, many of them near a tie
            size = min(31, max(1, e - 15 + int(rng.integers(0, 18))))
            total = int(rng.integers(-(1 << size), 1 << size))
            m = int(rng.choice([1 << 15, 3 << 14, int(rng.integers(1 << 15, 1 << 16))]))
            bias = int(rng.integers(-100, 100)) if size < 31 else 0
            cases.append((total, bias, m, e, -32768, 32767))
        for total in (-(1 << 31), (1 << 31) - 1, -1, 0, 1):
            cases.append((total, 0, 65535, e, -32768, 32767))
    wanted = [expected(case) for case in cases]
    assert run(cases)[: len(cases)] == wanted
    inside = sum(-32768 < value < 32767 for value in wanted)
    assert inside > len(wanted) // 3
    ties = sum(
        ((total + bias) * m) % (1 << e) == 1 << e - 1 for total, bias, m, e, _, _ in cases
    )
    assert ties > 30
