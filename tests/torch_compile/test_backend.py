# SPDX-License-Identifier: Apache-2.0
"""``torch.compile(model, backend="codesign")`` on real networks, and what it refuses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codesign import zoo
from codesign.errors import InputError
from codesign.frontend import from_torch
from codesign.ir.graph import Graph
from codesign.ir.interpret import run
from codesign.passes import prepare
from codesign.quant import calibrate, load_format, quantize_graph
from codesign.torch_compile import FallbackWarning


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Nothing of another test's compiled code; a fallback is an error unless it is expected."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield
    torch._dynamo.reset()


def compiled(model: nn.Module, **options: Any) -> tuple[Any, list[Graph]]:
    """The compiled model, and the graphs it was compiled to."""
    graphs: list[Graph] = []
    made = torch.compile(
        model, backend="codesign", options={**options, "listen": graphs.append}
    )
    return made, graphs


def network(name: str) -> tuple[nn.Module, Tensor]:
    loaded = zoo.load(name, None, 0)
    return loaded.module.eval(), loaded.example_inputs[0]


def images(x: Tensor, count: int) -> Tensor:
    """Scaled copies of an input, as a batch."""
    return torch.cat([x * (0.5 + 0.25 * i) for i in range(count)])


def reference(model: nn.Module, x: Tensor, calib: Sequence[Tensor], format: str) -> Graph:
    """The integer network by the frontend and the passes alone."""
    graph = prepare().run(from_torch(model, (x,))).graph
    ranges = calibrate(graph, [batch.numpy() for batch in calib])
    formats = {node.name: load_format(format) for node in graph.layers()}
    return quantize_graph(graph, ranges, formats).graph


def test_torch_knows_the_backend() -> None:
    assert "codesign" in torch._dynamo.list_backends()


def test_float_network_equals_eager() -> None:
    model, x = network("resnet8")
    made, graphs = compiled(model)
    with torch.inference_mode():
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-4)
    assert len(graphs) == 1
    assert [node.op.name for node in graphs[0].layers()].count("conv2d") == 9
    assert "block1.conv1.conv" in graphs[0].nodes  # layers keep the names of the model


@pytest.mark.parametrize("format", ["w8a8", pytest.param("w4a8", marks=pytest.mark.soak)])
def test_quantized_network_equals_the_integer_reference_bit_for_bit(format: str) -> None:
    model, x = network("resnet8")
    calib = images(x, 4)
    made, _ = compiled(model, formats=format, calib=calib)
    expected = reference(model, x, [calib], format)
    with torch.no_grad():
        for value in (x, 0.7 * x, 5 * x):
            (wanted,) = run(expected, value.numpy())
            assert np.array_equal(made(value).numpy(), wanted)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "repvgg_a0", "ghostnet"])
def test_larger_networks(name: str) -> None:
    model, x = network(name)
    made, _ = compiled(model)
    quantized, graphs = compiled(model, formats="w8a8")
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=1e-3, atol=1e-3)
        result = quantized(x)
    assert np.array_equal(result.numpy(), run(graphs[0], x.numpy())[0])


def test_another_shape_is_compiled_anew() -> None:
    model, x = network("digits")
    made, graphs = compiled(model)
    with torch.no_grad():
        for count in (1, 3, 2, 3):
            batch = images(x, count)
            torch.testing.assert_close(made(batch), model(batch), rtol=1e-4, atol=1e-4)
    sizes = [graph.type(graph.inputs[0]).shape[0] for graph in graphs]
    assert sizes == [1, 3, 2]  # the second call with three images is not compiled again


def test_weights_changed_in_place_count() -> None:
    """Torch does not guard on them: constants would go stale."""
    model, x = network("digits")
    made, graphs = compiled(model)
    with torch.no_grad():
        before = made(x)
        for parameter in model.parameters():
            parameter.mul_(0.5)
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(made(x), before)
    assert len(graphs) == 2


class Broken(nn.Module):
    """Two graphs: Python looks at a value between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        torch._dynamo.graph_break()
        return torch.relu(self.second(x)).mean((2, 3))


def test_graph_breaks() -> None:
    torch.manual_seed(0)
    model = Broken().eval()
    x = torch.randn(1, 3, 8, 8)
    made, graphs = compiled(model)
    quantized, integers = compiled(model, formats={"first": "w8a8", "*": "w4a8"})
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-4)
        between = run(graphs[0], x.numpy())[0]
        result = quantized(x)
        (middle,) = run(integers[0], x.numpy())
        (wanted,) = run(integers[1], middle)
    assert len(graphs) == len(integers) == 2
    assert between.shape == (1, 8, 8, 8)
    assert np.array_equal(result.numpy(), wanted)


def test_calibration_for_one_input_does_not_fit_a_later_graph() -> None:
    model = Broken().eval()
    made, _ = compiled(model, formats="w8a8", calib=torch.randn(2, 3, 8, 8))
    with torch.no_grad(), pytest.raises(Exception, match=r"takes \[N, 8, 8, 8\]"):
        made(torch.randn(1, 3, 8, 8))


