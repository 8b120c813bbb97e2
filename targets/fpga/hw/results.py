# SPDX-License-Identifier: Apache-2.0
"""Where results go: to memory as store units, or placed in the other engine's activation buffer.

Results come as entries (1 or 2 neighbouring pixels of one block) in the order in which the drain or
the depthwise engine makes them; flags say where runs end, so that this part only adds.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import bits_for

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.axi import Slice, Stage, Turns
from codesign.targets.fpga.hw.buffers import ActLayout, act_payload
from codesign.targets.fpga.hw.ports import store_stream
from codesign.targets.fpga.hw.walk import delay
from codesign.targets.fpga.isa import BLOCK

DEPTH = 64
"""Entries that wait at most; whoever makes results counts the free places."""

PLACES = (
    "to_chip", "address", "block_step", "wide", "place_base", "place_row_words",
    "place_residue_words", "place_group", "place_stride", "place_block", "place_nibbles",
)  # fmt: skip
DESTINATION = data.StructLayout(
    {
        "to_chip": 1, "address": 32, "block_step": 32, "group_step": 32, "wide": 1,
        "place_base": 14, "place_row_words": 14, "place_residue_words": 14, "place_group": 8,
        "place_stride": 3, "place_block": 9, "place_nibbles": 1,
    }
)  # fmt: skip
"""The write fields of a command; ``block_step`` in bytes as written (twice for ``wide``),
``group_step`` that of a whole group of blocks."""


def entry_layout(pixels: int) -> Any:
    """Results of ``pixels`` neighbouring pixels, of which the first ``count`` exist. ``run``: the
    last of its block in this row or pixel group; ``group``: of the last block, too; ``row``,
    ``plane``, ``last``: of its row, its group of blocks, its command."""
    values = data.ArrayLayout(signed(16), pixels * BLOCK)
    flags = {"run": 1, "group": 1, "row": 1, "plane": 1, "last": 1}
    return data.StructLayout({"values": values, "count": bits_for(pixels), **flags})


KNOWN = data.StructLayout({"some": 1, "pair": 1, "over": 1, "along": 1, "turns": 1, "stored": 1})
"""Of an entry, found out before its turn: it has pixels; two; it ends a group but no plane, a run
but no group, any of them; it is a store unit where results go to memory."""


def destination(m: Module, payload: Any, blocks: int) -> Any:
    """A command's write fields as ``DESTINATION``, for groups of ``blocks`` blocks."""
    found = Signal(DESTINATION)
    step = Signal(32)
    m.d.comb += step.eq(Mux(payload.wide, payload.block_step << 1, payload.block_step))
    m.d.comb += [getattr(found, name).eq(getattr(payload, name)) for name in PLACES]
    m.d.comb += [found.block_step.eq(step), found.group_step.eq(step * blocks)]
    return found


def gated(value: Any, on: Any) -> Any:
    """``value`` where ``on``, else 0."""
    return value & Value.cast(on).replicate(len(value))


