# SPDX-License-Identifier: Apache-2.0
"""Writing memory: store units packed into beats, beats gathered into bursts, the AXI channels."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from amaranth.utils import ceil_log2

from codesign.targets.fpga.hw.axi import ADDRESS, Slice, Stage, axi4
from codesign.targets.fpga.hw.ports import ADDRESS_BITS, STORE_UNIT, Port, store_stream

SOURCES = ("drain", "depthwise")


def beat_layout(port: Port) -> Any:
    """``place``: address in beats; ``follows``: the one after the last beat's. A beat without
    ``mask`` only says that a command is ``last``."""
    place = ADDRESS_BITS - ceil_log2(port.bits // 8)
    flags = {"mask": port.words, "last": 1, "follows": 1}
    return data.StructLayout({"place": place, "data": port.bits, **flags})


class Packer64(Component):
    """Store units to beats of 64 bits: one for each word."""

    def __init__(self, port: Port) -> None:
        super().__init__({"i": In(store_stream()), "o": Out(stream.Signature(beat_layout(port)))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        unit = self.i.payload
        second = Signal()
        beat = self.o.payload
        more = (unit.words == 2) & ~second
        go = Signal()
        place = Signal.like(beat.place)
        after = Signal.like(beat.place)  # the last beat's
        m.d.comb += place.eq(unit.address[3:] + second)
        m.d.comb += [
            go.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(go & ~more),
        ]
        with m.If(go):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                beat.place.eq(place),
                beat.follows.eq(second | (unit.address[3:] == after)),
                beat.data.eq(Mux(second, unit.data[64:], unit.data[:64])),
                beat.mask.eq(unit.words != 0),
                beat.last.eq(unit.last & ~more),
                second.eq(self.i.valid & more),
            ]
        with m.If(go & self.i.valid):
            m.d.sync += after.eq(place + 1)
        return m


class Packer128(Component):
    """Store units to aligned beats of 128 bits; neighbouring words of two units share a beat.

    ``held`` is a word in the lower half of a beat whose upper half may still come.
    """

    def __init__(self, port: Port) -> None:
        super().__init__({"i": In(store_stream()), "o": Out(stream.Signature(beat_layout(port)))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        unit = self.i.payload
        beat = self.o.payload
        held, held_last = Signal(), Signal()
        held_data, held_place = Signal(64), Signal(len(beat.place))
        place, odd = unit.address[4:], unit.address[3]
        after = Signal.like(place)  # the last beat's place and one
        low, high = unit.data[:64], unit.data[64:]
        joins = Signal()  # the unit's first word fills the held word's beat
        m.d.comb += joins.eq(held & ~held_last & odd & (place == held_place) & (unit.words != 0))
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(~self.o.valid | self.o.ready):
            with m.If(held & (held_last | (self.i.valid & ~joins))):  # goes alone
                m.d.sync += [
                    self.o.valid.eq(1),
                    beat.place.eq(held_place),
                    beat.follows.eq(held_place == after),
                    after.eq(held_place + 1),
                    beat.data[:64].eq(held_data),
                    beat.mask.eq(1),
                    beat.last.eq(held_last),
                    held.eq(0),
                ]
            with m.Elif(self.i.valid):
                m.d.comb += self.i.ready.eq(1)
                keeps = Mux(odd, unit.words == 2, unit.words == 1)
                with m.If(~(keeps & ~odd)):
                    m.d.sync += after.eq(place + 1)
                m.d.sync += [
                    self.o.valid.eq(~(keeps & ~odd)),
                    beat.place.eq(place),
                    beat.follows.eq(place == after),
                    beat.data.eq(Mux(odd, Cat(held_data, low), unit.data)),
                    beat.mask.eq(Mux(odd, Cat(joins, 1), 3) & (unit.words != 0).replicate(2)),
                    beat.last.eq(unit.last & ~keeps),
                    held.eq(keeps),
                    held_last.eq(unit.last),
                    held_data.eq(Mux(odd, high, low)),
                    held_place.eq(place + odd),
                ]
        return m


class Gather(Component):
    """Beats to bursts: runs of neighbouring beats that end at multiples of the longest burst."""

    def __init__(self, port: Port) -> None:
        self.port = port
        beat = beat_layout(port)
        flags = {"last": 1, "token": 1}
        self.burst = data.StructLayout(
            {"place": beat["place"].shape, "beats": ceil_log2(port.burst) + 1, **flags}
        )
        self.beat = data.StructLayout({"data": port.bits, "mask": port.words})
        super().__init__(
            {
                "i": In(stream.Signature(beat)),
                "bursts": Out(stream.Signature(self.burst)),
                "beats": Out(stream.Signature(self.beat)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port = self.port
        m.submodules.data = beats = SyncFIFO(width=self.beat.size, depth=2 * port.burst)
        m.submodules.heads = heads = SyncFIFO(width=self.burst.size, depth=8)
        m.submodules.front = front = Stage(self.beat.size)
        # whether there is room is known a cycle late, so the last place of each stays empty
        room = Signal(init=1)
        m.d.sync += room.eq((beats.level < 2 * port.burst - 1) & (heads.level < 7))
        coming = self.i.payload
        low = ceil_log2(port.burst)
        first = Signal(self.burst["place"].shape)
        count = Signal(low + 1)
        open_ = Signal()  # count != 0
        token = coming.mask == 0
        foreign = open_ & (token | ~coming.follows)
        burst = Signal(self.burst)
        m.d.comb += [
            beats.w_data.eq(Cat(coming.data, coming.mask)),
            heads.w_data.eq(burst),
            burst.place.eq(Mux(open_, first, coming.place)),
            burst.token.eq(token & ~open_),
            front.i.valid.eq(beats.r_rdy),
            front.i.payload.eq(beats.r_data),
            beats.r_en.eq(front.i.ready),
            self.beats.valid.eq(front.o.valid),
            self.beats.payload.eq(front.o.payload),
            front.o.ready.eq(self.beats.ready),
            self.bursts.valid.eq(heads.r_rdy),
            self.bursts.payload.eq(heads.r_data),
            heads.r_en.eq(self.bursts.ready),
        ]
        with m.If(self.i.valid & room):
            with m.If(foreign):  # the open burst ends before this beat
                m.d.comb += [heads.w_en.eq(1), burst.beats.eq(count)]
                m.d.sync += [count.eq(0), open_.eq(0)]
            with m.Else():
                close = coming.last | coming.place[:low].all()
                m.d.comb += [
                    self.i.ready.eq(1),
                    beats.w_en.eq(~token),
                    heads.w_en.eq(close),
                    burst.beats.eq(count + ~token),
                    burst.last.eq(coming.last),
                ]
                m.d.sync += [
                    count.eq(Mux(close, 0, count + 1)),
                    open_.eq(~close),
                    first.eq(burst.place),
                ]
        return m


class WritePort(Component):
    """Store units of both sources on the AXI write channels.

    ``finished`` of a source pulses once for each command, in order, when all its writes have their
    responses.
    """

    def __init__(self, port: Port) -> None:
        self.port = port
        axi = axi4(port.bits)
        names = [n for n in axi.members if n.startswith(("aw", "w", "b"))]
        super().__init__(
            {
                **{name: In(store_stream()) for name in SOURCES},
                "axi": Out(Signature({n: axi.members[n] for n in names})),
                "base": In(ADDRESS),
                "finished": Out(len(SOURCES)),
                "error": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port, axi = self.port, self.axi
        gathers = []
        for name in SOURCES:
            packer = Packer64(port) if port.words == 1 else Packer128(port)
            gather = Gather(port)
            m.submodules[f"pack_{name}"], m.submodules[f"gather_{name}"] = packer, gather
            # a register slice: `ready` ends here
            m.submodules[f"units_{name}"] = units = Slice(STORE_UNIT)
            connect(m, flipped(getattr(self, name)), units.i)
            connect(m, units.o, packer.i)
            m.submodules[f"beats_{name}"] = between = Slice(packer.o.payload.shape())
            connect(m, packer.o, between.i)
            connect(m, between.o, gather.i)
            gathers.append(gather)

        # of a burst that goes out: beats but one
        send = data.StructLayout({"source": 1, "more": len(gathers[0].bursts.payload.beats)})
        wait = data.StructLayout({"source": 1, "last": 1, "token": 1})
        m.submodules.sends = sends = SyncFIFOBuffered(width=send.size, depth=4)
        m.submodules.waits = waits = SyncFIFOBuffered(width=wait.size, depth=port.writes)
        new_send, new_wait = data.View(send, sends.w_data), data.View(wait, waits.w_data)
        turn = Signal()  # who was served last
        source = Signal()
        first, second = (gather.bursts for gather in gathers)
        m.d.comb += source.eq(Mux(turn, ~first.valid, second.valid))
        burst = Signal(gathers[0].burst)
        some, free, token = Signal(), Signal(), Signal()
        m.d.comb += [
            burst.eq(Mux(source, second.payload, first.payload)),
            token.eq(burst.token),
            some.eq(first.valid | second.valid),
            free.eq((~axi.awvalid | axi.awready) & sends.w_rdy & waits.w_rdy),
            first.ready.eq(free & ~source),
            second.ready.eq(free & source),
            sends.w_en.eq(some & free & ~token),
            waits.w_en.eq(some & free),
            new_send.source.eq(source),
            new_send.more.eq(burst.beats - 1),
            new_wait.source.eq(source),
            new_wait.last.eq(burst.last),
            new_wait.token.eq(token),
        ]
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(some & free):
            m.d.sync += turn.eq(source)
            with m.If(~token):
                m.d.sync += [
                    axi.awvalid.eq(1),
                    axi.awaddr.eq(self.base + (burst.place << ceil_log2(port.bits // 8))),
                    axi.awlen.eq(burst.beats - 1),
                ]

        head = data.View(send, sends.r_data)
        sent = Signal(len(head.more))
        beats = [gather.beats for gather in gathers]
        beat = Signal(gathers[0].beat)
        go = Signal()
        m.d.comb += [
            beat.eq(Mux(head.source, beats[1].payload, beats[0].payload)),
            go.eq(
                sends.r_rdy
                & Mux(head.source, beats[1].valid, beats[0].valid)
                & (~axi.wvalid | axi.wready)
            ),
            beats[0].ready.eq(go & ~head.source),
            beats[1].ready.eq(go & head.source),
            sends.r_en.eq(go & (sent == head.more)),
        ]
        with m.If(axi.wready):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(go):
            m.d.sync += [
                axi.wvalid.eq(1),
                axi.wdata.eq(beat.data),
                axi.wstrb.eq(Cat(beat.mask[k // 8] for k in range(port.bits // 8))),
                axi.wlast.eq(sends.r_en),
                sent.eq(Mux(sends.r_en, 0, sent + 1)),
            ]

        waiting = data.View(wait, waits.r_data)
        done = Signal()
        m.d.comb += [
            axi.bready.eq(waits.r_rdy & ~waiting.token),
            done.eq(waits.r_rdy & (waiting.token | axi.bvalid)),
            waits.r_en.eq(done),
            self.idle.eq(~waits.r_rdy & ~first.valid & ~second.valid),
        ]
        m.d.sync += self.finished.eq((done & waiting.last) << waiting.source)
        with m.If(axi.bvalid & axi.bready & axi.bresp[1]):
            m.d.sync += self.error.eq(1)
        return m
