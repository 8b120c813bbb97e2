# SPDX-License-Identifier: Apache-2.0
"""Torch modules to the IR: what they compute stays, names and places are the user's."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as f
from torch import Tensor, nn

from codesign.errors import InputError, UnsupportedError
from codesign.frontend import from_torch, load_network
from tests.frontend.compare import check, check_torch, outputs
from tests.support.networks import random_network


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Whatever the function does."""
        return self.function(*inputs)


def image(*shape: int) -> Tensor:
    """Normal numbers, the same in every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2


def _generated(seed: int) -> None:
    module, inputs = random_network(seed, quantizable_only=seed % 2 == 0, batch=1 + seed % 3 // 2)
    check_torch(module, *inputs)


@pytest.mark.parametrize("seed", range(30))
def test_generated_networks(seed: int) -> None:
    _generated(seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_500_generated_networks() -> None:
    for seed in range(1000, 1500):
        _generated(seed)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor | tuple[Tensor, ...]]] = {
    "clamp both": lambda x: x.clamp(-0.5, 1.5),
    "clamp low": lambda x: x.clamp(min=0.3),
    "clamp high": lambda x: x.clamp(max=-0.3),
    "clamp 0..1": lambda x: x.clamp(0, 1),
    "clamp high at 0": lambda x: x.clamp(max=0),
    "hardtanh": f.hardtanh,
    "scalars": lambda x: 3 - (x * 2 + 1) / 4 - x,
    "add with alpha": lambda x: torch.add(x, x * x, alpha=0.5),
    "minus": lambda x: -x + x**2 - x**3,
    "rsub": lambda x: torch.rsub(x, x * 2, alpha=3),
    "select, slice": lambda x: x[:, 1] + x[:, -1, :, :] * x[:, 0:1].squeeze(1),
    "slice with step": lambda x: x[:, :, 1::2, :-1],
    "unbind, stack": lambda x: torch.stack(x.unbind(1)[::-1], 2),
    "split": lambda x: torch.split(x, 3, 2),
    "chunk": lambda x: x.chunk(3, 3),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "expand": lambda x: x[:, :, :1].expand(-1, -1, 5, -1),
    "permute, flatten": lambda x: x.permute(0, 2, 3, 1).flatten(1, 2),
    "unflatten": lambda x: torch.unflatten(x, 1, (2, 2)),
    "movedim": lambda x: x.movedim(1, -1),
    "einsum": lambda x: torch.einsum("nchw,nkhw->nck", x, x),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "softmax": lambda x: x.softmax(1),
    "means": lambda x: x.mean() + x.mean((0, 2), keepdim=True) + x.sum(-1, keepdim=True),
    "amax": lambda x: x.amax((2, 3)),
    "adaptive": lambda x: f.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive max": lambda x: f.adaptive_max_pool2d(x, (2, 4)),
    "avg divisor": lambda x: f.avg_pool2d(x, 2, divisor_override=3),
    "avg ceil, padded": lambda x: f.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg ceil, hanging": lambda x: f.avg_pool2d(x, 2, 3, 1, ceil_mode=True),
    "max dilated": lambda x: f.max_pool2d(x, 2, 1, dilation=2),
    "nearest": lambda x: f.interpolate(x, size=(9, 5)),
    "nearest down": lambda x: f.interpolate(x, scale_factor=0.5),
    "nearest exact": lambda x: f.interpolate(x, size=(9, 5), mode="nearest-exact"),
    "bilinear": lambda x: f.interpolate(x, size=(9, 5), mode="bilinear"),
    "corners": lambda x: f.interpolate(x, size=(9, 5), mode="bilinear", align_corners=True),
    "negative pad": lambda x: f.pad(x, (-1, 2, 1, -2), value=1.5),
    "reflect": lambda x: f.pad(x, (1, 2, 0, 3), mode="reflect"),
    "replicate": lambda x: f.pad(x, (1, 2, 0, 3), mode="replicate"),
    "pixel shuffle": lambda x: f.pixel_shuffle(x, 2),
    "causal attention": lambda x: f.scaled_dot_product_attention(x, x, x, is_causal=True),
    "masked attention": lambda x: f.scaled_dot_product_attention(
        x, x * 2, x, x @ x.transpose(2, 3), scale=0.3
    ),
    "layer norm, plain": lambda x: f.layer_norm(x, x.shape[2:]),
    "in place": lambda x: x.clone().add_(1).relu_(),
    "two results": lambda x: (x + 1, x.relu()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    check_torch(Function(FUNCTIONS[name]), image(2, 4, 6, 8))


MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "same, even kernel": (nn.Conv2d(3, 6, (4, 3), padding="same", dilation=(1, 2)), (1, 3, 7, 9)),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid", groups=2, bias=False), (2, 4, 7, 9)),
    "linear on tokens": (nn.Linear(8, 5, bias=False), (2, 3, 8)),
    "attention": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (1, 5, 8)),
    "prelu": (nn.PReLU(), (1, 3, 4, 4)),
    "batch norm of a matrix": (nn.BatchNorm1d(6), (3, 6)),
    "batch norm, plain": (nn.BatchNorm2d(3, affine=False), (1, 3, 4, 4)),
    "gelu tanh": (nn.GELU("tanh"), (3, 5)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    module, shape = MODULES[name]
    check_torch(module.eval(), image(*shape))


def test_two_inputs() -> None:
    check_torch(Function(lambda x, y: x @ y), image(2, 3, 4), image(2, 4, 5))


class Block(nn.Module):
    """conv and bn, added to x."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 4, H, W] to the same."""
        y: Tensor = self.relu(self.bn1(self.conv1(x)) + x)
        return y


