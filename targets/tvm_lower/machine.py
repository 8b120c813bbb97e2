# SPDX-License-Identifier: Apache-2.0
"""What the compiler may use of a CPU."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from codesign.errors import InputError

_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("cascadelake", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
                               "avx512_vnni", "avx2", "fma", "bmi2"})),
    ("skylake-avx512", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
                                  "avx2", "fma", "bmi2"})),
    ("haswell", frozenset({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"})),
    ("nehalem", frozenset({"sse4_1", "sse4_2", "ssse3", "popcnt"})),
)  # fmt: skip
_ISA = {"cascadelake": "avx512-vnni", "skylake-avx512": "avx2", "haswell": "avx2"}


@dataclass(frozen=True)
class Machine:
    """A CPU as LLVM names it."""

    arch: str
    """``platform.machine()``: x86_64, aarch64."""
    mcpu: str
    """LLVM's name of the oldest CPU with the features that are used; empty for the baseline."""
    features: frozenset[str]
    """CPU flags that compiled code may need."""
    threads: int
    isa: str = "generic"
    """Instruction set whose dot products kernels use: avx512-vnni, avx2, neon, neon-dot, generic;
    see ``codesign.targets.tvm_lower.isa``."""
    triple: str = ""
    """LLVM's target triple; empty for this computer's."""
    mattr: tuple[str, ...] = ()
    """LLVM's names of features beyond ``mcpu``, each with + or -."""

    def missing(self, needed: frozenset[str]) -> frozenset[str]:
        """The features of ``needed`` that this CPU lacks."""
        return needed - self.features


@cache
def host_machine() -> Machine:
    """This computer, from the flags that the operating system reports.

    LLVM's own detection goes by the model number, which also names features that a virtual
    machine hides; code built for those would die of an illegal instruction.
    """
    arch = platform.machine()
    flags = _cpu_flags()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if arch == "x86_64":
        for mcpu, needed in _LEVELS:
            if needed <= flags:
                return Machine(arch, mcpu, needed, threads, _ISA.get(mcpu, "generic"))
    return Machine(arch, "", frozenset(), threads)


def x86_machine(mcpu: str, threads: int = 1) -> Machine:
    """An x86-64 CPU by LLVM's name of its level, e.g. to compile for another computer."""
    for name, needed in _LEVELS:
        if name == mcpu:
            triple = "x86_64-linux-gnu"
            return Machine("x86_64", name, needed, threads, _ISA.get(name, "generic"), triple)
    known = ", ".join(name for name, _ in _LEVELS)
    raise InputError(f"there is no x86 level {mcpu!r}; known are {known}")


def cpu_model() -> str:
    """The processor's name, to tell machines apart."""
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> frozenset[str]:
    return frozenset((_cpu_field("flags") or _cpu_field("Features")).split())


def _cpu_field(name: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
