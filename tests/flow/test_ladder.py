# SPDX-License-Identifier: Apache-2.0
"""The ladder looks at every output, and can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.flow import ladder
from codesign.flow.building import build
from codesign.flow.choose import design
from codesign.flow.ladder import _equal, _sqnr_db, verify
from codesign.flow.options import DesignOptions

TWO = """
import torch

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.b, self.c = torch.nn.Linear(8, 5), torch.nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.a(x)).mean((2, 3))
        return self.b(h), self.c(h)

def two():
    return Two(), (torch.zeros(1, 3, 8, 8),)
"""


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_wrong_second_output_is_found(
    wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_two_outputs.py").write_text(TWO)
    monkeypatch.chdir(tmp_path)
    design(DesignOptions("my_two_outputs:two", batch=3), tmp_path / "out")
    build(tmp_path / "out")
    states = {rung.rung: rung.status for rung in verify(tmp_path / "out")}
    assert states["reference"] == states["tvm-host"] == "exact"
    real = ladder._run_build

    def one_off(folder: Path, inputs: ladder.Array) -> ladder.Outputs:
        found = [a.copy() for a in real(folder, inputs)]
        found[wrong][-1, -1] += 1e-3
        return tuple(found)

    monkeypatch.setattr(ladder, "_run_build", one_off)
    rungs = {rung.rung: rung for rung in verify(tmp_path / "out")}
    assert rungs["tvm-host"].status == "failed"
    assert rungs["tvm-host"].why.startswith("1 of 24 outputs differ, by at most 0.001")


def test_decibels_by_hand_and_of_the_worst_output() -> None:
    signal = np.array([[3.0, 4.0]])
    assert _sqnr_db((signal,), (signal,)) == float("inf")
    assert _sqnr_db((signal,), (1.1 * signal,)) == pytest.approx(20.0)
    both = (signal, signal)
    assert _sqnr_db(both, (signal, 1.1 * signal)) == pytest.approx(20.0)
    assert _sqnr_db((0 * signal,), (signal,)) == float("-inf")


@pytest.mark.parametrize(
    ("least", "status"), [(None, "failed"), (19.9, "within"), (20.1, "failed")]
)
def test_float_operators_have_a_stated_tolerance(least: float | None, status: str) -> None:
    signal = np.array([[3.0, 4.0]])
    rung = _equal("r", (1.1 * signal,), (signal,), "1 input", least)
    assert rung.status == status
    assert rung.why.startswith("2 of 2 outputs differ, by at most 0.4, on 1 input")


def test_other_shapes_fail() -> None:
    rung = _equal("r", (np.zeros((1, 3)),), (np.zeros((1, 2)),), "1 input", None)
    assert (rung.status, rung.why) == ("failed", "outputs of shapes [(1, 3)], expected [(1, 2)]")
