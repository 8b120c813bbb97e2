# SPDX-License-Identifier: Apache-2.0
"""The loader's first half: commands to runs of memory, one command ahead of the placing half."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.commands import command_layout, command_stream
from codesign.targets.fpga.hw.ports import ADDRESS_BITS, READ_RUN, weights_of_word
from codesign.targets.fpga.isa import Dest, Unit

LAYOUT = command_layout(Unit.LOAD)
PLACING = data.StructLayout(
    {
        name: LAYOUT[name].shape
        for name in (
            "dest", "base", "count", "bits", "blocks", "rows", "width", "place_row_words",
            "place_residue_words", "place_group", "place_stride", "place_block", "place_nibbles",
            "repeat_x", "repeat_y",
        )
    }
)  # fmt: skip
"""What the placing half needs of a command."""
ACT = (Dest.DENSE_ACT, Dest.DEPTHWISE_ACT)
WEIGHT = (Dest.DENSE_WEIGHT, Dest.DEPTHWISE_WEIGHT)


def times(value: Any, factor: int) -> Any:
    """Multiplication by a constant as shifts and sums, so that no tool makes a multiplier of it."""
    parts = [value << bit for bit in range(factor.bit_length()) if factor >> bit & 1]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def is_one_of(dest: Any, places: tuple[Dest, ...]) -> Any:
    """Whether a command's destination is one of ``places``."""
    return Cat(dest == place for place in places).any()


class Requests(Component):
    """Commands to runs; hands each command on to the placing half."""

    def __init__(self, dense: Engine, depthwise: Engine) -> None:
        self.dense = dense
        self.depthwise = depthwise
        super().__init__(
            {
                "command": In(command_stream(Unit.LOAD)),
                "run": Out(stream.Signature(READ_RUN)),
                "next": Out(stream.Signature(PLACING)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        command = self.command.payload
        words = Signal(READ_RUN["words"].shape)
        rows = Signal.like(command.rows)
        width = Signal(len(words))
        address = Signal(ADDRESS_BITS)
        blocks = Signal.like(command.blocks)
        step = Signal.like(command.block_step)

        taken = self.next.payload
        # words of weights to 8 bytes, found while the command is taken
        scale = command.bits[2:4]  # 0, 1, 2 for weights of 2, 4, 8 bits
        dense, depthwise = (Signal(len(words), name=f"{n}_words") for n in ("dense", "depthwise"))
        m.d.sync += [
            dense.eq(times(command.count, weights_of_word(self.dense) // 32) << scale),
            depthwise.eq(
                ((times(command.count, weights_of_word(self.depthwise) // 8) << scale) + 3) >> 2
            ),
        ]
        m.d.comb += [
            self.run.payload.address.eq(address),
            self.run.payload.words.eq(words),
        ]
        with m.If(self.next.ready):
            m.d.sync += self.next.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.command.ready.eq(~self.next.valid)
                with m.If(self.command.valid & ~self.next.valid):
                    m.d.sync += self.next.valid.eq(1)
                    m.d.sync += [
                        getattr(self.next.payload, name).eq(getattr(command, name))
                        for name, _ in PLACING
                    ]
                    m.d.sync += [
                        address.eq(command.address),
                        step.eq(command.block_step),
                        rows.eq(command.rows),
                        width.eq(command.width),
                    ]
                    with m.If(is_one_of(command.dest, ACT)):
                        m.d.sync += [words.eq(0), blocks.eq(command.blocks)]
                        m.next = "MULTIPLY"
                    with m.Else():
                        m.d.sync += [words.eq(command.count), blocks.eq(1)]
                        m.next = "RUN"
                        with m.If(is_one_of(command.dest, WEIGHT)):
                            m.next = "SCALE"
            with m.State("SCALE"):
                m.d.sync += words.eq(Mux(taken.dest == Dest.DENSE_WEIGHT, dense, depthwise))
                m.next = "RUN"
            with m.State("MULTIPLY"):  # rows · width, a bit of rows a cycle
                m.d.sync += [
                    words.eq(words + Mux(rows[0], width, 0)),
                    width.eq(width << 1),
                    rows.eq(rows >> 1),
                ]
                with m.If(rows[1:] == 0):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.run.valid.eq(1)
                with m.If(self.run.ready):
                    m.d.sync += [address.eq(address + step), blocks.eq(blocks - 1)]
                    with m.If(blocks == 1):
                        m.next = "IDLE"
        return m
