# SPDX-License-Identifier: Apache-2.0
"""Addresses of an engine command, one beat (kernel tap and input word) a cycle.

The loops are those of ``docs/accelerator.md``, "Taps". A beat goes through fixed stages, counted
from the cycle in which it stands in the issue register: 0 tap address, 2 tap, 5 addresses of the
activation memories, 6 weight address, 7 activations as read, 8 operands (``OPERAND_STAGE``).
Nothing stalls between: whoever needs room for a step's results grants the step before it starts.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.buffers import READ_LATENCY, ActLayout, TapRead, words
from codesign.targets.fpga.hw.commands import command_layout, command_stream
from codesign.targets.fpga.isa import BLOCK, Unit

OPERAND_STAGE = 8
GAP = 5
"""Idle cycles between a dense command's last beat and the next one's first: sums of the first are
in memory before the second adds to them."""


def delay(m: Module, value: Any, cycles: int, *, reset: bool = False) -> Any:
    """``value`` after ``cycles`` edges; ``reset`` for flags that must be 0 at the start."""
    for _ in range(cycles):
        later = Signal.like(value, reset_less=not reset)
        m.d.sync += later.eq(value)
        value = later
    return value


def unit_of(engine: Engine) -> Unit:
    """The unit that runs an engine's commands."""
    return Unit.DENSE if engine.kind == "dense" else Unit.DEPTHWISE


