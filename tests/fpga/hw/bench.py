# SPDX-License-Identifier: Apache-2.0
"""A component under Verilator, driven from Python: set inputs, look at outputs, clock."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import verilog
from amaranth.lib import wiring

CACHE = Path(os.environ.get("CODESIGN_CACHE", Path.home() / ".cache" / "codesign")) / "bench"
HEADER = """#include "Vtop.h"
#include "verilated.h"
#include <cstdint>
#include <cstring>
double sc_time_stamp() { return 0; }
extern "C" void *make() { return new Vtop(); }
extern "C" void finish(void *p) { delete (Vtop *)p; }
static void put(Vtop *t, const uint32_t *in) {
%s}
static void get(Vtop *t, uint32_t *out) {
%s}
extern "C" void settle(void *p, const uint32_t *in, uint32_t *out) {
  Vtop *t = (Vtop *)p; put(t, in); t->clk = 0; t->eval(); get(t, out);
}
extern "C" void tick(void *p) { Vtop *t = (Vtop *)p; t->clk = 1; t->eval(); }
"""


def _ports(component: Any) -> list[tuple[str, str, int]]:
    """(name in Verilog, direction, bits) of each port."""
    found = []
    for path, member, value in component.signature.flatten(component):
        bits = len(value.as_value()) if hasattr(value, "as_value") else len(value)
        name = "__".join(map(str, path))
        found.append((name, "in" if member.flow == wiring.In else "out", bits))
    return found


class Bench:
    """``bench["port__member"] = value`` before ``settle()``, outputs after it, then ``tick()``."""

    def __init__(self, component: Any) -> None:
        if shutil.which("verilator") is None:
            if os.environ.get("CODESIGN_NO_SKIP"):
                pytest.fail("Verilator is missing; install the package verilator")
            pytest.skip("Verilator is missing; install the package verilator")
        self.ports: dict[str, tuple[str, int, int]] = {}
        sizes = {"in": 0, "out": 0}
        listed = [*_ports(component), ("rst", "in", 1)]
        copies: dict[str, list[str]] = {"in": [], "out": []}
        for name, direction, bits in listed:
            at, count = sizes[direction], -(-bits // 32)
            sizes[direction] += count
            self.ports[name] = (direction, at, bits)
            field = "t->" + name.replace("__", "___05F")
            size = (1 if bits <= 8 else 2 if bits <= 16 else 4) if bits <= 32 else 8
            size = size if bits <= 64 else 4 * count
            ends = (f"&{field}", f"{direction} + {at}")
            to, source = ends if direction == "in" else ends[::-1]
            copy = f"  memcpy((void *)({to}), (const void *)({source}), {size});\n"
            copies[direction].append(copy)
        text = verilog.convert(component, name="top", emit_src=False, strip_internal_attrs=True)
        harness = HEADER % ("".join(copies["in"]), "".join(copies["out"]))
        self.library = ctypes.CDLL(str(_built(text, harness)))
        self.library.make.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(self.library.make())
        self.input = (ctypes.c_uint32 * max(2, sizes["in"] + 2))()
        self.output = (ctypes.c_uint32 * max(2, sizes["out"] + 2))()
        self.cycle = 0
        self["rst"] = 1
        self.settle()
        self.tick()
        self["rst"] = 0
        self.settle()

    def __setitem__(self, name: str, value: int) -> None:
        direction, at, bits = self.ports[name]
        assert direction == "in", name
        value &= (1 << bits) - 1
        for k in range(-(-bits // 32)):
            self.input[at + k] = value >> 32 * k & 0xFFFFFFFF

    def __getitem__(self, name: str) -> int:
        direction, at, bits = self.ports[name]
        where = self.output if direction == "out" else self.input
        value = 0
        for k in range(-(-bits // 32)):
            value |= where[at + k] << 32 * k
        return value & (1 << bits) - 1

    def settle(self) -> None:
        """Inputs to outputs, without a clock edge."""
        self.library.settle(self.handle, self.input, self.output)

    def tick(self) -> None:
        """One clock edge, then the outputs of the next cycle."""
        self.library.tick(self.handle)
        self.cycle += 1
        self.settle()


def _built(text: str, harness: str) -> Path:
    """The shared library of a design, kept between runs."""
    key = hashlib.sha256((text + harness).encode()).hexdigest()[:24]
    target = CACHE / f"{key}.so"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "top.v").write_text(text)
        (folder / "harness.cpp").write_text(harness)
        _call(
            folder, "verilator", "--cc", "top.v", "harness.cpp", "--top-module", "top",
            "--prefix", "Vtop", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert",
            "-Wno-fatal", "-Wno-lint", "-CFLAGS", "-O1 -fPIC", "--Mdir", "obj",
        )  # fmt: skip
        _call(
            folder, "make", "-C", "obj", "-f", "Vtop.mk", "Vtop__ALL.a", "verilated.o",
            "verilated_threads.o", "harness.o", "OPT_FAST=-O1", "OPT_SLOW=-O0",
        )  # fmt: skip
        objects = [f"obj/{part}.o" for part in ("harness", "verilated", "verilated_threads")]
        _call(
            folder, "g++", "-shared", "-o", "lib.so", *objects,
            "-Wl,--whole-archive", "obj/Vtop__ALL.a", "-Wl,--no-whole-archive", "-lpthread",
        )  # fmt: skip
        shutil.copy(folder / "lib.so", target)
    return target


def _call(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, f"{' '.join(command)}\n{said}"
