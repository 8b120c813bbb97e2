# SPDX-License-Identifier: Apache-2.0
"""Memory inside the FPGA behind the same port: weights, commands and activations in block RAM."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from codesign.targets.fpga.hw.axi import Slice, axi4
from codesign.targets.fpga.hw.ports import Port


class OnChipMemory(Component):
    """An AXI slave of ``size`` bytes with initial content, and a simple port for a host.

    The host's port reads and writes words of 8 bytes; data come two cycles after the address. It
    is only served while ``host_on`` is set and no accelerator run is under way.
    """

    def __init__(self, port: Port, size: int, image: bytes = b"") -> None:
        self.port = port
        step = port.bits // 8
        self.depth = max(16, -(-size // step))
        padded = image.ljust(-(-len(image) // step) * step, b"\0")
        self.image = [
            int.from_bytes(padded[at : at + step], "little") for at in range(0, len(padded), step)
        ]
        super().__init__(
            {
                "axi": In(axi4(port.bits)),
                "host_on": In(1),
                "host_write": In(1),
                "host_address": In(29),
                "host_data": In(64),
                "host_read": Out(64),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port, axi = self.port, self.axi
        attrs = {"no_rw_check": 1, "ram_style": "block"}
        memory = Memory(shape=port.bits, depth=self.depth, init=self.image, attrs=attrs)
        m.submodules.memory = memory
        write = memory.write_port(granularity=8)
        read = memory.read_port()
        shift = ceil_log2(port.bits // 8)
        half = shift - 3
        where = ceil_log2(self.depth)

        place, left = Signal(where), Signal(9)
        idle = Signal(init=1)  # left == 0
        m.submodules.slice = piece = Slice(port.bits + 1)
        coming, last = Signal(), Signal()
        take = Signal()
        m.d.comb += [
            axi.arready.eq(idle),
            take.eq(~idle & (piece.i.ready | ~coming)),
            read.addr.eq(Mux(self.host_on, self.host_address >> half, place)),
            read.en.eq(take | self.host_on),
            piece.i.valid.eq(coming),
            piece.i.payload.eq(Cat(read.data, last)),
            axi.rvalid.eq(piece.o.valid),
            Cat(axi.rdata, axi.rlast).eq(piece.o.payload),
            piece.o.ready.eq(axi.rready),
        ]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [place.eq(axi.araddr >> shift), left.eq(axi.arlen + 1), idle.eq(0)]
        with m.If(take):
            m.d.sync += [place.eq(place + 1), left.eq(left - 1), last.eq(left == 1)]
            m.d.sync += idle.eq(left == 1)
        with m.If(take | piece.i.ready):
            m.d.sync += coming.eq(take)

        target, open_ = Signal(where), Signal()
        words = [read.data[64 * k : 64 * k + 64] for k in range(port.words)]
        chosen = Signal()
        m.d.sync += chosen.eq(self.host_address[0] if half else 0)
        m.d.sync += self.host_read.eq(Mux(chosen, words[-1], words[0]))
        host = Signal()
        m.d.comb += [
            host.eq(self.host_on & self.host_write),
            axi.awready.eq(~open_ & ~axi.bvalid),
            axi.wready.eq(open_),
            write.addr.eq(Mux(host, self.host_address >> half, target)),
            write.data.eq(Mux(host, self.host_data.replicate(port.words), axi.wdata)),
        ]
        with m.If(host):
            lanes = self.host_address[0] if half else 0
            m.d.comb += write.en.eq(Mux(lanes, 0xFF00, 0x00FF) if half else 0xFF)
        with m.Elif(axi.wvalid & axi.wready):
            m.d.comb += write.en.eq(axi.wstrb)
        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [target.eq(axi.awaddr >> shift), open_.eq(1)]
        with m.Elif(axi.wvalid & axi.wready):
            m.d.sync += target.eq(target + 1)
            with m.If(axi.wlast):
                m.d.sync += [open_.eq(0), axi.bvalid.eq(1)]
        return m
