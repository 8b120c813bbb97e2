# SPDX-License-Identifier: Apache-2.0
"""What the compiler may use of a CPU."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("cascadelake", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
                               "avx512_vnni", "avx2", "fma", "bmi2"})),
    ("skylake-avx512", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
                                  "avx2", "fma", "bmi2"})),
    ("haswell", frozenset({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"})),
    ("nehalem", frozenset({"sse4_1", "sse4_2", "ssse3", "popcnt"})),
)  # fmt: skip


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

    @property
    def vnni(self) -> bool:
        """Whether 512-bit dot products of bytes can be used."""
        return self.mcpu == "cascadelake"

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
                return Machine(arch, mcpu, needed, threads)
    return Machine(arch, "", frozenset(), threads)


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
