# SPDX-License-Identifier: Apache-2.0
"""Memory port, commands, loader and writer together: random command lists, random memory timing.

The test plays the engines and the memory: it takes commands, stores results, reads residuals, and
keeps what the loader writes. Every buffer and the memory are compared with NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from random import Random
from typing import Any

import numpy as np
import pytest

from codesign.space.accelerator import Buffer, Engine
from codesign.targets.fpga.hw.commands import UNITS
from codesign.targets.fpga.hw.ports import Port
from codesign.targets.fpga.hw.registers import IDENTITY, Register
from codesign.targets.fpga.hw.system import System
from codesign.targets.fpga.isa import Command, Dest, Unit
from codesign.targets.fpga.sim.dram import Dram
from codesign.targets.fpga.sim.memory import AxiMemory
from tests.fpga.hw import golden
from tests.fpga.hw.bench import Bench
from tests.fpga.hw.fakes import FakeBuffers, FakeDense, FakeDrain, with_waits

MEMORY = 1 << 18
LIST = 0x10
"""Where the command list starts; not at a burst's start on purpose."""


def engines(pi: int, po: int, px: int, double: bool, dw: tuple[int, int]) -> tuple[Engine, Engine]:
    dense = Engine(
        "dense", pi, po, px, Buffer(256), Buffer(512), Buffer(128), double=double
    )
    depthwise = Engine("depthwise", 1, dw[0], dw[1], Buffer(128), Buffer(512))
    return dense, depthwise


