# SPDX-License-Identifier: Apache-2.0
"""Sums to results: ``clip(((sum + bias) · m + 2^(e−1) >> e) [+ residual], lo, hi)``.

``post`` lanes, a result each a cycle, ``LATENCY`` edges from sum to result; a register after every
adder, multiplexer stage and comparison, so that no stage holds the clock back. The residual's own
requantisation is a table of its 256 values, filled when a command brings other factors than the
last one; one block RAM a lane.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from codesign.space.accelerator import Engine
from codesign.space.device import MultiplierKind
from codesign.targets.fpga.hw.buffers import PARAM, MemoryShape, memory
from codesign.targets.fpga.hw.multiply import ScaleMultiplier
from codesign.targets.fpga.hw.walk import delay
from codesign.targets.fpga.isa import BLOCK

LATENCY = 13
"""Edges from ``sums`` to ``results``."""
RESIDUAL_STAGE = 7
"""Edges from ``sums`` to the residual's bytes of the same results."""
LIMIT_STAGE = 11
"""Edges from ``sums`` to ``lo`` and ``hi`` of the same results."""
QUEUE = 32
"""Residual block pixels that a unit holds."""


def table_shape(engine: Engine) -> MemoryShape:
    """The residual tables of an engine's way out, to be counted with its buffers."""
    return MemoryShape("residual", 16, 256, engine.post)


def _sign_extended_from(value: Any, low: int, high: int) -> Any:
    """Whether bits low .. high − 1 of ``value`` differ from each other."""
    part = value[low:high]
    return part.any() & ~part.all()


