# SPDX-License-Identifier: Apache-2.0
"""What drain and depthwise share: requantisers, residual, the way out.

Whoever feeds it sends a half block (post = 4), a block or two pixels of a block a cycle, only when
there is room for it.
"""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import bits_for

from codesign.space.accelerator import Engine
from codesign.space.device import MultiplierKind
from codesign.targets.fpga.hw.buffers import PARAM, act_payload
from codesign.targets.fpga.hw.ports import RESIDUAL_RUN, store_stream
from codesign.targets.fpga.hw.requantise import (
    LATENCY,
    LIMIT_STAGE,
    RESIDUAL_STAGE,
    Requantisers,
    ResidualQueue,
    ResidualTable,
)
from codesign.targets.fpga.hw.results import DEPTH, DESTINATION, Results
from codesign.targets.fpga.hw.walk import delay
from codesign.targets.fpga.isa import BLOCK


def pixels_of(engine: Engine) -> int:
    """Pixels of a block that the requantisers take in one cycle (post = 4: half a one)."""
    return max(1, engine.post // BLOCK)


def feed_layout(pixels: int) -> Any:
    """What goes through the requantisers beside sums: the entry without its values; ``half``: the
    second half of a block (or all of it); ``fresh``: the command's first."""
    flags = {"run": 1, "group": 1, "row": 1, "plane": 1, "last": 1, "half": 1, "fresh": 1}
    return data.StructLayout({"valid": 1, "count": bits_for(pixels), **flags})


LIMITS = data.StructLayout(
    {
        "lo": signed(16), "hi": signed(16), "residual": 1, "res_m": 16, "res_e": 6,
        "res_signed": 1,
    }
)  # fmt: skip
"""What the requantisers need of a command."""


class Tail(wiring.Component):
    """Requantisers and the way out.

    ``limits`` and ``destination`` come with ``begin`` (only if ``ready``) before the first
    ``feed``; ``feed`` goes with ``sums`` and ``params``. ``room``: entries that may still be fed
    unless ``held``, counted down by ``reserve``; ``words``: residual block pixels that may still be
    used, counted down by ``reserve_words``. ``wants``, ``count`` and ``residual`` are ``room``,
    ``count`` and ``words`` of ``ResidualSignature``.
    """

    def __init__(
        self, engine: Engine, target: Engine, port_bits: int, hard: MultiplierKind,
        primitive: bool,
    ) -> None:  # fmt: skip
        """Of the engine whose results they are; ``target``: where results on chip go."""
        self.engine, self.target, self.port_bits = engine, target, port_bits
        self.hard: MultiplierKind = hard
        self.primitive = primitive
        self.pixels = pixels_of(engine)
        super().__init__(
            {
                "begin": In(1),
                "ready": Out(1),
                "limits": In(LIMITS),
                "destination": In(DESTINATION),
                "reserve": In(range(DEPTH + 1)),
                "room": Out(range(DEPTH + 1)),
                "held": Out(1),
                "reserve_words": In(8),
                "words": Out(8),
                "feed": In(feed_layout(self.pixels)),
                "sums": In(data.ArrayLayout(signed(32), engine.post)),
                "params": In(data.ArrayLayout(PARAM, min(engine.post, BLOCK))),
                "wants": Out(1),
                "count": In(2),
                "residual": In(data.ArrayLayout(64, 2)),
                "store": Out(store_stream()),
                "placed": Out(
                    Signature({"valid": Out(1), "payload": Out(act_payload(target, port_bits))})
                ),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Queue of residuals, requantisers, tables, results."""
        m = Module()
        post = self.engine.post
        m.submodules.lanes = lanes = Requantisers(post, self.hard, primitive=self.primitive)
        m.submodules.table = table = ResidualTable(post)
        m.submodules.queue = queue = ResidualQueue()
        m.submodules.results = results = Results(self.pixels, self.target, self.port_bits)
        wiring.connect(m, results.store, wiring.flipped(self.store))
        m.d.comb += [
            self.placed.valid.eq(results.placed.valid),
            self.placed.payload.eq(results.placed.payload),
            table.index.eq(lanes.index), lanes.value.eq(table.value),
            queue.words.eq(self.residual), queue.count.eq(self.count),
            self.wants.eq(queue.room),
            lanes.sums.eq(self.sums), lanes.params.eq(self.params),
        ]  # fmt: skip
        # commands: the next one is taken when the last one's first feed has left the pipeline and
        # its residual table is no longer read
        limits = Signal(LIMITS, reset_less=True)
        pending = Signal()  # begun, first feed not yet at the end
        room = Signal(range(DEPTH + 1), init=DEPTH)
        words = Signal(8)
        flying = Signal(range(DEPTH + 1))  # entries that have their room but are not there yet
        waits = Signal()
        start = Signal()
        m.d.sync += flying.eq(flying + self.reserve - results.push.valid)
        quiet = flying == 0
        m.d.comb += [
            self.ready.eq(~pending & results.command.ready),
            results.command.valid.eq(self.begin), results.command.payload.eq(self.destination),
            table.m.eq(limits.res_m), table.e.eq(limits.res_e), table.signed.eq(limits.res_signed),
            start.eq(waits & quiet), table.start.eq(start),
        ]  # fmt: skip
        with m.If(self.begin):
            m.d.sync += [limits.eq(self.limits), pending.eq(1), waits.eq(self.limits.residual)]
        with m.If(start):
            m.d.sync += waits.eq(0)
        held = Signal()  # until a cycle after the table is there
        begins = self.begin & self.limits.residual
        m.d.sync += held.eq(begins | waits | delay(m, start, 1, reset=True) | table.busy)
        m.d.sync += [
            room.eq(room - self.reserve + results.freed),
            words.eq(words - self.reserve_words + queue.came),
        ]
        m.d.comb += [self.room.eq(room), self.held.eq(held), self.words.eq(words)]
        # the pipeline
        feed = self.feed
        # residuals are looked up a cycle ahead, registers behind their queue; how many leave it is
        # known another cycle ahead
        ahead, middle = Signal(feed.shape()), Signal(feed.shape())
        m.d.comb += ahead.eq(delay(m, Value.cast(feed), RESIDUAL_STAGE - 2))
        m.d.comb += ahead.valid.eq(delay(m, feed.valid, RESIDUAL_STAGE - 2, reset=True))
        m.d.comb += middle.eq(delay(m, Value.cast(ahead), 1))
        m.d.comb += middle.valid.eq(delay(m, ahead.valid, 1, reset=True))
        adds = Signal()
        uses = Mux(ahead.fresh, limits.residual, adds)
        with m.If(ahead.valid):
            m.d.sync += adds.eq(uses)
        m.d.comb += lanes.add.eq(delay(m, uses, 2))
        pops = ahead.valid & uses & ahead.half
        m.d.sync += queue.pop.eq(Mux(pops, ahead.count, 0))
        heads, upper = delay(m, Value.cast(queue.head), 1), delay(m, middle.half, 1)
        for lane in range(post):
            word = heads[64 * (lane // BLOCK) :][:64]
            byte = word[8 * (lane % BLOCK) :][:8]
            if post == 4:
                byte = Mux(upper, word[8 * (lane + 4) :][:8], byte)
            m.d.comb += lanes.residual[lane].eq(byte)
        late = Signal(feed.shape())
        extra = LIMIT_STAGE - RESIDUAL_STAGE
        m.d.comb += late.eq(delay(m, Value.cast(middle), extra))
        begun = late.fresh & delay(m, middle.valid, extra, reset=True)
        lo, hi = Signal(signed(16), reset_less=True), Signal(signed(16), reset_less=True)
        with m.If(begun):
            m.d.sync += [lo.eq(limits.lo), hi.eq(limits.hi), pending.eq(0)]
        m.d.comb += [lanes.lo.eq(lo), lanes.hi.eq(hi)]
        out = Signal(feed.shape())
        m.d.comb += out.eq(delay(m, Value.cast(late), LATENCY - LIMIT_STAGE + 1))
        valid = delay(m, feed.valid, LATENCY, reset=True)
        entry = results.push.entry
        m.d.comb += [
            getattr(entry, name).eq(getattr(out, name))
            for name in ("count", "run", "group", "row", "plane", "last")
        ]
        m.d.comb += results.push.valid.eq(valid & out.half)
        values = [lanes.results[k] for k in range(post)]
        if post == 4:
            firsts = [Signal(signed(16), name=f"first_{k}", reset_less=True) for k in range(4)]
            with m.If(~out.half):
                m.d.sync += [f.eq(v) for f, v in zip(firsts, values)]
            values = firsts + values
        m.d.comb += [entry.values[k].eq(values[k]) for k in range(len(entry.values))]
        return m


def limits(m: Module, payload: Any) -> Any:
    """A command's fields as ``LIMITS``."""
    found = Signal(LIMITS)
    m.d.comb += [
        getattr(found, name).eq(getattr(payload, name))
        for name in ("lo", "hi", "residual", "res_m", "res_e", "res_signed")
    ]
    return found


RUNS = data.StructLayout(
    {"address": 32, "block_step": 26, "blocks": 9, "rows": 10, "width": 14}
)
"""The residual tensor's place and size."""


class ResidualRuns(wiring.Component):
    """Asks for the residual block pixels of a command in the order of its results.

    Groups of one block: one run a block. Groups of more: a run for each block of each pixel group.
    """

    def __init__(self, blocks: int, px: int) -> None:
        """``blocks`` of a group and pixels of a pixel group."""
        self.blocks, self.px = blocks, px
        super().__init__(
            {
                "start": In(1),
                "shape": In(RUNS),
                "idle": Out(1),
                "run": Out(stream.Signature(RESIDUAL_RUN)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """rows · width by shift and add (12 cycles), then a run a cycle."""
        m = Module()
        shape = Signal(RUNS, reset_less=True)
        running, counting = Signal(), Signal()
        product, rows, term = Signal(24), Signal(10), Signal(24)
        left = Signal(9)
        plane, at, here = Signal(32), Signal(32), Signal(32)
        m.d.comb += [self.idle.eq(~running & ~counting), self.run.valid.eq(running)]
        with m.If(self.start):
            m.d.sync += [
                shape.eq(self.shape), counting.eq(1), product.eq(0), rows.eq(self.shape.rows),
                term.eq(self.shape.width), left.eq(self.shape.blocks),
                plane.eq(self.shape.address), here.eq(self.shape.address),
                at.eq(self.shape.address),
            ]  # fmt: skip
        with m.Elif(counting):
            m.d.sync += [rows.eq(rows >> 1), term.eq(term << 1)]
            with m.If(rows[0]):
                m.d.sync += product.eq(product + term)
            with m.If(rows == 0):
                m.d.sync += [counting.eq(0), running.eq(1)]
        go = self.run.valid & self.run.ready
        if self.blocks == 1:
            m.d.comb += [self.run.payload.address.eq(plane), self.run.payload.words.eq(product)]
            with m.If(go):
                m.d.sync += [plane.eq(plane + shape.block_step), left.eq(left - 1)]
                m.d.sync += running.eq(left != 1)
            return m
        # plane: of the group's first block; here: the pixel group in it; at: in the block at hand
        block = Signal(range(self.blocks))
        in_row, in_plane = Signal(14), Signal(24)
        with m.If(counting):
            m.d.sync += [in_row.eq(shape.width), in_plane.eq(product), block.eq(0)]
        words = Mux(in_row > self.px, self.px, in_row)
        last = (block == self.blocks - 1) | (left == block + 1)
        m.d.comb += [self.run.payload.address.eq(at), self.run.payload.words.eq(words)]
        with m.If(go & ~last):
            m.d.sync += [block.eq(block + 1), at.eq(at + shape.block_step)]
        with m.If(go & last):
            m.d.sync += block.eq(0)
            with m.If(in_plane == words):
                up = plane + shape.block_step * self.blocks
                m.d.sync += [
                    plane.eq(up), here.eq(up), at.eq(up), in_row.eq(shape.width),
                    in_plane.eq(product), left.eq(left - self.blocks),
                    running.eq(left > self.blocks),
                ]  # fmt: skip
            with m.Else():
                up = here + (words << 3)
                m.d.sync += [here.eq(up), at.eq(up), in_plane.eq(in_plane - words)]
                m.d.sync += in_row.eq(Mux(in_row == words, shape.width, in_row - words))
        return m
