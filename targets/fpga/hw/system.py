# SPDX-License-Identifier: Apache-2.0
"""Everything around the engines: memory port, commands, loader, registers."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, ResetInserter, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.axi import AxiLite, Turns, axi4
from codesign.targets.fpga.hw.commands import UNITS, command_stream
from codesign.targets.fpga.hw.dispatch import Dispatch, Fetch
from codesign.targets.fpga.hw.loader import Loader
from codesign.targets.fpga.hw.ports import (
    ItemWriteSignature,
    Port,
    ResidualSignature,
    act_write,
    read_beat,
    store_stream,
    weight_write,
)
from codesign.targets.fpga.hw.reads import CLIENTS, ReadPort, Residual
from codesign.targets.fpga.hw.registers import Register, Registers
from codesign.targets.fpga.hw.writes import SOURCES, WritePort
from codesign.targets.fpga.isa import Unit

BUFFERS = ("weight", "param", "tap", "act")
RESETS = 6
"""Stages of the reset, from register to register; different units take different ones."""


def buffer_writes(dense: Engine, depthwise: Engine, port: Port) -> dict[str, Any]:
    """Loader's side of every buffer, ``dense_weight`` and so on."""
    found: dict[str, Any] = {}
    for name, engine in (("dense", dense), ("depthwise", depthwise)):
        found[f"{name}_weight"] = weight_write(engine, port.bits)
        found[f"{name}_param"] = ItemWriteSignature
        found[f"{name}_tap"] = ItemWriteSignature
        found[f"{name}_act"] = act_write(engine, port.bits)
    return found


