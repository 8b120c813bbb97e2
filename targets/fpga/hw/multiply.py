# SPDX-License-Identifier: Apache-2.0
"""Arrays of multipliers with a fixed latency: the products of one cycle, exact.

Operands: activations are signed numbers one bit wider than ``activation_bits`` that hold either an
unsigned or a signed value of ``activation_bits``; weights are signed ``weight_bits``. Every such
pair is exact, -128 and -8 too; only activations below the signed range (-256..-129 of 8 bits) are
excluded, since no format has them: packed lanes would then disturb each other. Products have
weight_bits + activation_bits bits, signed.

Packing (``tests/fpga/hw`` proves each over all operands, on the primitives' models):

- DSP48E2 and DSP48E1, 8 bits: (w1 · 2^16 + w0) · a + 2^15; the pre-adder joins the weights, the C
  port adds 2^15, so that the lower lane is never negative and borrows nothing from the upper one.
  Lower lane with its top bit inverted: w0 · a; upper lane: w1 · a.
- the same, 4 bits: (w1 · 2^16 + w0) · (a1 · 2^8 + a0) + 2^7 + 2^15 + 2^23, four lanes of 8 bits;
  w1 · 2^16 + w0 stays, so a doubled engine only changes B and C.
- MULT18X18D, 4 bits: (w1 · 2^8 + w0) · a, or w · (a1 · 2^8 + a0) at the doubled rate; there is no
  C port: the upper lane takes the lower one's sign bit back by an addition in LUTs.

``enable`` low holds the whole pipeline.
"""

from __future__ import annotations

from typing import Any

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from codesign.errors import InputError
from codesign.space.accelerator import Engine
from codesign.space.device import MULTIPLIERS, MultiplierKind
from codesign.targets.fpga.hw.primitives import dsp48, lut_multiply, mult18
from codesign.targets.fpga.machine import LATENCY, depthwise_latency


def _array(shape: Any, *counts: int) -> Any:
    """ArrayLayout indexed by the counts in order: ``_array(s, 2, 3)`` is used as x[0..1][0..2]."""
    for count in reversed(counts):
        shape = data.ArrayLayout(shape, count)
    return shape


