# SPDX-License-Identifier: Apache-2.0
"""Problems of a design space's size: tens of thousands of architectures, 60 layers.

Architectures are PE arrays (input lanes, output lanes, pixels, bus width); a layer takes the
longer of its compute and its traffic; formats differ in packing and bits. ``--durations=0`` shows
the seconds (docs/solvers.md); no test judges them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.solvers import Limit, Metric, Problem, Status, solve
from codesign.solvers.problem import Shape

FORMATS = {  # weight bits, activation bits, multiplications per DSP
    "w8a8": (8, 8, 1),
    "w8a4": (8, 4, 2),
    "w4a8": (4, 8, 2),
    "w4a4": (4, 4, 4),
    "w6a6": (6, 6, 1),
    "w6a8": (6, 8, 1),
    "w5a6": (5, 6, 1),
    "w5a8": (5, 8, 1),
}


def joint_problem(archs: int, layers: int, formats: int, limits: int, seed: int = 0) -> Problem:
    """A problem of that size; equal arguments give equal problems."""
    rng = np.random.default_rng(seed)
    lanes_in, lanes_out = 2 ** rng.integers(0, 6, archs), 2 ** rng.integers(0, 6, archs)
    pixels, bus = rng.integers(1, 9, archs), rng.integers(8, 129, archs)
    names = list(FORMATS)[:formats]
    cycles = np.empty((archs, layers * formats), dtype=np.int64)
    loss = np.empty(layers * formats, dtype=np.int64)
    size = np.empty(layers * formats, dtype=np.int64)
    for layer in range(layers):
        inputs, outputs = int(rng.integers(3, 512)), int(rng.integers(16, 512))
        area, window = int(rng.integers(7, 112)) ** 2, int(rng.choice([1, 9]))
        sensitivity = rng.lognormal(0, 1.5)
        for place, name in enumerate(names):
            weight_bits, activation_bits, packing = FORMATS[name]
            at = layer * formats + place
            weights = inputs * outputs * window
            compute = -(-area // pixels) * -(-inputs // lanes_in)
            compute = compute * -(-outputs // (lanes_out * packing)) * window
            traffic = area * (inputs + outputs) * activation_bits + weights * weight_bits
            cycles[:, at] = np.maximum(compute, traffic // bus)
            error = 4.0**-weight_bits + 0.5 * 4.0**-activation_bits
            loss[at] = int(1e8 * sensitivity * error * rng.uniform(0.9, 1.1))
            size[at] = weights * weight_bits

    def between(table: Any, share: float) -> int:
        per_layer = table.reshape(layers, formats)
        low, high = int(per_layer.min(axis=1).sum()), int(per_layer.max(axis=1).sum())
        return low + int(share * (high - low))

    bounds = {"dsp": 360, "loss": between(loss, 0.1)}
    if limits > 1:
        bounds["size"] = between(size, 0.3)
    return Problem.build(
        name=f"joint-{archs}x{layers}x{formats}",
        choices={f"layer{layer}": names for layer in range(layers)},
        architectures=[f"arch{arch}" for arch in range(archs)],
        metrics=[
            Metric.joint("cycles", cycles),
            Metric.choice("loss", loss, digits=8),
            Metric.choice("size", size),
            Metric.architecture("dsp", lanes_in * lanes_out * pixels),
        ],
        minimize="cycles",
        limits={name: value for name, value in bounds.items() if name != "loss"}
        | {"loss": Metric.choice("loss", [0], digits=8).decimal(bounds["loss"])},
    )


FAST = [(10_000, 30, 4, 1), (10_000, 60, 4, 1), (20_000, 60, 4, 2)]
"""Architectures, layers, formats, limits on choices."""
SLOW = [(20_000, 60, 4, 1), (40_000, 60, 4, 1), (20_000, 60, 8, 1), (20_000, 60, 8, 2)]
CASES = [*FAST, *(pytest.param(case, marks=pytest.mark.soak) for case in SLOW)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "x".join(map(str, case)))
def large(request: pytest.FixtureRequest) -> Problem:
    return joint_problem(*request.param)


def test_a_whole_design_space_is_solved_to_a_certificate(large: Problem) -> None:
    solution = solve(large)
    assert solution.status is Status.OPTIMAL
    assert solution.gap == 0.0
    done = solution.architectures_solved + solution.architectures_pruned
    assert done == len(large.architectures)
    assert solution.architectures_solved < 200


def test_no_single_architecture_does_better() -> None:
    problem = joint_problem(3_000, 20, 4, 2)
    best = solve(problem)
    assert best.objective is not None
    rng = np.random.default_rng(1)
    for arch in rng.choice(3_000, 25, replace=False):
        alone = solve(one(problem, int(arch)), "cp-sat", explain=False)
        if alone.status is Status.OPTIMAL:
            assert alone.objective is not None
            assert alone.objective >= best.objective


def test_an_impossible_design_space_is_explained() -> None:
    problem = joint_problem(5_000, 30, 4, 1)
    limits = [limit for limit in problem.limits if limit.metric != "loss"]
    solution = solve(problem.with_limits([*limits, Limit("loss", "max", 0)]))
    assert solution.status is Status.INFEASIBLE
    assert solution.explanation is not None
    (conflict,) = solution.explanation.limits
    low = np.minimum.reduceat(problem.metrics["loss"].values, problem.offsets[:-1]).sum()
    assert conflict.nearest == problem.metrics["loss"].decimal(int(low))


def one(problem: Problem, arch: int) -> Problem:
    """The problem with one architecture only."""
    return Problem.build(
        choices=dict(zip(problem.groups, problem.options)),
        architectures=[problem.architectures[arch]],
        metrics=[
            metric
            if metric.shape is Shape.CHOICE
            else Metric(
                metric.name, metric.shape, metric.values[arch : arch + 1], metric.digits
            )
            for metric in problem.metrics.values()
        ],
        minimize=problem.objective,
        limits={limit.metric: limit.value for limit in problem.limits},
    )
