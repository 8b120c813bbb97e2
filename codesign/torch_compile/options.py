# SPDX-License-Identifier: Apache-2.0
"""Options of the torch.compile backend, checked once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codesign.errors import InputError
from codesign.targets.tuning.tune import Budget

if TYPE_CHECKING:
    import numpy as np
    import torch

    from codesign.flow.artifact import Design
    from codesign.ir.graph import Graph

    Data = Path | str | np.ndarray[Any, Any] | torch.Tensor


@dataclass(frozen=True, eq=False)
class CompileOptions:
    """``torch.compile(model, backend="codesign", options={...})``."""

    target: str = "host"
    """A target that runs in this process, see ``codesign list targets``."""
    threads: int = 0
    """Threads that the network runs on; 0 for one a core."""
    formats: str | Mapping[str, str] | None = None
    """None: float. A format for every layer (``"w8a8"``), or one for each by its module path;
    ``"*"`` stands for layers that are not named."""
    calib: Data | Sequence[Data] | None = None
    """Inputs to take activation ranges from, [samples, ...]: an array, a tensor, an ``.npz``
    file with array ``x``; a sequence where the graph has several inputs."""
    observe: int = 1
    """Without ``calib``: how many calls activation ranges are taken from. Calls before the last
    of them run in float."""
    design: Design | Path | str | None = None
    """A chosen design, or its folder: formats by layer, and calibration as it was designed."""
    tune: str | None = None
    """Budget for finding faster code before each graph is compiled: trials (``"200"``) or time
    (``"60s"``, ``"5m"``). What was found is kept; later compilations take it without the option."""
    strict: bool = False
    """Raise instead of falling back to eager torch."""
    listen: Callable[[Graph], None] | None = None
    """Called with each graph as it is compiled: what runs is what this graph means."""

    def __post_init__(self) -> None:
        if self.formats is not None and self.design is not None:
            raise InputError(
                "torch.compile options: give formats or a design, not both; the design has formats"
            )
        if not isinstance(self.observe, int) or self.observe < 1:
            raise InputError(
                f"torch.compile option 'observe': expected a number of calls of at least 1, got "
                f"{self.observe!r}"
            )
        if not isinstance(self.threads, int) or self.threads < 0:
            raise InputError(
                f"torch.compile option 'threads': expected 0 (one a core) or more, got "
                f"{self.threads!r}"
            )
        if self.formats is not None:
            self._check_formats()
        if self.tune is not None:
            Budget.parse(str(self.tune))

    def _check_formats(self) -> None:
        from codesign.quant.formats import load_format

        if isinstance(self.formats, str):
            load_format(self.formats)
        elif isinstance(self.formats, Mapping):
            for name in self.formats.values():
                load_format(name)
        else:
            raise InputError(
                "torch.compile option 'formats': expected a format such as 'w8a8', or a mapping "
                f"of layers to formats; got {type(self.formats).__name__}"
            )

    @property
    def quantized(self) -> bool:
        """Whether layers get integer formats."""
        return self.design is not None or self.formats not in (None, "float")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> CompileOptions:
        """Options as torch hands them on; raises InputError for an unknown one."""
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(
                    f"torch.compile backend 'codesign' has no option {name!r}{hint} "
                    f"(known: {', '.join(known)})"
                )
        return cls(**given)
