# SPDX-License-Identifier: Apache-2.0
"""What ``zoo.load`` promises: determinism, sane activations, exportable modules, clear errors."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from codesign import zoo
from codesign.errors import InputError

EXPORTED = ("deit_tiny", "digits", "ghostnet", "mnasnet_a1", "mobilenetv3_small", "repvgg_small")
"""Together these hold every kind of layer of the zoo but resnet8's, which has its own test."""


def state_hash(model: zoo.ZooModel) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", zoo.names())
def test_activations_are_sane_at_every_depth(name: str) -> None:
    model = zoo.load(name)
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    (example,) = model.example_inputs
    assert tuple(example.shape) == model.input_shape
    assert example.dtype == torch.float32
    spread: dict[str, float] = {}

    def note(path: str) -> None:
        def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            spread[path] = float(output.std())

        model.module.get_submodule(path).register_forward_hook(hook)

    for path, layer in model.module.named_modules():
        if isinstance(layer, (_BatchNorm, nn.LayerNorm, nn.Linear)):
            note(path)
    output = model.module(example)
    assert output.shape[0] == 1
    assert bool(torch.isfinite(output).all())
    assert min(spread.values()) > 0.02, min(spread.items(), key=lambda item: item[1])
    assert max(spread.values()) < 20.0, max(spread.items(), key=lambda item: item[1])
    for layer in model.module.modules():
        if isinstance(layer, _BatchNorm):
            assert layer.running_var is not None
            assert layer.running_mean is not None
            assert float(layer.running_var.min()) > 1e-4
            assert float(layer.running_mean.abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv3_small", "deit_tiny"])
def test_outputs_depend_on_the_input(name: str) -> None:
    """Random deep networks tend to map every input to one output; ours must not."""
    model = zoo.load(name)
    images = zoo.example_images((4, *model.input_shape[1:]), model.input_kind, seed=5)
    outputs = model.module(images)
    within = float(outputs.std(dim=1).mean())
    between = float(outputs.std(dim=0).mean())
    assert between > 0.1 * within


@pytest.mark.parametrize("name", ["digits", "resnet8", "mobilenetv3_small"])
def test_equal_seeds_give_equal_weights(name: str) -> None:
    first, again, other = (zoo.load(name, seed=seed) for seed in (3, 3, 4))
    assert state_hash(first) == state_hash(again)
    assert state_hash(first) != state_hash(other)
    assert torch.equal(first.example_inputs[0], again.example_inputs[0])


def test_weights_do_not_depend_on_threads_or_the_global_generator() -> None:
    torch.manual_seed(1)
    expected = state_hash(zoo.load("mobilenetv3_small"))
    threads = torch.get_num_threads()
    torch.manual_seed(2)
    torch.set_num_threads(1)
    try:
        assert state_hash(zoo.load("mobilenetv3_small")) == expected
    finally:
        torch.set_num_threads(threads)


def test_loading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    zoo.load("repvgg_small")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", EXPORTED)
def test_torch_export_keeps_the_function(name: str) -> None:
    model = zoo.load(name)
    program = torch.export.export(model.module, model.example_inputs)
    expected = model.module(*model.example_inputs)
    torch.testing.assert_close(program.module()(*model.example_inputs), expected)


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv3_small"])
def test_onnx_export_keeps_the_function(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = zoo.load(name)
    path = tmp_path_factory.mktemp("onnx") / f"{name}.onnx"
    program = torch.onnx.export(model.module, model.example_inputs, dynamo=True, verbose=False)
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: model.example_inputs[0].numpy()})
    expected = model.module(*model.example_inputs).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_example_images_follow_their_kind() -> None:
    shape = (2, 3, 32, 32)
    pixels = zoo.example_images(shape, zoo.InputKind.PIXELS, 0)
    assert bool(((pixels >= 0) & (pixels <= 255) & (pixels == pixels.round())).all())
    unit = zoo.example_images(shape, zoo.InputKind.UNIT, 0)
    assert bool(((unit >= 0) & (unit <= 1)).all())
    normal = zoo.example_images((8, 3, 224, 224), zoo.InputKind.NORMALISED, 0)
    assert abs(float(normal.mean())) < 0.2
    assert 0.5 < float(normal.std()) < 1.5


def test_unknown_name_gives_the_nearest_one() -> None:
    with pytest.raises(
        InputError, match=re.escape("unknown network 'resnet19'; did you mean 'resnet18'?")
    ):
        zoo.load("resnet19")


def test_names_are_sorted_and_complete() -> None:
    assert list(zoo.names()) == sorted(zoo.names())
    assert {"digits", "resnet8", "resnet18", "mobilenetv2", "deit_tiny", "repvgg_small"} <= set(
        zoo.names()
    )
