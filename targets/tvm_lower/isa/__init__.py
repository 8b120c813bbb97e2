# SPDX-License-Identifier: Apache-2.0
"""Instruction sets: what integer dot products a CPU has, one file each.

``instruction_set(name)`` loads the file that describes a set; TVM is imported with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from codesign.errors import InputError

if TYPE_CHECKING:
    from codesign.targets.tvm_lower.isa.base import InstructionSet

MODULES = {
    "generic": "codesign.targets.tvm_lower.isa.generic",
    "avx2": "codesign.targets.tvm_lower.isa.avx2",
    "avx512-vnni": "codesign.targets.tvm_lower.isa.vnni",
    "neon": "codesign.targets.tvm_lower.isa.neon",
    "neon-dot": "codesign.targets.tvm_lower.isa.neon_dot",
}
"""Module of each instruction set; it has a constant ``SET``."""


def instruction_set(name: str) -> InstructionSet:
    """The instruction set ``name``; raises InputError if there is no such set."""
    if name not in MODULES:
        known = ", ".join(sorted(MODULES))
        raise InputError(f"there is no instruction set {name!r}; known are {known}")
    found: InstructionSet = importlib.import_module(MODULES[name]).SET
    return found
