# SPDX-License-Identifier: Apache-2.0
"""Networks in plain torch, by name, with seeded or given weights.

>>> from codesign import zoo
>>> model = zoo.load("digits")
>>> model.module(*model.example_inputs).shape
torch.Size([1, 10])
"""

from __future__ import annotations

from pathlib import Path

from codesign.registry import Registry
from codesign.zoo.entry import Entry, InputKind, ZooModel, example_images
from codesign.zoo.initialise import build, initialise
from codesign.zoo.weights import load_weights

__all__ = ["NETWORKS", "Entry", "InputKind", "ZooModel", "example_images", "load", "names"]

NETWORKS = Registry(
    kind="network",
    group="codesign.networks",
    builtin={
        "deit_tiny": "codesign.zoo.deit:DEIT_TINY",
        "digits": "codesign.zoo.digits:DIGITS",
        "efficientnet_lite0": "codesign.zoo.efficientnet:EFFICIENTNET_LITE0",
        "fbnet_c": "codesign.zoo.fbnet:FBNET_C",
        "ghostnet": "codesign.zoo.ghostnet:GHOSTNET",
        "mnasnet_a1": "codesign.zoo.mnasnet:MNASNET_A1",
        "mnasnet_b1": "codesign.zoo.mnasnet:MNASNET_B1",
        "mobilenetv1": "codesign.zoo.mobilenet:MOBILENET_V1",
        "mobilenetv2": "codesign.zoo.mobilenet:MOBILENET_V2",
        "mobilenetv3_large": "codesign.zoo.mobilenet:MOBILENET_V3_LARGE",
        "mobilenetv3_small": "codesign.zoo.mobilenet:MOBILENET_V3_SMALL",
        "repvgg_a0": "codesign.zoo.repvgg:REPVGG_A0",
        "repvgg_small": "codesign.zoo.repvgg:REPVGG_SMALL",
        "resnet8": "codesign.zoo.resnet8:RESNET8",
        "resnet18": "codesign.zoo.resnet:RESNET18",
        "resnet34": "codesign.zoo.resnet:RESNET34",
        "resnet50": "codesign.zoo.resnet:RESNET50",
        "vgg11": "codesign.zoo.vgg:VGG11",
    },
)
"""Every network, found lazily; a package adds its own through ``codesign.networks``."""


def names() -> tuple[str, ...]:
    """All names ``load`` takes, sorted."""
    return tuple(NETWORKS)


def load(name: str, weights: Path | str | None = None, seed: int = 0) -> ZooModel:
    """Network ``name`` in eval mode, with the weights of a file or seeded random ones.

    Raises InputError for an unknown name (with the nearest known one) or an unfit weight file.
    """
    entry: Entry = NETWORKS.load(name)
    module = build(entry)
    if weights is None:
        initialise(module, entry, seed)
    else:
        load_weights(module, Path(weights), name)
    module.requires_grad_(False)
    return ZooModel(
        name=name,
        module=module,
        example_inputs=(example_images(entry.input_shape, entry.input_kind, seed),),
        input_shape=entry.input_shape,
        input_kind=entry.input_kind,
        source=entry.source,
        seed=seed,
        weights=None if weights is None else Path(weights),
    )
