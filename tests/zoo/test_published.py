# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates and parameters of every zoo network against published figures.

Parameters are the trainable ones. Multiply-accumulates are those of convolutions, linear layers
and products of two activations, at batch 1; they are counted from the shapes that pass through
forward hooks on the meta device, so nothing is computed. Where a source gives an exact count the
comparison is exact, where it gives rounded digits ours must round to them, and where it counts
something else, too, ``slack`` says how much and ``note`` what.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from codesign import zoo
from codesign.zoo.deit import MatMul

TORCHVISION = "pytorch/vision torchvision/models/*.py, weights' meta (num_params, _ops)"
TIMM = "timm results/benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv (param_count)"


@dataclass(frozen=True)
class Published:
    """``params`` exact, or rounded to ``digits`` decimals of a million; MACs in millions."""

    params: float
    macs: float
    params_source: str
    macs_source: str
    digits: int | None = None
    slack: float = 0.0
    """Relative; 0: our count must round to the digits of ``macs``."""
    note: str = ""


FIGURES = {
    "resnet8": Published(
        78_186,
        12.5,
        "Keras summary of mlcommons/tiny: 78,666 in all, less 480 moving statistics",
        "Banbury et al., MLPerf Tiny, 2021: 12.5 M",
    ),
    "resnet18": Published(11_689_512, 1814, TORCHVISION, TORCHVISION),
    "resnet34": Published(21_797_672, 3664, TORCHVISION, TORCHVISION),
    "resnet50": Published(25_557_032, 4089, TORCHVISION, TORCHVISION),
    "mobilenetv1": Published(
        4.23, 569, TIMM, "Howard et al., MobileNets, 2017, table 8: 569 M, 4.2 M", digits=2
    ),
    "mobilenetv2": Published(
        3_504_872, 301, TORCHVISION, f"{TORCHVISION}: 0.301 G; paper, table 4: 300 M, 3.4 M"
    ),
    "mobilenetv3_large": Published(
        5_483_032, 217, TORCHVISION, f"{TORCHVISION}: 0.217 G; paper, table 3: 219 M, 5.4 M"
    ),
    "mobilenetv3_small": Published(
        2_542_856, 57, TORCHVISION, f"{TORCHVISION}: 0.057 G; paper, table 3: 56 M, 2.5 M"
    ),
    "mnasnet_b1": Published(
        4_383_312, 314, TORCHVISION, f"{TORCHVISION}: 0.314 G; paper, table 1: 315 M, 4.4 M"
    ),
    "mnasnet_a1": Published(
        3.89, 312, TIMM, "Tan et al., MnasNet, 2019, table 1: 312 M, 3.9 M", digits=2
    ),
    "fbnet_c": Published(
        5.57,
        375,
        TIMM,
        "Wu et al., FBNet, 2019: 375 M, 5.5 M",
        digits=2,
        slack=0.01,
        note="built after the authors' mobile-vision repository, which differs slightly",
    ),
    "efficientnet_lite0": Published(
        4.65,
        407,
        TIMM,
        "tensorflow/tpu models/official/efficientnet/lite/README.md: 407 M, 4.7 M",
        digits=2,
        slack=0.06,
        note="TensorFlow's count includes batch norm and activations, 6.7 M outputs each",
    ),
    "ghostnet": Published(5.18, 141, TIMM, "Han et al., GhostNet, 2020: 141 M, 5.2 M", digits=2),
    "vgg11": Published(132_863_336, 7609, TORCHVISION, TORCHVISION),
    "deit_tiny": Published(
        5.72,
        1260,
        f"{TIMM}; Touvron et al., 2021: 5 M",
        "the same timm file (infer_gmacs)",
        digits=2,
        slack=0.006,
        note="timm also counts layer norm",
    ),
    "repvgg_a0": Published(
        9.11,
        1520,
        TIMM,
        "the same timm file (infer_gmacs): 1.52 G in training form",
        digits=2,
        slack=0.01,
        note="timm also counts batch norm",
    ),
}
OURS_ALONE = {"digits", "repvgg_small"}
"""Networks of this project, with no published figure."""


def count(name: str) -> tuple[int, int]:
    """Parameters and multiply-accumulates of one network, from shapes alone."""
    entry: zoo.Entry = zoo.NETWORKS.load(name)
    with torch.device("meta"):
        module = entry.build().eval()
        example = torch.empty(entry.input_shape)
    total = 0

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, MatMul):
            total += inputs[0].numel() * inputs[1].shape[-1]
        else:
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            total += output.numel() * layer.weight[0].numel()

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | MatMul):
            layer.register_forward_hook(hook)
    module(example)
    return sum(parameter.numel() for parameter in module.parameters()), total


@pytest.mark.parametrize("name", FIGURES)
def test_parameters_are_as_published(name: str) -> None:
    figure = FIGURES[name]
    parameters, _ = count(name)
    if figure.digits is None:
        assert parameters == figure.params
    else:
        assert round(parameters / 1e6, figure.digits) == figure.params


@pytest.mark.parametrize("name", FIGURES)
def test_macs_are_as_published(name: str) -> None:
    figure = FIGURES[name]
    _, macs = count(name)
    if figure.slack:
        assert figure.note
        assert macs / 1e6 == pytest.approx(figure.macs, rel=figure.slack)
    else:
        decimals = 1 if figure.macs % 1 else 0
        assert round(macs / 1e6, decimals) == figure.macs


def test_every_network_has_a_figure() -> None:
    assert set(FIGURES) | OURS_ALONE == set(zoo.names())


def test_repvgg_a0_merged_has_the_published_size() -> None:
    """Ding et al., 2021: RepVGG-A0 has 8.30 M parameters after the merge."""
    module = zoo.NETWORKS.load("repvgg_a0").build()
    merged = sum(
        layer.weight.numel() + layer.out_channels
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ) + sum(parameter.numel() for parameter in module.head.parameters())
    assert merged / 1e6 == pytest.approx(8.30, abs=0.01)


def test_every_network_names_its_source() -> None:
    for name in zoo.names():
        entry: zoo.Entry = zoo.NETWORKS.load(name)
        assert any(year in entry.source for year in map(str, range(1998, 2026))) or (
            "arXiv" in entry.source
        )
