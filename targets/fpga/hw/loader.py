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

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.commands import command_stream
from codesign.targets.fpga.hw.placing import Placing
from codesign.targets.fpga.hw.ports import (
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
        state = Placing(m, (self.dense, self.depthwise), port, self.beat, now)
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
        outputs(self, state, go)
        return m


def outputs(loader: Loader, state: Placing, go: dict[str, Any]) -> None:
    """Registers to the buffers."""
    m = state.m
    names = ("dense", "depthwise")
    ways = [getattr(loader, f"{name}_act") for name in names]
    entry, there = state.acts.i.payload, state.acts.o.payload
    with m.If(~go["act"] & state.act_taken):
        m.d.sync += state.act_valid.eq(0)
    m.d.comb += [
        state.acts.i.valid.eq(state.act_valid), entry.chosen.eq(state.chosen),
        entry.nibbles.eq(state.nibbles),
        state.acts.o.ready.eq(Mux(there.chosen, ways[1].ready, ways[0].ready)),
    ]  # fmt: skip
    for index, slot in enumerate(state.slots):
        m.d.comb += entry.slots[index].eq(slot)
    for way, mine in zip(ways, (~there.chosen, there.chosen)):
        m.d.comb += [
            way.valid.eq(state.acts.o.valid & mine), way.payload.nibbles.eq(there.nibbles)
        ]
        for index in range(len(state.slots)):
            for name in ("valid", "memory", "address", "lane", "data"):
                m.d.comb += getattr(way.payload.slots[index], name).eq(
                    getattr(there.slots[index], name)
                )
    # weights and items pass two registers: one for the beat, one for what is made of it. They
    # go along whether valid or not: nothing but a flag waits for the beat
    index, _, _ = state.word()
    beat, upper = Signal(state.port.bits, reset_less=True), Signal(reset_less=True)
    address = Signal(13, reset_less=True)
    m.d.sync += [beat.eq(loader.beat.payload.data), upper.eq(index), address.eq(state.address)]
    word = beat if loader.port.words == 1 else Mux(upper, beat[64:], beat[:64])
    items = {
        Dest.DENSE_PARAM: loader.dense_param, Dest.DENSE_TAP: loader.dense_tap,
        Dest.DEPTHWISE_PARAM: loader.depthwise_param, Dest.DEPTHWISE_TAP: loader.depthwise_tap,
    }  # fmt: skip
    item_index, item = Signal(13, reset_less=True), Signal(64, reset_less=True)
    m.d.sync += [item_index.eq(address), item.eq(word)]
    for dest, way in items.items():
        m.d.sync += way.valid.eq(delay(m, go["item"] & (state.now.dest == dest), 1))
        m.d.comb += [way.index.eq(item_index), way.data.eq(item)]
    for engine, dest in zip(state.engines, WEIGHT):
        way, mine = getattr(loader, dest.name.lower()), go["weight"] & (state.now.dest == dest)
        weight_output(state, engine, way, mine, beat, address)


def weight_output(
    state: Placing, engine: Engine, way: Any, go: Any, beat: Any, address: Any
) -> None:
    """Weights of the beat, expanded, to the register ``way`` before an engine's weight buffer."""
    m = state.m
    weights = weights_of_word(engine)
    granule, chunk = word_granules(weights, state.port.bits)
    m.d.sync += [way.valid.eq(delay(m, go, 1)), way.address.eq(address)]
    chosen, first = delay(m, state.step, 1), delay(m, state.granule, 1)
    for bits, flag in state.widths.items():
        taken = min(state.port.bits // bits, chunk)
        steps = state.port.bits // bits // taken
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
