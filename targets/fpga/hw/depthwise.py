# SPDX-License-Identifier: Apache-2.0
"""The depthwise engine: a tap of po channels at px pixels a cycle, requantised on the way out.

Finished sums of a step move to a shadow register and leave it, ``post`` of them a cycle, while the
next step is computed. A step starts only when all of its results have room.
"""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import bits_for

from codesign.errors import InputError
from codesign.space.accelerator import Engine
from codesign.space.device import MultiplierKind
from codesign.targets.fpga.hw.buffers import (
    READ_LATENCY,
    ParamRead,
    TapRead,
    act_payload,
    act_read,
    weight_read,
)
from codesign.targets.fpga.hw.commands import command_layout, command_stream
from codesign.targets.fpga.hw.dense import check
from codesign.targets.fpga.hw.multiply import DepthwiseMultipliers
from codesign.targets.fpga.hw.operands import Operands
from codesign.targets.fpga.hw.ports import ResidualSignature, store_stream
from codesign.targets.fpga.hw.results import DEPTH, destination
from codesign.targets.fpga.hw.tail import ResidualRuns, Tail, feed_layout, limits, pixels_of
from codesign.targets.fpga.hw.walk import Walker, delay
from codesign.targets.fpga.isa import BLOCK, Unit

SUM_BITS = 24
"""127 products of 9 and 8 bits fit."""


def parts_of(engine: Engine) -> tuple[int, int]:
    """(blocks of a step, entries of a block): a step's results are their product entries."""
    return engine.po // BLOCK, -(-engine.px // pixels_of(engine))


def step_cycles(engine: Engine) -> int:
    """Cycles in which a step's results pass the requantisers: its least time."""
    blocks, entries = parts_of(engine)
    return blocks * entries * (2 if engine.post == 4 else 1)


