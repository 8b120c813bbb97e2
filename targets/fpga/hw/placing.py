# SPDX-License-Identifier: Apache-2.0
"""Where a loaded beat goes: the load unit's counters, a cycle at a time (see ``loader``)."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.utils import ceil_log2

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.axi import Slice
from codesign.targets.fpga.hw.ports import ActShape, Port, weights_of_word, word_granules


class Placing:
    """Registers of the placing half and what one cycle does with them."""

    def __init__(
        self, m: Module, engines: tuple[Engine, Engine], port: Port, beat: Any, now: Any
    ) -> None:
        """``engines``: dense and depthwise; ``now``: the command at hand, ``PLACING``."""
        self.m, self.engines, self.port, self.beat, self.now = m, engines, port, beat, now
        shapes = [ActShape.of(engine, port.bits) for engine in engines]
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
            weights_of_word(e) // word_granules(weights_of_word(e), port.bits)[0]
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
            granule, chunk = word_granules(weights, self.port.bits)
            with m.If(mine), m.Switch(command.bits):
                for bits in (2, 4, 8):
                    taken = min(self.port.bits // bits, chunk)
                    steps = self.port.bits // bits // taken
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
        mask = self.beat.payload.mask
        if self.port.words == 1:
            return Const(0, 1), Const(1, 1), Const(0, 1)
        index = Signal()
        self.m.d.comb += index.eq(self.second | ~mask[0])
        return index, index | ~mask[1], ~index & mask[1]

    def fill_slots(self) -> None:
        """What the next cycle of activations would place, into slots that are free, whether a beat
        is there or not: then these registers and their wires do not wait for it."""
        m, now, beat, f = self.m, self.now, self.beat, self.flags
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
        words = [beat.payload.data[64 * k : 64 * k + 64] for k in range(self.port.words)]
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
        m, now, beat, f = self.m, self.now, self.beat, self.flags
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
        m, beat, f = self.m, self.beat, self.flags
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
            self.beat.ready.eq(last_word),
            finish.eq(self.flags["left_ends"]),
        ]
        m.d.sync += [
            self.flags["left_ends"].eq(self.left == 2),
            self.second.eq(~last_word),
            self.address.eq(self.address + 1),
            self.left.eq(self.left - 1),
        ]


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
