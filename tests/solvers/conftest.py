# SPDX-License-Identifier: Apache-2.0
"""Generated problems and the HAWQ-V3 programs, for every solver test."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from codesign.solvers import Problem
from codesign.solvers.problem_file import problem_from_data

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "hawq.py"
NAMES = ("w8a8", "w4a8", "w4a4", "float")


def generated_data(seed: int, size: int | None = None) -> dict[str, Any]:
    """A small random problem in file form: architectures, ties, forbids, min and max limits,
    negative, decimal and very large numbers, both senses; about one in four is infeasible.
    ``size`` is the greatest number in it."""
    rng = random.Random(seed)
    count = rng.randint(1, 5)
    sets = [rng.sample(NAMES, rng.randint(1, 4)) for _ in range(2)]
    choices = {}
    for group in range(count):
        names = list(rng.choice(sets))
        rng.shuffle(names)
        choices[f"layer.{group}"] = names
    archs = [f"pe{2**i}" for i in range(rng.choice([0, 0, 1, 2, 4]))]
    digits = rng.choice([0, 0, 0, 1, 3])
    drawn = rng.choice([4, 30, 1000, 1000, 10**6, 10**20])
    size = drawn if size is None else size
    low = rng.choice([0, 0, 0, -size // 2])

    def number() -> Decimal | int:
        value = rng.randint(low, size)
        return Decimal(value).scaleb(-digits) if digits and abs(value) < 10**9 else value

    def additive() -> dict[str, Any]:
        return {
            group: {name: number() for name in rng.sample(names, len(names))}
            for group, names in choices.items()
        }

    def metric() -> dict[str, Any]:
        shape = rng.choice(["choice", "joint", "joint", "arch"] if archs else ["choice"])
        if shape == "choice":
            return additive()
        if shape == "joint":
            return {arch: additive() for arch in archs}
        return {arch: number() for arch in archs}

    metrics = {name: metric() for name in ["latency", "loss", "size"][: rng.randint(1, 3)]}
    limits: dict[str, Any] = {}
    for name in metrics:
        if rng.random() < 0.7:
            totals = [rough_total(rng, choices, archs, metrics[name]) for _ in range(2)]
            side = rng.choice(["max", "max", "min", "both", "number"])
            least, most = min(totals), max(totals)
            if low >= 0:
                least, most = max(least, 0), max(most, 0)
            limits[name] = {
                "max": {"max": most},
                "min": {"min": least},
                "both": {"min": least, "max": most},
                "number": least,
            }[side]
    ties = []
    same = [g for g in choices if set(choices[g]) == set(sets[0])]
    if len(same) > 1 and rng.random() < 0.5:
        ties.append(rng.sample(same, rng.randint(2, len(same))))
    forbid = []
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        groups = rng.sample(list(choices), rng.randint(1, min(3, count)))
        clause = [[group, rng.choice(choices[group])] for group in groups]
        if archs and rng.random() < 0.3:
            clause.append(["architecture", rng.choice(archs)])
        forbid.append(clause)
    data: dict[str, Any] = {
        "format": "codesign-problem/1",
        "name": f"generated-{seed}",
        "choices": choices,
        "metrics": metrics,
        rng.choice(["minimize", "minimize", "maximize"]): rng.choice(list(metrics)),
        "limits": limits,
        "ties": ties,
        "forbid": forbid,
    }
    if archs:
        data["architectures"] = archs
    return data


def rough_total(
    rng: random.Random, choices: dict[str, Any], archs: list[str], values: dict[str, Any]
) -> Any:
    """The total of a random choice, sometimes moved a little."""
    if archs and set(values) == set(archs):
        values = values[rng.choice(archs)]
    if not isinstance(values, dict):
        return values
    total: Any = sum(values[group][rng.choice(choices[group])] for group in choices)
    moved = rng.random() < 0.3
    return total - int(total) // 7 if moved else total


@pytest.fixture(scope="session")
def generate() -> Callable[..., Problem]:
    """(seed, size=None) to problem."""
    return lambda seed, size=None: problem_from_data(generated_data(seed, size), f"seed {seed}")


@pytest.fixture(scope="session")
def generate_data() -> Callable[..., dict[str, Any]]:
    """(seed, size=None) to problem in file form."""
    return generated_data


@pytest.fixture(scope="session")
def hawq_module() -> ModuleType:
    """benchmarks/hawq.py, which builds the nine programs."""
    spec = importlib.util.spec_from_file_location("hawq_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def hawq(hawq_module: ModuleType) -> dict[str, Problem]:
    """The nine HAWQ-V3 ResNet18 programs by name."""
    path = hawq_module.data_file()
    if not path.exists():
        pytest.skip(f"no HAWQ tables at {path}; set CODESIGN_DATA to the data folder")
    programs: dict[str, Problem] = hawq_module.programs(path)
    return programs
