# SPDX-License-Identifier: Apache-2.0
"""The training scripts, cut short: what they write, and that seeds decide everything."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from codesign import zoo
from codesign.errors import InputError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_train_digits(tmp_path: Path) -> None:
    train_digits = script("train_digits")
    reached = train_digits.train(tmp_path, seed=0, epochs=3)
    assert reached > 90.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["calib.npz", "digits.pt", "eval.npz"]
    assert np.load(tmp_path / "calib.npz")["x"].shape == (128, 1, 8, 8)
    held = np.load(tmp_path / "eval.npz")
    model = zoo.load("digits", tmp_path / "digits.pt")
    found = model.module(torch.from_numpy(held["x"])).argmax(1).numpy()
    assert 100.0 * float((found == held["y"]).mean()) == pytest.approx(reached)
    assert train_digits.train(tmp_path / "again", seed=0, epochs=3) == reached


def test_finetune_resnet8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune = script("finetune_resnet8")
    try:
        finetune.data_root()
    except InputError as error:
        pytest.skip(str(error))
    pixels = np.random.default_rng(0).integers(0, 256, (96, 3, 32, 32), np.uint8)
    labels = np.arange(96) % 10
    monkeypatch.setattr(finetune, "cifar10", lambda split: (pixels, labels))
    reached = finetune.finetune(tmp_path, epochs=2, batch_size=32)
    assert f"float accuracy: {reached:.2f} % of 96 test images" in capsys.readouterr().out
    held = np.load(tmp_path / "eval.npz")
    np.testing.assert_array_equal(held["x"], pixels)
    assert held["x"].dtype == np.float32
    assert np.load(tmp_path / "calib.npz")["x"].shape == (96, 3, 32, 32)
    model = zoo.load("resnet8", tmp_path / "resnet8.pt")
    assert model.module(torch.from_numpy(held["x"])).shape == (96, 10)
    finetune.finetune(tmp_path / "again", epochs=2, batch_size=32)
    again = zoo.load("resnet8", tmp_path / "again" / "resnet8.pt")
    for key, value in model.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[key], value), key


def test_augmentation_shifts_and_flips_whole_images() -> None:
    finetune = script("finetune_resnet8")
    batch = torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32).expand(64, -1, -1, -1)
    moved = finetune.augment(batch, torch.Generator().manual_seed(0))
    assert moved.shape == batch.shape
    padded = torch.nn.functional.pad(batch[:1].float(), (4, 4, 4, 4), mode="reflect")
    windows = {
        tuple(view[0, :, r : r + 32, c : c + 32].flatten().int().tolist())
        for view in (padded, padded.flip(3))
        for r in range(9)
        for c in range(9)
    }
    found = {tuple(image.flatten().int().tolist()) for image in moved}
    assert found <= windows
    assert len(found) > 30


def test_tvm_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    script("tvm_pipeline").main()
    said = capsys.readouterr().out
    assert "codesign.accelerator.demo." in said
    assert "equal to the integer reference: True" in said
