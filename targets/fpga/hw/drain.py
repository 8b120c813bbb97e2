# SPDX-License-Identifier: Apache-2.0
"""The drain: sums of the dense engine through the requantisers to memory or to the other engine."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from codesign.space.accelerator import Engine
from codesign.space.device import MultiplierKind
from codesign.targets.fpga.hw.buffers import READ_LATENCY, ParamRead, act_payload, sum_read
from codesign.targets.fpga.hw.commands import command_layout, command_stream
from codesign.targets.fpga.hw.dense import check
from codesign.targets.fpga.hw.ports import ResidualSignature, store_stream
from codesign.targets.fpga.hw.results import destination
from codesign.targets.fpga.hw.tail import ResidualRuns, Tail, feed_layout, limits
from codesign.targets.fpga.hw.walk import delay
from codesign.targets.fpga.isa import BLOCK, Unit


class Drain(wiring.Component):
    """Runs drain commands; ``store`` tells their end."""

    def __init__(
        self, engine: Engine, target: Engine, port_bits: int, *,
        hard: MultiplierKind | None = None, primitive: bool = True,
    ) -> None:  # fmt: skip
        """``target``: the depthwise engine; ``hard``: the device's hard multiplier (that of
        ``engine`` if None)."""
        check(engine)
        self.engine = engine
        self.tail = Tail(engine, target, port_bits, hard or engine.multiplier, primitive)
        super().__init__(
            {
                "command": In(command_stream(Unit.DRAIN)),
                "sums": Out(sum_read(engine)),
                "param": Out(ParamRead),
                "residual": Out(ResidualSignature),
                "store": Out(store_stream()),
                "placed": Out(
                    Signature({"valid": Out(1), "payload": Out(act_payload(target, port_bits))})
                ),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Loops over blocks, rows and pixels; a step of them a cycle while there is room."""
        m = Module()
        given = self.command.payload
        m.submodules.tail = tail = self.tail
        m.submodules.runs = runs = ResidualRuns(1, self.engine.px)
        wiring.connect(m, tail.store, wiring.flipped(self.store))
        wiring.connect(m, runs.run, wiring.flipped(self.residual.run))
        active = Signal()
        m.d.comb += [
            self.placed.valid.eq(tail.placed.valid), self.placed.payload.eq(tail.placed.payload),
            tail.limits.eq(limits(m, given)), tail.destination.eq(destination(m, given, 1)),
            tail.count.eq(self.residual.count), tail.residual.eq(self.residual.words),
            self.residual.room.eq(tail.wants), runs.shape.address.eq(given.res_address),
            self.command.ready.eq(~active & tail.ready & runs.idle),
            tail.begin.eq(self.command.valid & self.command.ready),
            runs.start.eq(tail.begin & given.residual), self.idle.eq(~active),
        ]  # fmt: skip
        m.d.comb += [
            getattr(runs.shape, name).eq(getattr(given, name))
            for name in ("block_step", "blocks", "rows", "width")
        ]
        self._loops(m, active)
        return m

    def _loops(self, m: Module, active: Any) -> None:
        e, tail, given = self.engine, self.tail, self.command.payload
        pixels, group = tail.pixels, e.po // BLOCK
        cmd = Signal(command_layout(Unit.DRAIN), reset_less=True)
        fresh = Signal()
        word, row_word, base = Signal(14), Signal(14), Signal(14)
        at = Signal(range(max(2, e.px)))  # pixel of the word
        left, rows, blocks = Signal(14), Signal(10), Signal(9)
        k, param = Signal(range(max(2, group))), Signal(10)
        half = Signal()
        per_row = cmd.steps << cmd.double
        # comparisons are made a cycle ahead: `one_left`, `two_left` of the row's pixels, `last_row`
        # of the plane's, `last_block`; `narrow…`, `low`: their values when the loop starts anew
        names = ("one_left", "two_left", "last_row", "last_block", "narrow1", "narrow2", "low")
        one_left, two_left, last_row, last_block, narrow1, narrow2, low = (
            Signal(name=name) for name in names
        )
        with m.If(tail.begin):
            m.d.sync += [
                one_left.eq(given.width == 1), narrow1.eq(given.width == 1),
                two_left.eq(given.width == 2), narrow2.eq(given.width == 2),
                last_row.eq(given.rows == 1), low.eq(given.rows == 1),
                last_block.eq(given.blocks == 1),
            ]  # fmt: skip
            m.d.sync += [
                cmd.eq(given), active.eq(1), fresh.eq(1), word.eq(given.sum_base),
                row_word.eq(given.sum_base), base.eq(given.sum_base), at.eq(0), half.eq(0),
                left.eq(given.width), rows.eq(given.rows - 1), blocks.eq(given.blocks - 1),
                k.eq(0), param.eq(given.param_base),
            ]  # fmt: skip
        # one pixel: the row's last one, or the word's last one of an odd number
        alone = (at == e.px - 1) if e.px % 2 and pixels == 2 else Value.cast(0)
        single = one_left | alone if pixels == 2 else Value.cast(1)
        count = Mux(single, 1, 2)
        # what is left after the cycle before, without what came in it
        room, one, two = Signal(), Signal(), Signal()
        used = tail.reserve_words
        m.d.sync += [
            room.eq(Mux(tail.reserve[0], tail.room > 1, tail.room > 0)),
            one.eq(Mux(used[1], tail.words > 2, Mux(used[0], tail.words > 1, tail.words > 0))),
            two.eq(Mux(used[1], tail.words > 3, Mux(used[0], tail.words > 2, tail.words > 1))),
        ]  # fmt: skip
        enough = room & ~tail.held & (~cmd.residual | Mux(single, one, two))
        second = half if e.post == 4 else Value.cast(1)  # the block is complete
        opening = ~half if e.post == 4 else Value.cast(1)
        issue = Signal()
        m.d.comb += [
            issue.eq(active & (enough | ~opening)), tail.reserve.eq(issue & opening),
            tail.reserve_words.eq(Mux(issue & opening & cmd.residual, count, 0)),
        ]
        row_end = Signal()
        at_end = one_left | (two_left & ~alone) if pixels == 2 else one_left
        m.d.comb += row_end.eq(at_end & second)
        plane_end, block_end = row_end & last_row, k == group - 1
        end = plane_end & last_block
        with m.If(issue):
            m.d.sync += fresh.eq(0)
            if e.post == 4:
                m.d.sync += half.eq(~half)
            with m.If(second):
                m.d.sync += [
                    left.eq(left - count), at.eq(at + pixels),
                    one_left.eq(Mux(single, left == 2, left == 3)),
                    two_left.eq(Mux(single, left == 3, left == 4)),
                ]  # fmt: skip
                with m.If(at + pixels >= e.px):
                    m.d.sync += [at.eq(0), word.eq(word + 1)]
            with m.If(row_end):
                up = row_word + per_row
                m.d.sync += [
                    left.eq(cmd.width), at.eq(0), row_word.eq(up), word.eq(up), rows.eq(rows - 1),
                    one_left.eq(narrow1), two_left.eq(narrow2), last_row.eq(rows == 1),
                ]  # fmt: skip
            with m.If(plane_end):
                to = Mux(block_end, row_word + per_row, base)
                m.d.sync += [
                    rows.eq(cmd.rows - 1), blocks.eq(blocks - 1), param.eq(param + 1),
                    last_row.eq(low), last_block.eq(blocks == 1),
                    k.eq(Mux(block_end, 0, k + 1)), base.eq(to), row_word.eq(to), word.eq(to),
                ]  # fmt: skip
            with m.If(end):
                m.d.sync += active.eq(0)
        # a register, then the sums' memories (READ_LATENCY), then a register behind the choice
        feed = Signal(feed_layout(pixels))
        m.d.sync += [
            feed.valid.eq(issue), feed.count.eq(count), feed.run.eq(row_end),
            feed.group.eq(row_end), feed.row.eq(row_end), feed.plane.eq(plane_end),
            feed.last.eq(end), feed.half.eq(second), feed.fresh.eq(fresh),
            self.sums.enable.eq(issue), self.sums.address.eq(word),
        ]  # fmt: skip
        place, chosen, second_half = delay(m, at, 1), delay(m, k, 1), delay(m, half, 1)
        m.d.comb += self.param.block.eq(delay(m, param, 2))
        m.d.comb += tail.feed.eq(delay(m, Value.cast(feed), READ_LATENCY + 1))
        m.d.comb += tail.feed.valid.eq(delay(m, feed.valid, READ_LATENCY + 1, reset=True))
        place, chosen, second_half = (
            delay(m, value, READ_LATENCY) for value in (place, chosen, second_half)
        )
        upper = delay(m, second_half, 1)
        for lane in range(e.post):
            x, c = lane // BLOCK, lane % BLOCK
            options: list[Any] = []
            for i in range(e.px):
                if i % pixels:
                    options += [options[-1]] * group  # never chosen
                    continue
                for b in range(group):
                    value = self.sums.data[min(i + x, e.px - 1)][b * BLOCK + c]
                    if e.post == 4:
                        other = self.sums.data[i][b * BLOCK + c + 4]
                        value = Mux(second_half, other, value)
                    options.append(value.as_signed())
            index = place * group + chosen if group > 1 else place
            choice = options[0] if len(options) == 1 else Array(options)[index]
            m.d.sync += tail.sums[lane].eq(choice)
        for lane in range(min(e.post, BLOCK)):
            value = Value.cast(self.param.data[lane])
            if e.post == 4:
                value = Mux(upper, Value.cast(self.param.data[lane + 4]), value)
            m.d.comb += Value.cast(tail.params[lane]).eq(value)
