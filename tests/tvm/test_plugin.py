# SPDX-License-Identifier: Apache-2.0
"""Our passes in a user's own TVM pipeline."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import tvm
import tvm_ffi
from torch import nn
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx
from tvm.relax.frontend.torch import from_exported_program

import codesign.tvm
from codesign import zoo
from codesign.errors import InputError, UnsupportedError
from codesign.ir.graph import Array
from codesign.ir.interpret import run
from codesign.targets.tvm_lower.compile import tvm_target
from codesign.targets.tvm_lower.machine import host_machine
from codesign.targets.tvm_lower.tiles import DirectTile


def imported(name: str, kind: str = "torch") -> tuple[Any, Array, nn.Module]:
    """A zoo network through TVM's own frontend, an input, and the module."""
    loaded = zoo.load(name, None, 0)
    model, x = loaded.module.eval(), loaded.example_inputs[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "torch":
            program = torch.export.export(model, (x,))
            return from_exported_program(program, keep_params_as_input=False), x.numpy(), model
        buffer = io.BytesIO()
        torch.onnx.export(model, (x,), buffer, dynamo=False)  # type: ignore[arg-type]
        return from_onnx(onnx.load_from_string(buffer.getvalue())), x.numpy(), model


def execute(module: Any, x: Array) -> Array:
    """Run a module through TVM's default pipeline."""
    built = tvm.compile(module, tvm_target(host_machine()))
    result = relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.tensor(x))
    found: Array = (result if hasattr(result, "numpy") else result[0]).numpy()
    return found


def lowered(*passes: Any) -> Any:
    return tvm.transform.Sequential([*passes, codesign.tvm.lower_int8()])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("digits", "torch"),
        ("digits", "onnx"),
        pytest.param("resnet8", "torch", marks=pytest.mark.soak),
        pytest.param("mobilenetv2", "torch", marks=pytest.mark.soak),
        pytest.param("mobilenetv2", "onnx", marks=pytest.mark.soak),
        pytest.param("resnet18", "torch", marks=pytest.mark.soak),
    ],
)
def test_pipeline_equals_the_reference_bit_for_bit(name: str, kind: str) -> None:
    module, x, model = imported(name, kind)
    module = codesign.tvm.quantize(formats="w8a8", calib=x)(module)
    (wanted,) = run(codesign.tvm.integer_graph(module), x)
    floats = model(torch.from_numpy(x)).detach().numpy()
    assert np.abs(wanted - floats).max() < 0.1 * np.abs(floats).max()
    result = lowered()(module)
    assert np.array_equal(execute(result, x), wanted)
    kernels = [v.name_hint for v in result.get_global_vars() if "_k_" in v.name_hint]
    assert kernels
    assert "codesign.operator" not in result.script(show_meta=False)


def test_tuned_tiles_are_taken() -> None:
    module, x, _ = imported("digits")
    module = codesign.tvm.quantize(formats="w8a8", calib=x)(module)
    asked: list[str] = []

    def tiles(key: str) -> DirectTile:
        asked.append(key)
        return DirectTile(1, 1)

    plain = lowered()(module)
    tuned = codesign.tvm.lower_int8(tiles=tiles)(module)
    assert asked
    assert tuned.script(show_meta=False) != plain.script(show_meta=False)
    assert np.array_equal(execute(tuned, x), execute(plain, x))


def test_a_module_runs_before_it_is_lowered() -> None:
    module, x, _ = imported("digits")
    module = codesign.tvm.quantize(formats="w4a8", calib=x)(module)
    assert "requantize" in module.script(show_meta=False)
    (wanted,) = run(codesign.tvm.integer_graph(module), x)
    assert np.array_equal(execute(module, x), wanted)


@pytest.fixture(scope="module")
def design_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("design")
    x = zoo.load("digits", None, 0).example_inputs[0].numpy()
    np.savez(folder / "calib.npz", x=np.concatenate([x * (0.5 + i / 4) for i in range(8)]))
    codesign.design("zoo:digits", folder / "out", calib=folder / "calib.npz", max_size_kb=15)
    return folder / "out"


def test_design_folder_gives_its_integer_network(design_folder: Path) -> None:
    from codesign.flow.building import load_integer
    from codesign.ir.same import computation

    module, x, _ = imported("digits")
    made = codesign.tvm.quantize(design_folder)(module)
    found = codesign.tvm.integer_graph(made)
    assert computation(found) == computation(load_integer(design_folder))
    by_order = codesign.tvm.quantize(codesign.Design.load(design_folder))(module)
    (wanted,) = run(load_integer(design_folder), x)
    assert np.array_equal(run(codesign.tvm.integer_graph(by_order), x)[0], wanted)