def test_names_and_sources_are_module_paths() -> None:
    module = nn.Sequential()
    module.add_module("layer1", nn.Sequential(Block(), Block()))
    graph = check_torch(module, image(1, 4, 5, 5))
    names = [name for name in graph.nodes if not graph.is_constant(name)]
    assert names == [
        "input",
        *("layer1.0.conv1", "layer1.0.bn1", "layer1.0.add", "layer1.0.relu"),
        *("layer1.1.conv1", "layer1.1.bn1", "layer1.1.add_1", "layer1.1.relu"),
    ]
    assert graph.nodes["layer1.0.conv1"].inputs[1] == "layer1.0.conv1.weight"
    assert graph.nodes["layer1.0.conv1"].source == "layer1.0.conv1"
    assert graph.nodes["layer1.1.add_1"].source == "layer1.1"


def test_module_is_left_as_it_was() -> None:
    first = Block()
    module = nn.Sequential(first, nn.Dropout(), Block())
    module.train()
    first.bn1.eval()
    before = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    from_torch(module, (image(2, 4, 5, 5),))
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


class Strange(nn.Module):
    """Operators that the IR has not, in two places, and one whose shape does not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Function(lambda x: torch.cumsum(x, 1))
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 4, 6, 6] to something."""
        y: Tensor = self.up(self.pool(self.block(x).relu())) + x.relu().cumsum(2).mean()
        return y


def test_all_unsupported_operators_are_listed_at_once() -> None:
    with pytest.raises(UnsupportedError) as caught:
        from_torch(Strange(), (image(1, 4, 6, 6),), "strange")
    assert str(caught.value) == (
        "network 'strange': 3 operators are not supported:\n"
        "  aten.cumsum.default at 'block': the IR has no such operator; rewrite it with others\n"
        "  aten.conv_transpose2d.input at 'up': the IR has no transposed convolution; use nearest "
        "or bilinear resize and a convolution\n"
        "  aten.cumsum.default at 'cumsum_1': the IR has no such operator; rewrite it with others"
    )
    with pytest.raises(
        UnsupportedError,
        match=re.escape(
            "network 'pool': 1 operator is not supported:\n"
            "  aten.adaptive_avg_pool2d.default at '0': adaptive pooling from 6x6 to 4x4; the "
            "result must divide the image, or use a pooling with a fixed window"
        ),
    ):
        from_torch(nn.Sequential(nn.AdaptiveAvgPool2d(4)), (image(1, 4, 6, 6),), "pool")


def test_nan_weights() -> None:
    module = Block()
    with torch.no_grad():
        module.conv1.weight[0, 1, 2, 2] = torch.nan
        module.conv1.weight[1, 1, 2, 2] = torch.inf
    with pytest.raises(InputError) as caught:
        from_torch(module, (image(1, 4, 5, 5),), "broken")
    assert str(caught.value) == (
        "network 'broken': tensor 'conv1.weight' of layer 'conv1' holds NaN or infinite values "
        "(2 of 144); retrain or repair the weights"
    )


def test_unfit_inputs() -> None:
    with pytest.raises(InputError) as caught:
        from_torch(nn.ReLU(), (torch.zeros(1, 0, 4, 4),), "empty")
    assert str(caught.value) == (
        "network 'empty': input 'input' has an empty dimension: [1, 0, 4, 4]"
    )
    with pytest.raises(InputError) as caught:
        from_torch(nn.ReLU(), (torch.zeros(1, 4, dtype=torch.float64),), "double")
    assert str(caught.value) == (
        "network 'double': input 'input' is torch.float64, expected torch.float32"
    )


def test_module_that_cannot_be_exported() -> None:
    def branches(x: Tensor) -> Tensor:
        raise ValueError("no such mode")

    with pytest.raises(InputError) as caught:
        from_torch(Function(branches), (image(1, 4),), "net")
    assert str(caught.value) == ("network 'net' cannot be exported by torch.export: no such mode")


def _save(path: Path, module: nn.Module, x: Tensor, dynamic: dict[int, object] | None) -> None:
    shapes = None if dynamic is None else (dynamic,)
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=shapes), path)


def test_pt2_with_dynamic_batch(tmp_path: Path) -> None:
    module = nn.Sequential(Block(), nn.Flatten(), nn.Linear(100, 3)).eval()
    _save(tmp_path / "net.pt2", module, image(2, 4, 5, 5), {0: torch.export.Dim("batch")})
    for batch in (1, 3):
        network = load_network(str(tmp_path / "net.pt2"), batch=batch)
        x = image(batch, 4, 5, 5)
        check(network.graph, [x.numpy()], outputs(module, (x,)))
    assert network.name == "net"


def test_pt2_with_dynamic_image(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    _save(path, nn.ReLU(), image(2, 4, 5, 5), {2: torch.export.Dim("height")})
    with pytest.raises(InputError) as caught:
        load_network(str(path))
    assert str(caught.value) == (
        "network 'net': dimension 2 of input 'input' is dynamic; only the batch (dimension 0) "
        "may be; export with fixed sizes"
    )


def test_pt2_exported_in_training_mode(tmp_path: Path) -> None:
    _save(tmp_path / "net.pt2", Block().train(), image(2, 4, 5, 5), None)
    with pytest.raises(UnsupportedError) as caught:
        load_network(str(tmp_path / "net.pt2"))
    assert "batch norm in training mode; call eval() before the export" in str(caught.value)
