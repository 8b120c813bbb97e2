# SPDX-License-Identifier: Apache-2.0
"""Memory inside the FPGA behind the same port: weights, commands and activations in block RAM."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from codesign.targets.fpga.hw.axi import axi4
from codesign.targets.fpga.hw.ports import Port
from codesign.targets.fpga.hw.walk import delay

BANK = 1024
"""Words of one memory: an ECP5's block RAM is 1024 words deep where it is 18 bits wide."""
QUEUE = 16
"""Words that were read ahead of the accelerator's taking them."""
LATENCY = 6
"""Cycles from the host's address to its data."""
TOGETHER = 4
"""Memories of which one is chosen before the next register."""


class OnChipMemory(Component):
    """An AXI slave of ``size`` bytes with initial content, and a simple port for a host.

    The host's port reads and writes words of 8 bytes; data come ``LATENCY`` cycles after the
    address. It is only served while ``host_on`` is set and no accelerator run is under way.

    Memories of ``BANK`` words stand side by side, over all of the chip: most of a cycle goes into
    the wires to them and from them. So there are registers before their addresses (two before what
    is written, which nobody reads so soon: its response comes first), behind each memory, behind
    every ``TOGETHER`` of them, and behind the choice.
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
        placed, values = delay(m, write_address, 1), delay(m, write_data, 1)
        enables = delay(m, write_enable, 1, reset=True)
        picked = Signal(port.bits, reset_less=True)
        data = [Signal(port.bits, name=f"data_{k}", reset_less=True) for k in range(len(banks))]
        m.d.sync += [chosen_bank.eq(address >> inside), in_bank.eq(address[:inside])]
        in_write, written = delay(m, placed[:inside], 1), delay(m, values, 1)
        parts: list[Any] = []
        for number, (write, read) in enumerate(banks):
            mine = (placed >> inside) == number
            m.d.comb += [
                read.addr.eq(in_bank), read.en.eq(1), write.addr.eq(in_write),
                write.data.eq(written),
                write.en.eq(delay(m, enables & mine.replicate(len(enables)), 1, reset=True)),
            ]  # fmt: skip
            m.d.sync += data[number].eq(read.data)
            here = delay(m, delay(m, chosen_bank, 1) == number, 1)
            gated = data[number] & here.replicate(port.bits)
            if number % TOGETHER == 0:
                parts.append(gated)
            else:
                parts[-1] = parts[-1] | gated
        whole: Any = 0
        for part in parts:
            whole = whole | delay(m, part, 1)
        m.d.sync += picked.eq(whole)

        # reads go through the memories without a halt: only those are begun for whose data the
        # queue behind has room
        queue = SyncFIFOBuffered(width=port.bits + 1, depth=QUEUE)
        m.submodules.queue = queue
        place, left = Signal(where), Signal(9)
        idle = Signal(init=1)  # left == 0
        may = Signal(init=1)
        flying = Signal(range(QUEUE + 1))  # begun, not yet taken by the accelerator
        take, gone = Signal(), Signal()
        m.d.comb += [
            axi.arready.eq(idle),
            take.eq(~idle & may),
            address.eq(Mux(self.host_on, self.host_address >> half, place)),
            queue.w_en.eq(delay(m, take, LATENCY - 1, reset=True)),
            queue.w_data.eq(Cat(picked, delay(m, left == 1, LATENCY - 1))),
            axi.rvalid.eq(queue.r_rdy),
            Cat(axi.rdata, axi.rlast).eq(queue.r_data),
            queue.r_en.eq(axi.rready),
            gone.eq(axi.rvalid & axi.rready),
        ]
        m.d.sync += [
            flying.eq(flying + take - gone), may.eq(flying < QUEUE - 2),  # one may begin meanwhile
        ]  # fmt: skip
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [place.eq(axi.araddr >> shift), left.eq(axi.arlen + 1), idle.eq(0)]
        with m.If(take):
            m.d.sync += [place.eq(place + 1), left.eq(left - 1), idle.eq(left == 1)]

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
