# SPDX-License-Identifier: Apache-2.0
"""Zoo networks through both frontends against torch."""

from __future__ import annotations

import pytest

from codesign import zoo
from codesign.frontend import from_onnx, from_torch
from tests.frontend.compare import check, outputs, to_onnx

SMALL = ("digits", "resnet8", "repvgg_small")


def _check(name: str, onnx_too: bool) -> None:
    model = zoo.load(name)
    inputs = [x.numpy() for x in model.example_inputs]
    wanted = outputs(model.module, model.example_inputs)
    check(from_torch(model.module, model.example_inputs, name), inputs, wanted)
    if onnx_too:
        check(from_onnx(to_onnx(model.module, model.example_inputs)), inputs, wanted)


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name: str) -> None:
    _check(name, onnx_too=True)


@pytest.mark.parametrize("name", ["mobilenetv3_small", "deit_tiny"])
def test_larger_networks_from_torch(name: str) -> None:
    _check(name, onnx_too=False)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", zoo.names())
def test_every_network(name: str) -> None:
    _check(name, onnx_too=True)
