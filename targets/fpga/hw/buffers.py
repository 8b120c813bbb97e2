# SPDX-License-Identifier: Apache-2.0
"""The memories of the engines: simple dual port, written and read in one cycle each.

Every read has a register behind the memory: data come ``READ_LATENCY`` edges after their address.
Reading a word in the very cycle in which it is written gives undefined data (``no_rw_check``); the
units never use such data. Memories of more than 64 words are block RAM, the others what the
synthesis tool takes (LUT RAM on Xilinx parts). ``shapes`` lists all of them, so that block RAM can
be counted exactly.

Writers: the loader (signatures of ``hw/ports.py``) and, for activations, results on chip, which go
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.ports import (
    ActShape,
    ItemWriteSignature,
    act_slot,
    act_write,
    weight_write,
    weights_of_word,
    word_granules,
)
from codesign.targets.fpga.isa import BLOCK, PARAM_BLOCKS, TAPS

READ_LATENCY = 2
"""Clock edges from a read address to its data."""
SHALLOW = 64
"""Memories of at most this many words are not forced into block RAM."""

PARAM = data.StructLayout({"bias": signed(32), "m": 16, "e": 6})
"""``isa.Param`` as it is stored."""
TAP = data.StructLayout({"offset": 14, "row": 8, "rotate": 8, "least": 16, "most": 16})
"""``isa.Tap`` as it is stored; the offset modulo 2^14."""


@dataclass(frozen=True)
class MemoryShape:
    """``count`` memories alike."""

    name: str
    width: int
    depth: int
    count: int


def shapes(engine: Engine) -> tuple[MemoryShape, ...]:
    """Every memory of an engine's buffers, each as wide and deep as it is instantiated.

    Activations: px · PB memories (twice as many of half the width for a doubling engine), one for
    each block of 8 channels of a word. The banks of weights and activations are one memory each.
    """
    act = ActLayout.of(engine)
    found = [
        MemoryShape(
            "weight", weights_of_word(engine) * engine.weight_bits, words(engine, "weight"), 1
        ),
        MemoryShape(
            "activation", act.lane_bits, words(engine, "activation"), act.memories * act.lanes
        ),
    ]
    if engine.kind == "dense":
        found.append(
            MemoryShape(
                "accumulator",
                engine.po * engine.accumulator_bits,
                engine.accumulator.depth,
                2 * engine.px,
            )
        )
    found.append(MemoryShape("param", 2 * PARAM.size, PARAM_BLOCKS, BLOCK // 2))
    found.append(MemoryShape("tap", TAP.size, TAPS, 1))
    return tuple(found)


def words(engine: Engine, name: str) -> int:
    """Words of the weight or activation buffer, banks together."""
    buffer = engine.weight if name == "weight" else engine.activation
    return buffer.depth * buffer.banks


@dataclass(frozen=True)
class ActLayout:
    """How an activation buffer's words are split."""

    memories: int
    """px, or 2 · px when the engine doubles: then memories j and px + j hold the lower and the
    upper halves of the values of pixel memory j."""
    lanes: int
    """Memories side by side in one of ``memories``: a block of channels each."""
    channels: int
    """Values in one of these."""
    bits: int
    """Bits of a value, or of half a value when the engine doubles."""

    @staticmethod
    def of(engine: Engine) -> ActLayout:
        """Of an engine."""
        channels = engine.pi if engine.kind == "dense" else engine.po
        return ActLayout(
            memories=engine.px * (2 if engine.double else 1),
            lanes=max(1, channels // BLOCK),
            channels=min(channels, BLOCK),
            bits=4 if engine.double else engine.activation_bits,
        )

    @property
    def lane_bits(self) -> int:
        """Bits of one memory's word."""
        return self.channels * self.bits

    @property
    def word_bits(self) -> int:
        """Bits read from one of ``memories``."""
        return self.lanes * self.lane_bits


def memory(shape: Any, depth: int) -> Any:
    """A memory with the attributes that its depth asks for."""
    attrs: dict[str, Any] = {"no_rw_check": 1}
    if depth > SHALLOW:
        attrs["ram_style"] = "block"
    return Memory(shape=shape, depth=depth, init=[], attrs=attrs)


def read_registered(m: Module, ram: Any, address: Any) -> Any:
    """Data of ``address`` after ``READ_LATENCY`` edges."""
    port = ram.read_port()
    out = Signal.like(port.data, reset_less=True)
    m.d.comb += port.addr.eq(address)
    m.d.sync += out.eq(port.data)
    return out


@cache
def act_read(engine: Engine) -> Any:
    """Engine to activation buffer: an address for each memory, data ``READ_LATENCY`` later."""
    layout = ActLayout.of(engine)
    address = ceil_log2(words(engine, "activation"))
    return Signature(
        {
            "address": Out(data.ArrayLayout(address, layout.memories)),
            "data": In(data.ArrayLayout(layout.word_bits, layout.memories)),
        }
    )


def act_payload(engine: Engine, port_bits: int) -> Any:
    """What ``ports.act_write`` streams."""
    shape = ActShape.of(engine, port_bits)
    return data.StructLayout(
        {"nibbles": 1, "slots": data.ArrayLayout(act_slot(shape), shape.slots)}
    )


class ActivationBuffer(wiring.Component):
    """Activations. ``write`` is the loader's side; ``results`` the other engine's, always taken.

    A value's lowest ``activation_bits`` are kept; with ``nibbles`` (doubling engines) a slot's
    ``memory`` is one of 2 · px and its data are 4-bit values.
    """

    def __init__(self, engine: Engine, port_bits: int) -> None:
        """``port_bits``: of the memory port; 128 writes two blocks a cycle."""
        self.engine, self.port_bits = engine, port_bits
        payload = act_payload(engine, port_bits)
        super().__init__(
            {
                "write": In(act_write(engine, port_bits)),
                "results": In(Signature({"valid": Out(1), "payload": Out(payload)})),
                "read": In(act_read(engine)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """One register between the writers and the memories."""
        m = Module()
        layout = ActLayout.of(self.engine)
        shape = ActShape.of(self.engine, self.port_bits)
        taken = Signal.like(self.write.payload, reset_less=True)
        valid = Signal()
        m.d.comb += self.write.ready.eq(~self.results.valid)
        m.d.sync += valid.eq(self.write.valid | self.results.valid)
        m.d.sync += taken.eq(Mux(self.results.valid, self.results.payload, self.write.payload))
        for j in range(layout.memories):
            hits = []
            for k in range(shape.slots):
                slot = taken.slots[k]
                same = slot.memory == j % self.engine.px
                if self.engine.double:
                    same = Mux(taken.nibbles, slot.memory == j, same)
                hits.append(valid & slot.valid & same)
            slot = Mux(hits[-1], taken.slots[shape.slots - 1], taken.slots[0])
            hit = Signal(name=f"hit_{j}")
            chosen = Signal(act_slot(shape), name=f"slot_{j}")
            m.d.comb += [hit.eq(Cat(*hits).any()), chosen.eq(slot)]
            value = self._values(layout, chosen.data, taken.nibbles, j)
            read = []
            for lane in range(layout.lanes):
                ram = memory(layout.lane_bits, words(self.engine, "activation"))
                m.submodules[f"ram_{j}_{lane}"] = ram
                port = ram.write_port()
                m.d.comb += [
                    port.addr.eq(chosen.address),
                    port.data.eq(value),
                    port.en.eq(hit & (chosen.lane == lane)),
                ]
                read.append(read_registered(m, ram, self.read.address[j]))
            m.d.comb += self.read.data[j].eq(Cat(*read))
        return m

    def _values(self, layout: ActLayout, block: Any, nibbles: Any, j: int) -> Any:
        """The bits of a block that memory ``j`` keeps."""
        low = 4 * (j // self.engine.px)
        parts = [block[8 * c + low : 8 * c + low + layout.bits] for c in range(layout.channels)]
        if not self.engine.double:
            return Cat(*parts)
        return Mux(nibbles, block[: layout.lane_bits], Cat(*parts))


def weight_read(engine: Engine) -> Any:
    """Engine to weight buffer; weight (o, i) is ``data[o · pi + i]``."""
    return Signature(
        {
            "address": Out(ceil_log2(words(engine, "weight"))),
            "data": In(data.ArrayLayout(signed(engine.weight_bits), weights_of_word(engine))),
        }
    )


class WeightBuffer(wiring.Component):
    """Weights. A word is gathered in a register and written once its last granule has come, so the
    loader brings the granules of a word in order."""

    def __init__(self, engine: Engine, port_bits: int) -> None:
        """``port_bits``: of the memory port."""
        self.engine, self.port_bits = engine, port_bits
        super().__init__(
            {"write": In(weight_write(engine, port_bits)), "read": In(weight_read(engine))}
        )

    def elaborate(self, platform: Any) -> Module:
        """Two edges from the last granule to the memory."""
        m = Module()
        weights, bits = weights_of_word(self.engine), self.engine.weight_bits
        granule, chunk = word_granules(weights, self.port_bits)
        ram = memory(weights * bits, words(self.engine, "weight"))
        m.submodules.ram = ram
        port = ram.write_port()
        word = Signal(weights * bits, reset_less=True)
        full = Signal()
        address = Signal.like(self.write.address, reset_less=True)
        for k in range(weights // granule):
            with m.If(self.write.valid & self.write.mask[k]):
                start = k * granule % chunk * bits
                m.d.sync += word[k * granule * bits :][: granule * bits].eq(
                    self.write.data[start:][: granule * bits]
                )
        m.d.sync += [
            full.eq(self.write.valid & self.write.mask[-1]),
            address.eq(self.write.address),
        ]
        m.d.comb += [port.addr.eq(address), port.data.eq(word), port.en.eq(full)]
        m.d.comb += self.read.data.eq(read_registered(m, ram, self.read.address))
        return m


ParamRead = Signature({"block": Out(10), "data": In(data.ArrayLayout(PARAM, BLOCK))})
"""Parameters of 8 channels, ``READ_LATENCY`` after ``block`` (modulo ``PARAM_BLOCKS``)."""


class ParamBuffer(wiring.Component):
    """Bias and factors: a memory for each two of a block's 8 channels, written as they come, so
    that a channel's data go to few inputs. Two channels fill three block RAMs 36 bits wide."""

    def __init__(self) -> None:
        """The same for both engines."""
        super().__init__({"write": In(ItemWriteSignature), "read": In(ParamRead)})

    def elaborate(self, platform: Any) -> Module:
        """Registers of its own before the memories: the other engine's are elsewhere."""
        m = Module()
        even, item = (Signal(PARAM.size, name=n, reset_less=True) for n in ("even", "item"))
        block = Signal(range(PARAM_BLOCKS), reset_less=True)
        with m.If(self.write.valid):
            m.d.sync += [item.eq(self.write.data), block.eq(self.write.index[3:])]
            with m.If(~self.write.index[0]):
                m.d.sync += even.eq(self.write.data)
        for pair in range(BLOCK // 2):
            m.submodules[f"ram_{pair}"] = ram = memory(2 * PARAM.size, PARAM_BLOCKS)
            port = ram.write_port()
            mine = Signal(name=f"write_{pair}")
            m.d.sync += mine.eq(self.write.valid & (self.write.index[:3] == 2 * pair + 1))
            m.d.comb += [port.addr.eq(block), port.data.eq(Cat(even, item)), port.en.eq(mine)]
            both = read_registered(m, ram, self.read.block)
            for k in range(2):
                channel = Value.cast(self.read.data[2 * pair + k])
                m.d.comb += channel.eq(both[PARAM.size * k :][: PARAM.size])
        return m


TapRead = Signature({"index": Out(7), "data": In(TAP)})
"""One tap, ``READ_LATENCY`` after ``index``."""


class TapBuffer(wiring.Component):
    """Kernel positions."""

    def __init__(self) -> None:
        """The same for both engines."""
        super().__init__({"write": In(ItemWriteSignature), "read": In(TapRead)})

    def elaborate(self, platform: Any) -> Module:
        """One memory."""
        m = Module()
        m.submodules.ram = ram = memory(TAP.size, TAPS)
        port = ram.write_port()
        item = self.write.data
        m.d.comb += [
            port.addr.eq(self.write.index),
            port.data.eq(Cat(item[:14], item[16:])),
            port.en.eq(self.write.valid),
        ]
        m.d.comb += self.read.data.eq(read_registered(m, ram, self.read.index))
        return m


@cache
def sum_write(engine: Engine) -> Any:
    """Dense engine to accumulators: one word of all px memories."""
    sums = data.ArrayLayout(signed(engine.accumulator_bits), engine.po)
    return Signature(
        {
            "valid": Out(1),
            "address": Out(ceil_log2(2 * engine.accumulator.depth)),
            "data": Out(data.ArrayLayout(sums, engine.px)),
        }
    )


@cache
def sum_read(engine: Engine) -> Any:
    """One word of all px memories, ``READ_LATENCY`` later."""
    sums = data.ArrayLayout(signed(engine.accumulator_bits), engine.po)
    return Signature(
        {
            "enable": Out(1),
            "address": Out(ceil_log2(2 * engine.accumulator.depth)),
            "data": In(data.ArrayLayout(sums, engine.px)),
        }
    )


class AccumulatorBuffer(wiring.Component):
    """Sums: px memories, two halves each. ``add`` (the dense engine, for ``accumulate``) and
    ``drain`` read; where both want one half, drain is served (they never do, by the commands)."""

    def __init__(self, engine: Engine) -> None:
        """Of a dense engine."""
        self.engine = engine
        super().__init__(
            {
                "write": In(sum_write(engine)),
                "add": In(sum_read(engine)),
                "drain": In(sum_read(engine)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A register before the memory's write port."""
        m = Module()
        depth = self.engine.accumulator.depth
        valid = Signal()
        taken = Signal.like(self.write.data, reset_less=True)
        address = Signal.like(self.write.address, reset_less=True)
        m.d.sync += [
            valid.eq(self.write.valid), taken.eq(self.write.data), address.eq(self.write.address),
        ]  # fmt: skip
        halves: list[list[Any]] = [[], []]
        for h in range(2):
            first = h * depth
            mine = Signal(name=f"drain_{h}")
            at = Signal(ceil_log2(depth), name=f"read_{h}")
            m.d.comb += mine.eq(self.drain.enable & ((self.drain.address >= depth) == h))
            m.d.comb += at.eq(Mux(mine, self.drain.address, self.add.address) - first)
            for x in range(self.engine.px):
                ram = memory(taken[x].shape().size, depth)
                m.submodules[f"ram_{h}_{x}"] = ram
                port = ram.write_port()
                m.d.comb += [
                    port.addr.eq(address - first),
                    port.data.eq(taken[x]),
                    port.en.eq(valid & ((address >= depth) == h)),
                ]
                halves[h].append(read_registered(m, ram, at))
        for reader in (self.add, self.drain):
            half = reader.address >= depth
            for _ in range(READ_LATENCY):
                later = Signal()
                m.d.sync += later.eq(half)
                half = later
            for x in range(self.engine.px):
                m.d.comb += reader.data[x].eq(Array([halves[0][x], halves[1][x]])[half])
        return m
