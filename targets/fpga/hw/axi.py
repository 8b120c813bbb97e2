# SPDX-License-Identifier: Apache-2.0
"""AXI4 and AXI4-Lite as Amaranth signatures, and a register slice for streams."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature

ADDRESS = 40
"""Address bits of the master, as Zynq UltraScale+ has; other parts leave upper ones open."""


def axi4(bits: int) -> Any:
    """A master's side. One ID, INCR bursts of whole beats, so the constant signals (size, burst,
    cache, prot, id) are added by the top level."""
    return Signature(
        {
            "araddr": Out(ADDRESS),
            "arlen": Out(8),
            "arvalid": Out(1),
            "arready": In(1),
            "rdata": In(bits),
            "rresp": In(2),
            "rlast": In(1),
            "rvalid": In(1),
            "rready": Out(1),
            "awaddr": Out(ADDRESS),
            "awlen": Out(8),
            "awvalid": Out(1),
            "awready": In(1),
            "wdata": Out(bits),
            "wstrb": Out(bits // 8),
            "wlast": Out(1),
            "wvalid": Out(1),
            "wready": In(1),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
        }
    )


LITE_ADDRESS = 8

AxiLite = Signature(
    {
        "awaddr": Out(LITE_ADDRESS),
        "awvalid": Out(1),
        "awready": In(1),
        "wdata": Out(32),
        "wstrb": Out(4),
        "wvalid": Out(1),
        "wready": In(1),
        "bresp": In(2),
        "bvalid": In(1),
        "bready": Out(1),
        "araddr": Out(LITE_ADDRESS),
        "arvalid": Out(1),
        "arready": In(1),
        "rdata": In(32),
        "rresp": In(2),
        "rvalid": In(1),
        "rready": Out(1),
    }
)
"""A master's side; the accelerator has the flipped one."""


class Slice(Component):
    """Registers a stream in both directions; one transfer a cycle.

    The spare register follows the input while it is empty, so that the way from the output's
    ``ready`` ends at one set of registers; payloads have no reset.
    """

    def __init__(self, layout: Any) -> None:
        self.layout = layout
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spare = Signal(self.layout, reset_less=True)
        front = Signal(self.layout, reset_less=True)
        held = Signal()
        m.d.comb += [self.i.ready.eq(~held), self.o.payload.eq(front)]
        with m.If(~held):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(held | self.i.valid), held.eq(0),
                front.eq(Mux(held, Value.cast(spare), Value.cast(self.i.payload))),
            ]  # fmt: skip
        with m.Elif(self.i.valid):
            m.d.sync += held.eq(1)
        return m


class Turns(Component):
    """Registers a stream in both directions, as ``Slice`` does, but in two registers in turn: the
    way from the output's ``ready`` ends at three flip-flops, and payloads pass a multiplexer."""

    def __init__(self, layout: Any) -> None:
        self.layout = layout
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        words = [Signal(self.layout, name=f"word_{k}", reset_less=True) for k in range(2)]
        write, read, full = Signal(), Signal(), Signal()  # turns; full: both hold something
        push, pop = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~full), push.eq(self.i.valid & ~full),
            pop.eq(self.o.valid & self.o.ready),
            self.o.payload.eq(Mux(read, Value.cast(words[1]), Value.cast(words[0]))),
        ]
        m.d.sync += [
            write.eq(write ^ push), read.eq(read ^ pop),
            self.o.valid.eq(push | full | (self.o.valid & ~pop)),
            full.eq(~pop & (full | (self.o.valid & push))),
        ]
        for k, word in enumerate(words):
            with m.If(~full & (write == k)):
                m.d.sync += word.eq(self.i.payload)
        return m


class Stage(Component):
    """A register in a stream's way; ``ready`` goes through. Right behind block RAM, which leaves
    no time for a multiplexer."""

    def __init__(self, layout: Any) -> None:
        self.layout = layout
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held = Signal(self.layout, reset_less=True)
        free = Signal()
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready), self.i.ready.eq(free),
            self.o.payload.eq(held),
        ]
        with m.If(free):
            m.d.sync += [self.o.valid.eq(self.i.valid), held.eq(self.i.payload)]
        return m
