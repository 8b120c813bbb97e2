# SPDX-License-Identifier: Apache-2.0
"""Units joined with their buffers, for the benches, and how their buffers are filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature

from codesign.space.accelerator import Engine
from codesign.targets.fpga.hw.buffers import (
    AccumulatorBuffer,
    ActivationBuffer,
    ActLayout,
    ParamBuffer,
    TapBuffer,
    WeightBuffer,
    act_payload,
    sum_read,
    sum_write,
)
from codesign.targets.fpga.hw.commands import command_layout, command_stream
from codesign.targets.fpga.hw.dense import DenseEngine
from codesign.targets.fpga.hw.depthwise import DepthwiseEngine
from codesign.targets.fpga.hw.drain import Drain
from codesign.targets.fpga.hw.ports import (
    ActShape,
    ItemWriteSignature,
    ResidualSignature,
    act_write,
    store_stream,
    weight_write,
    weights_of_word,
    word_granules,
)
from codesign.targets.fpga.isa import Tap, Unit
from tests.fpga.hw.bench import Bench


def connect(m: Module, outer: Any, inner: Any) -> None:
    """Port of a component to the same port of a part."""
    wiring.connect(m, wiring.flipped(outer), inner)


class DensePart(wiring.Component):
    """The dense engine with all its buffers."""

    def __init__(self, engine: Engine, port_bits: int = 64) -> None:
        self.engine, self.port_bits = engine, port_bits
        super().__init__(
            {
                "command": In(command_stream(Unit.DENSE)),
                "act": In(act_write(engine, port_bits)),
                "weight": In(weight_write(engine, port_bits)),
                "tap": In(ItemWriteSignature),
                "drain": In(sum_read(engine)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dense = dense = DenseEngine(self.engine, primitive=False)
        m.submodules.act = act = ActivationBuffer(self.engine, self.port_bits)
        m.submodules.weight = weight = WeightBuffer(self.engine, self.port_bits)
        m.submodules.tap = tap = TapBuffer()
        m.submodules.sums = sums = AccumulatorBuffer(self.engine)
        connect(m, self.command, dense.command)
        connect(m, self.act, act.write)
        connect(m, self.weight, weight.write)
        connect(m, self.tap, tap.write)
        connect(m, self.drain, sums.drain)
        wiring.connect(m, dense.act, act.read)
        wiring.connect(m, dense.weight, weight.read)
        wiring.connect(m, dense.tap, tap.read)
        wiring.connect(m, dense.sums, sums.write)
        wiring.connect(m, dense.add, sums.add)
        m.d.comb += self.done.eq(dense.done)
        return m


def _out(target: Engine, port_bits: int) -> dict[str, Any]:
    placed = {"valid": Out(1), "payload": Out(act_payload(target, port_bits))}
    return {
        "param": In(ItemWriteSignature),
        "store": Out(store_stream()),
        "residual": Out(ResidualSignature),
        "placed": Out(Signature(placed)),
    }


class DrainPart(wiring.Component):
    """The drain with the sums that it reads."""

    def __init__(self, engine: Engine, target: Engine, port_bits: int = 64) -> None:
        self.engine, self.target, self.port_bits = engine, target, port_bits
        ports = {"command": In(command_stream(Unit.DRAIN)), "sums": In(sum_write(engine))}
        super().__init__(ports | _out(target, port_bits))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.drain = drain = Drain(
            self.engine, self.target, self.port_bits, primitive=False
        )
        m.submodules.sums = sums = AccumulatorBuffer(self.engine)
        connect(m, self.sums, sums.write)
        wiring.connect(m, drain.sums, sums.drain)
        _join(m, self, drain)
        return m


class DepthwisePart(wiring.Component):
    """The depthwise engine with all its buffers."""

    def __init__(self, engine: Engine, target: Engine, port_bits: int = 64) -> None:
        self.engine, self.target, self.port_bits = engine, target, port_bits
        ports = {
            "command": In(command_stream(Unit.DEPTHWISE)),
            "act": In(act_write(engine, port_bits)),
            "weight": In(weight_write(engine, port_bits)),
            "tap": In(ItemWriteSignature),
        }
        super().__init__(ports | _out(target, port_bits))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.unit = unit = DepthwiseEngine(
            self.engine, self.target, self.port_bits, primitive=False
        )
        m.submodules.act = act = ActivationBuffer(self.engine, self.port_bits)
        m.submodules.weight = weight = WeightBuffer(self.engine, self.port_bits)
        m.submodules.tap = tap = TapBuffer()
        connect(m, self.act, act.write)
        connect(m, self.weight, weight.write)
        connect(m, self.tap, tap.write)
        wiring.connect(m, unit.act, act.read)
        wiring.connect(m, unit.weight, weight.read)
        wiring.connect(m, unit.tap, tap.read)
        _join(m, self, unit)
        return m


def _join(m: Module, part: Any, unit: Any) -> None:
    m.submodules.param = param = ParamBuffer()
    connect(m, part.param, param.write)
    wiring.connect(m, unit.param, param.read)
    connect(m, part.command, unit.command)
    wiring.connect(m, unit.store, wiring.flipped(part.store))
    wiring.connect(m, unit.residual, wiring.flipped(part.residual))
    m.d.comb += [
        part.placed.valid.eq(unit.placed.valid), part.placed.payload.eq(unit.placed.payload),
    ]  # fmt: skip


def packed(values: Sequence[int], bits: int) -> int:
    """``values`` side by side from the low end."""
    return sum((int(v) & (1 << bits) - 1) << bits * k for k, v in enumerate(values))


def encode(unit: Unit, fields: dict[str, int]) -> int:
    """A command as the payload of its stream."""
    layout = command_layout(unit)
    word = 0
    for name, field in layout:
        value = int(fields.get(name, 0))
        word |= (value & (1 << field.width) - 1) << field.offset
    return word


def write_activations(
    bench: Bench, engine: Engine, port_bits: int, values: Any, nibbles: bool = False
) -> None:
    """``values`` [memory][word][channel] into the buffer, one block a cycle."""
    shape = ActShape.of(engine, port_bits)
    channels = ActLayout.of(engine).channels
    payload = [("nibbles", 1)]
    for k in range(shape.slots):
        payload += [
            (f"valid{k}", 1), (f"memory{k}", shape.memory_bits),
            (f"address{k}", shape.address_bits),
            (f"lane{k}", max(1, (shape.lanes - 1).bit_length())), (f"data{k}", shape.block_bits),
        ]  # fmt: skip
    memories, depth = values.shape[:2]
    for j in range(memories):
        for word in range(depth):
            for lane in range(shape.lanes):
                block = values[j, word, lane * channels :][:channels]
                fields = {
                    "nibbles": nibbles, "valid0": 1, "memory0": j, "address0": word,
                    "lane0": lane, "data0": packed(block, 4 if nibbles else 8),
                }  # fmt: skip
                total = at = 0
                for name, bits in payload:
                    total |= int(fields.get(name, 0)) << at
                    at += bits
                bench["act__payload"] = total
                bench["act__valid"] = 1
                bench.settle()
                assert bench["act__ready"]
                bench.tick()
    bench["act__valid"] = 0
    bench.settle()


def write_weights(bench: Bench, engine: Engine, port_bits: int, values: Any) -> None:
    """``values`` [word][weight] into the buffer, granule after granule."""
    weights = weights_of_word(engine)
    granule, chunk = word_granules(weights, port_bits)
    for word, row in enumerate(values):
        for k in range(weights // granule):
            start = k * granule // chunk * chunk
            bench["weight__valid"] = 1
            bench["weight__address"] = word
            bench["weight__mask"] = 1 << k
            bench["weight__data"] = packed(row[start:][:chunk], engine.weight_bits)
            bench.settle()
            bench.tick()
    bench["weight__valid"] = 0
    bench.settle()


def write_items(bench: Bench, port: str, items: Sequence[bytes]) -> None:
    """Parameters or taps from number 0 on."""
    for k, item in enumerate(items):
        bench[f"{port}__valid"] = 1
        bench[f"{port}__index"] = k
        bench[f"{port}__data"] = int.from_bytes(item, "little")
        bench.settle()
        bench.tick()
    bench[f"{port}__valid"] = 0
    bench.settle()


def operands(
    fields: dict[str, int], taps: Sequence[Tap], act: Any, group: int, y: int, p: int, t: int,
    c: int, bits: int,
) -> tuple[Any, Any]:  # fmt: skip
    """Values [lane][channel] of one beat and which lanes are padding, by the words of
    docs/accelerator.md. ``act``: raw values [memory][word][channel]."""
    lanes = act.shape[0]
    tap = taps[fields["tap_base"] + t]
    word = (
        fields["act_base"] + y * fields["act_row_step"] + p * fields["act_group"] + tap.offset + c
    )
    row = fields["act_y0"] + y * fields["act_y_step"] + tap.row
    found = np.zeros((lanes, act.shape[2]), dtype=np.int64)
    pad = np.ones(lanes, dtype=bool)
    for i in range(lanes):
        j = (i + tap.rotate) % lanes
        at = (word + (fields["act_group"] if j < tap.rotate else 0)) % (1 << 14)
        x = p * lanes + i
        if tap.least <= x < tap.most and 0 <= row < fields["act_rows"]:
            raw = act[j, at % act.shape[1]] & (1 << bits) - 1
            if fields["act_signed"]:
                raw = np.where(raw >> bits - 1, raw - (1 << bits), raw)
            found[i] = raw
            pad[i] = False
    return found, pad