def test_observed_calls_give_the_ranges() -> None:
    model, x = network("digits")
    made, graphs = compiled(model, formats="w8a8", observe=3)
    calls = [x, 3 * x, 2 * x]
    with torch.no_grad():
        results = [made(value) for value in calls]
        assert torch.equal(results[0], model(calls[0]))  # still observing: eager
        assert torch.equal(results[1], model(calls[1]))
    assert len(graphs) == 1
    expected = reference(model, x, calls, "w8a8")
    assert np.array_equal(results[2].numpy(), run(expected, calls[2].numpy())[0])


def test_design_folder_runs_as_it_was_designed(tmp_path: Path) -> None:
    import codesign
    from codesign.flow.building import load_integer

    model, x = network("digits")
    calib = tmp_path / "calib.npz"
    np.savez(calib, x=images(x, 8).numpy())
    chosen = codesign.design("zoo:digits", tmp_path / "out", calib=calib, max_size_kb=15)
    assert len(set(chosen.choices.values())) > 1
    made, graphs = compiled(model, design=tmp_path / "out")
    with torch.no_grad():
        (wanted,) = run(load_integer(tmp_path / "out"), x.numpy())
        assert np.array_equal(made(x).numpy(), wanted)
        batch = images(x, 2)
        (wanted,) = run(graphs_for(made, graphs, batch), batch.numpy())
        assert np.array_equal(made(batch).numpy(), wanted)
    by_object, _ = compiled(model, design=chosen)
    with torch.no_grad():
        (wanted,) = run(load_integer(tmp_path / "out"), x.numpy())
        assert np.array_equal(by_object(x).numpy(), wanted)


def graphs_for(made: Any, graphs: list[Graph], batch: Tensor) -> Graph:
    """The graph that a batch is compiled to."""
    made(batch)
    return graphs[-1]


def test_gradients_fall_back_with_a_reason() -> None:
    model, x = network("digits")
    model.requires_grad_(True)
    made, graphs = compiled(model)
    with pytest.warns(FallbackWarning, match="gradients are asked for"):
        result = made(x)
    result.sum().backward()
    assert next(model.parameters()).grad is not None
    assert graphs == []
    with torch.no_grad():  # torch compiles again for another gradient mode
        made(x)
    assert len(graphs) == 1


def test_training_falls_back_with_a_reason() -> None:
    model, x = network("digits")
    model.train()
    made, _ = compiled(model)
    batch = images(x, 4)
    with torch.no_grad(), pytest.warns(FallbackWarning, match=r"batch_norm at '.*' is in training"):
        made(batch)
    dropout, _ = compiled(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)))
    with torch.no_grad(), pytest.warns(FallbackWarning, match="dropout at '1' is in training mode"):
        dropout(torch.randn(2, 4))


class Sorted(nn.Module):
    """An operator that has no form in the IR."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), Sorts())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


class Sorts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1)


def test_unsupported_operator_is_named_with_its_place() -> None:
    model = Sorted().eval()
    x = torch.randn(2, 4)
    made, _ = compiled(model)
    with torch.no_grad():
        with pytest.warns(FallbackWarning, match=r"eager torch: aten.cumsum.default at 'inner.1'"):
            result = made(x)
        assert torch.equal(result, model(x))
    strict, _ = compiled(model, strict=True)
    with torch.no_grad(), pytest.raises(Exception, match=r"aten.cumsum.default at 'inner.1'"):
        strict(x)


class Counts(nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * 2.0


def test_state_changed_in_place_falls_back() -> None:
    model = Counts()
    made, _ = compiled(model)
    with torch.no_grad(), pytest.warns(FallbackWarning, match="in place at .*calls"):
        made(torch.ones(3))
    assert model.calls.item() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "w8a8"}, "has no option 'format'; did you mean 'formats'"),
        ({"formats": "w9a8"}, "bits"),
        ({"formats": "w8a8", "design": "x"}, "not both"),
        ({"formats": 8}, "expected a format such as 'w8a8'"),
        ({"observe": 0}, "at least 1"),
        ({"threads": -1}, "expected 0"),
        ({"target": "nowhere"}, "unknown target 'nowhere'"),
        ({"formats": {"conv": "w8a8"}}, "no format for layers"),
        ({"tune": "soon"}, r"a tuning budget is trials \(200\) or time"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    model, x = network("digits")
    made = torch.compile(model, backend="codesign", options=options)
    with torch.no_grad(), pytest.raises(Exception, match=message) as caught:
        made(x)
    assert "codesign" in str(caught.value) or isinstance(caught.value, InputError)


def test_a_budget_is_spent_before_a_graph_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from codesign.targets.host import HostTarget
    from codesign.targets.tuning.tune import Budget

    spent: list[tuple[int, Budget]] = []
    monkeypatch.setattr(
        HostTarget, "tune", lambda self, graph, budget: spent.append((len(graph.layers()), budget))
    )
    model, x = network("digits")
    made, graphs = compiled(model, tune="60s")
    with torch.inference_mode():
        made(x)
        made(x)
    assert spent == [(len(graphs[0].layers()), Budget(seconds=60.0))]
