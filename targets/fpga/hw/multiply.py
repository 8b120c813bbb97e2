# SPDX-License-Identifier: Apache-2.0
"""Arrays of multipliers with a fixed latency: the products of one cycle, exact.

Operands: activations are signed numbers one bit wider than ``activation_bits`` that hold either an
unsigned or a signed value of ``activation_bits``; weights are signed ``weight_bits``. Every such
pair is exact, -128 and -8 too; only activations below the signed range (-256..-129 of 8 bits) are
excluded, since no format has them. Products have weight_bits + activation_bits bits, signed.

``enable`` low holds the whole pipeline. Each array also says how many hard multipliers it takes.
"""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from codesign.errors import InputError
from codesign.space.accelerator import Engine
from codesign.space.device import MULTIPLIERS, MultiplierKind

LATENCY: dict[MultiplierKind, int] = {"dsp48e2": 4, "dsp48e1": 4, "mult18": 3, "lut": 3}
"""Clock edges from operands to products."""


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
        if kind not in MULTIPLIERS:
            raise InputError(f"multiplier {kind!r}; expected one of {', '.join(MULTIPLIERS)}")
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
        """Plain products."""
        m = Module()
        for x in range(self.px):
            for o in range(self.po):
                for i in range(self.pi):
                    a, w = self.activation[x][i], self.weight[o][i]
                    m.d.comb += self.product[x][o][i].eq(self._delayed(m, a * w))
                    if self.double_rate:
                        upper = self._delayed(m, self.high[x][i] * w[:4].as_signed())
                        m.d.comb += self.high_product[x][o][i].eq(upper)
        return m

    def _delayed(self, m: Module, value: Any) -> Any:
        return delayed(m, value, self.latency, self.enable)


class DepthwiseMultipliers(wiring.Component):
    """po x px products: ``product[x][o]`` = activation[x][o] · weight[o]; the px pixels of a
    channel share its weight."""

    def __init__(
        self, kind: MultiplierKind, po: int, px: int, *, weight_bits: int = 8,
        activation_bits: int = 8, primitive: bool = True,
    ) -> None:  # fmt: skip
        """``primitive`` False: plain multiplication of the same latency, for simulation."""
        if kind not in MULTIPLIERS:
            raise InputError(f"multiplier {kind!r}; expected one of {', '.join(MULTIPLIERS)}")
        self.kind: MultiplierKind = kind
        self.po, self.px = po, px
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        self.primitive = primitive
        self.latency = LATENCY[kind]
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
        """Plain products."""
        m = Module()
        for x in range(self.px):
            for o in range(self.po):
                value = self.activation[x][o] * self.weight[o]
                m.d.comb += self.product[x][o].eq(delayed(m, value, self.latency, self.enable))
        return m


def delayed(m: Module, value: Any, cycles: int, enable: Any) -> Any:
    """``value`` after ``cycles`` clock edges with ``enable``."""
    for _ in range(cycles):
        register = Signal(value.shape(), reset_less=True)
        with m.If(enable):
            m.d.sync += register.eq(value)
        value = register
    return value
