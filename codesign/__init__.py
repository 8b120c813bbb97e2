# SPDX-License-Identifier: Apache-2.0
"""codesign: exact hardware co-design of number formats, tiling and architecture.

The verbs of the command line are functions here. They are imported when used: importing
``codesign`` loads no heavy library.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "design": "codesign.api",
    "build": "codesign.api",
    "verify": "codesign.api",
    "measure": "codesign.api",
    "report": "codesign.api",
    "run": "codesign.api",
    "inspect": "codesign.api",
    "solve": "codesign.api",
    "pareto": "codesign.api",
    "opt": "codesign.api",
    "list": "codesign.api",
    "Design": "codesign.flow.artifact",
    "DesignOptions": "codesign.flow.options",
    "CodesignError": "codesign.errors",
}

__all__ = [
    "CodesignError",
    "Design",
    "DesignOptions",
    "__version__",
    "build",
    "design",
    "inspect",
    "list",
    "measure",
    "opt",
    "pareto",
    "report",
    "run",
    "solve",
    "verify",
]

if TYPE_CHECKING:
    from codesign.api import (
        build,
        design,
        inspect,
        measure,
        opt,
        pareto,
        report,
        run,
        solve,
        verify,
    )
    from codesign.api import list_ as list
    from codesign.errors import CodesignError
    from codesign.flow.artifact import Design
    from codesign.flow.options import DesignOptions


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'codesign' has no attribute {name!r}")
    # in its own module the verb does not hide Python's list
    return getattr(importlib.import_module(_LAZY[name]), "list_" if name == "list" else name)


def __dir__() -> Sequence[str]:
    return sorted({*globals(), *__all__})