class System(Component):
    """Memory side and control, seen from outside and from the engines.

    ``dense_done`` pulses once for each finished command; drain and depthwise say it with the
    ``last`` of their stores. ``active`` of a unit means progress for the watchdog. ``power`` resets
    everything, registers too, as the clock domain's reset does where there is one; ``resets``: the
    units' reset in stages.
    """

    def __init__(
        self, dense: Engine, depthwise: Engine, port: Port, queue: int = 8, host: bool = False
    ) -> None:
        self.dense_engine, self.depthwise_engine, self.port = dense, depthwise, port
        self.queue, self.host = queue, host
        super().__init__(
            {
                "axi": Out(axi4(port.bits)),
                "bus": In(AxiLite),
                "irq": Out(1),
                "power": In(1),
                "resets": Out(RESETS),
                "dense": Out(command_stream(Unit.DENSE)),
                "depthwise": Out(command_stream(Unit.DEPTHWISE)),
                "drain": Out(command_stream(Unit.DRAIN)),
                "dense_done": In(1),
                "active": In(len(UNITS)),
                "drain_store": In(store_stream()),
                "depthwise_store": In(store_stream()),
                "drain_residual": In(ResidualSignature),
                "depthwise_residual": In(ResidualSignature),
                **{k: Out(v) for k, v in buffer_writes(dense, depthwise, port).items()},
                "host_on": Out(1),
                "host_write": Out(1),
                "host_address": Out(29),
                "host_data": Out(64),
                "host_read": In(64),
                "started": Out(len(UNITS)),
                "finished": Out(len(UNITS)),
                "waiting": Out(25),
                "client": Out(2),
            }
        )

    def parameters(self) -> dict[Register, int]:
        """What the read-only registers say of the build."""

        def shape(e: Engine) -> int:
            return e.pi | e.po << 8 | e.px << 16 | e.weight_bits << 24

        return {
            Register.PORT: self.port.bits | self.port.burst << 16,
            Register.DENSE: shape(self.dense_engine),
            Register.DEPTHWISE: shape(self.depthwise_engine),
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port = self.port
        registers = Registers(self.parameters(), self.host)
        m.submodules.registers = ResetInserter(self.power)(registers)
        stages = Signal(RESETS)
        m.d.sync += stages.eq(Cat(registers.reset | self.power, stages))
        m.d.comb += self.resets.eq(stages)

        def add(name: str, part: Any, stage: int) -> Any:
            m.submodules[name] = ResetInserter(stages[stage])(part)
            return part

        fetch = add("fetch", Fetch(port), 1)
        dispatch = add("dispatch", Dispatch(self.queue), 1)
        loader = add("loader", Loader(self.dense_engine, self.depthwise_engine, port), 2)
        reads = add("reads", ReadPort(port), 0)
        writes = add("writes", WritePort(port), 3)
        residuals = {name: add(f"residual_{name}", Residual(port), 0) for name in SOURCES}

        connect(m, flipped(self.bus), registers.bus)
        connect(m, fetch.word, dispatch.word)
        connect(m, dispatch.load, loader.command)
        for name in ("dense", "depthwise", "drain"):
            connect(m, getattr(dispatch, name), flipped(getattr(self, name)))
        for name in buffer_writes(self.dense_engine, self.depthwise_engine, port):
            connect(m, getattr(loader, name), flipped(getattr(self, name)))
        readers = {"fetch": fetch, "load": loader, **residuals}
        for name in CLIENTS:
            client = getattr(reads, name)
            connect(m, readers[name].burst, client.burst)
            if name == "load":  # the one client that stalls: its `ready` ends here
                beats = add("load_beats", Turns(read_beat(port)), 2)
                connect(m, client.beat, beats.i)
                connect(m, beats.o, loader.beat)
            else:
                connect(m, client.beat, readers[name].beat)
        for name in SOURCES:
            connect(m, flipped(getattr(self, f"{name}_store")), getattr(writes, name))
            connect(m, flipped(getattr(self, f"{name}_residual")), residuals[name].unit)
        for part in (reads, writes):
            for name, member in part.axi.signature.members.items():
                ours, theirs = getattr(self.axi, name), getattr(part.axi, name)
                m.d.comb += ours.eq(theirs) if member.flow is Out else theirs.eq(ours)

        finished = Cat(loader.done, self.dense_done, writes.finished[1], writes.finished[0])
        commands = [getattr(dispatch, unit.name.lower()) for unit in UNITS]
        m.d.comb += [
            self.started.eq(Cat(c.valid & c.ready for c in commands)),
            self.finished.eq(finished),
            self.waiting.eq(Cat(*dispatch.unmet, dispatch.held)),
            self.client.eq(reads.client),
            self.irq.eq(registers.irq),
            fetch.start.eq(registers.start),
            fetch.stop.eq(dispatch.last | dispatch.bad),
            fetch.address.eq(registers.address),
            dispatch.start.eq(registers.start),
            dispatch.done.eq(finished),
            reads.base.eq(registers.base),
            writes.base.eq(registers.base),
            registers.ended.eq(dispatch.ended & fetch.quiet & reads.idle & writes.idle),
            registers.bus_error.eq(reads.error | writes.error),
            registers.bad_command.eq(dispatch.bad),
            registers.counters.eq(dispatch.counters),
            registers.waiting.eq(self.waiting),
            registers.read_beat.eq(self.axi.rvalid & self.axi.rready),
            registers.write_beat.eq(self.axi.wvalid & self.axi.wready),
            registers.progress.eq(
                finished.any() | self.active.any() | registers.read_beat | registers.write_beat
            ),
            self.host_on.eq(registers.host_on),
            self.host_write.eq(registers.host_write),
            self.host_address.eq(registers.host_address),
            self.host_data.eq(registers.host_data),
            registers.host_read.eq(self.host_read),
        ]
        for index, (start, end) in enumerate(zip(self.started, finished)):
            flight = add_counter(m, start, end, stages[0] | registers.start)
            m.d.comb += registers.busy[index].eq(flight)
        return m


def add_counter(m: Module, start: Any, end: Any, clear: Any) -> Any:
    """Whether more commands have started than finished."""
    count = Signal(4)
    m.d.sync += count.eq(count + start - end)
    with m.If(clear):
        m.d.sync += count.eq(0)
    return count != 0
