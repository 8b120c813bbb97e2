# SPDX-License-Identifier: Apache-2.0
"""NEON kernels under QEMU against the reference: shapes, formats, sums at their limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from codesign.ir import Graph, GraphBuilder, TensorType, interpret, ops
from codesign.ir.types import DType
from codesign.targets import TARGETS
from codesign.targets.tvm_lower.isa import instruction_set
from codesign.targets.tvm_lower.isa.base import Range
from tests.targets.checks import extremes


@dataclass(frozen=True)
class Case:
    """A convolution, or a linear layer where ``kernel`` is 0."""

    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    pad: int = 0
    depthwise: bool = False
    data: str = "u8"
    weight: str = "s8"
    result: str = "u8"


CASES = (
    Case(7, 16, 24, 3, pad=1),
    Case(9, 3, 16, 7, stride=2, pad=3, data="s8"),
    Case(5, 13, 10, 1, data="s8", result="s8"),
    Case(6, 32, 17, 1, stride=2),
    Case(7, 16, 16, 3, pad=1, weight="s4"),
    Case(7, 64, 8, 3, pad=1, weight="s4", data="u4", result="s4"),
    Case(7, 8, 40, 2, weight="s2", data="s8"),
    Case(1, 130, 10, 0, data="s8", result="s8"),
    Case(1, 600, 33, 0, weight="s4"),
    Case(9, 16, 16, 3, pad=1, depthwise=True),
    Case(9, 8, 8, 3, stride=2, pad=1, depthwise=True, data="s8"),
    Case(8, 24, 24, 5, pad=2, depthwise=True, weight="s4", result="s8"),
    Case(6, 32, 32, 2, depthwise=True, data="s8", weight="s3"),
    Case(6, 12, 12, 3, pad=1, depthwise=True),
)


def network(cases: tuple[Case, ...], seed: int = 0) -> Graph:
    """All cases side by side, each with an input and a result of its own."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("cases")
    results = []
    for number, case in enumerate(cases):
        kind = DType.parse(case.weight)
        window = (case.kernel, case.kernel) if case.kernel else ()
        image = (case.size, case.size) if case.kernel else ()
        x = b.input(f"x{number}", TensorType((1, case.inputs, *image), DType.parse(case.data)))
        shape = (case.outputs, 1 if case.depthwise else case.inputs, *window)
        values = rng.choice([kind.min + 1, kind.max, 0, 1], shape, p=[0.45, 0.45, 0.05, 0.05])
        values[0] = kind.max  # one channel whose sums reach their limit
        if number % 2:
            values[-1] = kind.min  # and one with the value that symmetric weights leave out
        w = b.constant(values.astype(np.int8), dtype=kind)
        bias = b.constant(rng.integers(-70000, 70000, case.outputs).astype(np.int32))
        op: ops.Op = ops.Linear()
        if case.kernel:
            groups = case.inputs if case.depthwise else 1
            op = ops.Conv2d(
                stride=(case.stride,) * 2, padding=(case.pad,) * 4, groups=groups
            )
        total = b.add(op, [x, w, bias], f"layer{number}")
        m = b.constant(rng.integers(1 << 15, 1 << 16, case.outputs).astype(np.int32))
        e = b.constant(rng.integers(18, 33, case.outputs).astype(np.int32))
        kind = DType.parse(case.result)
        results.append(b.add(ops.Requantize(kind, kind.min, kind.max, 1), [total, m, e]))
    return b.finish(results)


@pytest.mark.parametrize("board", ["rpi3", "rpi5"])
def test_kernels_are_exact(board: str, tmp_path: Path) -> None:
    graph = network(CASES)
    target = TARGETS.load(board)()
    target.build(graph, tmp_path / board)
    runner = target.load(tmp_path / board)
    for arrays in extremes(graph):
        expected = interpret.run(graph, *arrays)
        for case, found, wanted in zip(CASES, runner.run(*arrays), expected, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=str(case))


@pytest.mark.soak
@pytest.mark.parametrize("board", ["rpi3", "rpi4", "cortex-a55", "rpi5"])
@pytest.mark.parametrize("seed", range(10))
def test_generated_kernels_are_exact(board: str, seed: int, tmp_path: Path) -> None:
    """Twelve random shapes and formats a seed."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(12):
        depthwise, kernel = bool(rng.integers(3) == 0), int(rng.integers(1, 6))
        channels = int(rng.choice([3, 8, 13, 16, 24, 40]))
        cases.append(Case(
            int(rng.integers(kernel, 12)), channels,
            channels if depthwise and channels > 1 else int(rng.integers(1, 50)), kernel,
            int(rng.integers(1, 3)), int(rng.integers(0, 3)), depthwise,
            f"{rng.choice(['u', 's'])}{rng.integers(2, 9)}", f"s{rng.integers(2, 9)}",
            f"{rng.choice(['u', 's'])}{rng.integers(2, 9)}",
        ))  # fmt: skip
    graph = network(tuple(cases), seed)
    target = TARGETS.load(board)()
    target.build(graph, tmp_path / board)
    runner = target.load(tmp_path / board)
    for arrays in extremes(graph):
        expected = interpret.run(graph, *arrays)
        for case, found, wanted in zip(cases, runner.run(*arrays), expected, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=str(case))


@pytest.mark.parametrize(
    ("data", "weights", "steps"),
    [
        ((0, 255), (-127, 127), 2), ((-128, 127), (-127, 127), 2), ((-128, 127), (-128, 127), 1),
        ((0, 255), (-7, 7), 36), ((0, 15), (-7, 7), 312), ((0, 127), (-127, 127), 2),
    ],
)  # fmt: skip
def test_narrow_sums_cannot_overflow(
    data: tuple[int, int], weights: tuple[int, int], steps: int
) -> None:
    """The proven number of products fits s16 at the worst, one more would not."""
    (dot,) = instruction_set("neon").dots(Range(*data), Range(*weights))
    assert dot.steps == steps
    greatest = max(abs(v + dot.offset) for v in data) * max(abs(v) for v in weights)
    assert steps * greatest <= 2**15 - 1 < (steps + 1) * greatest
    assert min(data) + dot.offset >= -128
    assert max(data) + dot.offset <= 127


def test_what_dots_there_are() -> None:
    def names(isa: str, data: Range, weights: Range) -> list[str]:
        return [dot.name for dot in instruction_set(isa).dots(data, weights)]

    signed, unsigned = Range(-127, 127), Range(0, 255)
    assert names("neon", unsigned, signed) == ["smlal"]
    assert names("neon-dot", unsigned, signed) == ["sdot"]
    assert names("neon-dot", unsigned, unsigned) == ["udot"]
    for isa in ("neon", "neon-dot"):
        assert names(isa, Range(0, 1000), signed) == []
        assert names(isa, signed, Range(-200, 200)) == []
