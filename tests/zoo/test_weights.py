# SPDX-License-Identifier: Apache-2.0
"""Weight files: round trips, MLPerf Tiny's files, and what is said about bad ones."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codesign import zoo
from codesign.data import cifar10, data_root
from codesign.errors import InputError
from codesign.zoo.weights import save_npz


def mlperf(name: str) -> Path:
    try:
        path = data_root() / "mlperf_tiny" / name
    except InputError as error:
        pytest.skip(str(error))
    return path


def logits(module: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([module(x[start : start + 500]) for start in range(0, len(x), 500)])


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npz"])
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    model = zoo.load("digits", seed=9)
    path = tmp_path / f"w{suffix}"
    if suffix == ".npz":
        save_npz(model.module, path)
    else:
        torch.save(model.module.state_dict(), path)
    again = zoo.load("digits", path)
    assert again.weights == path
    assert not again.module.training
    for key, value in model.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[key], value), key


def test_state_dict_inside_a_checkpoint(tmp_path: Path) -> None:
    model = zoo.load("digits", seed=9)
    torch.save({"state_dict": model.module.state_dict(), "epoch": 3}, tmp_path / "w.pt")
    again = zoo.load("digits", str(tmp_path / "w.pt"))
    assert torch.equal(again.module(*model.example_inputs), model.module(*model.example_inputs))


def test_h5_and_tflite_give_one_network() -> None:
    x = zoo.example_images((8, 3, 32, 32), zoo.InputKind.PIXELS, seed=0)
    keras = logits(zoo.load("resnet8", mlperf("resnet8_cifar10.h5")).module, x)
    lite = logits(zoo.load("resnet8", mlperf("resnet8_cifar10_float.tflite")).module, x)
    assert float((keras - lite).abs().max()) < 1e-5 * float(keras.abs().max())
    rounded = logits(zoo.load("resnet8", mlperf("resnet8_cifar10_int8.tflite")).module, x)
    error = float((keras - rounded).abs().max() / keras.abs().max())
    assert 1e-4 < error < 0.1


def test_h5_reaches_the_accuracy_of_the_readme() -> None:
    model = zoo.load("resnet8", mlperf("resnet8_cifar10.h5"))
    x, y = cifar10("test")
    found = logits(model.module, torch.from_numpy(x).float()).argmax(1).numpy()
    assert 100.0 * float((found == y).mean()) == pytest.approx(75.48, abs=0.005)


def test_keras_files_are_for_resnet8_only(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    path.touch()
    with pytest.raises(InputError, match="is read for resnet8 only"):
        zoo.load("digits", path)


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".h5", ".tflite"])
def test_garbage_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"this is no weights file")
    with pytest.raises(InputError, match=r"w\."):
        zoo.load("resnet8", path)


def test_missing_file_and_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"{str(tmp_path / 'no.pt')!r} not found")):
        zoo.load("digits", tmp_path / "no.pt")
    odd = tmp_path / "w.bin"
    odd.touch()
    with pytest.raises(InputError, match=r"format \.bin is not known; expected one of \.pt"):
        zoo.load("digits", odd)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "w.pt", pickle_module=pickle)
    with pytest.raises(InputError, match="not a state dict of plain tensors"):
        zoo.load("digits", tmp_path / "w.pt")
    np.savez(tmp_path / "w.npz", x=np.array([Evil()], dtype=object))
    with pytest.raises(InputError, match="not a readable"):
        zoo.load("digits", tmp_path / "w.npz")
    assert not (tmp_path / "ran").exists()


def test_unfit_tensors_are_all_named(tmp_path: Path) -> None:
    state = zoo.load("digits").module.state_dict()
    state["surplus"] = torch.zeros(1)
    del state["fc2.bias"]
    state["conv1.weight"] = state["conv1.weight"][:8]
    state["fc1.weight"] = state["fc1.weight"] * float("nan")
    state["fc1.bias"] = torch.zeros(64, dtype=torch.int64)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError) as caught:
        zoo.load("digits", tmp_path / "w.pt")
    assert str(caught.value) == (
        "weights file 'w.pt' does not fit network 'digits': missing fc2.bias; "
        "unexpected surplus; conv1.weight has shape (8, 1, 3, 3), not (16, 1, 3, 3); "
        "fc1.bias is torch.int64, not floating point; fc1.weight holds NaN or infinite values"
    )


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "w.pt")
    with pytest.raises(InputError, match="expected a mapping of names to tensors, got list"):
        zoo.load("digits", tmp_path / "w.pt")
