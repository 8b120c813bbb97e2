# SPDX-License-Identifier: Apache-2.0
"""What differs between the architectures that networks are built for."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from codesign.errors import InputError


@dataclass(frozen=True)
class Arch:
    """An instruction set with its compiler and wheels."""

    name: str
    """As ``platform.machine()`` says."""
    triple: str
    """LLVM's and GCC's name."""
    cross: str
    """Tool name of the C++ compiler that makes code for it anywhere else."""
    wheel: str
    """Platform tag of TVM's wheels."""

    @property
    def native(self) -> bool:
        """Whether this computer runs its code itself."""
        return platform.machine() == self.name

    @property
    def compiler(self) -> str:
        """Tool name of the C++ compiler to use here."""
        return "c++" if self.native else self.cross


ARCHES = {
    arch.name: arch
    for arch in (
        Arch("x86_64", "x86_64-linux-gnu", "x86_64-c++", "manylinux_2_28_x86_64"),
        Arch("aarch64", "aarch64-linux-gnu", "aarch64-c++", "manylinux_2_28_aarch64"),
    )
}


def get_arch(name: str) -> Arch:
    """The architecture of that name; raises InputError for another."""
    if name not in ARCHES:
        raise InputError(
            f"architecture {name!r} has no deployment build (known: {', '.join(ARCHES)})"
        )
    return ARCHES[name]