class DenseMultipliers(wiring.Component):
    """pi x po x px products: the ``po`` lanes of one pixel share an activation, the ``px`` pixels a
    weight.

    Inputs ``activation[x][i]``, ``weight[o][i]``, ``enable`` and, where ``double`` is offered,
    ``high[x][i]`` (4-bit activations of pixel px + x, sign-extended to 5 bits) and ``double``.
    Output ``product[x][o][i]`` = activation[x][i] · weight[o][i]; where the ``double`` of its cycle
    was set, activations and weights must fit in 4 bits and ``high_product[x][o][i]`` is
    high[x][i] · weight[o][i], too (undefined otherwise).
    """

    def __init__(
        self, kind: MultiplierKind, pi: int, po: int, px: int, *, weight_bits: int = 8,
        activation_bits: int = 8, double: bool = False, primitive: bool = True,
    ) -> None:  # fmt: skip
        """``primitive`` False: plain multiplication of the same latency, for simulation."""
        _check(kind)
        if double and (max(weight_bits, activation_bits) <= 4 or weight_bits < 4):
            raise InputError(
                f"multipliers of {weight_bits}-bit weights and {activation_bits}-bit activations "
                "have no doubled rate; it needs 4-bit weights or wider, and one operand above 4"
            )
        self.kind: MultiplierKind = kind
        self.pi, self.po, self.px = pi, po, px
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        self.double_rate = double
        self.primitive = primitive
        self.latency = LATENCY[kind]
        wide = weight_bits + activation_bits
        ports: dict[str, Any] = {
            "activation": In(_array(signed(activation_bits + 1), px, pi)),
            "weight": In(_array(signed(weight_bits), po, pi)),
            "enable": In(1, init=1),
            "product": Out(_array(signed(wide), px, po, pi)),
        }
        if double:
            ports["high"] = In(_array(signed(5), px, pi))
            ports["double"] = In(1)
            ports["high_product"] = Out(_array(signed(8), px, po, pi))
        super().__init__(ports)

    @classmethod
    def of(cls, engine: Engine, primitive: bool = True) -> DenseMultipliers:
        """The array of a dense engine."""
        return cls(
            engine.multiplier, engine.pi, engine.po, engine.px, weight_bits=engine.weight_bits,
            activation_bits=engine.activation_bits, double=engine.double, primitive=primitive,
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The products of the chosen kind."""
        m = Module()
        if not self.primitive:
            self._plain(m)
        elif self.kind == "lut":
            self._luts(m)
        elif self.kind == "mult18":
            self._mult18(m)
        else:
            self._dsp48(m)
        return m

    @property
    def narrow(self) -> bool:
        """Both operands have at most 4 bits: more products to a multiplier."""
        return max(self.weight_bits, self.activation_bits) <= 4

    def _put(self, m: Module, x: int, o: int, i: int, value: Any) -> None:
        m.d.comb += self.product[x][o][i].eq(value)

    def _put_high(self, m: Module, x: int, o: int, i: int, value: Any) -> None:
        m.d.comb += self.high_product[x][o][i].eq(value)

    def _plain(self, m: Module) -> None:
        for x in range(self.px):
            for o in range(self.po):
                for i in range(self.pi):
                    a, w = self.activation[x][i], self.weight[o][i]
                    self._put(m, x, o, i, self._delayed(m, a * w, self.latency))
                    if self.double_rate:
                        upper = self.high[x][i] * w[:4].as_signed()
                        self._put_high(m, x, o, i, self._delayed(m, upper, self.latency))

    def _luts(self, m: Module) -> None:
        # operand registers are shared by all products of the operand
        weights = [[self._delayed(m, w, 1) for w in self._row(self.weight[o])]
                   for o in range(self.po)]  # fmt: skip
        for x in range(self.px):
            for i in range(self.pi):
                a = self._delayed(m, self.activation[x][i], 1)
                b = self._delayed(m, self.high[x][i], 1) if self.double_rate else None
                for o in range(self.po):
                    w = weights[o][i]
                    self._put(m, x, o, i, lut_multiply(m, a, w, self.enable))
                    if b is not None:
                        upper = lut_multiply(m, b, w[:4].as_signed(), self.enable)
                        self._put_high(m, x, o, i, upper)

    def _row(self, row: Any) -> list[Any]:
        return [row[i] for i in range(self.pi)]

    def _mult18(self, m: Module) -> None:
        twice = self._delayed(m, self.double, self.latency) if self.double_rate else None
        for i in range(self.pi):
            for x in range(self.px):
                a = self.activation[x][i]
                if twice is not None:
                    both = joined(self.high[x][i], a[:5].as_signed(), 8)
                    a = Signal(signed(15))
                    m.d.comb += a.eq(Mux(self.double, both, self.activation[x][i]))
                step = 2 if self.narrow else 1
                for o in range(0, self.po, step):
                    w = self.weight[o][i]
                    if not self.narrow:
                        self._one_mult18(m, x, o, i, mult18(m, w, a, self.enable), twice)
                    elif o + 1 == self.po:
                        self._put(m, x, o, i, mult18(m, w, a, self.enable)[:16].as_signed())
                    else:
                        p = mult18(m, joined(self.weight[o + 1][i], w, 8), a, self.enable)
                        self._put(m, x, o, i, p[:8].as_signed())
                        self._put(m, x, o + 1, i, (p[8:16] + p[7])[:8].as_signed())

    def _one_mult18(self, m: Module, x: int, o: int, i: int, p: Any, twice: Any) -> None:
        if twice is None:
            self._put(m, x, o, i, p[:16].as_signed())
        else:
            low = p[:8].as_signed()
            self._put(m, x, o, i, Mux(twice, low, p[:16].as_signed()))
            self._put_high(m, x, o, i, (p[8:16] + p[7])[:8].as_signed())

    def _dsp48(self, m: Module) -> None:
        if self.double_rate:
            twice = self._delayed(m, self.double, self.latency)
            early = self._delayed(m, self.double, 2)  # when C is taken
        else:
            twice = early = C(int(self.narrow), 1)
        constant = Cat(*[(early if bit in (7, 23) else C(int(bit == 15), 1)) for bit in range(48)])
        for i in range(self.pi):
            for x in range(0, self.px, 2 if self.narrow else 1):
                b = self._b(m, x, i)
                for o in range(0, self.po, 2):
                    self._one_dsp48(m, x, o, i, b, constant, twice)

    def _b(self, m: Module, x: int, i: int) -> Any:
        """Operand B of the DSPs of an activation, or of two that share them."""
        a = self.activation[x][i]
        if self.narrow:
            other = self.activation[x + 1][i] if x + 1 < self.px else C(0, signed(5))
            return self._delayed(m, joined(other, a, 8), 1)
        if self.double_rate:
            both = joined(self.high[x][i], a[:5].as_signed(), 8)
            return self._delayed(m, Mux(self.double, both, a), 1)
        return a

    def _one_dsp48(
        self, m: Module, x: int, o: int, i: int, b: Any, constant: Any, twice: Any
    ) -> None:
        w0 = self.weight[o][i]
        last = o + 1 == self.po
        w1 = C(0, signed(self.weight_bits)) if last else self.weight[o + 1][i]
        joint = self.narrow or self.double_rate  # B has a register outside
        p, _ = dsp48(
            m, self.kind, a=w0, d=w1 << 16, b=b, c=constant, enable=self.enable,
            b_registers=1 if joint else 2,
        )  # fmt: skip
        lanes = [offset_lane(p, 0, 8), offset_lane(p, 8, 8), offset_lane(p, 16, 8),
                 p[24:32].as_signed()]  # fmt: skip
        halves = [offset_lane(p, 0, 16), p[16:32].as_signed()]
        for k in range(1 if last else 2):
            if self.narrow:
                self._put(m, x, o + k, i, lanes[2 * k])
                if x + 1 < self.px:
                    self._put(m, x + 1, o + k, i, lanes[2 * k + 1])
            elif self.double_rate:
                self._put(m, x, o + k, i, Mux(twice, lanes[2 * k], halves[k]))
                self._put_high(m, x, o + k, i, lanes[2 * k + 1])
            else:
                self._put(m, x, o + k, i, halves[k])

    def _delayed(self, m: Module, value: Any, cycles: int) -> Any:
        return delayed(m, value, cycles, self.enable)


class DepthwiseMultipliers(wiring.Component):
    """po x px products: ``product[x][o]`` = activation[x][o] · weight[o]; the px pixels of a
    channel share its weight."""

    def __init__(
        self, kind: MultiplierKind, po: int, px: int, *, weight_bits: int = 8,
        activation_bits: int = 8, primitive: bool = True,
    ) -> None:  # fmt: skip
        """``primitive`` False: plain multiplication of the same latency, for simulation."""
        _check(kind)
        self.kind: MultiplierKind = kind
        self.po, self.px = po, px
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        self.primitive = primitive
        self.latency = depthwise_latency(kind)
        super().__init__({
            "activation": In(_array(signed(activation_bits + 1), px, po)),
            "weight": In(_array(signed(weight_bits), po)),
            "enable": In(1, init=1),
            "product": Out(_array(signed(weight_bits + activation_bits), px, po)),
        })  # fmt: skip

    @classmethod
    def of(cls, engine: Engine, primitive: bool = True) -> DepthwiseMultipliers:
        """The array of a depthwise engine."""
        return cls(
            engine.multiplier, engine.po, engine.px, weight_bits=engine.weight_bits,
            activation_bits=engine.activation_bits, primitive=primitive,
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The products of the chosen kind."""
        m = Module()
        for o in range(self.po):
            w = self.weight[o]
            if self.primitive and self.kind in ("dsp48e2", "dsp48e1"):
                for x in range(0, self.px, 2):
                    self._pair(m, x, o)
                continue
            if self.primitive and self.kind == "lut":
                w = delayed(m, w, 1, self.enable)
            for x in range(self.px):
                m.d.comb += self.product[x][o].eq(self._one(m, self.activation[x][o], w))
        return m

    def _one(self, m: Module, a: Any, w: Any) -> Any:
        if not self.primitive:
            return delayed(m, a * w, self.latency, self.enable)
        if self.kind == "lut":
            return lut_multiply(m, delayed(m, a, 1, self.enable), w, self.enable)
        product = mult18(m, w, a, self.enable)[:16].as_signed()
        return delayed(m, product, self.latency - LATENCY["mult18"], self.enable)

    def _pair(self, m: Module, x: int, o: int) -> None:
        last = x + 1 == self.px
        upper = C(0, signed(2)) if last else self.activation[x + 1][o]
        p, _ = dsp48(
            m, self.kind, a=self.activation[x][o], d=upper << 16, b=self.weight[o],
            c=C(1 << 15, 48), enable=self.enable,
        )  # fmt: skip
        m.d.comb += self.product[x][o].eq(offset_lane(p, 0, 16))
        if not last:
            m.d.comb += self.product[x + 1][o].eq(p[16:32].as_signed())


class ScaleMultiplier(wiring.Component):
    """``product`` = ``value`` · ``factor``, signed ``bits`` by unsigned 16 bits, four edges later:
    for requantisation. One hard multiplier up to 18 bits, else two whose parts meet in the cascade
    (DSP48) or an adder (MULT18X18D)."""

    latency = 4

    def __init__(self, kind: MultiplierKind, bits: int = 32, *, primitive: bool = True) -> None:
        """``kind``: the device's hard multiplier. Raises InputError for "lut"."""
        _check(kind)
        if kind == "lut":
            raise InputError("a scale multiplier takes the device's hard multiplier, not LUTs")
        if not 2 <= bits <= 35:
            raise InputError(f"a scale multiplier takes values of 2 to 35 bits, got {bits}")
        self.kind: MultiplierKind = kind
        self.bits = bits
        self.primitive = primitive
        super().__init__({
            "value": In(signed(bits)), "factor": In(16), "enable": In(1, init=1),
            "product": Out(signed(bits + 16)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """Whole product, or lower 17 bits and the rest."""
        m = Module()
        keep = self.enable
        factor = Cat(self.factor, C(0, 1)).as_signed()
        if not self.primitive:
            m.d.comb += self.product.eq(delayed(m, self.value * self.factor, 4, keep))
            return m
        if self.bits <= 18:
            if self.kind == "mult18":
                whole = delayed(m, mult18(m, self.value, factor, keep), 1, keep)
            else:
                whole, _ = dsp48(m, self.kind, a=self.value, b=factor, enable=keep, a_registers=2)
            m.d.comb += self.product.eq(whole)
            return m
        low = Cat(self.value[:17], C(0, 1)).as_signed()
        high = self.value[17:].as_signed()
        if self.kind == "mult18":
            first = mult18(m, low, factor, keep)
            upper = mult18(m, high, factor, keep).as_signed() + first[17:].as_signed()
            rest = delayed(m, upper, 1, keep)
        else:
            first, cascade = dsp48(m, self.kind, a=low, b=factor, enable=keep, b_registers=1)
            rest, _ = dsp48(
                m, self.kind, a=high, b=factor, pcin=cascade, enable=keep, a_registers=2
            )
        m.d.comb += self.product.eq(Cat(delayed(m, first[:17], 1, keep), rest))
        return m


def _check(kind: str) -> None:
    if kind not in MULTIPLIERS:
        raise InputError(f"multiplier {kind!r}; expected one of {', '.join(MULTIPLIERS)}")


def joined(upper: Any, lower: Any, at: int) -> Any:
    """upper · 2^at + lower of signed values (lower of at most ``at`` bits), as a signed value: the
    upper part takes the lower one's borrow."""
    borrowed = (upper - lower[-1])[: len(upper) + 1]
    low = Cat(lower, *([lower[-1]] * (at - len(lower))))
    return Cat(low, borrowed).as_signed()


def offset_lane(p: Any, at: int, bits: int) -> Any:
    """A lane that had half its range added: the same with its top bit inverted."""
    return Cat(p[at : at + bits - 1], ~p[at + bits - 1]).as_signed()


def delayed(m: Module, value: Any, cycles: int, enable: Any) -> Any:
    """``value`` after ``cycles`` clock edges with ``enable``."""
    for _ in range(cycles):
        register = Signal(value.shape(), reset_less=True)
        with m.If(enable):
            m.d.sync += register.eq(value)
        value = register
    return value