def beat_layout(engine: Engine) -> Any:
    """What goes with a beat. ``pixels`` and ``blocks``: how many of the step's pixels and
    (depthwise) blocks are results; ``row``, ``plane``, ``end``: last step of its row, group,
    command; ``fresh``: in the command's first step."""
    return data.StructLayout(
        {
            "valid": 1,
            "first": 1,
            "last": 1,
            "row": 1,
            "plane": 1,
            "end": 1,
            "fresh": 1,
            "pixels": bits_for(engine.px),
            "blocks": bits_for(max(1, engine.po // BLOCK)),
            "word": 14,
            "signed": 1,
            "double": 1,
            "accumulate": 1,
            "maximum": 1,
        }
    )


class Walker(wiring.Component):
    """Takes commands, gives addresses and, at stage 7, the beat with its rotation and lanes.

    ``grant``: a step may start now; ``start``: it does. A step takes at least ``least`` cycles.
    ``need``: block pixels that the next step makes (depthwise); ``settled``: so it is in the next
    cycle, too.
    """

    def __init__(self, engine: Engine, least: int = 1) -> None:
        """``least``: of every step; steps at the double rate take 2 or more."""
        self.engine, self.least = engine, least
        self.unit = unit_of(engine)
        self.memories = ActLayout.of(engine).memories
        super().__init__(
            {
                "command": In(command_stream(self.unit)),
                "grant": In(1, init=1),
                "start": Out(1),
                "settled": Out(1),
                "tap": Out(TapRead),
                "act_address": Out(
                    data.ArrayLayout(ceil_log2(words(engine, "activation")), self.memories)
                ),
                "weight_address": Out(ceil_log2(words(engine, "weight"))),
                "beat": Out(beat_layout(engine)),
                "rotate": Out(ceil_log2(self.memories) or 1),
                "lanes": Out(self.memories),
                "idle": Out(1),
                "need": Out(8),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Issue, then the fixed stages."""
        m = Module()
        self._stages(m, self._issue(m))
        return m

    def _issue(self, m: Module) -> dict[str, Any]:
        """The loops; returns the issue register and what goes with it."""
        dense = self.unit == Unit.DENSE
        e, given = self.engine, self.command.payload
        cmd = Signal(command_layout(self.unit), reset_less=True)
        active = Signal()
        # a depthwise step ends `least` cycles after the last one's end at the earliest
        pause = GAP - 1 if dense else max(0, self.least - 2)
        gap = Signal(range(pause + 2))
        pace = Signal(range(max(2, self.least) + 1))
        left = {
            "c": Signal(8), "t": Signal(7), "p": Signal(14), "y": Signal(10), "g": Signal(10),
        }  # fmt: skip
        # `next_…`: where the next row and group begin, added up ahead of their turn
        step_word, next_row, next_group = Signal(14), Signal(14), Signal(14)
        tap, c, weight, group_weight, next_weight = (
            Signal(7), Signal(8), Signal(14), Signal(14), Signal(14)
        )  # fmt: skip
        pos, ypos, pixels = Signal(16), Signal(signed(12)), Signal(14)
        blocks = Signal(10)
        total = Signal(14)
        first, fresh = Signal(), Signal()
        group_step = 0 if dense else 1  # words from a group's activations to the next one's
        double = cmd.double if dense else Value.cast(0)
        lanes = Mux(double, 2 * e.px, e.px) if e.double else e.px

        ready = Signal(init=1)  # neither active nor in a gap; the way from it is long
        m.d.comb += [self.command.ready.eq(ready), self.idle.eq(ready)]
        with m.If(gap != 0):
            m.d.sync += [gap.eq(gap - 1), ready.eq(gap == 1)]
        paced = Signal(init=1)  # pace == 0
        with m.If(~paced):
            m.d.sync += [pace.eq(pace - 1), paced.eq(pace == 1)]

        issue = Signal()
        m.d.comb += issue.eq(active & (~first | (self.grant & paced)))
        m.d.comb += self.start.eq(issue & first)
        # a flag for each counter that is 0 or 1, and for each loop that ends with all inside it: no
        # comparison and no chain of them decides. ``whole``, ``twice``, ``alone``: their values at
        # the loop's start
        at_end, near, over, whole, twice, alone = (
            {name: Signal(name=f"{flag}_{name}") for name in left}
            for flag in ("end", "near", "over", "whole", "twice", "alone")
        )

        counts = {
            "c": given.inputs if dense else Const(1), "t": given.taps, "p": given.steps,
            "y": given.rows, "g": given.groups,
        }  # fmt: skip

        def count(name: str, reload: Any) -> list[Any]:
            """One fewer, or from the start."""
            if reload is None:
                return [
                    left[name].eq(left[name] - 1), at_end[name].eq(near[name]),
                    near[name].eq(left[name] == 2),
                ]  # fmt: skip
            return [
                left[name].eq(reload), at_end[name].eq(whole[name]), near[name].eq(twice[name])
            ]

        with m.If(self.command.valid & ready):
            all_once = Value.cast(1)
            for name, value in counts.items():
                all_once = all_once & (value == 1)
                m.d.sync += [flag[name].eq(value == 1) for flag in (at_end, whole)]
                m.d.sync += [flag[name].eq(value == 2) for flag in (near, twice)]
                m.d.sync += [flag[name].eq(all_once) for flag in (over, alone)]
            m.d.sync += [
                cmd.eq(given), ready.eq(0), active.eq(1), first.eq(1), fresh.eq(1),
                left["c"].eq(given.inputs - 1 if dense else 0), left["t"].eq(given.taps - 1),
                left["p"].eq(given.steps - 1), left["y"].eq(given.rows - 1),
                left["g"].eq(given.groups - 1), c.eq(0), tap.eq(given.tap_base),
                step_word.eq(given.act_base),
                next_row.eq(given.act_base + given.act_row_step),
                next_group.eq(given.act_base + group_step), weight.eq(given.weight_base),
                group_weight.eq(given.weight_base),
                next_weight.eq(given.weight_base + (given.weight_step if dense else given.taps)),
                pos.eq(0), ypos.eq(given.act_y0),
                pixels.eq(given.width),
            ]  # fmt: skip
            if dense:
                m.d.sync += total.eq(given.sum_base)
            else:
                m.d.sync += blocks.eq(given.blocks)
        with m.If(issue):
            m.d.sync += [first.eq(0), weight.eq(weight + 1), *count("c", None), c.eq(c + 1)]
            ends = Value.cast(1)  # the loops inside will end
            inside = (Value.cast(1), Value.cast(1))  # the loop inside: ends now, and anew
            for name in left:
                ends = Mux(
                    over[name], alone[name],
                    Mux(inside[0], inside[1] & near[name], at_end[name] & ends),
                )  # fmt: skip
                inside = (over[name], alone[name])
                m.d.sync += over[name].eq(ends)
            with m.If(first):
                pace_to = self.least - 1
                m.d.sync += pace.eq(Mux(double, max(1, pace_to), pace_to))
                m.d.sync += paced.eq(~double if pace_to == 0 else 0)
            with m.If(over["c"]):
                inputs = cmd.inputs - 1 if dense else 0
                m.d.sync += [*count("c", inputs), c.eq(0), tap.eq(tap + 1), *count("t", None)]
            with m.If(over["t"]):
                m.d.sync += [
                    *count("t", cmd.taps - 1), tap.eq(cmd.tap_base), first.eq(1), fresh.eq(0),
                    *count("p", None), step_word.eq(step_word + cmd.act_group),
                    pos.eq(pos + lanes), pixels.eq(pixels - lanes), weight.eq(group_weight),
                    total.eq(total + Mux(double, 2, 1)),
                ]  # fmt: skip
            with m.If(over["p"]):
                m.d.sync += [
                    *count("p", cmd.steps - 1), *count("y", None), pos.eq(0),
                    pixels.eq(cmd.width), next_row.eq(next_row + cmd.act_row_step),
                    step_word.eq(next_row), ypos.eq(ypos + cmd.act_y_step),
                ]  # fmt: skip
            with m.If(over["y"]):
                m.d.sync += [
                    *count("y", cmd.rows - 1), *count("g", None), ypos.eq(cmd.act_y0),
                    next_row.eq(next_group + cmd.act_row_step), step_word.eq(next_group),
                    weight.eq(next_weight), group_weight.eq(next_weight),
                    next_weight.eq(next_weight + (cmd.weight_step if dense else cmd.taps)),
                    blocks.eq(blocks - e.po // BLOCK),
                ]  # fmt: skip
                if group_step:
                    m.d.sync += next_group.eq(next_group + group_step)
            with m.If(over["g"]):
                m.d.sync += [active.eq(0), gap.eq(pause), ready.eq(int(pause == 0))]

        beat = Signal(beat_layout(e))
        group_blocks = max(1, e.po // BLOCK)
        m.d.sync += [
            Value.cast(beat).eq(0), beat.valid.eq(issue), beat.first.eq(first),
            beat.fresh.eq(fresh),
            beat.last.eq(over["t"]), beat.row.eq(over["p"]), beat.plane.eq(over["y"]),
            beat.end.eq(over["g"]), beat.word.eq(total), beat.signed.eq(cmd.act_signed),
            beat.double.eq(double),
            beat.pixels.eq(Mux(pixels >= e.px, e.px, pixels)),
        ]  # fmt: skip
        if dense:
            m.d.sync += beat.accumulate.eq(cmd.accumulate)
        else:
            m.d.sync += beat.maximum.eq(cmd.maximum)
            m.d.sync += beat.blocks.eq(Mux(blocks >= group_blocks, group_blocks, blocks))
            self._need(m, issue, at_end, over, pixels, blocks)
        issued = {"beat": beat}
        for name, value in (
            ("tap", tap), ("word", step_word), ("c", c), ("weight", weight), ("pos", pos),
            ("ypos", ypos), ("group", cmd.act_group), ("rows", cmd.act_rows),
        ):  # fmt: skip
            issued[name] = delay(m, value, 1)
        return issued

    def _need(
        self, m: Module, issue: Any, at_end: Any, over: Any, pixels: Any, blocks: Any
    ) -> None:  # fmt: skip
        """The first step's ``need`` from the counters, then each next one's while one is made.

        How wide and deep this step and the next one are is kept beside the counters, so that no
        comparison stands between a loop's end and the product.
        """
        px, group = self.engine.px, max(1, self.engine.po // BLOCK)
        given, taken = self.command.payload, self.command.valid & self.command.ready
        prime, need = Signal(), Signal.like(self.need)
        wide, wide_next, row_first, row_second = (
            Signal(range(px + 1), name=f"wide_{n}") for n in ("here", "next", "first", "second")
        )
        deep, deep_next = (Signal(range(group + 1), name=f"deep_{n}") for n in ("here", "next"))

        def part(count: Any, gone: int, most: int) -> Any:
            """What a step makes of ``count``, of which ``gone`` are made."""
            rest = (count - gone)[: len(count)]
            return Mux(rest >= most, most, rest)[: bits_for(most)]

        with m.If(taken):
            m.d.sync += [
                *(value.eq(part(given.width, 0, px)) for value in (wide, row_first)),
                *(value.eq(part(given.width, px, px)) for value in (wide_next, row_second)),
                deep.eq(part(given.blocks, 0, group)),
                deep_next.eq(part(given.blocks, group, group)),
            ]
        with m.If(issue & over["t"]):
            m.d.sync += [wide.eq(wide_next), wide_next.eq(part(pixels, 2 * px, px))]
        with m.If(issue & over["p"]):
            m.d.sync += [wide.eq(row_first), wide_next.eq(row_second)]
        with m.If(issue & over["y"]):
            m.d.sync += [deep.eq(deep_next), deep_next.eq(part(blocks, 2 * group, group))]
        across = Mux(prime, wide, Mux(at_end["p"], row_first, wide_next))
        down = Mux(~prime & at_end["p"] & at_end["y"], deep_next, deep)
        m.d.sync += prime.eq(taken)
        with m.If(prime | issue):
            m.d.sync += need.eq(across * down)
        m.d.comb += [self.need.eq(need), self.settled.eq(~(taken | prime | self.start))]

    def _stages(self, m: Module, issued: dict[str, Any]) -> None:
        px, L = self.engine.px, self.memories
        doubles = self.engine.double
        m.d.comb += self.tap.index.eq(issued["tap"])
        word = Signal(14, reset_less=True)
        m.d.sync += word.eq(issued["word"] + issued["c"])
        later = {
            name: delay(m, issued[name], READ_LATENCY) for name in ("pos", "ypos", "group", "rows")
        }
        tap = self.tap.data
        # stage 2 -> 3
        word0 = Signal(14, reset_less=True)
        row = Signal(signed(13), reset_less=True)
        least, most = (Signal(signed(17), name=n, reset_less=True) for n in ("least", "most"))
        rotate = Signal(bits_for(L), reset_less=True)
        m.d.sync += [
            word0.eq(delay(m, word, 1) + tap.offset), row.eq(later["ypos"] + tap.row),
            least.eq(tap.least - later["pos"]), most.eq(tap.most - later["pos"]),
            rotate.eq(tap.rotate),
        ]  # fmt: skip
        group, rows = delay(m, later["group"], 1), delay(m, later["rows"], 1)
        double3 = delay(m, issued["beat"].double, 3)
        # stage 3 -> 4
        near, far = Signal(14, reset_less=True), Signal(14, reset_less=True)
        inside = Signal(reset_less=True)
        low, high = (Signal(range(L + 1), name=n, reset_less=True) for n in ("low", "high"))
        further = Signal(L, reset_less=True)
        m.d.sync += [
            near.eq(word0), far.eq(word0 + group), inside.eq((row >= 0) & (row < rows)),
            low.eq(_clamped(least, L)), high.eq(_clamped(most, L)),
            further.eq(Cat(
                Mux(double3, j < rotate, j % px < rotate) if doubles else j < rotate
                for j in range(L)
            )),
        ]  # fmt: skip
        # stage 4 -> 5
        for j in range(L):
            address = Signal.like(self.act_address[j], name=f"address_{j}", reset_less=True)
            m.d.sync += address.eq(Mux(further[j], far, near))
            m.d.comb += self.act_address[j].eq(address)
        lanes = Signal(L, reset_less=True)
        m.d.sync += lanes.eq(Cat(inside & (low <= i) & (i < high) for i in range(L)))
        # up to stage 6 and 7
        m.d.comb += [
            self.weight_address.eq(delay(m, issued["weight"], 6)),
            self.lanes.eq(delay(m, lanes, 2)),
            self.rotate.eq(delay(m, rotate, 4)),
        ]
        flags = issued["beat"]
        moved = Signal(beat_layout(self.engine))
        m.d.comb += moved.eq(delay(m, Value.cast(flags), 7))
        m.d.comb += self.beat.eq(moved)
        m.d.comb += self.beat.valid.eq(delay(m, flags.valid, 7, reset=True))


def _clamped(value: Any, most: int) -> Any:
    """``value`` brought into 0 .. most."""
    return Mux(value < 0, 0, Mux(value > most, most, value))
