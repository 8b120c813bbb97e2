# SPDX-License-Identifier: Apache-2.0
"""The AXI-Lite registers. ``docs/accelerator.md``, "Registers", is the drivers' page."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from codesign.targets.fpga.hw.axi import ADDRESS, AxiLite
from codesign.targets.fpga.hw.commands import UNITS
from codesign.targets.fpga.hw.ports import ADDRESS_BITS

VERSION = 1
IDENTITY = 0xC0DE5100 | VERSION
RESET_CYCLES, RESET_SPREAD = 32, 8
"""How long a reset takes, and the last part of it in which it reaches the furthest units: they get
it through registers, since one net to all of them is the slowest of the chip."""


class Register(IntEnum):
    """Byte addresses."""

    IDENTITY = 0x00
    """Read: 0xC0DE51 and the version in the lowest byte."""
    CONTROL = 0x04
    """Write: bit 0 starts a run, bit 1 resets everything but the registers."""
    STATUS = 0x08
    """Bit 0 running, 1 done, 2 bus error, 3 unknown command, 4 watchdog; ones written to bits 1 to
    4 clear them."""
    INTERRUPT = 0x0C
    """Bit 0: the interrupt line follows ``done``."""
    COMMANDS = 0x10
    """Byte address of the command list, relative to the base."""
    BASE_LOW = 0x14
    BASE_HIGH = 0x18
    WATCHDOG = 0x1C
    """Cycles without progress after which a run is given up; 0: never."""
    CYCLES_LOW = 0x20
    CYCLES_HIGH = 0x24
    FINISHED_LOW = 0x28
    """Finished commands of load (low half) and dense, modulo 2^16."""
    FINISHED_HIGH = 0x2C
    """Of depthwise (low half) and drain."""
    BUSY_LOAD = 0x30
    BUSY_DENSE = 0x34
    BUSY_DEPTHWISE = 0x38
    BUSY_DRAIN = 0x3C
    """Cycles in which the unit had a command."""
    WAITING = 0x40
    """For load, dense, depthwise, drain, end: 4 bits each, whose count the next command waits for
    (same order); bits 20 to 24: whether there is a next command."""
    READ_BEATS = 0x44
    WRITE_BEATS = 0x48
    PORT = 0x4C
    """Bits of the port (low half), beats of the longest burst."""
    DENSE = 0x50
    """pi, po, px, weight bits, one byte each."""
    DEPTHWISE = 0x54
    HOST_ADDRESS = 0x58
    """On-chip memory only: address in units of 8 bytes; goes on by one after each ``HOST_HIGH``."""
    HOST_LOW = 0x5C
    HOST_HIGH = 0x60


R = Register
WRITABLE = (
    R.CONTROL, R.STATUS, R.INTERRUPT, R.COMMANDS, R.BASE_LOW, R.BASE_HIGH, R.WATCHDOG,
    R.HOST_ADDRESS, R.HOST_LOW, R.HOST_HIGH,
)  # fmt: skip


class Registers(Component):
    """Registers, the run's state, its counters and the watchdog."""

    def __init__(self, parameters: dict[Register, int], host: bool = False) -> None:
        self.parameters = parameters
        self.host = host
        units = len(UNITS)
        super().__init__(
            {
                "bus": In(AxiLite),
                "irq": Out(1),
                "start": Out(1),
                "reset": Out(1),
                "running": Out(1),
                "address": Out(ADDRESS_BITS),
                "base": Out(ADDRESS),
                "ended": In(1),
                "bus_error": In(1),
                "bad_command": In(1),
                "progress": In(1),
                "busy": In(units),
                "counters": In(data.ArrayLayout(16, units)),
                "waiting": In(25),
                "read_beat": In(1),
                "write_beat": In(1),
                "host_on": Out(1),
                "host_write": Out(1),
                "host_address": Out(29),
                "host_data": Out(64),
                "host_read": In(64),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bus = self.bus
        done, failed = Signal(), Signal(3)
        enable = Signal()
        limit, still = Signal(32, init=1 << 24), Signal(32)
        late = Signal()  # too long without progress
        moving, over, limited, begin = Signal(), Signal(), Signal(init=1), Signal()
        cycles = Signal(64)
        busy = [Signal(32, name=f"busy_{k}") for k in range(len(UNITS))]
        beats = [Signal(32, name=f"beats_{k}") for k in range(2)]
        m.d.comb += self.irq.eq(done & enable)

        # a write takes effect a cycle after it was taken; none is taken until a reset is over
        taken, write = Signal(), Signal()
        value = Signal(32, reset_less=True)
        hit = {k: Signal(name=f"at_{k.name.lower()}", reset_less=True) for k in WRITABLE}
        hold = Signal(range(RESET_CYCLES))
        m.d.comb += [
            taken.eq(
                bus.awvalid & bus.wvalid & (~bus.bvalid | bus.bready) & ~write & (hold == 0)
            ),
            bus.awready.eq(taken),
            bus.wready.eq(taken),
        ]  # fmt: skip
        m.d.sync += write.eq(taken)
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(taken):
            m.d.sync += [
                bus.bvalid.eq(1), value.eq(bus.wdata),
                *(flag.eq(bus.awaddr[2:] == place >> 2) for place, flag in hit.items()),
            ]  # fmt: skip
        with m.If(hold != 0):
            m.d.sync += hold.eq(hold - 1)
        m.d.comb += self.reset.eq(hold >= RESET_SPREAD)

        m.d.sync += self.start.eq(0)
        with m.If(self.running):
            m.d.sync += [cycles.eq(cycles + 1), still.eq(still + 1)]
            for count, step in zip((*busy, *beats), (*self.busy, self.read_beat, self.write_beat)):
                m.d.sync += count.eq(count + step)
            # a register before and behind the comparison: `progress` comes from everywhere
            m.d.sync += [
                moving.eq(self.progress),
                over.eq((still >= limit) & ~moving), late.eq(over & limited & ~moving),
            ]
            with m.If(moving):
                m.d.sync += still.eq(0)
            stop = Cat(self.bus_error, self.bad_command, late)
            with m.If(self.ended | stop.any()):
                m.d.sync += [
                    self.running.eq(self.start), done.eq(~self.start),
                    failed.eq(stop & (~self.start).replicate(3)),
                ]  # fmt: skip
        if self.host:
            self.host_port(m, write, hit, value)
        m.d.sync += [begin.eq(0), limited.eq(limit != 0)]
        with m.If(begin):
            m.d.sync += [
                self.start.eq(1), self.running.eq(1), done.eq(0), failed.eq(0), cycles.eq(0),
                still.eq(0), late.eq(0), over.eq(0), moving.eq(1),
            ]  # fmt: skip
            m.d.sync += [count.eq(0) for count in (*busy, *beats)]
        with m.If(write):
            with m.If(hit[Register.CONTROL]):
                m.d.sync += begin.eq(value[0] & ~value[1] & ~self.running)
                with m.If(value[1]):
                    m.d.sync += [hold.eq(RESET_CYCLES - 1), self.running.eq(0)]
            with m.If(hit[Register.STATUS]):
                m.d.sync += [done.eq(done & ~value[1]), failed.eq(failed & ~value[2:5])]
            with m.If(hit[Register.INTERRUPT]):
                m.d.sync += enable.eq(value[0])
            with m.If(hit[Register.COMMANDS]):
                m.d.sync += self.address.eq(value)
            with m.If(hit[Register.BASE_LOW]):
                m.d.sync += self.base[:32].eq(value)
            with m.If(hit[Register.BASE_HIGH]):
                m.d.sync += self.base[32:].eq(value)
            with m.If(hit[Register.WATCHDOG]):
                m.d.sync += limit.eq(value)

        readable: dict[int, Any] = {
            Register.IDENTITY: Const(IDENTITY, 32),
            Register.STATUS: Cat(self.running, done, failed),
            Register.INTERRUPT: enable,
            Register.COMMANDS: self.address,
            Register.BASE_LOW: self.base[:32],
            Register.BASE_HIGH: self.base[32:],
            Register.WATCHDOG: limit,
            Register.CYCLES_LOW: cycles[:32],
            Register.CYCLES_HIGH: cycles[32:],
            Register.FINISHED_LOW: Cat(self.counters[0], self.counters[1]),
            Register.FINISHED_HIGH: Cat(self.counters[2], self.counters[3]),
            Register.BUSY_LOAD: busy[0],
            Register.BUSY_DENSE: busy[1],
            Register.BUSY_DEPTHWISE: busy[2],
            Register.BUSY_DRAIN: busy[3],
            Register.WAITING: self.waiting,
            Register.READ_BEATS: beats[0],
            Register.WRITE_BEATS: beats[1],
            **{place: Const(number, 32) for place, number in self.parameters.items()},
        }
        if self.host:
            readable[Register.HOST_ADDRESS] = self.host_address
            readable[Register.HOST_LOW] = self.host_read[:32]
            readable[Register.HOST_HIGH] = self.host_read[32:]
        # a read takes three cycles, the choice among all registers has two of them
        reading, choosing = Signal(), Signal()
        where = Signal(len(bus.araddr), reset_less=True)
        m.d.comb += bus.arready.eq(~bus.rvalid & ~reading & ~choosing)
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [reading.eq(1), where.eq(bus.araddr)]
        # a tree of multiplexers is faster than one comparison a register
        most = max(readable) // 4
        high = where[5 : 2 + most.bit_length()]
        there = ~where[2 + most.bit_length() :].any() & (where[2:] <= most)
        eighths = [Signal(32, name=f"eighth_{k}", reset_less=True) for k in range(most // 8 + 1)]
        for k, eighth in enumerate(eighths):
            table = [readable.get(4 * (8 * k + low), Const(0, 32)) for low in range(8)]
            m.d.sync += eighth.eq(Array(table)[where[2:5]])
        m.d.sync += choosing.eq(reading)
        with m.If(reading):
            m.d.sync += reading.eq(0)
        with m.If(choosing):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(Mux(there, Array(eighths)[high], 0))]
            if self.host:
                with m.If(where[2:] == Register.HOST_HIGH >> 2):
                    m.d.sync += self.host_address.eq(self.host_address + 1)
        return m

    def host_port(self, m: Module, write: Any, hit: dict[Register, Any], value: Any) -> None:
        """Words of the on-chip memory, 8 bytes at a time."""
        m.d.comb += self.host_on.eq(~self.running)
        m.d.sync += self.host_write.eq(0)
        with m.If(self.host_write):
            m.d.sync += self.host_address.eq(self.host_address + 1)
        with m.If(write & hit[Register.HOST_ADDRESS]):
            m.d.sync += self.host_address.eq(value)
        with m.If(write & hit[Register.HOST_LOW]):
            m.d.sync += self.host_data[:32].eq(value)
        with m.If(write & hit[Register.HOST_HIGH]):
            m.d.sync += [self.host_data[32:].eq(value), self.host_write.eq(1)]
