# SPDX-License-Identifier: Apache-2.0
"""Cycles of single commands: the formulas of docs/accelerator.md, exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from codesign.space.accelerator import Engine
from codesign.targets.fpga.isa import Unit
from codesign.targets.fpga.machine import LATENCY
from tests.fpga.hw import test_dense, test_depthwise, test_drain
from tests.fpga.hw.bench import Bench
from tests.fpga.hw.parts import DensePart, DepthwisePart, DrainPart, encode

L = LATENCY["dsp48e2"]


def measured(
    bench: Bench, unit: Unit, fields: dict[str, int], done: Callable[[], object]
) -> tuple[int, int]:
    """Cycles from the command's being taken to its end and to the next one's being taken."""
    bench["command__valid"] = 1
    bench["command__payload"] = encode(unit, fields)
    bench.settle()
    while not bench["command__ready"]:
        bench.tick()
    start = bench.cycle
    bench.tick()
    bench["command__valid"] = 0
    bench.settle()
    ended = ready = 0
    while not (ended and ready):
        if not ended and done():
            ended = bench.cycle - start
        if not ready and bench["command__ready"]:
            ready = bench.cycle - start
        bench.tick()
        assert bench.cycle - start < 5000
    return ended, ready


@pytest.mark.parametrize(
    ("taps", "inputs", "rows", "steps", "groups", "double"),
    [(1, 1, 1, 1, 1, 0), (3, 2, 2, 2, 2, 0), (1, 1, 2, 2, 2, 1), (9, 1, 2, 2, 1, 1)],
)
def test_dense_cycles(
    taps: int, inputs: int, rows: int, steps: int, groups: int, double: int
) -> None:
    bench = Bench(DensePart(DENSE))
    fields = {
        "taps": taps, "inputs": inputs, "rows": rows, "steps": steps, "groups": groups,
        "double": double,
    }  # fmt: skip
    k = taps * inputs
    beats = (rows * steps * groups - 1) * max(k, 1 + double) + k
    levels = (DENSE.pi - 1).bit_length()
    expected = beats + 13 + L + levels + double, beats + 5
    assert measured(bench, Unit.DENSE, fields, lambda: bench["done"]) == expected


DENSE = test_dense.engine(8, 8, 2, double=True)


@pytest.mark.parametrize(
    ("blocks", "rows", "width", "steps"), [(1, 1, 1, 1), (2, 3, 5, 3), (3, 1, 8, 4)]
)
@pytest.mark.parametrize(
    "e",
    [
        test_drain.engine(16, 2, post=4),
        pytest.param(
            test_drain.engine(8, 3, post=16, double=True, accumulator_bits=24),
            marks=pytest.mark.soak,
        ),
    ],
    ids=("half", "two"),
)
def test_drain_cycles(e: Engine, blocks: int, rows: int, width: int, steps: int) -> None:
    bench = Bench(DrainPart(e, test_drain.TARGET))
    bench["store__ready"] = 1
    fields = {"blocks": blocks, "rows": rows, "width": width, "steps": steps}
    p = max(1, e.post // 8)
    row = width // e.px * -(-e.px // p) + -(-(width % e.px) // p)
    beats = blocks * rows * row * (2 if e.post == 4 else 1)
    assert _stored(bench, Unit.DRAIN, fields) == (beats + 21, max(beats + 1, 16))


@pytest.mark.parametrize(
    ("taps", "groups", "blocks", "rows", "width", "steps"),
    [(1, 1, 2, 1, 1, 1), (9, 2, 4, 3, 5, 3), (3, 1, 1, 2, 4, 2)],
)
def test_depthwise_cycles(
    taps: int, groups: int, blocks: int, rows: int, width: int, steps: int
) -> None:
    e = test_depthwise.engine(16, 2, post=4)
    bench = Bench(DepthwisePart(e, test_depthwise.TARGET))
    bench["store__ready"] = 1
    fields = {
        "taps": taps, "groups": groups, "blocks": blocks, "rows": rows, "width": width,
        "steps": steps,
    }  # fmt: skip
    n = e.po // 8 * -(-e.px // max(1, e.post // 8)) * (2 if e.post == 4 else 1)
    beats = (groups * rows * steps - 1) * max(taps, n) + taps
    # the last unit is the last step's last valid block; what is dropped behind it tells the end
    expected = beats + 30 + L + n, max(beats + 2 + max(n - 2, 0), taps + 25 + L)
    assert _stored(bench, Unit.DEPTHWISE, fields) == expected


def _stored(bench: Bench, unit: Unit, fields: dict[str, int]) -> tuple[int, int]:
    return measured(
        bench, unit, fields,
        lambda: bench["store__valid"] and bench["store__payload"] >> 162 & 1,
    )  # fmt: skip
