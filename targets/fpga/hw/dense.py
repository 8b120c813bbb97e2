# SPDX-License-Identifier: Apache-2.0
"""The dense engine: pi · po · px products a cycle, adder trees, sums, accumulator buffer.

A command's first beat is issued one cycle after the command is taken; its last sum is in memory
``latency`` + 3 cycles after its last beat was issued. The next command may start before that.
"""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from codesign.errors import InputError
from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.buffers import TapRead, act_read, sum_read, sum_write, weight_read
from codesign.targets.fpga.hw.commands import command_stream
from codesign.targets.fpga.hw.multiply import DenseMultipliers
from codesign.targets.fpga.hw.operands import Operands
from codesign.targets.fpga.hw.walk import OPERAND_STAGE, Walker, delay
from codesign.targets.fpga.isa import BLOCK, Unit


def check(engine: Engine) -> None:
    """Raises InputError for sizes that no hardware is generated for."""
    if engine.kind == "dense" and engine.pi != 4 and engine.pi % BLOCK:
        raise InputError(f"dense engine pi is {engine.pi}; hardware takes 4 or a multiple of 8")
    if engine.po % BLOCK:
        raise InputError(f"{engine.kind} engine po is {engine.po}; hardware takes multiples of 8")
    if engine.post not in (4, 8, 16):
        raise InputError(f"{engine.kind} engine post is {engine.post}; hardware takes 4, 8 or 16")


class DenseEngine(wiring.Component):
    """Runs dense commands. ``done`` is high for one cycle when a command's sums are in memory."""

    def __init__(self, engine: Engine, *, primitive: bool = True) -> None:
        """``primitive`` False: plain multiplications, for simulation."""
        check(engine)
        self.engine = engine
        self.multipliers = DenseMultipliers.of(engine, primitive)
        self.levels = ceil_log2(engine.pi)
        super().__init__(
            {
                "command": In(command_stream(Unit.DENSE)),
                "act": Out(act_read(engine)),
                "weight": Out(weight_read(engine)),
                "tap": Out(TapRead),
                "sums": Out(sum_write(engine)),
                "add": Out(sum_read(engine)),
                "done": Out(1),
                "idle": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Edges from a beat in the issue register to its sum in the accumulator."""
        return OPERAND_STAGE + int(self.multipliers.latency + self.levels) + 1

    def elaborate(self, platform: Any) -> Module:
        """Walker, operands, products, trees, sums."""
        m = Module()
        e = self.engine
        m.submodules.walker = walker = Walker(e)
        m.submodules.operands = operands = Operands(e)
        m.submodules.multipliers = multiply = self.multipliers
        wiring.connect(m, wiring.flipped(self.command), walker.command)
        wiring.connect(m, wiring.flipped(self.tap), walker.tap)
        m.d.comb += [
            self.idle.eq(walker.idle), self.act.address.eq(walker.act_address),
            self.weight.address.eq(walker.weight_address), operands.read.eq(self.act.data),
            operands.rotate.eq(walker.rotate), operands.lanes.eq(walker.lanes),
            operands.is_signed.eq(walker.beat.signed), operands.doubled.eq(walker.beat.double),
            multiply.activation.eq(operands.activation), multiply.weight.eq(self.weight.data),
        ]  # fmt: skip
        if e.double:
            m.d.comb += [
                multiply.high.eq(operands.high),
                multiply.double.eq(delay(m, walker.beat.double, 1)),
            ]
        beat = _flags(m, walker.beat, 1 + multiply.latency + self.levels)
        sums = [self._sums(m, multiply.product, beat, 0)]
        if e.double:
            sums.append(self._sums(m, multiply.high_product, beat, 1))
        self._store(m, walker.beat, sums)
        return m

    def _sums(self, m: Module, products: Any, beat: dict[str, Any], later: int) -> list[list[Any]]:
        """Sums [pixel][output]; complete ``later`` + 1 edges behind the tree."""
        e = self.engine
        first, valid = delay(m, beat["first"], later), delay(m, beat["valid"], later, reset=True)
        found = []
        for x in range(e.px):
            row = []
            for o in range(e.po):
                tree = self._tree(m, [products[x][o][i] for i in range(e.pi)])
                tree = delay(m, tree, later)
                total = Signal(signed(e.accumulator_bits), name=f"sum{later}_{x}_{o}")
                with m.If(valid):
                    m.d.sync += total.eq(Mux(first, 0, total) + tree)
                row.append(total)
            found.append(row)
        return found

    def _tree(self, m: Module, terms: list[Any]) -> Any:
        """Sum of ``terms`` after ``levels`` edges, a register after each adder."""
        for _ in range(self.levels):
            pairs = []
            for k in range(0, len(terms) - 1, 2):
                value = terms[k] + terms[k + 1]
                register = Signal(value.shape(), reset_less=True)
                m.d.sync += register.eq(value)
                pairs.append(register)
            if len(terms) % 2:
                pairs.append(delay(m, terms[-1], 1))
            terms = pairs
        return terms[0]

    def _store(self, m: Module, beat: Any, sums: list[list[list[Any]]]) -> None:
        """Finished sums, with what stood in the buffer added, one word after the other."""
        e = self.engine
        at = 1 + self.multipliers.latency + self.levels + 1  # from the beat (stage 7) to its sum
        early = _flags(m, beat, at - 3)  # three edges before: the old sum's address
        ended = early["valid"] & early["last"]
        word = early["word"]
        if e.double:
            second = delay(m, ended & early["double"], 1, reset=True)
            address = Mux(second, delay(m, word, 1) + 1, word)
        else:
            second = Value.cast(0)
            address = word
        m.d.comb += [self.add.enable.eq(ended | second), self.add.address.eq(address)]
        valid = delay(m, ended | second, 3, reset=True)
        upper = delay(m, second, 3)
        add = delay(m, Mux(second, delay(m, early["accumulate"], 1), early["accumulate"]), 2)
        m.d.sync += [
            self.sums.valid.eq(valid), self.sums.address.eq(delay(m, address, 3)),
        ]  # fmt: skip
        for x in range(e.px):
            for o in range(e.po):
                # a register, since old sums come from many memories' ends
                old = Signal(e.accumulator_bits, name=f"old_{x}_{o}", reset_less=True)
                m.d.sync += old.eq(self.add.data[x][o] & add.replicate(e.accumulator_bits))
                new = sums[0][x][o]
                if e.double:
                    new = Mux(upper, sums[1][x][o], new)
                m.d.sync += self.sums.data[x][o].eq(new + old.as_signed())
        # the write is in memory two edges after sums.valid
        finish = Mux(early["double"], 1, 0) if e.double else Value.cast(0)
        ending = ended & early["end"]
        later = delay(m, ending & finish, 1, reset=True)
        m.d.comb += self.done.eq(delay(m, (ending & ~finish) | later, 3 + 1 + 2, reset=True))


def _flags(m: Module, beat: Any, cycles: int) -> dict[str, Any]:
    """Fields of a beat ``cycles`` edges later."""
    names = ("first", "last", "end", "word", "double", "accumulate")
    found = {name: delay(m, beat[name], cycles) for name in names}
    found["valid"] = delay(m, beat.valid, cycles, reset=True)
    return found
