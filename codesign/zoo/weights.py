# SPDX-License-Identifier: Apache-2.0
"""Weight files: ``.pt``/``.pth`` state dicts, ``.npz``, MLPerf Tiny's ``.h5`` and ``.tflite``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from codesign.errors import InputError

FORMATS = (".pt", ".pth", ".npz", ".h5", ".tflite")


def load_weights(module: nn.Module, path: Path, name: str) -> None:
    """Write the tensors of ``path`` into ``module``; all must be there, fit and be finite.

    ``.h5`` and ``.tflite`` are the published files of resnet8 only.
    """
    if not path.is_file():
        raise InputError(f"weights file {str(path)!r} not found")
    suffix = path.suffix.lower()
    if suffix in (".pt", ".pth"):
        state = _read_torch(path)
    elif suffix == ".npz":
        state = _read_npz(path)
    elif suffix in (".h5", ".tflite"):
        from codesign.zoo import resnet8_weights

        if name != "resnet8":
            raise InputError(
                f"weights file {path.name!r}: {suffix} is read for resnet8 only (got {name}); "
                "convert to a .pt state dict"
            )
        state = resnet8_weights.read(path)
    else:
        raise InputError(
            f"weights file {path.name!r}: format {suffix or 'without suffix'} is not known; "
            f"expected one of {', '.join(FORMATS)}"
        )
    _assign(module, state, path, name)


def save_npz(module: nn.Module, path: Path) -> None:
    """Write the state dict of ``module`` as ``.npz``, one array per name."""
    arrays = {key: value.cpu().numpy() for key, value in module.state_dict().items()}
    np.savez(path, **arrays)


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever it stumbles over
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights file {path.name!r} is not a state dict of plain tensors ({first}); "
            "save it with torch.save(module.state_dict(), path)"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise InputError(
            f"weights file {path.name!r}: expected a mapping of names to tensors, "
            f"got {type(content).__name__}"
        )
    return dict(content)


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: torch.from_numpy(np.array(file[key])) for key in file.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"weights file {path.name!r} is not a readable .npz: {error}") from error


def _assign(module: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> None:
    wanted = module.state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = sorted(set(wanted) - counters - set(state))
    unexpected = sorted(set(state) - set(wanted))
    problems = []
    if missing:
        problems.append(f"missing {_some(missing)}")
    if unexpected:
        problems.append(f"unexpected {_some(unexpected)}")
    for key in sorted(set(state) & set(wanted)):
        given, target = state[key], wanted[key]
        if given.shape != target.shape:
            problems.append(f"{key} has shape {tuple(given.shape)}, not {tuple(target.shape)}")
        elif target.is_floating_point() and not given.is_floating_point():
            problems.append(f"{key} is {given.dtype}, not floating point")
        elif given.is_floating_point() and not bool(torch.isfinite(given).all()):
            problems.append(f"{key} holds NaN or infinite values")
    if problems:
        raise InputError(
            f"weights file {path.name!r} does not fit network {name!r}: " + "; ".join(problems[:8])
        )
    state = {key: value.to(wanted[key].dtype) for key, value in state.items()}
    state |= {key: torch.zeros_like(wanted[key]) for key in counters - set(state)}
    module.load_state_dict(state)


def _some(names: list[str], limit: int = 4) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
