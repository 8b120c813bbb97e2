# SPDX-License-Identifier: Apache-2.0
"""Sensitivity: Hutchinson against exact traces, additive parts, the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.errors import InputError
from codesign.ir.graph import Array, Graph, GraphBuilder
from codesign.ir.ops import Conv2d, Linear, Reshape
from codesign.ir.types import TensorType
from codesign.quant import calibrate, parse_formats
from codesign.quant.options import QuantOptions
from codesign.quant.sensitivity import SensitivityMethod, sensitivity
from codesign.quant.sensitivity.hessian import mean_curvatures, traces
from codesign.quant.sensitivity.probe import Probe
from codesign.quant.sensitivity.weight_error import weight_error

FORMATS = parse_formats("float,w8a8,w4a8,w8a4,w2a2")
METHODS: tuple[SensitivityMethod, ...] = ("hessian", "measured", "noise", "weight-only")


def network() -> tuple[Graph, Array]:
    """Convolution, relu, two linear layers; 12 samples."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("small")
    x = b.input("x", TensorType((1, 2, 3, 3)))

    def value(name: str, *shape: int) -> str:
        return b.constant(rng.normal(size=shape).astype(np.float32), name)

    y = b.add(Conv2d(activation="relu"), [x, value("w1", 3, 2, 2, 2), value("b1", 3)], "conv")
    y = b.add(Reshape((1, 12)), [y], "flat")
    left = b.add(Linear(bias=False, activation="relu"), [y, value("w2", 4, 12)], "left")
    right = b.add(Linear(residual=True), [y, value("w3", 4, 12), value("b3", 4), left], "right")
    graph = b.finish([right])
    return graph, rng.normal(size=(12, 2, 3, 3)).astype(np.float32)


def test_trace_of_two_classes_is_exact() -> None:
    """Two classes at ½: a draw gives ‖x‖², twice the trace, or nothing."""
    x = torch.tensor([[3.0, 4.0]])
    weight = torch.zeros(2, 2, requires_grad=True)
    found = [
        traces(x @ weight.T, [weight], 1, torch.Generator().manual_seed(seed)) for seed in range(8)
    ]
    # S = ¼ [[1, −1], [−1, 1]]: signs that agree are in its null space
    assert {round(value, 4) for (value,) in found} == {0.0, 25.0}  # √½ is not exact


def test_a_small_trace_beside_a_great_one() -> None:
    """The bias of a layer whose weights have 10⁸ times its trace."""
    generator = torch.Generator().manual_seed(0)
    x = 1e4 * torch.sign(torch.randn(20, 1, generator=generator))
    weight = (1e-4 * torch.randn(5, 1, generator=generator)).requires_grad_()
    bias = torch.randn(5, generator=generator).requires_grad_()
    outputs = x @ weight.T + bias
    great, small = traces(outputs, [weight, bias], 400, generator, 0.0)
    answers = outputs.detach().softmax(1)
    want = float((answers * (1 - answers)).sum(1).mean())
    assert small == pytest.approx(want, rel=0.1)
    assert great == pytest.approx(1e8 * want, rel=0.1)


