# SPDX-License-Identifier: Apache-2.0
"""Proof of the packings: every operand of a lane pair through the primitives' models in Verilator.

``prove`` builds one simulation with every kind of array and returns how many operand combinations
were compared for each, and how many were wrong. Arrays of odd sizes run beside plain ones on
random operands, so that the wiring between lanes is checked, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth import (
    Cat,
    ClockDomain,
    DomainRenamer,
    Elaboratable,
    Fragment,
    Module,
    Mux,
    Signal,
    signed,
)
from amaranth.back import verilog

from codesign.space.device import MultiplierKind
from codesign.targets.fpga.hw.multiply import (
    DenseMultipliers,
    DepthwiseMultipliers,
    ScaleMultiplier,
    delayed,
)
from codesign.targets.fpga.hw.primitives import model_files
from codesign.targets.fpga.programs import require_program, run_program

DENSE8: dict[str, Any] = {
    "e2": ("dsp48e2", {}),
    "e1": ("dsp48e1", {}),
    "e2d": ("dsp48e2", {"double": True}),
    "e1d": ("dsp48e1", {"double": True}),
    "m18": ("mult18", {}),
    "m18d": ("mult18", {"double": True}),
    "lut8": ("lut", {}),
}
NARROW: dict[str, Any] = {"e2n": "dsp48e2", "e1n": "dsp48e1", "m18n": "mult18", "lutn": "lut"}
DEPTH: dict[str, Any] = {"e2w": "dsp48e2", "e1w": "dsp48e1", "m18w": "mult18", "lutw": "lut"}
DESCRIPTION: Mapping[str, str] = {
    "e2": "DSP48E2: two 8 x 8 sharing the activation",
    "e1": "DSP48E1: two 8 x 8 sharing the activation",
    "e2d_two": "DSP48E2 at the doubled rate: four 4 x 4",
    "e1d_two": "DSP48E1 at the doubled rate: four 4 x 4",
    "e2d": "DSP48E2 of a doubling engine, plain rate",
    "e1d": "DSP48E1 of a doubling engine, plain rate",
    "m18": "MULT18X18D: one 8 x 8",
    "m18d": "MULT18X18D of a doubling engine, plain rate",
    "m18d_two": "MULT18X18D at the doubled rate: two 4 x 4 sharing the weight",
    "lut8": "LUTs 8 x 8",
    "e2n": "DSP48E2: four 4 x 4",
    "e1n": "DSP48E1: four 4 x 4",
    "m18n": "MULT18X18D: two 4 x 4 sharing the activation",
    "lutn": "LUTs 4 x 4",
    "e2w": "DSP48E2, depthwise: two 8 x 8 sharing the weight",
    "e1w": "DSP48E1, depthwise: two 8 x 8 sharing the weight",
    "m18w": "MULT18X18D, depthwise",
    "lutw": "LUTs, depthwise",
    "random": "arrays of odd sizes and scale multipliers against plain ones",
}


@dataclass(frozen=True)
class Proven:
    """One packing: combinations compared, and how many of them were wrong."""

    name: str
    cases: int
    wrong: int


class _Top(Elaboratable):
    """Every array with the shared operands, and the comparison of odd sizes."""

    def __init__(self) -> None:
        self.a0 = Signal(signed(9))
        self.a1 = Signal(signed(9))
        self.w0 = Signal(signed(8))
        self.w1 = Signal(signed(8))
        self.twice = Signal()
        self.mismatch = Signal()
        self.random = ClockDomain("random", reset_less=True)
        self.outputs: list[Any] = []
        self.watches: list[tuple[str, str, str, int]] = []  # sweep, macro, name, latency

    def _out(self, m: Module, name: str, value: Any) -> None:
        port = Signal(len(value), name=name)
        m.d.comb += port.eq(value)
        self.outputs.append(port)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for name, (kind, options) in DENSE8.items():
            wide = DenseMultipliers(kind, 1, 2, 1, **options)
            m.submodules[name] = wide
            m.d.comb += [wide.activation[0][0].eq(self.a0), wide.weight[0][0].eq(self.w0),
                         wide.weight[1][0].eq(self.w1)]  # fmt: skip
            for o in range(2):
                self._out(m, f"{name}_0{o}", wide.product[0][o][0])
            self.watches.append(("DENSE8", "DENSE8", name, wide.latency))
            if options:
                m.d.comb += [wide.high[0][0].eq(self.a1[:5]), wide.double.eq(self.twice)]
                for o in range(2):
                    self._out(m, f"{name}_h{o}", wide.high_product[0][o][0])
                self.watches.append(("NARROW", "TWICE", name, wide.latency))
        for name, kind in NARROW.items():
            narrow = DenseMultipliers(kind, 1, 2, 2, weight_bits=4, activation_bits=4)
            m.submodules[name] = narrow
            for x, a in enumerate((self.a0, self.a1)):
                m.d.comb += narrow.activation[x][0].eq(a[:5])
            for o, w in enumerate((self.w0, self.w1)):
                m.d.comb += narrow.weight[o][0].eq(w[:4])
            for x in range(2):
                for o in range(2):
                    self._out(m, f"{name}_{x}{o}", narrow.product[x][o][0])
            self.watches.append(("NARROW", "NARROW", name, narrow.latency))
        for name, kind in DEPTH.items():
            depth = DepthwiseMultipliers(kind, 1, 2)
            m.submodules[name] = depth
            m.d.comb += [depth.activation[0][0].eq(self.a0), depth.activation[1][0].eq(self.a1),
                         depth.weight[0].eq(self.w0)]  # fmt: skip
            for x in range(2):
                self._out(m, f"{name}_{x}0", depth.product[x][0])
            self.watches.append(("DEPTH", "DEPTH", name, depth.latency))
        # a clock of their own: they stand still during the sweeps
        m.domains.random = self.random
        m.submodules.odd = DomainRenamer("random")(_Odd(self.mismatch))
        return m


class _Odd(Elaboratable):
    """Arrays of odd sizes with random operands: whether any differs from a plain one."""

    def __init__(self, mismatch: Any) -> None:
        self.mismatch = mismatch

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        found: list[Any] = []
        random = _Random(m)
        kinds: tuple[MultiplierKind, ...] = ("dsp48e2", "dsp48e1", "mult18", "lut")
        shapes: tuple[tuple[int, int, int, dict[str, Any]], ...] = (
            (1, 3, 2, {}), (2, 2, 3, {"weight_bits": 4, "activation_bits": 4}),
            (1, 3, 1, {"weight_bits": 3, "activation_bits": 2}),
            (1, 3, 2, {"weight_bits": 4, "double": True}),
        )  # fmt: skip
        for pi, po, px, options in shapes:
            found += _dense(m, random, [
                DenseMultipliers(kind, pi, po, px, primitive=own, **options)
                for kind in kinds for own in (True, False)
            ])  # fmt: skip
        found += _depthwise(m, random, [
            DepthwiseMultipliers(kind, 1, 3, primitive=own)
            for kind in kinds for own in (True, False)
        ])  # fmt: skip
        for bits in (32, 9, 18):
            scale: list[Any] = [
                ScaleMultiplier(kind, bits, primitive=own)
                for kind in kinds[:3] for own in (True, False)
            ]  # fmt: skip
            _all(m, scale, "value", random.bits(bits))
            _all(m, scale, "factor", random.bits(16))
            found += _differ(m, scale, random, "product")
        m.d.comb += self.mismatch.eq(Cat(*found).any())
        return m


class _Random:
    """Random bits: one 64-bit xorshift register for every request."""

    def __init__(self, m: Module) -> None:
        self.m = m
        self.made = 0
        self.enable = self.bits(1)

    def bits(self, count: int) -> Any:
        """``count`` (at most 64) new random bits a cycle."""
        self.made += 1
        state = Signal(64, init=(self.made * 0x9E3779B97F4A7C15) % (1 << 64))
        one, two, three = Signal(64), Signal(64), Signal(64)
        self.m.d.comb += [one.eq(state ^ (state << 13)), two.eq(one ^ (one >> 7)),
                          three.eq(two ^ (two << 17))]  # fmt: skip
        self.m.d.sync += state.eq(three)
        return state[64 - count :]

    def operand(self, bits: int, small: Any = None) -> Any:
        """A value of bits + 1 that is unsigned or signed in ``bits``; in 4 bits where ``small``."""
        raw, sign = self.bits(bits), self.bits(1)
        wide = Cat(raw, raw[-1] & sign)
        if small is None or bits <= 4:
            return wide
        return Mux(small, Cat(raw[:4], (raw[3] & sign).replicate(bits - 3)), wide)


def _all(m: Module, arrays: list[Any], name: str, value: Any) -> None:
    m.d.comb += [getattr(one, name).eq(value) for one in arrays]


def _differ(m: Module, arrays: list[Any], random: _Random, name: str) -> list[Any]:
    """Whether neighbours, ours and plain, differ."""
    for one in arrays:
        m.submodules += one
        m.d.comb += one.enable.eq(random.enable)
    values = [getattr(one, name) for one in arrays]
    values = [v.as_value() if hasattr(v, "as_value") else v for v in values]
    return [left != right for left, right in zip(values[::2], values[1::2])]


def _dense(m: Module, random: _Random, arrays: list[Any]) -> list[Any]:
    first = arrays[0]
    twice = random.bits(1) if first.double_rate else None
    if twice is not None:
        _all(m, arrays, "double", twice)
    for i in range(first.pi):
        for x in range(first.px):
            value = random.operand(first.activation_bits, twice)
            m.d.comb += [one.activation[x][i].eq(value) for one in arrays]
            if twice is not None:
                value = random.operand(4)
                m.d.comb += [one.high[x][i].eq(value) for one in arrays]
        for o in range(first.po):
            value = random.bits(first.weight_bits)
            m.d.comb += [one.weight[o][i].eq(value) for one in arrays]
    found = _differ(m, arrays, random, "product")
    if twice is not None:
        for ours, plain in zip(arrays[::2], arrays[1::2]):
            was = delayed(m, twice, ours.latency, random.enable)
            found.append(was & (ours.high_product.as_value() != plain.high_product.as_value()))
    return found


def _depthwise(m: Module, random: _Random, arrays: list[Any]) -> list[Any]:
    first = arrays[0]
    for o in range(first.po):
        value = random.bits(first.weight_bits)
        m.d.comb += [one.weight[o].eq(value) for one in arrays]
        for x in range(first.px):
            value = random.operand(first.activation_bits)
            m.d.comb += [one.activation[x][o].eq(value) for one in arrays]
    return _differ(m, arrays, random, "product")


def prove(folder: Path, step: int = 1, change: Callable[[str], str] = str) -> tuple[Proven, ...]:
    """Build and run the proof in ``folder``; every operand (``step`` 1), or every ``step``-th
    activation of the 8-bit sweeps. ``change`` may spoil the Verilog, to see that errors are
    found.

    Raises ToolNotFoundError without Verilator, CodesignError if the simulation does not build.
    """
    verilator = require_program("verilator")
    top = _Top()
    m = Fragment.get(top, None)
    text = verilog.convert(
        m, name="proof", strip_internal_attrs=True,
        ports=[top.random.clk, top.a0, top.a1, top.w0, top.w1, top.twice, top.mismatch,
               *top.outputs],
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "proof.v").write_text(change(text), encoding="utf-8")
    lines = []
    for sweep in ("DENSE8", "DEPTH", "NARROW"):
        body = []
        for at, (where, macro, name, latency) in enumerate(top.watches):
            if where == sweep:
                label = f"{name}_two" if macro == "TWICE" else name
                lines.append(f'Count *c{at} = find("{label}");')
                body.append(f"{{ Count *counter = c{at}; {macro}_({name}, {latency}) }}")
        lines.append(f"#define SWEEP_{sweep} " + " ".join(body))
    (folder / "watches.h").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = Path(__file__).with_suffix(".cpp")
    run_program(
        [verilator, "--cc", "--exe", "--build", "-O3", "--x-assign", "fast", "--x-initial", "fast",
         "--noassert", "-Wno-fatal", "-Wno-lint", "--threads", "1", "--prefix", "Vproof",
         "--top-module", "proof", "-CFLAGS", f"-I{folder}",
         "-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O0", "--Mdir", str(folder / "obj"),
         str(folder / "proof.v"), *map(str, model_files()), str(source)],
        "building the proof of the packings",
    )  # fmt: skip
    out = run_program([str(folder / "obj" / "Vproof"), str(step)], "the proof of the packings")
    rows = (line.split() for line in out.splitlines())
    return tuple(Proven(row[0], int(row[1]), int(row[2])) for row in rows if len(row) == 3)