@dataclass
class Case:
    """A random command list and what it should do."""

    rng: Random
    dense: Engine
    depthwise: Engine
    memory: bytearray
    commands: list[Command] = field(default_factory=list)
    work: dict[str, list[Any]] = field(default_factory=lambda: {"drain": [], "depthwise": []})
    residuals: dict[str, list[Any]] = field(
        default_factory=lambda: {"drain": [], "depthwise": []}
    )
    free: int = MEMORY // 2
    """Results go above this."""

    def load(self) -> None:
        rng = self.rng
        dest = Dest(rng.randrange(8))
        engine = self.dense if dest < 4 else self.depthwise
        values: dict[str, int] = {"dest": dest}
        kind = dest % 4
        at = rng.randrange(0x800, MEMORY // 4)
        if kind == 0:
            values["bits"] = rng.choice((2, 4, 8))
            values["count"] = rng.randrange(1, 12)
            values["base"] = rng.randrange(0, engine.weight.depth)
            values["address"] = at & ~63
        elif kind in (1, 2):
            values["count"] = rng.randrange(1, 6) * (8 if kind == 1 else 1)
            values["base"] = rng.randrange(0, 10) * 8
            values["address"] = at & ~63
        else:
            self.activations(values, engine, at & ~7)
        self.commands.append(Command(Unit.LOAD, values))

    def activations(self, values: dict[str, int], engine: Engine, at: int) -> None:
        rng = self.rng
        channels = engine.pi if engine.kind == "dense" else engine.po
        nibbles = int(engine.double and rng.random() < 0.5)
        lanes = engine.px * (2 if nibbles else 1)
        stride, width, rows = rng.choice((1, 1, 2, 3)), rng.randrange(1, 24), rng.randrange(1, 5)
        repeat = rng.choice((0, 0, 1, 2, 3)), rng.choice((0, 0, 1, 2, 3))
        blocks, first = rng.randrange(1, 4), rng.choice((0, 0, 1, rng.randrange(12)))
        group = -(-(first + blocks) * 8 // channels) if channels > 4 else 2 * (first + blocks)
        columns = width * max(1, repeat[0])
        residue = ceil(ceil(columns / stride) / lanes) * group
        values.update(
            address=at, base=rng.randrange(512), blocks=blocks, rows=rows, width=width,
            block_step=(rows * width + rng.randrange(9)) * 8, place_stride=stride,
            place_residue_words=residue, place_row_words=stride * residue + rng.randrange(3),
            place_group=group, place_block=first, place_nibbles=nibbles, repeat_x=repeat[0],
            repeat_y=repeat[1],
        )  # fmt: skip

    def result(self, name: str) -> None:
        rng = self.rng
        runs, residuals = [], []
        for _ in range(rng.choice((0, 1, 2, 3))):
            words = rng.randrange(1, 70)
            runs.append((self.free, [rng.getrandbits(64) for _ in range(words)]))
            self.free += 8 * (words + rng.choice((0, 0, 1, 3)))
            if rng.random() < 0.5:
                residuals.append((rng.randrange(MEMORY // 32) * 8, rng.randrange(1, 50)))
        self.work[name].append(runs)
        self.residuals[name].append(residuals)
        self.commands.append(Command(Unit.DRAIN if name == "drain" else Unit.DEPTHWISE, {}))

    def build(self, count: int) -> None:
        for _ in range(count):
            what = self.rng.random()
            if what < 0.6:
                self.load()
            elif what < 0.7:
                self.commands.append(Command(Unit.DENSE, {"taps": self.rng.randrange(100)}))
            else:
                self.result(self.rng.choice(("drain", "depthwise")))
        self.commands.append(Command(Unit.END, {}))
        self.commands = with_waits(self.commands, self.rng)
        text = b"".join(command.encode() for command in self.commands)
        assert LIST + len(text) < 0x800 * 8
        self.memory[LIST : LIST + len(text)] = text


class Driver:
    """Registers over AXI-Lite, one cycle function for everything."""

    def __init__(self, dut: Bench, parts: list[Any]) -> None:
        self.dut, self.parts = dut, parts

    def cycle(self) -> None:
        for part in self.parts:
            part.drive(self.dut)
        self.dut.settle()
        for part in self.parts:
            part.sample(self.dut)
        self.dut.tick()

    def write(self, address: int, value: int) -> None:
        d = self.dut
        d["bus__awaddr"], d["bus__awvalid"], d["bus__wdata"] = address, 1, value
        d["bus__wvalid"], d["bus__bready"] = 1, 1
        d.settle()
        while not d["bus__awready"]:
            self.cycle()
        self.cycle()
        d["bus__awvalid"] = d["bus__wvalid"] = 0

    def read(self, address: int) -> int:
        d = self.dut
        d["bus__araddr"], d["bus__arvalid"], d["bus__rready"] = address, 1, 1
        self.cycle()
        d["bus__arvalid"] = 0
        while not d["bus__rvalid"]:
            self.cycle()
        value = d["bus__rdata"]
        self.cycle()
        return value


class MemoryPart:
    """``AxiMemory`` on the pins of the port."""

    def __init__(self, dut: Bench, memory: bytearray, timing: Dram, bits: int) -> None:
        def put(name: str, value: int) -> None:
            dut[f"axi__{name}"] = value

        self.memory = AxiMemory(memory, timing, bits, put, lambda name: dut[f"axi__{name}"])

    def drive(self, dut: Any) -> None:
        self.memory.drive()

    def sample(self, dut: Any) -> None:
        self.memory.sample()


class Results:
    """Results on chip now and then keep the loader from the activation buffers."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def drive(self, dut: Any) -> None:
        dut["dense_act__ready"] = int(self.rng.random() < 0.8)
        dut["depthwise_act__ready"] = int(self.rng.random() < 0.8)

    def sample(self, dut: Any) -> None:
        pass


SHAPES = {
    "pi4": (4, 8, 2, False, (8, 1)),
    "pi8": (8, 8, 1, False, (16, 2)),
    "pi24": (24, 8, 7, False, (8, 2)),
    "double": (16, 16, 4, True, (32, 4)),
    "double_pi4": (4, 24, 2, True, (8, 7)),
}


def run_case(shape: str, bits: int, seed: int, count: int = 40) -> None:
    rng = Random(f"{shape} {bits} {seed}")
    dense, depthwise = engines(*SHAPES[shape])
    burst = 16 if bits == 64 else 64
    port = Port(bits=bits, burst=burst)
    dut = Bench(System(dense, depthwise, port, queue=4))
    case = Case(rng, dense, depthwise, bytearray(rng.randbytes(MEMORY)))
    case.build(count)
    timing = Dram(
        latency=rng.choice((1, 10, 60)),
        bytes_per_cycle=Fraction(rng.choice((bits // 8, 4, 7))),
        refresh_interval=rng.choice((0, 300)),
        refresh_cycles=40,
        turnaround=rng.randrange(8),
        outstanding=rng.choice((1, 4, 16)),
        write_latency=rng.randrange(1, 40),
        batch=rng.choice((32, 2048)),
        stall=rng.choice((0, 60, 180)),
        seed=rng.randrange(1, 1 << 32),
    )
    expected = bytearray(case.memory)
    original = bytes(case.memory)
    memory = MemoryPart(dut, case.memory, timing, bits)
    buffers = [FakeBuffers(dense, "dense", port), FakeBuffers(depthwise, "depthwise", port)]
    drains = [
        FakeDrain(name, unit, rng, rng.random() < 0.5, case.work[name], case.residuals[name])
        for name, unit in (("drain", Unit.DRAIN), ("depthwise", Unit.DEPTHWISE))
    ]
    fake_dense = FakeDense(rng)

    class Watch:
        def drive(self, dut: Any) -> None:
            pass

        def sample(self, dut: Any) -> None:
            for buffer in buffers:
                buffer.sample(dut)

    driver = Driver(dut, [memory, Results(rng), fake_dense, *drains, Watch()])
    assert driver.read(Register.IDENTITY) == IDENTITY
    assert driver.read(Register.PORT) == bits | burst << 16
    for place, value in ((Register.COMMANDS, LIST), (Register.INTERRUPT, 1),
                         (Register.WATCHDOG, 5000), (Register.CONTROL, 1)):  # fmt: skip
        driver.write(place, value)
    while not dut["irq"]:
        driver.cycle()
        assert dut.cycle < 200000
    assert driver.read(Register.STATUS) == 2, hex(driver.read(Register.WAITING))
    done = {u: sum(c.unit == u for c in case.commands) for u in UNITS}
    low, high = driver.read(Register.FINISHED_LOW), driver.read(Register.FINISHED_HIGH)
    assert [low & 0xFFFF, low >> 16, high & 0xFFFF, high >> 16] == list(done.values())

    want = [FakeBuffers(dense, "dense", port), FakeBuffers(depthwise, "depthwise", port)]
    for command in case.commands:
        if command.unit != Unit.LOAD:
            continue
        values = dict(command.values)
        target = want[values["dest"] // 4]
        kind = values["dest"] % 4
        if kind == 0:
            golden.load_weights(original, values, target.engine, target.weights)
        elif kind < 3:
            golden.load_items(original, values, target.params if kind == 1 else target.taps)
        else:
            golden.load_activations(original, values, target.engine, target.act)
    for got, expect in zip(buffers, want):
        assert np.array_equal(got.weights, expect.weights)
        assert got.params == expect.params
        assert got.taps == expect.taps
        assert got.act == expect.act
    for name, drain in zip(("drain", "depthwise"), drains):
        for runs, residuals, read in zip(case.work[name], case.residuals[name], drain.read):
            words = [
                int.from_bytes(original[at + 8 * k : at + 8 * k + 8], "little")
                for at, size in residuals
                for k in range(size)
            ]
            assert read == words
            for at, values_ in runs:
                for k, word in enumerate(values_):
                    expected[at + 8 * k : at + 8 * k + 8] = word.to_bytes(8, "little")
    assert case.memory == expected
    kept = [c for c in case.commands if c.unit == Unit.DENSE]
    assert [s["taps"] for s in fake_dense.seen] == [c.values["taps"] for c in kept]


@pytest.mark.parametrize(("shape", "bits"), [("double", 128), ("pi4", 64)])
def test_random_lists(shape: str, bits: int) -> None:
    for seed in range(2):
        run_case(shape, bits, seed)


@pytest.mark.soak
@pytest.mark.parametrize("bits", [64, 128])
@pytest.mark.parametrize("shape", [*SHAPES])
def test_many_random_lists(shape: str, bits: int) -> None:
    for seed in range(2, 22):
        run_case(shape, bits, seed, 80)
