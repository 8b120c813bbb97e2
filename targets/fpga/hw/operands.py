# SPDX-License-Identifier: Apache-2.0
"""Activations as they are read, brought to the multipliers' lanes (stages 7 and 8 of ``walk``)."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.buffers import ActLayout
from codesign.targets.fpga.hw.walk import delay


def rotated(m: Module, items: list[Any], amount: Any) -> list[Any]:
    """items[(i + amount) mod n] for each i, registered. ``amount`` < n."""
    found = []
    for i in range(len(items)):
        lane = Signal(len(items[i]), name=f"lane_{i}", reset_less=True)
        choice = Array(items[(i + k) % len(items)] for k in range(len(items)))
        m.d.sync += lane.eq(choice[amount] if len(items) > 1 else items[0])
        found.append(lane)
    return found


class Operands(wiring.Component):
    """Activations as read (stage 7) to the multipliers' operands (stage 8): each lane's pixel from
    the memory that holds it, 0 for padding, one bit wider so that unsigned values fit."""

    def __init__(self, engine: Engine) -> None:
        """Of an engine."""
        self.engine = engine
        layout = ActLayout.of(engine)
        self.layout = layout
        channels = layout.lanes * layout.channels
        pixel = data.ArrayLayout(signed(engine.activation_bits + 1), channels)
        ports: dict[str, Any] = {
            "read": In(data.ArrayLayout(layout.word_bits, layout.memories)),
            "rotate": In(ceil_log2(layout.memories) or 1),
            "lanes": In(layout.memories),
            "is_signed": In(1),
            "doubled": In(1),
            "activation": Out(data.ArrayLayout(pixel, engine.px)),
        }
        if engine.double:
            high = data.ArrayLayout(signed(5), channels)
            ports["high"] = Out(data.ArrayLayout(high, engine.px))
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        """Rotation, a register, masks."""
        m = Module()
        e, layout = self.engine, self.layout
        channels = layout.lanes * layout.channels
        read = [self.read[j] for j in range(layout.memories)]
        sign, double = delay(m, self.is_signed, 1), delay(m, self.doubled, 1)
        lanes = delay(m, self.lanes, 1)
        if not e.double:
            for x, word in enumerate(rotated(m, read, self.rotate)):
                for c in range(channels):
                    bits = word[c * layout.bits :][: layout.bits] & lanes[x].replicate(layout.bits)
                    m.d.comb += self.activation[x][c].eq(_extended(bits, sign))
            return m
        # both halves are rotated by the amount modulo px; lanes that then look into the other half
        # swap with it (only at the double rate)
        over = self.rotate >= e.px
        within = Signal(ceil_log2(e.px) or 1)
        m.d.comb += within.eq(Mux(over, self.rotate - e.px, self.rotate))
        lower = rotated(m, read[: e.px], within)
        upper = rotated(m, read[e.px :], within)
        for x in range(e.px):
            swap = Signal(name=f"swap_{x}", reset_less=True)
            m.d.sync += swap.eq(self.doubled & (over ^ (x + within >= e.px)))
            a = Mux(swap, upper[x], lower[x]) & lanes[x].replicate(layout.word_bits)
            other = Mux(double, lanes[x + e.px], lanes[x]).replicate(layout.word_bits)
            b = Mux(swap, lower[x], upper[x]) & other
            for c in range(channels):
                low, high = a[4 * c :][:4], b[4 * c :][:4]
                whole = Cat(low, high)[: e.activation_bits]
                m.d.comb += self.activation[x][c].eq(
                    Mux(double, _extended(low, sign), _extended(whole, sign))
                )
                m.d.comb += self.high[x][c].eq(_extended(high, sign))
        return m


def _extended(bits: Any, sign: Any) -> Any:
    """One bit more: the sign, or 0 for unsigned values."""
    return Cat(bits, bits[-1] & sign).as_signed()
