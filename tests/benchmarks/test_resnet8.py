# SPDX-License-Identifier: Apache-2.0
"""The ResNet8 benchmark: its drawing and its verdict, and a run on random weights and images."""

from __future__ import annotations

import importlib.util
import json
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "resnet8.py"
SIZES = {
    "a": {"w8a8": 100, "w4a8": 50},
    "b": {"w8a8": 60, "w4a8": 30},
    "c": {"w8a8": 40, "w4a8": 20},
}
ACTS = {"w8a8": 8, "w4a8": 8}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_resnet8", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def draw(bench: ModuleType, count: int, low: int, high: int, **changes: Any) -> Any:
    asked = {"activations": ACTS, "shared": [], "seed": 0, "without": {}, **changes}
    return bench.random_assignments(
        SIZES, low=Decimal(low), high=Decimal(high), count=count, **asked
    )


def total(choices: dict[str, str]) -> int:
    return sum(SIZES[layer][name] for layer, name in choices.items())


def test_assignments_are_distinct_and_of_that_size(bench: ModuleType) -> None:
    found = draw(bench, 4, 120, 150)
    assert sorted(total(choices) for choices in found) == [120, 130, 150, 150]
    assert len({tuple(choices.values()) for choices in found}) == 4
    assert bench.how_many(SIZES, Decimal(120), Decimal(150)) == 4


def test_the_seed_decides(bench: ModuleType) -> None:
    assert draw(bench, 3, 100, 200, seed=1) == draw(bench, 3, 100, 200, seed=1)
    assert draw(bench, 3, 100, 200, seed=1) != draw(bench, 3, 100, 200, seed=2)


def test_the_chosen_one_is_no_rival(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "MOST_DRAWS", bench.DRAWS)
    chosen = {"a": "w4a8", "b": "w8a8", "c": "w8a8"}
    assert draw(bench, 1, 150, 150, without=chosen) == [{"a": "w8a8", "b": "w4a8", "c": "w4a8"}]
    with pytest.raises(bench.InputError) as caught:
        draw(bench, 2, 150, 150, without=chosen)
    assert str(caught.value) == (
        "--random 2: found only 1 assignments of 150 to 150 bytes; ask for fewer, or offer more "
        "--formats"
    )


def test_layers_that_read_one_tensor_agree(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "MOST_DRAWS", bench.DRAWS)
    found = draw(bench, 4, 0, 200, activations={"w8a8": 8, "w4a8": 4}, shared=[("a", "c")])
    assert {(c["a"] == c["c"]) for c in found} == {True}


@pytest.mark.parametrize(
    ("w8a8", "w4a8", "chosen", "rivals", "proven", "held"),
    [
        (84, 80, 83, [82, 81], True, [True, True, True, True]),
        (84, 83, 83, [82, 81], True, [True, True, False, True]),
        (84, 80, 82, [82, 81], True, [True, True, True, False]),
        (83, 80, 83, [82], False, [False, False, True, True]),
        (84, 80, 83, [], True, [True, True, True, False]),
    ],
)
def test_a_tie_is_not_won(
    bench: ModuleType, w8a8: int, w4a8: int, chosen: int, rivals: list[int], proven: bool,
    held: list[bool],
) -> None:  # fmt: skip
    def result(right: int) -> Any:
        return bench.Result("", 0, np.arange(100) < right)

    rows = {"w8a8": result(w8a8), "w4a8": result(w4a8), "chosen": result(chosen)}
    claims = bench.verdict(result(84), rows, [result(r) for r in rivals], proven)
    assert list(claims.values()) == held


def test_standard_error_is_of_the_paired_difference(bench: ModuleType) -> None:
    one, other = np.arange(100) < 50, np.arange(100) < 49
    assert bench.standard_error(one, one) == 0.0
    assert bench.standard_error(one, other) == pytest.approx(10 * 0.01**0.5 * 0.99**0.5)


def test_missing_data_says_how_to_make_it(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}/resnet8.pt: no such file; make it with "
        f"`python examples/finetune_resnet8.py --out {tmp_path}`\n"
    )


def test_a_small_run_and_its_continuation(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    from codesign import zoo

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 3, 32, 32)).astype(np.float32)
    torch.manual_seed(0)
    torch.save(zoo.load("resnet8").module.state_dict(), tmp_path / "resnet8.pt")
    np.savez(tmp_path / "calib.npz", x=images[:4])
    np.savez(tmp_path / "eval.npz", x=images, y=rng.integers(0, 10, 10))
    asked = ["--data", str(tmp_path), "--random", "1", "--methods", "auto", "--json"]
    status = bench.main(asked)
    report = json.loads(capsys.readouterr().out)
    assert status == (0 if report["held"] else 1)
    assert report["images"] == 10
    assert report["certificate"]["status"] == "optimal"
    assert list(report["results"]) == ["float", "w8a8", "w4a8", "chosen by auto", "random 1"]
    limit = 0.6 * report["results"]["w8a8"]["size"]
    for name in ("chosen by auto", "random 1"):
        assert report["results"][name]["size"] <= limit
    assert report["results"]["random 1"]["size"] >= 0.98 * limit
    assert report["random"]["possible"] == 22

    def fail(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(bench, "_answers_host", fail)
    monkeypatch.setattr(bench, "_answers_torch", fail)
    assert bench.main(asked) == status
    assert json.loads(capsys.readouterr().out)["results"] == report["results"]
