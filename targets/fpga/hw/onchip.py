# SPDX-License-Identifier: Apache-2.0
"""Memory inside the FPGA behind the same port: weights, commands and activations in block RAM."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from codesign.targets.fpga.hw.axi import Slice, axi4
from codesign.targets.fpga.hw.ports import Port

BANK = 1024
"""Words of one memory: an ECP5's block RAM is 1024 words deep where it is 18 bits wide."""
LATENCY = 4
"""Cycles from the host's address to its data."""


class OnChipMemory(Component):
    """An AXI slave of ``size`` bytes with initial content, and a simple port for a host.

    The host's port reads and writes words of 8 bytes; data come ``LATENCY`` cycles after the
    address. It is only served while ``host_on`` is set and no accelerator run is under way.

    Memories of ``BANK`` words stand side by side; block RAM takes most of a cycle to give its
    data, so there is a register behind each before one of them is chosen, and one behind that.
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
        banks = []
        for first in range(0, self.depth, BANK):
            depth = min(BANK, max(16, self.depth - first))
            init = self.image[first : first + depth]
            memory = Memory(shape=port.bits, depth=depth, init=init, attrs=attrs)
            m.submodules[f"bank_{first // BANK}"] = memory
            banks.append((memory.write_port(granularity=8), memory.read_port()))
        shift = ceil_log2(port.bits // 8)
        half = shift - 3
        where = ceil_log2(self.depth)

        inside = ceil_log2(BANK)
        chosen_bank = Signal(max(1, where - inside))
        in_bank = Signal(inside)
        address = Signal(where)
        write_address, write_data = Signal(where), Signal(port.bits)
        write_enable = Signal(port.bits // 8)
        # three stages: memories, a register each, the chosen one
        valid, final = Signal(3), Signal(3)
        moves = [Signal(name=f"moves_{k}") for k in range(3)]
        picked, data = Signal(port.bits), [Signal(port.bits) for _ in banks]
        banks_then = [Signal.like(chosen_bank, name=f"bank_{k}") for k in range(2)]
        m.d.comb += [chosen_bank.eq(address >> inside), in_bank.eq(address[:inside])]
        for number, (write, read) in enumerate(banks):
            mine = (write_address >> inside) == number
            m.d.comb += [
                read.addr.eq(in_bank), read.en.eq(moves[0]), write.addr.eq(write_address[:inside]),
                write.data.eq(write_data), write.en.eq(Mux(mine, write_enable, 0)),
            ]  # fmt: skip
            with m.If(moves[1]):
                m.d.sync += data[number].eq(read.data)
        with m.If(moves[0]):
            m.d.sync += banks_then[0].eq(chosen_bank)
        with m.If(moves[1]):
            m.d.sync += banks_then[1].eq(banks_then[0])
        with m.If(moves[2]):
            m.d.sync += picked.eq(Array(data)[banks_then[1]] if len(data) > 1 else data[0])

        place, left = Signal(where), Signal(9)
        idle = Signal(init=1)  # left == 0
        m.submodules.slice = piece = Slice(port.bits + 1)
        take = Signal()
        m.d.comb += [
            axi.arready.eq(idle),
            take.eq(~idle & moves[0]),
            address.eq(Mux(self.host_on, self.host_address >> half, place)),
            moves[2].eq(piece.i.ready | ~valid[2]),
            moves[1].eq(moves[2] | ~valid[1]),
            moves[0].eq(moves[1] | ~valid[0]),
            piece.i.valid.eq(valid[2]),
            piece.i.payload.eq(Cat(picked, final[2])),
            axi.rvalid.eq(piece.o.valid),
            Cat(axi.rdata, axi.rlast).eq(piece.o.payload),
            piece.o.ready.eq(axi.rready),
        ]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [place.eq(axi.araddr >> shift), left.eq(axi.arlen + 1), idle.eq(0)]
        with m.If(take):
            m.d.sync += [place.eq(place + 1), left.eq(left - 1), idle.eq(left == 1)]
        for k, (came, ends) in enumerate(zip((take, valid[0], valid[1]), (left == 1, *final[:2]))):
            with m.If(moves[k]):
                m.d.sync += [valid[k].eq(came), final[k].eq(ends)]

        target, open_ = Signal(where), Signal()
        words = [picked[64 * k : 64 * k + 64] for k in range(port.words)]
        chosen = Signal()
        m.d.sync += chosen.eq(self.host_address[0] if half else 0)
        m.d.sync += self.host_read.eq(Mux(chosen, words[-1], words[0]))
        host = Signal()
        m.d.comb += [
            host.eq(self.host_on & self.host_write),
            axi.awready.eq(~open_ & ~axi.bvalid),
            axi.wready.eq(open_),
            write_address.eq(Mux(host, self.host_address >> half, target)),
            write_data.eq(Mux(host, self.host_data.replicate(port.words), axi.wdata)),
        ]
        with m.If(host):
            lanes = self.host_address[0] if half else 0
            m.d.comb += write_enable.eq(Mux(lanes, 0xFF00, 0x00FF) if half else 0xFF)
        with m.Elif(axi.wvalid & axi.wready):
            m.d.comb += write_enable.eq(axi.wstrb)
        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [target.eq(axi.awaddr >> shift), open_.eq(1)]
        with m.Elif(axi.wvalid & axi.wready):
            m.d.sync += target.eq(target + 1)
            with m.If(axi.wlast):
                m.d.sync += [open_.eq(0), axi.bvalid.eq(1)]
        return m