def test_design_of_another_network_is_refused(design_folder: Path) -> None:
    module, _, _ = imported("resnet8")
    with pytest.raises(InputError, match="is of another network: its layer 0 is"):
        codesign.tvm.quantize(design_folder)(module)


def test_other_operators_stay_to_the_passes_that_follow() -> None:
    """A user's own function around the quantized one: both in one build."""
    module, x, _ = imported("digits")
    module = codesign.tvm.quantize(formats="w8a8", calib=x)(module)
    (logits,) = run(codesign.tvm.integer_graph(module), x)
    builder = relax.BlockBuilder(module)
    given = relax.Var("image", relax.TensorType(x.shape, "float32"))
    with builder.function("around", [given]):
        scaled = builder.emit(relax.op.multiply(given, relax.const(1.0, "float32")))
        inner = builder.emit(relax.Call(module.get_global_var("main"), [scaled]))
        values = builder.emit(relax.TupleGetItem(inner, 0))
        builder.emit_func_output(builder.emit(relax.op.argmax(values, axis=1)))
    result = lowered()(builder.finalize())
    built = tvm.compile(result, tvm_target(host_machine()))
    found = relax.VirtualMachine(built, tvm.cpu())["around"](tvm.runtime.tensor(x))
    assert int(found.numpy()[0]) == int(logits.argmax())


def test_parts_become_calls_of_an_accelerator() -> None:
    module, x, _ = imported("resnet8")
    module = codesign.tvm.quantize(formats="w8a8", calib=x)(module)
    graph = codesign.tvm.integer_graph(module)
    (wanted,) = run(graph, x)
    names = [node.name for node in graph.layers()][1:4]
    parted = codesign.tvm.partition(names, "pl")(module)
    parts = codesign.tvm.partitions(parted)
    assert sum(len(part.layers()) for part in parts.values()) == 3
    assert len(parts) < 3  # layers that only feed each other are one part
    symbols = codesign.tvm.simulate(parted)
    assert set(symbols) == set(parts)
    assert all(symbol.startswith("codesign.accelerator.pl.") for symbol in symbols)
    calls = []
    for symbol in symbols:
        inner = tvm_ffi.get_global_func(symbol)

        def counted(*tensors: Any, inner: Any = inner, symbol: str = symbol) -> None:
            calls.append(symbol)
            inner(*tensors)

        tvm_ffi.register_global_func(symbol, counted, override=True)
    result = lowered()(parted)
    assert np.array_equal(execute(result, x), wanted)
    assert set(calls) == set(symbols)


def test_partition_refuses_unknown_layers() -> None:
    module, x, _ = imported("digits")
    module = codesign.tvm.quantize(formats="w8a8", calib=x)(module)
    with pytest.raises(InputError, match=r"no layer nothing \(layers: lv"):
        codesign.tvm.partition(["nothing"], "pl")(module)
    with pytest.raises(InputError, match="run quantize first"):
        codesign.tvm.partition(["nothing"], "pl")(imported("digits")[0])


def test_operators_without_a_form_are_listed() -> None:
    class Sums(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(torch.sort(x)[0], 1)

    program = torch.export.export(Sums(), (torch.ones(1, 4),))
    module = from_exported_program(program, keep_params_as_input=False)
    said = r"3 operators .*\n  relax.argsort at 'lv': it has no form"
    with pytest.raises(UnsupportedError, match=said):
        codesign.tvm.quantize(formats="w8a8", calib=np.ones((1, 4)))(module)


def test_unbound_parameters_are_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    program = torch.export.export(model, (torch.ones(1, 3, 8, 8),))
    module = from_exported_program(program, keep_params_as_input=True)
    with pytest.raises(InputError, match="bind the parameters first"):
        codesign.tvm.quantize(formats="w8a8", calib=np.ones((1, 3, 8, 8)))(module)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either a design or formats"),
        ({"formats": "w8a8", "function": "other"}, "has no Relax function 'other'"),
        ({"formats": "w8a8"}, "give calib"),
        ({"formats": {"conv": "w8a8"}, "calib": np.ones((1, 1, 8, 8))}, "no format for layers"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], message: str) -> None:
    module, _, _ = imported("digits")
    with pytest.raises(InputError, match=message):
        codesign.tvm.quantize(**given)(module)