class DepthwiseEngine(wiring.Component):
    """Runs depthwise commands; ``store`` tells their end."""

    def __init__(
        self, engine: Engine, target: Engine, port_bits: int, *,
        hard: MultiplierKind | None = None, primitive: bool = True,
    ) -> None:  # fmt: skip
        """``target``: the dense engine; ``hard``: the device's hard multiplier (that of ``engine``
        if None)."""
        check(engine)
        blocks, entries = parts_of(engine)
        if 3 * blocks * entries > DEPTH:
            raise InputError(
                f"depthwise engine: a step of {engine.po} channels at {engine.px} pixels makes "
                f"{blocks * entries} entries of results; expected at most {DEPTH // 3}: take fewer "
                "lanes or post = 16"
            )
        self.engine = engine
        self.tail = Tail(engine, target, port_bits, hard or engine.multiplier, primitive)
        self.multipliers = DepthwiseMultipliers.of(engine, primitive)
        placed = {"valid": Out(1), "payload": Out(act_payload(target, port_bits))}
        super().__init__(
            {
                "command": In(command_stream(Unit.DEPTHWISE)),
                "act": Out(act_read(engine)),
                "weight": Out(weight_read(engine)),
                "tap": Out(TapRead),
                "param": Out(ParamRead),
                "residual": Out(ResidualSignature),
                "store": Out(store_stream()),
                "placed": Out(Signature(placed)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Walker, operands, products, sums, shadow."""
        m = Module()
        e, given = self.engine, self.command.payload
        blocks, entries = parts_of(e)
        m.submodules.walker = walker = Walker(e, least=step_cycles(e))
        m.submodules.operands = operands = Operands(e)
        m.submodules.multipliers = multiply = self.multipliers
        m.submodules.tail = tail = self.tail
        m.submodules.runs = runs = ResidualRuns(blocks, e.px)
        wiring.connect(m, tail.store, wiring.flipped(self.store))
        wiring.connect(m, runs.run, wiring.flipped(self.residual.run))
        wiring.connect(m, wiring.flipped(self.tap), walker.tap)
        cmd = Signal(command_layout(Unit.DEPTHWISE), reset_less=True)
        free = tail.ready & runs.idle
        # known two cycles late (words: one): steps that start meanwhile count as well
        makes = blocks * entries
        room, grant = Signal(), Signal()
        m.d.sync += [
            room.eq(Mux(walker.start, tail.room >= 3 * makes, tail.room >= 2 * makes)),
            grant.eq(
                room & ~tail.held & ~tail.begin
                & (~cmd.residual | ((tail.words >= walker.need) & walker.settled))
            ),
        ]  # fmt: skip
        with m.If(tail.begin):
            m.d.sync += cmd.eq(given)
        m.d.comb += [
            walker.command.payload.eq(given), walker.command.valid.eq(self.command.valid & free),
            self.command.ready.eq(walker.command.ready & free),
            tail.begin.eq(self.command.valid & self.command.ready),
            runs.start.eq(tail.begin & given.residual), runs.shape.address.eq(given.res_address),
            self.placed.valid.eq(tail.placed.valid), self.placed.payload.eq(tail.placed.payload),
            tail.limits.eq(limits(m, given)), tail.destination.eq(destination(m, given, blocks)),
            tail.count.eq(self.residual.count), tail.residual.eq(self.residual.words),
            self.residual.room.eq(tail.wants), self.idle.eq(walker.idle),
            walker.grant.eq(grant),
            tail.reserve.eq(Mux(walker.start, makes, 0)),
            tail.reserve_words.eq(Mux(walker.start & cmd.residual, walker.need, 0)),
            self.act.address.eq(walker.act_address), operands.read.eq(self.act.data),
            self.weight.address.eq(walker.weight_address), operands.rotate.eq(walker.rotate),
            operands.lanes.eq(walker.lanes), operands.is_signed.eq(walker.beat.signed),
            multiply.activation.eq(operands.activation),
        ]  # fmt: skip
        m.d.comb += [
            getattr(runs.shape, name).eq(getattr(given, name))
            for name in ("block_step", "blocks", "rows", "width")
        ]
        maximum = delay(m, walker.beat.maximum, 1)
        for o in range(e.po):
            m.d.comb += multiply.weight[o].eq(Mux(maximum, 1, self.weight.data[o]))
        delays = 1 + multiply.latency
        beat = Signal(walker.beat.shape())
        m.d.comb += beat.eq(delay(m, Value.cast(walker.beat), delays))
        valid = delay(m, walker.beat.valid, delays, reset=True)
        pads = delay(m, ~walker.lanes & walker.beat.maximum.replicate(len(walker.lanes)), delays)
        sums = [
            [self._sum(m, multiply.product[x][o], beat, valid, pads[x]) for o in range(e.po)]
            for x in range(e.px)
        ]
        step = Signal(walker.beat.shape())
        m.d.comb += step.eq(delay(m, Value.cast(beat), 1))
        ended = delay(m, valid & beat.last, 1, reset=True)
        self._leave(m, step, ended, sums, cmd.param_base)
        return m

    def _sum(self, m: Module, product: Any, beat: Any, valid: Any, pad: Any) -> Any:
        """Sum, or greatest value, of the step so far; ``pad``: a maximum leaves the product out."""
        total = Signal(signed(SUM_BITS), reset_less=True)
        bits = self.engine.activation_bits + 1
        greater = product[:bits].as_signed() > total[:bits].as_signed()
        # comparison and sum side by side; nothing before the comparison
        added = Mux(beat.first, 0, total) + product
        least = -(1 << self.engine.activation_bits)
        fresh = Mux(pad, least, product)
        kept = Mux(beat.first, fresh, Mux(greater & ~pad, product, total))
        with m.If(valid):
            m.d.sync += total.eq(Mux(beat.maximum, kept, added))
        return total

    def _leave(self, m: Module, step: Any, ended: Any, sums: Any, param_base: Any) -> None:
        """A step's sums, one part a cycle, with its parameters into the requantisers."""
        e, tail = self.engine, self.tail
        blocks, entries = parts_of(e)
        pixels, post, halves = tail.pixels, e.post, 2 if e.post == 4 else 1
        count = blocks * entries * halves
        parts = []
        for b in range(blocks):
            for n in range(entries):
                for h in range(halves):
                    part = []
                    for lane in range(post):
                        x = n * pixels + lane // BLOCK
                        c = b * BLOCK + h * 4 + lane % BLOCK
                        part.append(sums[x][c] if x < e.px else Value.cast(0))
                    parts.append(part)
        layout = data.ArrayLayout(signed(SUM_BITS), post)
        shadow = [Signal(layout, name=f"shadow_{n}", reset_less=True) for n in range(count)]
        for n in range(count):
            for lane in range(post):
                after = shadow[n + 1][lane] if n + 1 < count else 0
                m.d.sync += shadow[n][lane].eq(Mux(ended, parts[n][lane], after))
        info = Signal(step.shape(), reset_less=True)
        left = Signal(range(count + 1))
        b, n, half = Signal(range(max(2, blocks))), Signal(range(max(2, entries))), Signal()
        param, group = Signal(10), Signal(10)
        busy = left != 0
        block_end = (n == entries - 1) & (half if halves == 2 else 1)
        feed = Signal(feed_layout(pixels))
        have = Mux(b < info.blocks, info.pixels, 0)
        gone = n * pixels
        rest = Signal(signed(bits_for(e.px) + 2))
        m.d.comb += rest.eq(have - gone)
        group_end = block_end & (b == blocks - 1)
        m.d.comb += [
            feed.valid.eq(busy), feed.half.eq(half if halves == 2 else 1),
            feed.count.eq(Mux(rest < 0, 0, Mux(rest > pixels, pixels, rest))),
            feed.run.eq(block_end), feed.group.eq(group_end), feed.row.eq(group_end & info.row),
            feed.plane.eq(group_end & info.plane), feed.last.eq(group_end & info.end),
            feed.fresh.eq(info.fresh & (left == count)),
        ]  # fmt: skip
        with m.If(busy):
            m.d.sync += left.eq(left - 1)
            if halves == 2:
                m.d.sync += half.eq(~half)
            with m.If(half if halves == 2 else Value.cast(1)):
                m.d.sync += n.eq(n + 1)
            with m.If(block_end):
                m.d.sync += [n.eq(0), b.eq(b + 1), param.eq(param + 1)]
            with m.If(group_end):
                m.d.sync += [b.eq(0), param.eq(group)]
            with m.If(group_end & info.plane):
                m.d.sync += [param.eq(group + blocks), group.eq(group + blocks)]
        with m.If(ended):
            m.d.sync += [info.eq(step), left.eq(count)]
            with m.If(step.fresh):
                m.d.sync += [param.eq(param_base), group.eq(param_base)]
        # parameters come READ_LATENCY later
        m.d.comb += self.param.block.eq(param)
        m.d.comb += tail.feed.eq(delay(m, Value.cast(feed), READ_LATENCY))
        m.d.comb += tail.feed.valid.eq(delay(m, feed.valid, READ_LATENCY, reset=True))
        upper = delay(m, half, READ_LATENCY)
        for lane in range(post):
            value = delay(m, shadow[0][lane], READ_LATENCY)
            m.d.comb += tail.sums[lane].eq(value)
        for lane in range(min(post, BLOCK)):
            value = Value.cast(self.param.data[lane])
            if post == 4:
                value = Mux(upper, Value.cast(self.param.data[lane + 4]), value)
            m.d.comb += Value.cast(tail.params[lane]).eq(value)
