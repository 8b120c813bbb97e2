# SPDX-License-Identifier: Apache-2.0
"""The load unit: memory to buffers.

``Requests`` takes commands and asks for their runs, one command ahead of ``Loader``'s other half,
which puts the arriving beats into the buffers: weights expanded to the engine's width, parameters
and taps word by word, activations placed as ``docs/accelerator.md`` says. One beat a cycle, but:

- activations on a 128-bit port: two cycles for a beat whose pixels are in one memory (stride > 1,
  or one memory alone) or end and begin a row; with pi = 4 twice as many cycles;
- parameters and taps: 8 bytes a cycle; weights whose word is smaller than a beat's weights: a
  word a cycle;
- repeated pixels: a cycle for each place.

A command takes 2 cycles more before its first beat (weights: 3), and one for each ``repeat_y``
beyond 1.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.axi import Slice
from codesign.targets.fpga.hw.commands import command_stream
from codesign.targets.fpga.hw.ports import (
    ActShape,
    ItemWriteSignature,
    Port,
    act_write,
    read_beat,
    weight_write,
    weights_of_word,
    word_granules,
)
from codesign.targets.fpga.hw.reads import Splitter, burst_layout
from codesign.targets.fpga.hw.requests import ACT, PLACING, WEIGHT, Requests, is_one_of
from codesign.targets.fpga.hw.walk import delay
from codesign.targets.fpga.isa import Dest, Unit


class Loader(Component):
    """The load unit. ``done`` pulses when a command's last buffer write has been taken."""

    def __init__(self, dense: Engine, depthwise: Engine, port: Port) -> None:
        self.dense = dense
        self.depthwise = depthwise
        self.port = port
        super().__init__(
            {
                "command": In(command_stream(Unit.LOAD)),
                "done": Out(1),
                "busy": Out(1),
                "burst": Out(stream.Signature(burst_layout(port))),
                "beat": In(stream.Signature(read_beat(port))),
                "dense_weight": Out(weight_write(dense, port.bits)),
                "dense_param": Out(ItemWriteSignature),
                "dense_tap": Out(ItemWriteSignature),
                "dense_act": Out(act_write(dense, port.bits)),
                "depthwise_weight": Out(weight_write(depthwise, port.bits)),
                "depthwise_param": Out(ItemWriteSignature),
                "depthwise_tap": Out(ItemWriteSignature),
                "depthwise_act": Out(act_write(depthwise, port.bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port = self.port
        m.submodules.requests = requests = Requests(self.dense, self.depthwise)
        m.submodules.splitter = splitter = Splitter(port, port.burst * port.words)
        connect(m, flipped(self.command), requests.command)
        connect(m, requests.run, splitter.run)
        connect(m, flipped(self.burst), splitter.burst)

        now = Signal(PLACING, reset_less=True)
        # setup is over; one for each kind of destination
        ready = {kind: Signal(name=f"ready_{kind}") for kind in ("act", "weight", "item")}
        some = Signal()  # of them
        closing = Signal()  # the last write is on its way
        quick, late = Signal(), Signal()  # it is of activations; it was on its way a cycle ago
        finish = Signal()
        setting = Signal()
        act = is_one_of(now.dest, ACT)
        weight = is_one_of(now.dest, WEIGHT)
        state = _State(m, self, now)
        moving = state.act_valid | (state.acts.o.valid & ~state.acts.o.ready)
        m.d.comb += [
            some.eq(Cat(*ready.values()).any()),
            requests.next.ready.eq(~setting & ~some),
            self.busy.eq(setting | some | closing | requests.next.valid),
            self.done.eq(closing & ~moving & (quick | late)),
        ]
        m.d.sync += late.eq(closing & ~self.done)
        with m.If(self.done):
            m.d.sync += closing.eq(0)
        with m.If(requests.next.valid & requests.next.ready):
            m.d.sync += [now.eq(requests.next.payload), setting.eq(1)]
            state.begin(requests.next.payload)
        with m.If(setting), m.If(state.prepare()):
            m.d.sync += [
                setting.eq(0), ready["act"].eq(act), ready["weight"].eq(weight),
                ready["item"].eq(~act & ~weight),
            ]  # fmt: skip
        free = Signal()
        m.d.comb += free.eq(self.beat.valid & (~state.act_valid | state.act_taken) & ~closing)
        go = {kind: Signal(name=f"go_{kind}") for kind in ready}
        m.d.comb += [go[kind].eq(free & ready[kind]) for kind in ready]
        state.fill_slots()
        with m.If(go["act"]):
            state.place_activations(finish)
        with m.If(go["weight"]):
            state.place_weights(finish)
        with m.If(go["item"]):
            state.place_items(finish)
        with m.If(finish):
            m.d.sync += [*(flag.eq(0) for flag in ready.values()), closing.eq(1)]
            m.d.sync += quick.eq(ready["act"])
        state.outputs(go)
        return m


class _State:
    """Registers of the placing half and what one cycle does with them."""

    def __init__(self, m: Module, loader: Loader, now: Any) -> None:
        self.m, self.loader, self.now = m, loader, now
        dense, depthwise = loader.dense, loader.depthwise
        shapes = [ActShape.of(engine, loader.port.bits) for engine in (dense, depthwise)]
        self.engines = (dense, depthwise)
        self.shapes = shapes
        bits = max(shape.address_bits for shape in shapes)
        self.memory = Signal(max(shape.memory_bits for shape in shapes))
        self.last_memory = Signal.like(self.memory)
        self.block_base, self.row_base, self.place = Signal(bits), Signal(bits), Signal(bits)
        self.row_step, self.offset, self.residue_offset = Signal(bits), Signal(bits), Signal(bits)
        self.residue = Signal(3)
        most = [shape.lanes for shape in shapes]
        self.powers = all(count & (count - 1) == 0 for count in most)
        self.lane = Signal(max(1, ceil_log2(max(most))) if self.powers else 9)
        self.last_lane = Signal.like(self.lane)
        self.lane_step = Signal(2)
        self.columns, self.rows = Signal.like(now.width), Signal.like(now.rows)  # left
        self.pairs = Signal()  # two neighbours may go in one cycle
        self.blocks = Signal.like(now.blocks)
        self.times_x, self.times_y = Signal(3), Signal(3)
        # comparisons made ahead, so that the way from a stall to the beat's `ready` is short: the
        # next place of the pixel is its last (`…_ends`); values at a loop's start (`only_…`)
        names = (
            "piece_ends", "x_ends", "y_ends", "only_x", "only_y", "column_ends", "pair_ends",
            "only_column", "only_pair", "row_ends", "only_row", "block_ends", "left_ends",
            "word_ends", "only_granule", "beat_ends", "only_step",
        )  # fmt: skip
        self.flags = {name: Signal(name=name) for name in names}
        self.piece, self.second = Signal(), Signal()
        self.split = Signal()  # pi = 4: a block fills two words
        self.left = Signal.like(now.count)
        granules = [
            weights_of_word(e) // word_granules(weights_of_word(e), loader.port.bits)[0]
            for e in self.engines
        ]
        self.granule = Signal(range(max(2, *granules)))
        self.step = Signal(6)
        self.widths = {bits: Signal(name=f"bits_{bits}") for bits in (2, 4, 8)}
        self.granules, self.last_granule = Signal.like(self.granule), Signal.like(self.granule)
        self.last_step = Signal.like(self.step)
        self.address = Signal.like(now.base)
        slots = shapes[0].slots
        slot = act_slot_of(shapes)
        self.slots = [Signal(slot, name=f"slot_{k}", reset_less=True) for k in range(slots)]
        self.act_valid = Signal()
        self.chosen, self.nibbles = Signal(), Signal()  # chosen: the depthwise engine's
        # results on chip go first in the buffers: a register slice ends their stall
        m.submodules.acts = self.acts = Slice(
            data.StructLayout(
                {"chosen": 1, "nibbles": 1, "slots": data.ArrayLayout(slot, slots)}
            )
        )
        self.act_taken = self.acts.i.ready

    @property
    def is_dense(self) -> Any:
        """Whether the command is for the dense engine."""
        return ~self.now.dest[2]

    def begin(self, command: Any) -> None:
        """The first cycle of a command: constants of its engine, counters."""
        m = self.m
        dense = ~command.dest[2]
        values = []
        for engine, shape in zip(self.engines, self.shapes):
            double = 2 * engine.px if engine.double else engine.px
            split = shape.block_bits == 32
            power = shape.lanes & (shape.lanes - 1) == 0
            low = ceil_log2(shape.lanes)
            block = command.place_block
            lane = block[:low] if power else block
            above = Cat(Const(0, int(split)), block[low:]) if power else Const(0, 1)
            memories = Mux(command.place_nibbles, double - 1, engine.px - 1)
            values.append((memories, shape.lanes - 1, int(split), lane, above))
        pick = [Mux(dense, a, b) for a, b in zip(*values)]
        m.d.sync += [
            self.last_memory.eq(pick[0]),
            self.last_lane.eq(pick[1]),
            self.lane_step.eq(1 + pick[2]),
            self.split.eq(pick[2]),
            self.lane.eq(pick[3]),
            self.block_base.eq(command.base + pick[4]),
            self.row_step.eq(command.place_row_words),
            self.times_y.eq(1),
            self.blocks.eq(command.blocks),
            self.left.eq(command.count),
            self.address.eq(command.base),
            self.granule.eq(0),
            self.step.eq(0),
            self.second.eq(0),
            self.piece.eq(0),
        ]
        f = self.flags
        m.d.sync += [
            f["only_x"].eq(command.repeat_x <= 1), f["only_y"].eq(command.repeat_y <= 1),
            f["only_column"].eq(command.width == 1), f["only_pair"].eq(command.width == 2),
            f["only_row"].eq(command.rows == 1), f["block_ends"].eq(command.blocks == 1),
            f["left_ends"].eq(command.count == 1), f["piece_ends"].eq(~pick[2]),
        ]  # fmt: skip
        m.d.sync += [flag.eq(command.bits == bits) for bits, flag in self.widths.items()]
        for engine, mine in zip(self.engines, (dense, ~dense)):
            weights = weights_of_word(engine)
            granule, chunk = word_granules(weights, self.loader.port.bits)
            with m.If(mine), m.Switch(command.bits):
                for bits in (2, 4, 8):
                    taken = min(self.loader.port.bits // bits, chunk)
                    steps = self.loader.port.bits // bits // taken
                    granules, last = taken // granule, (weights - taken) // granule
                    with m.Case(bits):
                        m.d.sync += [
                            self.granules.eq(granules), self.last_granule.eq(last),
                            self.last_step.eq(steps - 1), f["only_granule"].eq(int(last == 0)),
                            f["word_ends"].eq(int(last == 0)), f["only_step"].eq(int(steps == 1)),
                            f["beat_ends"].eq(int(steps == 1)),
                        ]  # fmt: skip

    def prepare(self) -> Any:
        """Further cycles: n div PB where PB is no power of two, row_words · repeat_y."""
        m, now = self.m, self.now
        divided, multiplied = Signal(), Signal()
        m.d.comb += [
            divided.eq(1 if self.powers else self.lane <= self.last_lane),
            multiplied.eq(self.times_y >= now.repeat_y),
        ]
        with m.If(~divided):
            m.d.sync += [
                self.lane.eq(self.lane - self.last_lane - 1),
                self.block_base.eq(self.block_base + self.lane_step),
            ]
        with m.If(~multiplied):
            m.d.sync += [
                self.row_step.eq(self.row_step + now.place_row_words),
                self.times_y.eq(self.times_y + 1),
            ]
        self.start_row(self.block_base)
        m.d.sync += [
            self.rows.eq(now.rows),
            self.times_x.eq(0),
            self.pairs.eq(
                (now.place_stride <= 1) & (self.last_memory != 0)
                & (now.repeat_x <= 1) & (now.repeat_y <= 1)
            ),
        ]  # fmt: skip
        with m.If(divided & multiplied):
            m.d.sync += self.times_y.eq(0)
        f = self.flags
        m.d.sync += [
            f["x_ends"].eq(f["only_x"]), f["y_ends"].eq(f["only_y"]),
            f["row_ends"].eq(f["only_row"]),
        ]  # fmt: skip
        return divided & multiplied

    def start_row(self, base: Any) -> None:
        """Pixel 0 of the row whose word is ``base``."""
        self.m.d.sync += [
            self.row_base.eq(base),
            self.place.eq(base),
            self.memory.eq(0),
            self.residue.eq(0),
            self.residue_offset.eq(0),
            self.offset.eq(0),
            self.columns.eq(self.now.width),
            self.flags["column_ends"].eq(self.flags["only_column"]),
            self.flags["pair_ends"].eq(self.flags["only_pair"]),
        ]

    def word(self) -> tuple[Any, Any, Any]:
        """(index of the next word in the beat, it is the beat's last, the next is there too)."""
        mask = self.loader.beat.payload.mask
        if self.loader.port.words == 1:
            return Const(0, 1), Const(1, 1), Const(0, 1)
        index = Signal()
        self.m.d.comb += index.eq(self.second | ~mask[0])
        return index, index | ~mask[1], ~index & mask[1]

    def fill_slots(self) -> None:
        """What the next cycle of activations would place, into slots that are free, whether a beat
        is there or not: then these registers and their wires do not wait for it."""
        m, now, beat, f = self.m, self.now, self.loader.beat, self.flags
        index, self.last_word, two = self.word()
        self.wraps, self.pair, self.end_row = Signal(), Signal(), Signal()
        self.after = Signal.like(self.place)
        self.next_memory = Signal.like(self.memory)
        m.d.comb += [
            self.wraps.eq(self.memory == self.last_memory),
            self.after.eq(self.place + now.place_group),
            self.next_memory.eq(Mux(self.wraps, 0, self.memory + 1)),
            self.pair.eq(two & self.pairs & ~f["column_ends"]),
            self.end_row.eq(Mux(self.pair, f["pair_ends"], f["column_ends"])),
        ]
        words = [beat.payload.data[64 * k : 64 * k + 64] for k in range(self.loader.port.words)]
        first, second = self.slots[0], self.slots[-1]
        with m.If(~self.act_valid | self.act_taken):
            if second is not first:
                m.d.sync += [
                    second.valid.eq(self.pair),
                    second.memory.eq(self.next_memory),
                    second.address.eq(Mux(self.wraps, self.after, self.place) + self.piece),
                    second.lane.eq(self.lane),
                    second.data.eq(self.packed(words[-1])),
                ]
            m.d.sync += [
                first.valid.eq(1),
                first.memory.eq(self.memory),
                first.address.eq(self.place + self.offset + self.piece),
                first.lane.eq(self.lane),
                first.data.eq(self.packed(Mux(index, words[-1], words[0]))),
                self.chosen.eq(now.dest[2]),
                self.nibbles.eq(now.place_nibbles),
            ]

    def place_activations(self, finish: Any) -> None:
        """One cycle: one pixel, or two neighbours."""
        m, now, beat, f = self.m, self.now, self.loader.beat, self.flags
        last_word, pair = self.last_word, self.pair
        m.d.sync += self.act_valid.eq(1)
        ends = Signal()
        m.d.comb += ends.eq(f["piece_ends"] & f["y_ends"] & f["x_ends"])
        m.d.comb += beat.ready.eq(ends & (last_word | pair))
        with m.If(~f["piece_ends"]):
            m.d.sync += [self.piece.eq(1), f["piece_ends"].eq(1)]
        with m.Else():
            m.d.sync += [self.piece.eq(0), f["piece_ends"].eq(~self.split)]
            with m.If(~f["y_ends"]):
                m.d.sync += [
                    self.times_y.eq(self.times_y + 1),
                    self.offset.eq(self.offset + now.place_row_words),
                    f["y_ends"].eq(self.times_y + 2 >= now.repeat_y),
                ]
            with m.Else():
                m.d.sync += [self.times_y.eq(0), f["y_ends"].eq(f["only_y"])]
                self.advance(pair, self.wraps, self.next_memory, self.after)
                with m.If(~f["x_ends"]):
                    m.d.sync += [
                        self.times_x.eq(self.times_x + 1),
                        f["x_ends"].eq(self.times_x + 2 >= now.repeat_x),
                    ]
                with m.Else():
                    m.d.sync += [
                        self.times_x.eq(0),
                        f["x_ends"].eq(f["only_x"]),
                        self.columns.eq(self.columns - Mux(pair, 2, 1)),
                        f["column_ends"].eq(self.columns == Mux(pair, 3, 2)),
                        f["pair_ends"].eq(self.columns == Mux(pair, 4, 3)),
                        self.second.eq(~(last_word | pair)),
                    ]
                    with m.If(self.end_row):
                        self.next_row(finish)

    def advance(self, pair: Any, wraps: Any, next_memory: Any, after: Any) -> None:
        """To the place of the next pixel (after a pair: the next but one)."""
        m, now = self.m, self.now
        with m.If((self.residue + 1 < now.place_stride) & ~pair):
            offset = self.residue_offset + now.place_residue_words
            m.d.sync += [
                self.residue.eq(self.residue + 1),
                self.residue_offset.eq(offset),
                self.offset.eq(offset),
            ]
        with m.Else():
            next_wraps = pair & (next_memory == self.last_memory)
            m.d.sync += [
                self.residue.eq(0),
                self.residue_offset.eq(0),
                self.offset.eq(0),
                self.place.eq(Mux(wraps | next_wraps, after, self.place)),
                self.memory.eq(Mux(next_wraps, 0, next_memory + pair)),
            ]

    def next_row(self, finish: Any) -> None:
        """A row is placed: the next one, the next block's first one, or the end."""
        m, now = self.m, self.now
        f = self.flags
        with m.If(~f["row_ends"]):
            m.d.sync += [self.rows.eq(self.rows - 1), f["row_ends"].eq(self.rows == 2)]
            self.start_row(self.row_base + self.row_step)
        with m.Else():
            full = self.lane == self.last_lane
            base = self.block_base + Mux(full, self.lane_step, 0)
            m.d.sync += [
                self.rows.eq(now.rows),
                self.lane.eq(Mux(full, 0, self.lane + 1)),
                self.block_base.eq(base),
                self.blocks.eq(self.blocks - 1),
                f["row_ends"].eq(f["only_row"]),
                f["block_ends"].eq(self.blocks == 2),
            ]
            self.start_row(base)
            m.d.comb += finish.eq(f["block_ends"])

    def packed(self, word: Any) -> Any:
        """The data of a slot: half of the word for pi = 4, nibbles together."""
        half = word
        if any(shape.block_bits == 32 for shape in self.shapes):
            half = Mux(self.split & self.piece, word[32:], word)
        if not any(engine.double for engine in self.engines):
            return half
        nibbles = Cat(half[8 * k : 8 * k + 4] for k in range(8))
        return Mux(self.now.place_nibbles, nibbles, half)

    def place_weights(self, finish: Any) -> None:
        """One cycle: as many weights as a chunk takes of the beat."""
        m, beat, f = self.m, self.loader.beat, self.flags
        full, following = f["word_ends"], Signal.like(self.granule)
        last = Signal()
        m.d.comb += [
            last.eq(full & f["left_ends"]),
            finish.eq(last),
            beat.ready.eq(last | f["beat_ends"]),
            following.eq(self.granule + self.granules),
        ]
        m.d.sync += [
            self.step.eq(Mux(beat.ready, 0, self.step + 1)),
            f["beat_ends"].eq(Mux(beat.ready, f["only_step"], self.step + 1 == self.last_step)),
            self.granule.eq(Mux(full, 0, following)),
            full.eq(Mux(full, f["only_granule"], following == self.last_granule)),
            self.address.eq(self.address + full),
        ]
        with m.If(full):
            m.d.sync += [self.left.eq(self.left - 1), f["left_ends"].eq(self.left == 2)]

    def place_items(self, finish: Any) -> None:
        """One cycle: 8 bytes, a channel's parameters or a tap."""
        m = self.m
        _, last_word, _ = self.word()
        m.d.comb += [
            self.loader.beat.ready.eq(last_word),
            finish.eq(self.flags["left_ends"]),
        ]
        m.d.sync += [
            self.flags["left_ends"].eq(self.left == 2),
            self.second.eq(~last_word),
            self.address.eq(self.address + 1),
            self.left.eq(self.left - 1),
        ]

    def outputs(self, go: dict[str, Any]) -> None:
        """Registers to the buffers."""
        m, loader = self.m, self.loader
        names = ("dense", "depthwise")
        ways = [getattr(loader, f"{name}_act") for name in names]
        entry, there = self.acts.i.payload, self.acts.o.payload
        with m.If(~go["act"] & self.act_taken):
            m.d.sync += self.act_valid.eq(0)
        m.d.comb += [
            self.acts.i.valid.eq(self.act_valid), entry.chosen.eq(self.chosen),
            entry.nibbles.eq(self.nibbles),
            self.acts.o.ready.eq(Mux(there.chosen, ways[1].ready, ways[0].ready)),
        ]  # fmt: skip
        for index, slot in enumerate(self.slots):
            m.d.comb += entry.slots[index].eq(slot)
        for way, mine in zip(ways, (~there.chosen, there.chosen)):
            m.d.comb += [
                way.valid.eq(self.acts.o.valid & mine), way.payload.nibbles.eq(there.nibbles)
            ]
            for index in range(len(self.slots)):
                for name in ("valid", "memory", "address", "lane", "data"):
                    m.d.comb += getattr(way.payload.slots[index], name).eq(
                        getattr(there.slots[index], name)
                    )
        # weights and items pass two registers: one for the beat, one for what is made of it. They
        # go along whether valid or not: nothing but a flag waits for the beat
        index, _, _ = self.word()
        beat, upper = Signal(loader.port.bits, reset_less=True), Signal(reset_less=True)
        address = Signal(13, reset_less=True)
        m.d.sync += [beat.eq(loader.beat.payload.data), upper.eq(index), address.eq(self.address)]
        word = beat if loader.port.words == 1 else Mux(upper, beat[64:], beat[:64])
        items = {
            Dest.DENSE_PARAM: loader.dense_param, Dest.DENSE_TAP: loader.dense_tap,
            Dest.DEPTHWISE_PARAM: loader.depthwise_param, Dest.DEPTHWISE_TAP: loader.depthwise_tap,
        }  # fmt: skip
        item_index, item = Signal(13, reset_less=True), Signal(64, reset_less=True)
        m.d.sync += [item_index.eq(address), item.eq(word)]
        for dest, way in items.items():
            m.d.sync += way.valid.eq(delay(m, go["item"] & (self.now.dest == dest), 1))
            m.d.comb += [way.index.eq(item_index), way.data.eq(item)]
        for engine, dest in zip(self.engines, WEIGHT):
            self.weight_output(engine, dest, go["weight"], beat, address)

    def weight_output(self, engine: Engine, dest: Dest, go: Any, beat: Any, address: Any) -> None:
        """Weights of the beat, expanded, to the register before an engine's weight buffer."""
        m, loader = self.m, self.loader
        way = getattr(loader, dest.name.lower())
        weights = weights_of_word(engine)
        granule, chunk = word_granules(weights, loader.port.bits)
        m.d.sync += [
            way.valid.eq(delay(m, go & (self.now.dest == dest), 1)), way.address.eq(address)
        ]
        chosen, first = delay(m, self.step, 1), delay(m, self.granule, 1)
        for bits, flag in self.widths.items():
            taken = min(loader.port.bits // bits, chunk)
            steps = loader.port.bits // bits // taken
            size = taken // granule
            with m.If(delay(m, flag, 1)):
                parts = [beat[k * taken * bits :][: taken * bits] for k in range(steps)]
                part = Signal(taken * bits, name=f"part_{bits}")
                m.d.comb += part.eq(Array(parts)[chosen] if steps > 1 else parts[0])
                values = []
                for k in range(chunk):
                    at = k % taken * bits
                    value = part[at : at + bits].as_signed()
                    wide = Signal(engine.weight_bits, name=f"w{bits}_{k}")
                    m.d.comb += wide.eq(value)
                    values.append(wide)
                place = first >> ceil_log2(size)
                m.d.sync += way.data.eq(Cat(values))
                m.d.sync += way.mask.eq(
                    Cat(place == j // size for j in range(weights // granule))
                )


def act_slot_of(shapes: list[ActShape]) -> Any:
    """A slot that holds those of both engines."""
    return data.StructLayout(
        {
            "valid": 1,
            "memory": max(shape.memory_bits for shape in shapes),
            "address": max(shape.address_bits for shape in shapes),
            "lane": max(1, *(ceil_log2(shape.lanes) for shape in shapes)),
            "data": max(shape.block_bits for shape in shapes),
        }
    )
