# SPDX-License-Identifier: Apache-2.0
"""The frontends' entry points; torch and onnx are imported only where they are needed."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codesign.errors import InputError, VerifyError
from codesign.frontend.network import Network
from codesign.ir.graph import Graph

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

_SUFFIXES = (".onnx", ".pt2", ".ir", ".tflite")
_EXPECTED = "FILE.onnx, FILE.pt2, FILE.tflite, FILE.ir, zoo:NAME or package.module:factory"


def load_network(
    spec: str, *, batch: int = 1, weights: Path | None = None, seed: int = 0
) -> Network:
    """Read the network that ``spec`` names.

    ``spec``: ``file.onnx``, ``file.pt2``, ``file.tflite``, ``file.ir`` (text IR), ``zoo:NAME``,
    or ``package.module:factory``, a function without arguments that returns a module and a tuple of
    example inputs. ``batch`` is what a dynamic first dimension becomes, and the first dimension
    of a module's example inputs where it is not 1. ``weights`` (zoo only) is a weight file,
    ``seed`` gives a zoo network its random weights without one.

    Raises InputError (UnsupportedError if operators cannot be taken) with one clear message.
    """
    if batch < 1:
        raise InputError(f"batch must be 1 or more, got {batch}")
    if weights is not None and not spec.startswith("zoo:"):
        raise InputError(f"weights are for zoo:NAME networks only, not for {spec!r}")
    if spec.startswith("zoo:"):
        return _from_zoo(spec, batch, weights, seed)
    path = Path(spec)
    if path.suffix.lower() in _SUFFIXES:
        graph = _from_file(path, batch)
        _check_batch(graph, path, batch)
        return Network(graph, _short(path.stem), spec)
    if re.fullmatch(r"[\w.]+:[\w.]+", spec):
        return _from_factory(spec, batch)
    raise InputError(f"network {spec!r} is not of a known kind; expected {_EXPECTED}")


def from_torch(module: nn.Module, example_inputs: Sequence[Tensor], name: str = "network") -> Graph:
    """The graph of a torch module for inputs shaped like ``example_inputs`` (float32).

    The module is exported in eval mode and left as it was. Raises InputError,
    UnsupportedError.
    """
    from codesign.frontend.torch_export import export_module, from_program

    return from_program(export_module(module, example_inputs, name), name)


def from_onnx(
    model: str | Path | onnx.ModelProto, batch: int = 1, name: str | None = None
) -> Graph:
    """The graph of an ONNX file or model; a dynamic batch becomes ``batch``.

    Raises InputError, UnsupportedError.
    """
    from codesign.frontend.onnx_import import import_model

    return import_model(model, batch, name)


def _from_zoo(spec: str, batch: int, weights: Path | None, seed: int) -> Network:
    from codesign import zoo

    model = zoo.load(spec.removeprefix("zoo:"), weights, seed)
    inputs = _batched(model.example_inputs, batch)
    return Network(from_torch(model.module, inputs, model.name), model.name, spec)


def _from_file(path: Path, batch: int) -> Graph:
    if not path.is_file():
        kind = "is no file" if path.exists() else "not found"
        raise InputError(f"network file {str(path)!r} {kind}")
    name, suffix = _short(path.stem), path.suffix.lower()
    if suffix == ".onnx":
        return from_onnx(path, batch, name)
    if suffix == ".pt2":
        from codesign.frontend.torch_export import from_program, load_pt2

        return from_program(load_pt2(path), name, batch)
    if suffix == ".ir":
        return _from_text(path)
    from codesign.frontend.tflite_import import import_tflite

    return import_tflite(path, batch, name)


def _check_batch(graph: Graph, path: Path, batch: int) -> None:
    """A batch other than 1 that the file does not allow is an error, not ignored."""
    for name in graph.inputs:
        shape = graph.type(name).shape
        if batch != 1 and shape[:1] != (batch,):
            raise InputError(
                f"network file {str(path)!r}: input {name!r} has the fixed shape {list(shape)}, "
                f"batch {batch} cannot be had; export with a dynamic batch"
            )


def _from_text(path: Path) -> Graph:
    from codesign.ir.parse import parse_file

    try:
        return parse_file(path)
    except VerifyError as error:
        raise InputError(f"network file {str(path)!r}: {error}") from error


def _from_factory(spec: str, batch: int) -> Network:
    module_name, _, attribute = spec.partition(":")
    wanted = f"network {spec!r}"
    factory: Any = _imported(module_name, wanted)
    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise InputError(f"{wanted}: module {module_name!r} has no {attribute!r}")
        factory = getattr(factory, part)
    if not callable(factory):
        raise InputError(
            f"{wanted}: {attribute!r} is {type(factory).__name__}, not a function that returns "
            "(module, example inputs)"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # ours is for results
            made = factory()
    except (Exception, SystemExit) as error:  # the user's code
        raise InputError(f"{wanted}: {attribute}() raised {_said(error)}") from error
    from torch import Tensor, nn

    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise InputError(
            f"{wanted}: {attribute}() must return (torch.nn.Module, example inputs), "
            f"got {_kind(made)}"
        )
    module, inputs = made
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if not inputs or not all(isinstance(value, Tensor) for value in inputs):
        raise InputError(
            f"{wanted}: {attribute}() must return example inputs that are tensors, "
            f"got {_kind(inputs)}"
        )
    name = _short(attribute)
    return Network(from_torch(module, _batched(inputs, batch), name), name, spec)


def _imported(name: str, wanted: str) -> Any:
    """Import a user's module, also from the working directory."""
    sys.path.insert(0, "")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"{wanted}: module {name!r} not found; run in its folder or set PYTHONPATH"
            ) from None
        raise InputError(f"{wanted}: importing {name!r} raised {_said(error)}") from error
    except (Exception, SystemExit) as error:  # the user's code
        raise InputError(f"{wanted}: importing {name!r} raised {_said(error)}") from error
    finally:
        sys.path.remove("")


def _batched(inputs: Sequence[Tensor], batch: int) -> tuple[Tensor, ...]:
    """Example inputs with first dimension ``batch``; 1 keeps what they have."""
    if batch == 1:
        return tuple(inputs)
    return tuple(
        x if x.ndim < 2 else x[:1].expand(batch, *x.shape[1:]).contiguous() for x in inputs
    )


def _said(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(type(part).__name__ for part in value)})"
    return type(value).__name__


def _short(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text).strip("._") or "network"