def test_draws_end_when_the_traces_are_known() -> None:
    """The default stops early, and within its tolerance of many draws."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(50, 6, generator=generator), torch.randn(4, 6, generator=generator)
    outputs = x @ weight.requires_grad_().T
    (many,) = traces(outputs, [weight], 1000, generator, 0.0)
    before = generator.get_state()
    (few,) = traces(outputs, [weight], 10**9, generator)
    assert few == pytest.approx(many, rel=0.15)
    assert traces(outputs, [weight], 10**9, generator.set_state(before)) == [few]


def test_trace_of_a_network() -> None:
    """Against the trace of the exact Hessian, for weights and for activations."""
    graph, images = network()
    calibration = calibrate(graph, [images])
    probe = Probe(graph, calibration, {"x": images}, None, QuantOptions())
    found = mean_curvatures(probe, ["conv", "left", "right"], ["x", "conv"], 1500, 1, None, 0.0)
    inputs = torch.from_numpy(images)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        (y,) = probe.module.run({"x": x}, known=weights)
        return F.cross_entropy(y, labels)

    labels = probe.module.run({"x": inputs})[0].softmax(1).detach()
    constants = {k: v.detach() for k, v in probe.module.weights.items()}
    for layer, name in (("conv", "w1"), ("left", "w2"), ("right", "w3")):
        weight = constants[name]

        def of_weight(w: Tensor, name: str = name) -> Tensor:
            return loss({**constants, name: w}, inputs)

        exact = torch.autograd.functional.hessian(of_weight, weight)  # type: ignore[no-untyped-call]
        want = float(exact.reshape(weight.numel(), -1).diagonal().sum()) / weight.numel()
        assert found["weights"][layer] == pytest.approx(want, rel=0.1)

    def of_input(x: Tensor) -> Tensor:
        return loss(constants, x)

    exact = torch.autograd.functional.hessian(of_input, inputs)  # type: ignore[no-untyped-call]
    want = float(exact.reshape(inputs.numel(), -1).diagonal().sum()) / inputs.numel()
    assert found["activations"]["x"] == pytest.approx(want, rel=0.1)


def test_weight_error_by_hand() -> None:
    """0.5 with steps of 1 rounds up to 1; 0.25 rounds to 0."""
    weight = np.array([[1.0, 0.5, 0.25]], np.float32)
    assert weight_error(weight, 2) <= 0.25 + 0.0625
    assert weight_error(np.array([[7.0, 3.0, -2.0]], np.float32), 4) < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_tables(method: SensitivityMethod) -> None:
    graph, images = network()
    table = sensitivity(graph, images, FORMATS, method)
    assert list(table) == ["conv", "left", "right"]
    flt, w8a8, w4a8, w8a4, w2a2 = FORMATS
    for losses in table.values():
        assert list(losses) == list(FORMATS)
        assert losses[flt] == 0
        assert 0 <= losses[w8a8] < losses[w2a2]
        assert losses[w8a8] <= losses[w4a8] + 1e-4
        assert losses[w8a8] <= losses[w8a4] + 1e-4


def test_layers_that_share_a_tensor_share_its_harm() -> None:
    graph, images = network()
    a8, a4 = parse_formats("w8a8,w8a4")
    table = sensitivity(graph, images, (a8, a4), "noise")
    harm = {layer: losses[a4] - losses[a8] for layer, losses in table.items()}
    assert harm["left"] == pytest.approx(harm["right"], rel=1e-6)


def test_labels_count() -> None:
    graph, images = network()
    own = sensitivity(graph, images, FORMATS, "measured")
    labelled = sensitivity(graph, images, FORMATS, "measured", labels=np.zeros(12, np.int64))
    assert own != labelled


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, images = network()
    calls = 0
    real = Probe._harm

    def counted(self: Probe, *args: object) -> float:
        nonlocal calls
        calls += 1
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Probe, "_harm", counted)
    seen: list[tuple[int, int]] = []
    first = sensitivity(
        graph, images, FORMATS, cache_dir=tmp_path, progress=lambda *step: seen.append(step)
    )
    total = 3 * 3 + 2 * 3  # three layers and two tensors in 2, 4 and 8 bits
    assert calls == total
    assert seen == [(i + 1, total) for i in range(total)]
    assert sensitivity(graph, images, FORMATS, cache_dir=tmp_path) == first
    assert calls == total
    entries = sorted(tmp_path.iterdir())
    assert len(entries) == total
    entries[0].write_text('{"key": "cut')  # torn, as after a crash of the machine
    entries[1].unlink()
    assert sensitivity(graph, images, FORMATS, cache_dir=tmp_path) == first
    assert calls == total + 2
    sensitivity(graph, images[:6], FORMATS, cache_dir=tmp_path)
    assert calls == 2 * total + 2


def test_hessian_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, images = network()
    first = sensitivity(graph, images, FORMATS, "hessian", cache_dir=tmp_path)

    def never(*args: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("codesign.quant.sensitivity.hessian.mean_curvatures", never)
    assert sensitivity(graph, images, FORMATS, "hessian", cache_dir=tmp_path) == first
    with pytest.raises(AssertionError, match="computed again"):
        sensitivity(graph, images, FORMATS, "hessian", cache_dir=tmp_path, seed=1)


def test_messages(tmp_path: Path) -> None:
    graph, images = network()
    with pytest.raises(InputError) as caught:
        sensitivity(graph, None, FORMATS, "noise")
    assert str(caught.value) == (
        "sensitivity method 'noise' needs calibration data; without any use 'weight-only'"
    )
    with pytest.raises(InputError) as caught:
        sensitivity(graph, images, FORMATS, "magic")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "unknown sensitivity method 'magic' (known: hessian, measured, noise, weight-only)"
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        sensitivity(graph, images, FORMATS, cache_dir=tmp_path / "file" / "cache")
    assert str(caught.value) == (
        f"cannot write the sensitivity cache {tmp_path / 'file' / 'cache'}: Not a directory; "
        "give another folder"
    )