class Requantisers(wiring.Component):
    """``post`` lanes; lane l takes the parameters of channel l mod 8.

    ``add`` (with the residual's bytes) says that the residual counts. ``tables`` reads the residual
    tables: ``index`` to ``value`` two edges later.
    """

    def __init__(self, post: int, hard: MultiplierKind, *, primitive: bool = True) -> None:
        """``hard``: the device's hard multiplier; "lut" leaves the choice to synthesis."""
        self.post, self.hard = post, hard
        self.primitive = primitive and hard != "lut"
        super().__init__(
            {
                "sums": In(data.ArrayLayout(signed(32), post)),
                "params": In(data.ArrayLayout(PARAM, min(post, BLOCK))),
                "residual": In(data.ArrayLayout(8, post)),
                "add": In(1),
                "lo": In(signed(16)),
                "hi": In(signed(16)),
                "results": Out(data.ArrayLayout(signed(16), post)),
                "index": Out(data.ArrayLayout(8, post)),
                "value": In(data.ArrayLayout(signed(16), post)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """One pipeline a lane."""
        m = Module()
        kind = self.hard if self.hard != "lut" else "dsp48e2"
        add = delay(m, self.add, 3)
        lo, hi = delay(m, self.lo, 1), delay(m, self.hi, 1)
        m.d.sync += self.index.eq(self.residual)
        for lane in range(self.post):
            param = self.params[lane % len(self.params)]
            multiply = ScaleMultiplier(kind, 32, primitive=self.primitive)
            m.submodules[f"multiply_{lane}"] = multiply
            value = Signal(signed(32), name=f"value_{lane}", reset_less=True)
            m.d.sync += value.eq(self.sums[lane] + param.bias)
            m.d.comb += [multiply.value.eq(value), multiply.factor.eq(delay(m, param.m, 1))]
            shift = delay(m, param.e - 1, 1)[:6]
            shift = delay(m, shift, 4)
            scaled = self._scaled(m, multiply.product, shift, lane)
            residual = Mux(add, self.value[lane], 0)
            total = Signal(signed(17), name=f"total_{lane}", reset_less=True)
            m.d.sync += total.eq(scaled + residual)
            below, above = (
                Signal(name=f"{name}_{lane}", reset_less=True) for name in ("below", "above")
            )
            m.d.sync += [below.eq(total < self.lo), above.eq(total > self.hi)]
            out = Signal(signed(16), name=f"out_{lane}", reset_less=True)
            m.d.sync += out.eq(Mux(below, lo, Mux(above, hi, delay(m, total, 1)[:16])))
            m.d.comb += self.results[lane].eq(out)
        return m

    def _scaled(self, m: Module, product: Any, shift: Any, lane: int) -> Any:
        """round(product / 2^(shift + 1)) clipped to 16 bits, five edges later.

        Three shift stages (16s, 4s, 1s) keep an 18-bit window and whether a bit above it counts.
        """
        window, width = Value.cast(product), 48
        over: Any = Const(0)
        negative = product[-1]
        for low, bits in ((4, 2), (2, 2), (0, 2)):
            step = 1 << low
            keep = 18 + step - 1 if low else 18
            keep = 33 if low == 4 else keep
            amount = shift[low : low + bits]
            extended = Cat(window, window[-1].replicate(64)).as_signed()
            moved, lost = [], []
            for k in range(1 << bits):
                at = k * step
                moved.append(extended[at : at + keep])
                lost.append(
                    _sign_extended_from(window, at + keep - 1, width)
                    if at + keep < width
                    else Const(0)
                )
            part = Signal(keep, name=f"shift{low}_{lane}", reset_less=True)
            much = Signal(name=f"over{low}_{lane}", reset_less=True)
            m.d.sync += part.eq(_chosen(moved, amount))
            m.d.sync += much.eq(over | _chosen(lost, amount))
            negative, shift = delay(m, negative, 1), delay(m, shift, 1)
            window, width, over = part, keep, much
        rounded = Signal(signed(18), name=f"rounded_{lane}", reset_less=True)
        m.d.sync += rounded.eq((window.as_signed() + 1) >> 1)
        over, negative = delay(m, over, 1), delay(m, negative, 1)
        clipped = Signal(signed(16), name=f"clipped_{lane}", reset_less=True)
        far = over | _sign_extended_from(rounded, 15, 18)
        m.d.sync += clipped.eq(Mux(far, Cat((~negative).replicate(15), negative), rounded[:16]))
        return clipped


def _chosen(options: list[Any], amount: Any) -> Any:
    """options[amount], four of them."""
    low = [Mux(amount[0], options[k + 1], options[k]) for k in (0, 2)]
    return Mux(amount[1], low[1], low[0])


class ResidualTable(wiring.Component):
    """clip(r · m + 2^(e−1) >> e, 16 bits) of all 256 bytes r, a memory for each lane.

    ``start`` fills it if the factors are not those it was filled with; ``busy`` until all values
    can be read. Nothing may be in flight that still reads the old values.
    """

    def __init__(self, lanes: int) -> None:
        """``lanes``: reads in a cycle."""
        self.lanes = lanes
        super().__init__(
            {
                "start": In(1),
                "m": In(16),
                "e": In(6),
                "signed": In(1),
                "busy": Out(1),
                "index": In(data.ArrayLayout(8, lanes)),
                "value": Out(data.ArrayLayout(signed(16), lanes)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """One value a cycle: r · m by adding m each time."""
        m = Module()
        factors = Cat(self.m, self.e, self.signed)
        held = Signal.like(factors)
        filled = Signal()
        running = Signal()
        count = Signal(8)
        product = Signal(signed(25))
        sign = held[-1]
        with m.If(self.start & ~(filled & (held == factors))):
            m.d.sync += [
                held.eq(factors), running.eq(1), filled.eq(1), count.eq(0),
                product.eq(Mux(self.signed, -(self.m << 7), 0)),
            ]  # fmt: skip
        with m.If(running):
            m.d.sync += [count.eq(count + 1), product.eq(product + held[:16])]
            m.d.sync += running.eq(count != 255)
        shift = (held[16:22] - 1)[:6]
        shifted, rounded = Signal(signed(25)), Signal(signed(25))
        clipped = Signal(signed(16))
        m.d.sync += [
            shifted.eq(product >> shift), rounded.eq((shifted + 1) >> 1),
            clipped.eq(Mux(
                _sign_extended_from(rounded, 15, 25),
                Cat((~rounded[-1]).replicate(15), rounded[-1]), rounded[:16],
            )),
        ]  # fmt: skip
        write = delay(m, running, 3, reset=True)
        address = delay(m, Mux(sign, count ^ 128, count), 3)
        m.d.comb += self.busy.eq(running | (delay(m, running, 4, reset=True)) | write)
        for lane in range(self.lanes):
            ram = memory(signed(16), 256)
            m.submodules[f"ram_{lane}"] = ram
            port = ram.write_port()
            m.d.comb += [port.addr.eq(address), port.data.eq(clipped), port.en.eq(write)]
            read = ram.read_port()
            # without a reset, so that the register can be block RAM's own
            value = Signal(signed(16), name=f"value_{lane}", reset_less=True)
            m.d.sync += value.eq(read.data)
            m.d.comb += [read.addr.eq(self.index[lane]), self.value[lane].eq(value)]
        return m


class ResidualQueue(wiring.Component):
    """Block pixels of the residual tensor, in order; up to two come and go in a cycle.

    ``room``: two words may be sent in this cycle and come in the next one. ``came`` tells the unit
    of them, by when they can be read; ``head``: the first two, of which ``pop`` are dropped.
    """

    def __init__(self) -> None:
        """``QUEUE`` words."""
        super().__init__(
            {
                "words": In(data.ArrayLayout(64, 2)),
                "count": In(2),
                "room": Out(1, init=1),
                "came": Out(2),
                "head": Out(data.ArrayLayout(64, 2)),
                "pop": In(2),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Two memories, words of even and odd number; a register before each of them, since words
        come from far away."""
        m = Module()
        level = Signal(range(QUEUE + 1))
        wrote, read, following = (Signal(range(QUEUE), name=n) for n in ("wrote", "read", "next"))
        m.d.comb += following.eq(read + self.pop)
        m.d.sync += [
            # what is sent now and was in the two cycles before is not counted yet
            self.room.eq(level <= QUEUE - 6), level.eq(level + self.count - self.pop),
            self.came.eq(self.count), wrote.eq(wrote + self.count), read.eq(following),
        ]  # fmt: skip
        heads = []
        for parity in range(2):
            ram = Memory(shape=64, depth=QUEUE // 2, init=[])
            m.submodules[f"ram_{parity}"] = ram
            port = ram.write_port()
            mine = wrote[0] != parity  # this memory takes the second word
            address, word = Signal.like(port.addr), Signal(64, reset_less=True)
            write = Signal()
            m.d.sync += [
                address.eq((wrote + mine) >> 1), word.eq(Mux(mine, self.words[1], self.words[0])),
                write.eq(Mux(mine, self.count == 2, self.count != 0)),
            ]
            m.d.comb += [port.addr.eq(address), port.data.eq(word), port.en.eq(write)]
            out = ram.read_port(domain="comb")
            place = Signal.like(out.addr)
            m.d.sync += place.eq((following + (following[0] != parity)) >> 1)
            m.d.comb += out.addr.eq(place)
            heads.append(out.data)
        m.d.comb += self.head[0].eq(Mux(read[0], heads[1], heads[0]))
        m.d.comb += self.head[1].eq(Mux(read[0], heads[0], heads[1]))
        return m
