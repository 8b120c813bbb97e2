# SPDX-License-Identifier: Apache-2.0
"""A host on a serial line reads and writes the accelerator's registers.

8 data bits, no parity, one stop bit. ``W address d0 d1 d2 d3`` (six bytes, W = 0x57) writes a
register, ``R address`` (R = 0x52) is answered by its four bytes, low one first. Other bytes where a
command is expected are passed over, so a host that lost its place sends six zeros.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from codesign.targets.fpga.hw.axi import AxiLite
from codesign.targets.fpga.hw.registers import Register

WRITE, READ = 0x57, 0x52


class Receiver(Component):
    """Bytes from a serial line of ``divisor`` clock cycles a bit; ``valid`` for one cycle each."""

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"line": In(1, init=1), "valid": Out(1), "data": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        first, level = Signal(init=1), Signal(init=1)
        m.d.sync += [first.eq(self.line), level.eq(first), self.valid.eq(0)]
        timer = Signal(range(2 * self.divisor))
        left = Signal(4)
        with m.If(left == 0), m.If(~level):
            m.d.sync += [left.eq(10), timer.eq(self.divisor // 2 - 1)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self.divisor - 1), left.eq(left - 1)]
            with m.If(left == 10), m.If(level):  # too short for a start bit
                m.d.sync += left.eq(0)
            with m.Elif(left == 1):
                m.d.sync += self.valid.eq(level)  # a missing stop bit drops the byte
            with m.Else():
                m.d.sync += self.data.eq(Cat(self.data[1:], level))
        return m


class Sender(Component):
    """Bytes to a serial line; ``data`` is taken in a cycle with ``valid`` and ``ready``."""

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__(
            {"line": Out(1, init=1), "valid": In(1), "ready": Out(1), "data": In(8)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        timer = Signal(range(self.divisor))
        bits = Signal(10, init=0x3FF)
        left = Signal(4)
        m.d.comb += [self.ready.eq(left == 0), self.line.eq(bits[0])]
        with m.If(left == 0), m.If(self.valid):
            m.d.sync += [bits.eq(Cat(0, self.data, 1)), left.eq(10)]
            m.d.sync += timer.eq(self.divisor - 1)
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [bits.eq(Cat(bits[1:], 1)), left.eq(left - 1)]
            m.d.sync += timer.eq(self.divisor - 1)
        return m


class SerialHost(Component):
    """The link: a serial line to a master of the register bus. ``go`` (a button) starts a run."""

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        super().__init__(
            {"receive": In(1, init=1), "send": Out(1, init=1), "go": In(1), "bus": Out(AxiLite)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.receiver = receiver = Receiver(self.divisor)
        m.submodules.sender = sender = Sender(self.divisor)
        bus = self.bus
        value = Signal(32)
        left = Signal(3)
        m.d.comb += [
            receiver.line.eq(self.receive), self.send.eq(sender.line), bus.wstrb.eq(0xF),
            bus.bready.eq(1), sender.data.eq(value[:8]),
        ]  # fmt: skip
        pressed, before = Signal(), Signal()
        held = Signal(2)
        m.d.sync += [held.eq(Cat(self.go, held[0])), before.eq(held[1])]
        m.d.comb += pressed.eq(held[1] & ~before)
        write = Signal()

        def send_write(address: Any, data: Any) -> list[Any]:
            return [bus.awaddr.eq(address), bus.wdata.eq(data), bus.awvalid.eq(1),
                    bus.wvalid.eq(1)]  # fmt: skip

        with m.If(bus.awready):
            m.d.sync += bus.awvalid.eq(0)
        with m.If(bus.wready):
            m.d.sync += bus.wvalid.eq(0)
        with m.FSM():
            with m.State("command"):
                m.d.sync += left.eq(4)
                with m.If(receiver.valid & (receiver.data == WRITE)):
                    m.d.sync += write.eq(1)
                    m.next = "address"
                with m.Elif(receiver.valid & (receiver.data == READ)):
                    m.d.sync += write.eq(0)
                    m.next = "address"
                with m.Elif(pressed & ~bus.awvalid & ~bus.wvalid):
                    m.d.sync += send_write(Register.CONTROL, 1)
            with m.State("address"), m.If(receiver.valid):
                m.d.sync += [bus.araddr.eq(receiver.data), bus.arvalid.eq(~write)]
                m.next = "bytes"
                with m.If(~write):
                    m.next = "read"
            with m.State("bytes"), m.If(receiver.valid):
                m.d.sync += [value.eq(Cat(value[8:], receiver.data)), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.sync += send_write(bus.araddr, Cat(value[8:], receiver.data))
                    m.next = "command"
            with m.State("read"):
                m.d.comb += bus.rready.eq(1)
                with m.If(bus.arready):
                    m.d.sync += bus.arvalid.eq(0)
                with m.If(bus.rvalid):
                    m.d.sync += value.eq(bus.rdata)
                    m.next = "answer"
            with m.State("answer"):
                m.d.comb += sender.valid.eq(1)
                with m.If(sender.ready):
                    m.d.sync += [value.eq(value >> 8), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "command"
        return m
