# SPDX-License-Identifier: Apache-2.0
"""Networks by name: every kind, and every way to get it wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from codesign.errors import InputError
from codesign.frontend import content_hash, from_onnx, load_network
from codesign.ir.text import print_graph
from tests.frontend.test_onnx import IMAGE, model, node, weights

FACTORIES = """
import torch
from torch import nn

def good():
    return nn.Linear(3, 2), (torch.zeros(1, 3),)

def one_tensor():
    return nn.Linear(3, 2), torch.zeros(4, 3)

def module_only():
    return nn.Linear(3, 2)

def no_tensors():
    return nn.Linear(3, 2), ("x",)

def fails():
    raise RuntimeError("no weights here")

number = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the working directory."""
    name = f"user_networks_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return name


def message(spec: str, **options: int) -> str:
    """What loading ``spec`` complains about."""
    with pytest.raises(InputError) as caught:
        load_network(spec, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_factory(factories: str) -> None:
    network = load_network(f"{factories}:good")
    assert (network.name, network.source) == ("good", f"{factories}:good")
    assert network.graph.type(network.graph.outputs[0]).shape == (1, 2)
    many = load_network(f"{factories}:one_tensor")
    assert many.graph.type(many.graph.outputs[0]).shape == (4, 2)
    batched = load_network(f"{factories}:good", batch=5)
    assert batched.graph.type(batched.graph.outputs[0]).shape == (5, 2)


def test_wrong_factories(factories: str) -> None:
    start = f"network '{factories}"
    assert message(f"{factories}:none") == f"{start}:none': module '{factories}' has no 'none'"
    assert message(f"{factories}:number") == (
        f"{start}:number': 'number' is int, not a function that returns (module, example inputs)"
    )
    assert message(f"{factories}:module_only") == (
        f"{start}:module_only': module_only() must return (torch.nn.Module, example inputs), "
        "got Linear"
    )
    assert message(f"{factories}:no_tensors") == (
        f"{start}:no_tensors': no_tensors() must return example inputs that are tensors, got (str)"
    )
    assert message(f"{factories}:fails") == (
        f"{start}:fails': fails() raised RuntimeError: no weights here"
    )
    assert message("no_such_package.nets:f") == (
        "network 'no_such_package.nets:f': module 'no_such_package.nets' not found; run in its "
        "folder or set PYTHONPATH"
    )


def test_wrong_names(tmp_path: Path) -> None:
    expected = (
        "expected FILE.onnx, FILE.pt2, FILE.tflite, FILE.ir, zoo:NAME or package.module:factory"
    )
    assert message("net.h5") == f"network 'net.h5' is not of a known kind; {expected}"
    assert message("net") == f"network 'net' is not of a known kind; {expected}"
    assert message("gone.onnx") == "network file 'gone.onnx' not found"
    (tmp_path / "folder.onnx").mkdir()
    path = str(tmp_path / "folder.onnx")
    assert message(path) == f"network file {path!r} is no file"
    assert message("zoo:resnet81").startswith(
        "unknown network 'resnet81'; did you mean 'resnet8'? (known: deit_tiny, "
    )
    assert message("zoo:digits", batch=0) == "batch must be 1 or more, got 0"
    with pytest.raises(InputError) as caught:
        load_network("net.onnx", weights=Path("w.pt"))
    assert str(caught.value) == "weights are for zoo:NAME networks only, not for 'net.onnx'"


def test_zoo_seeds_and_hashes() -> None:
    first, again, other = (load_network("zoo:digits", seed=s) for s in (0, 0, 1))
    assert first.content_hash == again.content_hash == content_hash(first.graph)
    assert first.content_hash != other.content_hash
    assert load_network("zoo:digits", batch=2).content_hash != first.content_hash


def test_text_file(tmp_path: Path) -> None:
    network = load_network("zoo:digits")
    (tmp_path / "digits.ir").write_text(print_graph(network.graph))
    again = load_network(str(tmp_path / "digits.ir"))
    assert again.content_hash == network.content_hash


def test_fixed_batch(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(model([node("Relu", "x")], (2, 3)).SerializeToString())
    assert load_network(str(path)).graph.type("x").shape == (2, 3)
    assert load_network(str(path), batch=2).graph.type("x").shape == (2, 3)
    assert message(str(path), batch=4) == (
        f"network file {str(path)!r}: input 'x' has the fixed shape [2, 3], batch 4 cannot be "
        "had; export with a dynamic batch"
    )


def test_damaged_files(tmp_path: Path) -> None:
    whole = model([node("Conv", "x w")], IMAGE, w=weights(6, 4, 3, 3)).SerializeToString()
    path = tmp_path / "net.onnx"
    for content in (whole[: len(whole) // 2], whole[:-1], b"no network at all"):
        path.write_bytes(content)
        assert message(str(path)) == (
            f"network file {str(path)!r} is damaged or no ONNX file: it cannot be parsed; copy or "
            "export it again"
        )
    path.write_bytes(b"")
    assert message(str(path)) == f"network file {str(path)!r} holds no graph; export it again"
    program = tmp_path / "net.pt2"
    program.write_bytes(b"no zip")
    said = message(str(program))
    assert said.startswith(f"network file {str(program)!r} is damaged or no .pt2 file of this ")
    assert said.endswith("); write it again with torch.export.save")


def external(location: str, **more: str) -> onnx.ModelProto:
    """A convolution whose weight is in another file."""
    made = model([node("Conv", "x w")], IMAGE)
    tensor = made.graph.initializer.add()
    tensor.name, tensor.data_type = "w", TensorProto.FLOAT
    tensor.dims.extend((6, 4, 3, 3))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return made


def test_external_data(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    path = folder / "net.onnx"
    data = weights(6, 4, 3, 3)
    (folder / "data.bin").write_bytes(b"1234" + data.tobytes())
    (tmp_path / "secret.bin").write_bytes(data.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    label = f"network file {str(path)!r}: data of tensor 'w'"

    path.write_bytes(external("data.bin", offset="4", length="864").SerializeToString())
    network = load_network(str(path))
    assert np.array_equal(network.graph.constants["w"], data)
    for location in (str(tmp_path / "secret.bin"), "../secret.bin", "link.bin", ""):
        path.write_bytes(external(location).SerializeToString())
        assert message(str(path)) == (
            f"{label} is said to be in {location!r}, outside the model's folder; it is not read: "
            "save the model with its data beside it"
        )
    path.write_bytes(external("gone.bin").SerializeToString())
    assert message(str(path)) == (
        f"{label} is missing: file 'gone.bin' is not in the model's folder"
    )
    path.write_bytes(external("data.bin", offset="8", length="864").SerializeToString())
    assert message(str(path)) == (
        f"{label} needs bytes 8 to 872 of 'data.bin', which has 868; the file is truncated"
    )
    with pytest.raises(InputError) as caught:
        from_onnx(external("data.bin"), name="net")
    assert str(caught.value) == (
        "network 'net': data of tensor 'w' is in another file; give the model's path instead of "
        "the model"
    )


def test_external_data_in_a_node(tmp_path: Path) -> None:
    """Constants inside nodes must not reach out of the folder either."""
    tensor = external("../secret.bin").graph.initializer[0]
    made = model(
        [helper.make_node("Constant", [], ["w"], value=tensor), node("Conv", "x w")], IMAGE
    )
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    assert "outside the model's folder; it is not read" in message(str(tmp_path / "net.onnx"))
