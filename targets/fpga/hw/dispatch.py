# SPDX-License-Identifier: Apache-2.0
"""Commands: fetched from memory, queued for each unit, given out when their waits hold."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from codesign.targets.fpga.hw.axi import Slice
from codesign.targets.fpga.hw.commands import UNITS, command_layout, command_stream, command_words
from codesign.targets.fpga.hw.ports import ADDRESS_BITS, Port, read_beat
from codesign.targets.fpga.hw.reads import burst_layout
from codesign.targets.fpga.isa import COMMAND_BYTES, Unit

WORDS = COMMAND_BYTES // 8
AHEAD = 4
"""Commands asked for before they are needed; so many may be read behind the end of a list."""
COUNTER = 16


KINDS = len(UNITS) + 2
"""A command is one unit's, or END, or none of these."""
WORD = data.StructLayout({"bits": 64, "kind": KINDS})
"""A command's word; ``kind``: a bit for each of ``KINDS``, of use in a command's first word."""


def kind_of(bits: Any) -> Any:
    """The ``kind`` that a command's first word names."""
    return Cat(*(bits[:3] == unit for unit in (*UNITS, Unit.END)), bits[2] & ~bits[:2].all())


class Fetch(Component):
    """Reads the command list in order and hands out its words, ``AHEAD`` commands in advance."""

    def __init__(self, port: Port) -> None:
        self.port = port
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "address": In(ADDRESS_BITS),
                "burst": Out(stream.Signature(burst_layout(port))),
                "beat": In(stream.Signature(read_beat(port))),
                "word": Out(stream.Signature(WORD)),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port = self.port
        beats = WORDS // port.words
        pieces = -(-beats // port.burst)  # bursts of a command
        m.submodules.words = fifo = SyncFIFO(width=port.bits, depth=AHEAD * beats)
        running = Signal()
        room = Signal(range(AHEAD * beats + 1), init=AHEAD * beats)  # beats neither asked nor held
        asked = Signal(range(AHEAD * beats + 1))  # beats under way
        ask = Signal()
        size = beats // pieces
        taken = Signal()
        may = Signal()  # there is room for a burst
        m.d.sync += may.eq(running & (room >= size) & ~ask)
        m.d.comb += [
            self.burst.payload.words.eq(size * port.words),
            self.burst.valid.eq(may),
            ask.eq(self.burst.valid & self.burst.ready),
            self.beat.ready.eq(1),
            fifo.w_en.eq(self.beat.valid & running),
            fifo.w_data.eq(self.beat.payload.data),
            self.quiet.eq(~running & ~may & (asked == 0)),
        ]
        m.d.sync += [
            asked.eq(asked + Mux(ask, size, 0) - self.beat.valid),
            room.eq(room - Mux(ask, size, 0) + taken),
        ]
        with m.If(ask):
            m.d.sync += self.burst.payload.address.eq(
                self.burst.payload.address + size * port.bits // 8
            )
        # registers behind the queue, so that neither its memory nor what a word is for adds to the
        # way into the others
        words = data.ArrayLayout(WORD, port.words)
        m.submodules.head = head = ResetInserter(~running)(Slice(words))
        for k in range(port.words):
            bits = fifo.r_data[64 * k :][:64]
            m.d.comb += head.i.payload[k].bits.eq(bits)
            m.d.comb += head.i.payload[k].kind.eq(kind_of(bits))
        m.d.comb += [
            head.i.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(head.i.ready | ~running), self.word.valid.eq(head.o.valid & running),
            head.o.ready.eq(taken),
        ]  # fmt: skip
        if port.words == 1:
            m.d.comb += taken.eq(self.word.valid & self.word.ready)
            m.d.comb += self.word.payload.eq(head.o.payload[0])
        else:
            upper = Signal()
            m.d.comb += [
                taken.eq(self.word.valid & self.word.ready & upper),
                self.word.payload.eq(Mux(upper, *(Value.cast(head.o.payload[k]) for k in (1, 0)))),
            ]
            with m.If(self.word.valid & self.word.ready):
                m.d.sync += upper.eq(~upper)
            with m.If(~running):
                m.d.sync += upper.eq(0)
        with m.If(self.start):
            m.d.sync += [
                running.eq(1),
                room.eq(AHEAD * beats),
                self.burst.payload.address.eq(self.address),
            ]
        with m.Elif(self.stop):
            m.d.sync += running.eq(0)
        return m


class Queue(Component):
    """Commands of one unit: a narrow memory, then one register that is filled word by word."""

    def __init__(self, unit: Unit, depth: int) -> None:
        self.unit = unit
        self.depth = depth
        self.length = command_words(unit)
        super().__init__(
            {
                "write": In(1),
                "word": In(64),
                "room": Out(1),
                "done": In(data.ArrayLayout(COUNTER, len(UNITS))),
                "clear": In(1),
                "command": Out(command_stream(unit)),
                "held": Out(1),
                "unmet": Out(len(UNITS)),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size = 1 << ceil_log2(self.depth * WORDS)
        m.submodules.memory = memory = Memory(shape=64, depth=size, init=[])
        write, read = memory.write_port(), memory.read_port()
        level = Signal(range(size + 1))
        some, room = Signal(), Signal(init=1)
        head, tail = Signal(range(size)), Signal(range(size))
        # the register behind the memory is the memory's own on an ECP5, where it is slow without
        take, reads, came = Signal(), Signal(), Signal()
        value = Signal(64, reset_less=True)
        words = [Signal(64, name=f"word_{k}", reset_less=True) for k in range(self.length)]
        asked, filled = Signal(range(self.length + 1)), Signal(range(self.length + 1))
        last, held, go = Signal(), Signal(), Signal()
        m.d.comb += [
            write.en.eq(self.write),
            write.addr.eq(tail),
            write.data.eq(self.word),
            read.addr.eq(head),
            read.en.eq(take),
            self.held.eq(held),
            last.eq(came & (filled == self.length - 1)),
            take.eq(some & (asked != self.length)),
            self.room.eq(room),
            self.empty.eq(~some & (asked == 0)),
        ]
        up, down = self.write & ~take, take & ~self.write
        m.d.sync += [
            tail.eq(tail + self.write), head.eq(head + take), reads.eq(take), came.eq(reads),
            value.eq(read.data), asked.eq(asked + take), filled.eq(filled + came),
            # a command's first word asks for room; of the words before it two are not counted yet
            room.eq(level < size - self.length - 1),
        ]  # fmt: skip
        with m.If(up):
            m.d.sync += [level.eq(level + 1), some.eq(1)]
        with m.Elif(down):
            m.d.sync += [level.eq(level - 1), some.eq(level != 1)]
        for index, word in enumerate(words):
            with m.If(came & (filled == index)):
                m.d.sync += word.eq(value)
        fields = data.View(command_layout(self.unit), Cat(words)[: command_layout(self.unit).size])
        m.d.comb += self.unmet.eq(_unmet(self.done, fields))
        # judged anew after every change of the register; a counter only moves towards "met". The
        # waits are in the first two words, so they are there when the last one comes
        m.d.sync += [held.eq(held | last), go.eq((held | last) & ~self.unmet.any())]
        m.d.comb += [
            self.command.valid.eq(go),
            self.command.payload.eq(fields),
        ]
        with m.If(go & self.command.ready):
            m.d.sync += [asked.eq(0), filled.eq(0), held.eq(0), go.eq(0)]
        with m.If(self.clear):
            m.d.sync += [
                asked.eq(0), filled.eq(0), held.eq(0), reads.eq(0), came.eq(0), level.eq(0),
                some.eq(0), head.eq(tail), go.eq(0), room.eq(1),
            ]  # fmt: skip
        return m


def _unmet(done: Any, fields: Any) -> Any:
    """Which waits of a command do not hold: done − wait < 0, modulo 2^16."""
    return Cat(
        (done[index] - getattr(fields, f"wait_{unit.name.lower()}"))[COUNTER - 1]
        for index, unit in enumerate(UNITS)
    )


class Dispatch(Component):
    """Shares out words of commands to the queues, counts finished commands, ends the run.

    ``done``: one bit for each of ``UNITS``, high one cycle for each finished command.
    """

    def __init__(self, depth: int = 8) -> None:
        self.depth = depth
        super().__init__(
            {
                "start": In(1),
                "word": In(stream.Signature(WORD)),
                "done": In(len(UNITS)),
                **{unit.name.lower(): Out(command_stream(unit)) for unit in UNITS},
                "counters": Out(data.ArrayLayout(COUNTER, len(UNITS))),
                "held": Out(len(UNITS) + 1),
                "unmet": Out(data.ArrayLayout(len(UNITS), len(UNITS) + 1)),
                "ended": Out(1),
                "bad": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        queues = [Queue(unit, self.depth) for unit in UNITS]
        for index, (unit, queue) in enumerate(zip(UNITS, queues)):
            m.submodules[unit.name.lower()] = queue
            out = getattr(self, unit.name.lower())
            m.d.comb += [
                queue.done.eq(self.counters),
                queue.clear.eq(self.start),
                out.valid.eq(queue.command.valid),
                out.payload.eq(queue.command.payload),
                queue.command.ready.eq(out.ready),
                self.held[index].eq(queue.held),
                self.unmet[index].eq(queue.unmet & queue.held.replicate(len(UNITS))),
            ]
            with m.If(self.start):
                m.d.sync += self.counters[index].eq(0)
            with m.Elif(self.done[index]):
                m.d.sync += self.counters[index].eq(self.counters[index] + 1)

        place, first = Signal(range(WORDS)), Signal(init=1)  # first: place == 0
        named = self.word.payload.kind  # by a command's first word
        kind, now = Signal(KINDS), Signal(KINDS)  # of the words before; of this word
        end = Signal(command_layout(Unit.END))
        have_end = Signal()
        word = self.word.payload.bits
        m.d.comb += [
            now.eq(Mux(first, named, kind)),
            # there is room for a whole command or the first word waits
            self.word.ready.eq(
                (~first | (named & Cat(*(queue.room for queue in queues), 1, 1)).any())
                & ~have_end & ~self.bad
            ),
        ]  # fmt: skip
        held = Signal(64, reset_less=True)  # what is decided on a word does not add to the way on
        m.d.sync += held.eq(word)
        for unit, queue in zip(UNITS, queues):
            m.d.comb += queue.word.eq(held)
            m.d.sync += queue.write.eq(
                self.word.valid & self.word.ready & now[UNITS.index(unit)]
                & (place < queue.length)
            )
        with m.If(self.word.valid & self.word.ready):
            m.d.sync += [place.eq(place + 1), kind.eq(now), first.eq(place == WORDS - 1)]
            with m.If(now[len(UNITS)]), m.If(place == command_words(Unit.END) - 1):
                m.d.sync += have_end.eq(1)
            with m.Elif(now[-1]):
                m.d.sync += self.bad.eq(1)
        with m.If(now[len(UNITS)] & ~have_end):  # a word that is not taken yet does no harm
            for index in range(command_words(Unit.END)):
                with m.If(place == index):
                    m.d.sync += end.as_value()[64 * index : 64 * index + 64].eq(word)
        with m.If(self.start):
            m.d.sync += [place.eq(0), first.eq(1), have_end.eq(0), self.bad.eq(0), self.ended.eq(0)]
        unmet = _unmet(self.counters, end)
        empty = Cat(queue.empty for queue in queues).all()
        m.d.comb += [
            self.held[len(UNITS)].eq(have_end),
            self.unmet[len(UNITS)].eq(unmet & have_end.replicate(len(UNITS))),
            self.last.eq(have_end),
        ]
        with m.If(have_end & ~self.start):
            m.d.sync += self.ended.eq(~unmet.any() & empty)
        return m
