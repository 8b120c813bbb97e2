# SPDX-License-Identifier: Apache-2.0
"""Reading memory: runs cut into bursts, the AXI read channels, residual words for the drains."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from amaranth.utils import ceil_log2

from codesign.targets.fpga.hw.axi import ADDRESS, Slice, axi4
from codesign.targets.fpga.hw.ports import (
    ADDRESS_BITS,
    READ_RUN,
    Port,
    ResidualSignature,
    read_beat,
)

CLIENTS = ("fetch", "drain", "depthwise", "load")
"""Who reads, most urgent first. Only ``load`` can keep the port busy for long."""


def burst_layout(port: Port) -> Any:
    """One burst: ``words`` times 8 bytes that do not cross a multiple of the longest burst."""
    return data.StructLayout(
        {"address": ADDRESS_BITS, "words": ceil_log2(port.burst * port.words) + 1}
    )


class Splitter(Component):
    """Runs to bursts of at most ``most`` words that end at multiples of ``most`` words.

    So none crosses 4 KiB. With ``room``, bursts are only sent while their words fit beside those
    asked for and not yet ``freed``.
    """

    def __init__(self, port: Port, most: int, room: int = 0) -> None:
        self.port = port
        self.most = most
        self.room = room
        super().__init__(
            {
                "run": In(stream.Signature(READ_RUN)),
                "burst": Out(stream.Signature(burst_layout(port))),
                "freed": In(2),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        low = ceil_log2(self.most)
        at = Signal(ADDRESS_BITS - 3)
        left = Signal(READ_RUN["words"].shape)
        some = Signal()  # left != 0
        reach = Signal(low + 1)  # words to the next multiple of ``most``
        size = Signal(low + 1)
        final = Signal()  # the run's last burst
        m.d.comb += [
            final.eq(left <= reach),
            size.eq(Mux(final, left, reach)),
        ]
        # a register slice: the port chooses among bursts of all clients, and its answer comes late
        m.submodules.slice = piece = Slice(burst_layout(self.port))
        connect(m, piece.o, flipped(self.burst))
        may = Signal(init=1)
        step = Signal()
        if self.room:
            asked = Signal(range(self.room + 1))
            stepped, taken = Signal(), Signal.like(size)  # counted a cycle later
            following = Signal.like(asked)
            full = Signal()  # no burst fits beside ``asked``; the comparison has its own cycle
            m.d.comb += [
                may.eq(~full & ~stepped),
                following.eq(asked + Mux(stepped, taken, 0) - self.freed),
            ]
            m.d.sync += [
                stepped.eq(step), taken.eq(size), asked.eq(following),
                full.eq(following > self.room - self.most),
            ]
        m.d.comb += [
            piece.i.valid.eq(some & may),
            piece.i.payload.address.eq(Cat(Const(0, 3), at)),
            piece.i.payload.words.eq(size),
            step.eq(piece.i.valid & piece.i.ready),
            self.run.ready.eq(~some),
        ]
        with m.If(step):
            m.d.sync += [
                left.eq(left - reach),  # of no use after the last one
                some.eq(~final),
                reach.eq(self.most),
                at.eq(Cat(Const(0, low), at[low:] + 1)),
            ]
        with m.If(self.run.valid & self.run.ready):
            m.d.sync += [
                at.eq(self.run.payload.address[3:]),
                left.eq(self.run.payload.words),
                some.eq(self.run.payload.words != 0),
                reach.eq(self.most - self.run.payload.address[3 : 3 + low]),
            ]
        return m


class ReadPort(Component):
    """Bursts of all clients on the AXI read channels; beats back to who asked.

    Bursts are answered in order (one ID). A client that asks for a burst must be able to take its
    beats without waiting for another burst.
    """

    def __init__(self, port: Port) -> None:
        self.port = port
        clients = Signature(
            {
                "burst": In(stream.Signature(burst_layout(port))),
                "beat": Out(stream.Signature(read_beat(port))),
            }
        )
        axi = axi4(port.bits)
        names = [n for n in axi.members if n.startswith(("ar", "r"))]
        super().__init__(
            {
                **{name: Out(clients) for name in CLIENTS},
                "axi": Out(Signature({n: axi.members[n] for n in names})),
                "base": In(ADDRESS),
                "error": Out(1),
                "idle": Out(1),
                "client": Out(2),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port, axi = self.port, self.axi
        half = ceil_log2(port.words)
        entry = data.StructLayout({"client": 2, "low": port.words, "high": port.words})
        # who asked: a queue and a slice for two; so answers do not wait for the queue's memory.
        # An answer never comes before its entry is there: its beats pass a slice, too
        m.submodules.order = order = SyncFIFO(width=entry.size, depth=port.reads - 2)
        m.submodules.heads = heads = Slice(entry)
        coming, head = data.View(entry, order.w_data), heads.o.payload
        m.d.comb += [
            heads.i.valid.eq(order.r_rdy), heads.i.payload.eq(order.r_data),
            order.r_en.eq(heads.i.ready),
        ]

        chosen = Signal(burst_layout(port))
        some = Signal()
        free = Signal()
        m.d.comb += [
            free.eq((~axi.arvalid | axi.arready) & order.w_rdy),
            order.w_en.eq(some & free),
        ]
        clients = [getattr(self, name) for name in CLIENTS]
        for index, client in reversed([*enumerate(clients)]):
            with m.If(client.burst.valid):
                m.d.comb += [some.eq(1), chosen.eq(client.burst.payload), coming.client.eq(index)]
        before: Any = 0
        for client in clients:
            m.d.comb += client.burst.ready.eq(free & ~before)
            before = before | client.burst.valid
        start = chosen.address[3 : 3 + half]
        end = Signal(half + 1 + len(chosen.words))
        m.d.comb += end.eq(start + chosen.words - 1)  # last word, from the first beat's start
        m.d.comb += [
            coming.low.eq(Cat(start <= k for k in range(port.words))),
            coming.high.eq(Cat(end[:half] >= k for k in range(port.words))),
        ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(some & free):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.araddr.eq(self.base + (chosen.address & -(port.bits // 8))),
                axi.arlen.eq(end >> half),
                self.client.eq(coming.client),
            ]

        layout = data.StructLayout({"data": port.bits, "last": 1})
        m.submodules.slice = piece = Slice(layout)
        first = Signal(init=1)
        beat = piece.o.payload
        mask = Mux(first, head.low, ~0) & Mux(beat.last, head.high, ~0)
        m.d.comb += [
            piece.i.valid.eq(axi.rvalid),
            axi.rready.eq(piece.i.ready),
            piece.i.payload.data.eq(axi.rdata),
            piece.i.payload.last.eq(axi.rlast),
            heads.o.ready.eq(piece.o.valid & piece.o.ready & beat.last),
            self.idle.eq(~order.r_rdy & ~heads.o.valid & ~axi.arvalid),
        ]
        with m.If(axi.rvalid & axi.rready & axi.rresp[1]):
            m.d.sync += self.error.eq(1)
        with m.If(piece.o.valid & piece.o.ready):
            m.d.sync += first.eq(beat.last)
        for index, client in enumerate(clients):
            mine = head.client == index
            m.d.comb += [
                client.beat.valid.eq(piece.o.valid & mine),
                client.beat.payload.data.eq(beat.data),
                client.beat.payload.mask.eq(mask),
            ]
            with m.If(mine):
                m.d.comb += piece.o.ready.eq(client.beat.ready)
        return m


class Residual(Component):
    """Runs asked for by a drain become words in order, up to two a cycle.

    Words stand alternately in two memories, so that two can be written and read at once. Only
    bursts that fit are asked for.
    """

    def __init__(self, port: Port) -> None:
        self.port = port
        super().__init__(
            {
                "unit": In(ResidualSignature),
                "burst": Out(stream.Signature(burst_layout(port))),
                "beat": In(stream.Signature(read_beat(port))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port = self.port
        depth = 64  # of each of the two memories; a LUT memory's natural size
        most = min(16, port.burst) * port.words
        m.submodules.splitter = splitter = Splitter(port, most, 2 * depth)
        connect(m, flipped(self.burst), splitter.burst)
        m.d.comb += [
            splitter.run.valid.eq(self.unit.run.valid),
            splitter.run.payload.eq(self.unit.run.payload),
            self.unit.run.ready.eq(splitter.run.ready),
            splitter.freed.eq(self.unit.count),
        ]
        where = ceil_log2(depth)
        written = Signal(where + 1)  # of words
        read = Signal(where + 1)
        count = Signal(range(2 * depth + 1))  # words there
        incoming = self.beat.payload
        words = [incoming.data[64 * k : 64 * k + 64] for k in range(port.words)]
        first = Mux(incoming.mask[0], words[0], words[-1])
        both = incoming.mask.all() if port.words == 2 else 0
        arrive = Signal()
        m.d.comb += [self.beat.ready.eq(1), arrive.eq(self.beat.valid)]
        number, came, sent = Signal(2), Signal(2), Signal(2)
        following = Signal.like(read)
        m.d.comb += [
            number.eq(Mux(arrive, 1 + both, 0)),
            sent.eq(Mux(self.unit.room, Mux(count > 1, 2, count), 0)),
            following.eq(read + sent),
        ]
        places = [Signal(where, name=f"place_{k}") for k in range(2)]  # of the next word in each
        m.d.sync += [places[0].eq((following + following[0])[1:]), places[1].eq(following[1:])]
        outs = []
        for parity in range(2):
            memory = Memory(shape=64, depth=depth, init=[])
            m.submodules[f"words{parity}"] = memory
            write, there = memory.write_port(), memory.read_port(domain="comb")
            mine = written[0] == parity
            # registers before the memory: its cells are many and spread
            on, address = Signal(), Signal(where, reset_less=True)
            word = Signal(64, reset_less=True)
            m.d.sync += [
                on.eq(arrive & (mine | both)),
                address.eq((written + ~mine)[1:] if parity == 0 else written[1:]),
                word.eq(Mux(mine, first, words[-1])),
            ]
            m.d.comb += [
                write.en.eq(on), write.addr.eq(address), write.data.eq(word),
                there.addr.eq(places[parity]),
            ]
            outs.append(there.data)
        out = [Signal(64, name=f"out_{k}", reset_less=True) for k in range(2)]
        m.d.comb += [self.unit.words[k].eq(out[k]) for k in range(2)]
        m.d.sync += [
            out[0].eq(Mux(read[0], outs[1], outs[0])), out[1].eq(Mux(read[0], outs[0], outs[1])),
            self.unit.count.eq(sent),
            written.eq(written + number), came.eq(number), read.eq(following),
            count.eq(count + came - sent),
        ]  # fmt: skip
        return m