def _divided(value: Any, by: int, most: int) -> tuple[Any, Any]:
    """(value div by, value mod by) for values up to ``most``."""
    if by & (by - 1) == 0:
        shift = by.bit_length() - 1
        return value >> shift, value[:shift] if shift else Value.cast(0)
    shift = next(
        s for s in range(1, 40)
        if all(n * ((1 << s) // by + 1) >> s == n // by for n in range(most + 1))
    )  # fmt: skip
    quotient = value * ((1 << shift) // by + 1) >> shift
    return quotient, value - quotient * by


class Results(wiring.Component):
    """``push`` (always taken; ``freed``: a place became free) to ``store`` or ``placed``."""

    def __init__(self, pixels: int, target: Engine, port_bits: int) -> None:
        """``pixels`` of an entry: 1 or 2; ``target``: the engine of on-chip results."""
        self.pixels, self.target, self.port_bits = pixels, target, port_bits
        self.entry = entry_layout(pixels)
        super().__init__(
            {
                "command": In(stream.Signature(DESTINATION)),
                "push": In(Signature({"valid": Out(1), "entry": Out(self.entry)})),
                "freed": Out(1),
                "store": Out(store_stream()),
                "placed": Out(
                    Signature({"valid": Out(1), "payload": Out(act_payload(target, port_bits))})
                ),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A queue, then one store unit or one placed pixel a cycle."""
        m = Module()
        m.submodules.queue = queue = SyncFIFOBuffered(width=self.entry.size, depth=DEPTH)
        # block RAM is slow to give its data: registers before anything is decided on them
        m.submodules.stage = stage = Stage(self.entry.size)
        came, known = Signal(self.entry), Signal(KNOWN)
        # what is decided on, in a slice; the many values, which wait for the decision, in turns
        wide = came.values.as_value()
        m.submodules.head = head = Slice(self.entry.size - len(wide) + KNOWN.size)
        m.submodules.values = values = Turns(len(wide))
        m.d.comb += [
            came.eq(stage.o.payload), known.some.eq(came.count != 0),
            known.pair.eq(came.count == 2), known.over.eq(came.group & ~came.plane),
            known.along.eq(came.run & ~came.group & ~came.plane),
            known.turns.eq(came.run | came.group | came.plane),
            known.stored.eq((came.count != 0) | came.last),
            head.i.valid.eq(stage.o.valid), stage.o.ready.eq(head.i.ready),
            head.i.payload.eq(Cat(Value.cast(came)[len(wide) :], known)),
            # full and empty together with the slice
            values.i.valid.eq(stage.o.valid), values.i.payload.eq(wide),
            values.o.ready.eq(head.o.ready),
        ]  # fmt: skip
        entry, facts = Signal(self.entry), Signal(KNOWN)
        d = Signal(DESTINATION, reset_less=True)
        busy, fresh, live = Signal(), Signal(), Signal()  # live: busy and no longer fresh
        following, waiting = Signal(DESTINATION, reset_less=True), Signal()
        m.d.comb += [
            queue.w_data.eq(self.push.entry), queue.w_en.eq(self.push.valid),
            stage.i.payload.eq(queue.r_data), stage.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(stage.i.ready),
            Cat(entry, facts).eq(Cat(values.o.payload, head.o.payload)),
            self.command.ready.eq(~waiting),
        ]  # fmt: skip
        with m.If(fresh):
            m.d.sync += [fresh.eq(0), live.eq(1)]
        with m.If(waiting & ~busy):
            m.d.sync += [d.eq(following), busy.eq(1), fresh.eq(1), waiting.eq(0)]
        with m.If(self.command.valid & ~waiting):
            m.d.sync += [following.eq(self.command.payload), waiting.eq(1)]
        have = live & head.o.valid
        sub = Signal(range(max(2, self.pixels)))
        half = Signal()
        two = (~d.wide & ~d.to_chip & facts.pair) if self.pixels == 2 else Value.cast(0)
        some = facts.some
        halves = self.target.kind == "dense" and self.target.pi == 4
        whole = half | ~d.to_chip | ~some if halves else Value.cast(1)
        ends = self._last_unit(entry, sub, two)
        final = Signal()
        m.d.comb += final.eq((~some | ends) & whole)
        closing = entry.last & final
        # `go` waits for the store a little more often than it must: its way is long
        stores = Mux(d.to_chip, entry.last, facts.stored)
        go = Signal()
        m.d.comb += [
            go.eq(have & (~stores | self.store.ready)),
            self.store.valid.eq(have & Mux(d.to_chip, closing, facts.stored)),
            head.o.ready.eq(go & final),
        ]
        m.d.sync += self.freed.eq(go & final)  # a place too few for a cycle does no harm
        with m.If(go):
            if halves:
                m.d.sync += half.eq(d.to_chip & some & ~half)
            with m.If(whole):
                m.d.sync += sub.eq(Mux(final, 0, sub + 1))
        with m.If(go & closing):
            m.d.sync += [busy.eq(0), live.eq(0)]
        self._to_memory(m, d, entry, facts, fresh, go, final, sub, two)
        self._to_chip(m, d, entry, fresh, go, final, some, some & whole, sub, half)
        return m

    def _pixel(self, entry: Any, k: Any) -> Any:
        """Values of pixel ``k`` of an entry."""
        first = Cat(entry.values[c] for c in range(BLOCK))
        if self.pixels == 1:
            return first
        return Mux(k, Cat(entry.values[BLOCK + c] for c in range(BLOCK)), first)

    def _to_memory(
        self, m: Module, d: Any, entry: Any, facts: Any, fresh: Any, go: Any, ends: Any, sub: Any,
        two: Any,
    ) -> None:  # fmt: skip
        """Address and data of the store unit; ``ends``: nothing of the entry stays behind."""
        at, start, after, plane = (Signal(32, name=n) for n in ("at", "start", "after", "plane"))
        first = Signal(init=1)
        some = facts.some
        double = d.wide | two
        along, down = Signal(32), Signal(32)
        # behind the unit's words (wide: one pixel at a time): one carry chain, right behind its
        # register, for 8 bytes as for 16
        above, there = Signal(28), Signal(32)
        one, carry = some & ~double, some & (double | at[3])
        m.d.comb += [
            above.eq(at[4:] + 1), there.eq(Cat(at[:3], at[3] ^ one, Mux(carry, above, at[4:]))),
            along.eq(start + d.block_step), down.eq(plane + d.group_step),
        ]  # fmt: skip
        # what comes next depends on the entry alone; whether it goes only enables the registers
        turns = facts.turns & ends
        take = {
            "down": entry.plane & ends, "after": facts.over & ~first & ends,
            "along": facts.along & ends, "there": ~turns | (facts.over & first),
        }  # fmt: skip
        # where the next unit, run of the block, or block of the group begins: a sum of products,
        # for the carry chains in it come late
        following = Signal(32)
        stay = ~fresh & take["there"]
        m.d.comb += following.eq(
            gated(d.address, fresh) | gated(Cat(at[:3], at[3] ^ one), stay)
            | gated(Cat(Const(0, 4), above), stay & carry)
            | gated(Cat(Const(0, 4), at[4:]), stay & ~carry)
            | gated(down, ~fresh & take["down"]) | gated(after, ~fresh & take["after"])
            | gated(along, ~fresh & take["along"])
        )  # fmt: skip
        with m.If(go | fresh):
            m.d.sync += at.eq(following)
        with m.If((go & turns) | fresh):
            m.d.sync += [start.eq(following), first.eq(fresh | ~take["along"])]
        with m.If((go & take["down"]) | fresh):
            m.d.sync += plane.eq(Mux(fresh, d.address, down))
        with m.If(go & take["along"] & first):
            m.d.sync += after.eq(there)
        whole = self._pixel(entry, sub)
        narrow = Cat(whole[16 * c :][:8] for c in range(BLOCK))
        other = Cat(self._pixel(entry, 1)[16 * c :][:8] for c in range(BLOCK))
        m.d.comb += [
            self.store.payload.address.eq(at),
            self.store.payload.data.eq(Mux(d.wide, whole, Cat(narrow, other))),
            self.store.payload.words.eq(
                Mux(some & ~d.to_chip, Mux(d.wide | two, 2, 1), 0)
            ),
            self.store.payload.last.eq(entry.last & self._last_unit(entry, sub, two)),
        ]  # fmt: skip

    def _last_unit(self, entry: Any, sub: Any, two: Any) -> Any:
        """Whether the entry's last pixel (of one or two) goes now."""
        return Value.cast(1) if self.pixels == 1 else sub | two | ~entry.count[1]

    def _to_chip(
        self, m: Module, d: Any, entry: Any, fresh: Any, go: Any, final: Any, some: Any,
        moved: Any, sub: Any, half: Any,
    ) -> None:  # fmt: skip
        """Memory, word and lane of the pixel: "placing" of docs/accelerator.md, by adding. As in
        ``_to_memory``, ``go`` only enables registers."""
        t = self.target
        layout = ActLayout.of(t)
        split = t.kind == "dense" and t.pi == 4
        per_word = max(1, layout.lanes)
        state = data.StructLayout(
            {
                "r": 3, "memory": bits_for(max(1, layout.memories)), "quotient": 14, "word": 14,
                "steps": 1, "turns": 1,
            }
        )  # steps, turns: r and memory are at their last values
        at, start, after, there, begin = (
            Signal(state, name=f"place_{n}") for n in ("at", "start", "after", "there", "begin")
        )
        row = Signal(14)
        memories = Mux(d.place_nibbles, 2 * t.px, t.px) if t.double else Value.cast(t.px)
        # the next pixel of a row
        step, turn = at.steps, at.turns
        one, alone = d.place_stride == 1, memories == 1
        quotient = Mux(step & turn, at.quotient + d.place_group, at.quotient)
        with m.If(moved):
            m.d.comb += [
                there.r.eq(Mux(step, 0, at.r + 1)), there.quotient.eq(quotient),
                there.memory.eq(Mux(step, Mux(turn, 0, at.memory + 1), at.memory)),
                there.word.eq(Mux(step, quotient, at.word + d.place_residue_words)),
                there.steps.eq(Mux(step, one, at.r + 2 == d.place_stride)),
                there.turns.eq(Mux(step, Mux(turn, alone, at.memory + 2 == memories), turn)),
            ]  # fmt: skip
        with m.Else():
            m.d.comb += there.eq(at)
        # the block: its lane in a word and its words' offset
        lane, offset = Signal(range(max(2, per_word))), Signal(14)
        lane_up, offset_up = Signal.like(lane), Signal(14)
        lane_0, offset_0 = Signal.like(lane), Signal(14)
        wraps = lane + 1 == per_word
        m.d.comb += [
            lane_up.eq(Mux(wraps, 0, lane + 1)),
            offset_up.eq(Mux(wraps, offset + (2 if split else 1), offset)),
        ]
        first = Signal(init=1)
        row_next = Signal(14)
        m.d.comb += row_next.eq(Mux(entry.plane, d.place_base, row + d.place_row_words))
        m.d.comb += [
            begin.quotient.eq(row_next), begin.word.eq(row_next), begin.steps.eq(one),
            begin.turns.eq(alone),
        ]  # fmt: skip
        to = Mux(first, Value.cast(there), Value.cast(after))
        following = Signal(state)
        m.d.comb += following.eq(there)
        with m.If(final):
            with m.If(entry.row):
                m.d.comb += following.eq(begin)
            with m.Elif(entry.group):
                m.d.comb += following.eq(to)
            with m.Elif(entry.run):
                m.d.comb += following.eq(start)
        over, rest = _divided(d.place_block, per_word, 511)
        words = (over << 1) if split else over
        zero = Signal(state)
        m.d.comb += [
            zero.quotient.eq(d.place_base), zero.word.eq(d.place_base), zero.steps.eq(one),
            zero.turns.eq(alone),
        ]  # fmt: skip
        with m.If(go | fresh):
            m.d.sync += at.eq(Mux(fresh, Value.cast(zero), Value.cast(following)))
        done = go & final
        with m.If(done & (entry.group | entry.row)):
            m.d.sync += start.eq(Mux(entry.row, Value.cast(begin), to))
        with m.If(done & entry.run & first):
            m.d.sync += after.eq(there)
        with m.If(done & entry.run):
            m.d.sync += first.eq(entry.group)
        with m.If(done & entry.row):
            m.d.sync += row.eq(row_next)
        with m.If(done & (entry.run | entry.group | entry.plane)):
            back = entry.group & ~entry.plane
            m.d.sync += [
                lane.eq(Mux(back, lane_0, lane_up)), offset.eq(Mux(back, offset_0, offset_up)),
            ]  # fmt: skip
        with m.If(done & entry.plane):
            m.d.sync += [lane_0.eq(lane_up), offset_0.eq(offset_up)]
        with m.If(fresh):
            m.d.sync += [
                row.eq(d.place_base), start.eq(zero), first.eq(1), lane.eq(rest),
                lane_0.eq(rest), offset.eq(words), offset_0.eq(words),
            ]  # fmt: skip
        whole = self._pixel(entry, sub)
        block = Cat(whole[16 * c :][:8] for c in range(BLOCK))
        if split:
            block = Mux(half, block[32:], block[:32])
        if t.double:
            per = len(block) // 8
            block = Mux(d.place_nibbles, Cat(block[8 * c :][:4] for c in range(per)), block)
        # a register, so that the sum of words does not add to the path from the queue
        word = at.word + offset + (half if split else 0)
        register = Signal(act_payload(t, self.port_bits), reset_less=True)
        mine = register.slots[0]
        m.d.sync += [
            register.nibbles.eq(d.place_nibbles), mine.valid.eq(1), mine.memory.eq(at.memory),
            mine.address.eq(word), mine.lane.eq(lane), mine.data.eq(block),
        ]  # fmt: skip
        m.d.comb += [
            self.placed.payload.eq(register),
            self.placed.valid.eq(delay(m, go & some & d.to_chip, 1, reset=True)),
        ]  # fmt: skip
