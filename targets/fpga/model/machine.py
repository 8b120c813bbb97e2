# SPDX-License-Identifier: Apache-2.0
"""A functional model of the accelerator: executes a command list in list order on modelled buffers.

It follows ``docs/accelerator.md`` to the letter and knows nothing of the compiler. Whether the
waits of a list are enough is a matter of ``races``, which sees every access.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.errors import VerifyError
from codesign.space.accelerator import Accelerator, Engine
from codesign.targets.fpga.isa import (
    BLOCK,
    COMMAND_BYTES,
    PARAM_BLOCKS,
    TAPS,
    Command,
    Dest,
    Unit,
    decode,
)
from codesign.targets.fpga.machine import depthwise_engine

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
WORDS = 1 << 14
LEAST = -256
"""What a maximum starts from: below every 8-bit value."""
Watch = Callable[[str, Ints, bool], None]
"""Sees (what, words, whether written) of every access of a command."""


@dataclass
class EngineState:
    """Buffers of one engine."""

    engine: Engine
    weight: npt.NDArray[np.int8]
    act: Bytes
    """[px, words, channels of a word]"""
    nibbles: Bytes
    """The same memories as 2 · px of half width: [2 px, words, channels of a word]."""
    bias: Ints
    m: Ints
    e: Ints
    taps: Ints
    """[TAPS, 5]: offset, row, rotate, least, most."""
    sums: Ints
    """[px, 2 · depth, po]"""

    @staticmethod
    def of(engine: Engine) -> EngineState:
        """Empty buffers, filled with a pattern that shows when it is used."""
        dense = engine.kind == "dense"
        channels = engine.pi if dense else engine.po
        words = engine.activation.depth * engine.activation.banks
        weights = engine.weight.depth * engine.weight.banks
        params = PARAM_BLOCKS * BLOCK
        return EngineState(
            engine,
            np.full((weights, engine.po, engine.pi), 85, np.int8),
            np.full((engine.px, words, channels), 0xAA, np.uint8),
            np.full((2 * engine.px, words, channels), 0x5, np.uint8),
            np.full(params, 12345, np.int64),
            np.full(params, 33333, np.int64),
            np.full(params, 3, np.int64),
            np.zeros((TAPS, 5), np.int64),
            np.full((engine.px, 2 * max(engine.accumulator.depth, 1), engine.po), 77, np.int64),
        )

    @property
    def lanes(self) -> int:
        """Blocks of 8 channels in a word (0: a block takes two words)."""
        return int(self.act.shape[2]) // BLOCK

    def around(self, words: Ints) -> Ints:
        """Addresses of activations as they count: modulo the buffer's words where those are a power
        of two, else modulo 2^14."""
        size = int(self.act.shape[1])
        return words % (WORDS if size & (size - 1) else size)

    def place(
        self, v: Mapping[str, int], blocks: Ints, rows: Ints, columns: Ints, data: Bytes
    ) -> Ints:
        """Write ``data`` [blocks, rows, columns, 8] through the ``place_`` fields; returns the
        words. ``base`` is given as ``place_base``."""
        nibbles = bool(v["place_nibbles"])
        memories = self.nibbles if nibbles else self.act
        count = len(memories)
        stride = max(1, v["place_stride"])
        q, r = columns // stride, columns % stride
        at = (
            v["place_base"]
            + rows[:, None] * v["place_row_words"]
            + r * v["place_residue_words"]
            + q // count * v["place_group"]
        )  # [rows, columns]
        n = blocks + v["place_block"]
        memory = np.broadcast_to(q % count, at.shape)
        found = []
        if nibbles:
            data = (data & 15).astype(np.uint8)
        for k, block in enumerate(n):
            if self.lanes:
                words = self.around(at + block // self.lanes)
                lane = int(block % self.lanes) * BLOCK
                memories[memory, words, lane : lane + BLOCK] = data[k]
                found.append(words)
            else:
                size = self.act.shape[2]
                for part in range(BLOCK // size):
                    words = self.around(at + block * (BLOCK // size) + part)
                    memories[memory, words] = data[k, :, :, part * size : (part + 1) * size]
                    found.append(words)
        return np.unique(np.stack(found))


@dataclass
class Machine:
    """The accelerator with its memory."""

    accelerator: Accelerator
    memory: Bytes
    dense: EngineState = field(init=False)
    depthwise: EngineState = field(init=False)
    watch: Watch | None = None
    after: Callable[[int, Command], None] | None = None
    """Called after each command with its place in the list."""

    def __post_init__(self) -> None:
        self.dense = EngineState.of(self.accelerator.dense)
        self.depthwise = EngineState.of(depthwise_engine(self.accelerator))

    def run(self, address: int, before: Callable[[int, Command], None] | None = None) -> int:
        """Execute the list at ``address`` up to its END; returns the number of commands."""
        index = 0
        while True:
            at = address + index * COMMAND_BYTES
            command = decode(self.memory[at : at + COMMAND_BYTES].tobytes())
            if before is not None:
                before(index, command)
            index += 1
            if command.unit is Unit.END:
                return index
            self.execute(command)
            if self.after is not None:
                self.after(index - 1, command)

    def execute(self, command: Command) -> None:
        """One command."""
        v = command.values
        if command.unit is Unit.LOAD:
            self._load(v)
        elif command.unit is Unit.DENSE:
            self._dense(v)
        elif command.unit is Unit.DRAIN:
            self._drain(v)
        else:
            self._depthwise(v)

    def _see(self, what: str, words: Ints | range | list[int], write: bool) -> None:
        if self.watch is not None:
            self.watch(what, np.asarray(words, np.int64), write)

    def _see_memory(self, start: int, size: int, write: bool) -> None:
        self._see("memory", range(start // 8, -(-(start + size) // 8)), write)

    # Load

    def _load(self, v: Mapping[str, int]) -> None:
        dest = Dest(v["dest"])
        state = self.dense if dest < Dest.DEPTHWISE_WEIGHT else self.depthwise
        kind = state.engine.kind
        which = dest % 4
        if which == 3:
            self._load_image(state, v)
            return
        base, count, address = v["base"], v["count"], v["address"]
        if which == 0:
            size = state.engine.po * state.engine.pi
            word_bytes = -(-size * v["bits"] // 8)
            raw = self.memory[address : address + count * word_bytes].reshape(count, word_bytes)
            self._see_memory(address, count * word_bytes, False)
            values = _unpack(raw, v["bits"])[:, :size]
            state.weight[base : base + count] = values.reshape(
                count, state.engine.po, state.engine.pi
            )
            self._see(f"{kind} weight", range(base, base + count), True)
            return
        raw = self.memory[address : address + count * 8]
        self._see_memory(address, count * 8, False)
        if which == 1:
            table = raw.reshape(count, 8)
            state.bias[base : base + count] = np.frombuffer(table[:, :4].tobytes(), "<i4")
            state.m[base : base + count] = np.frombuffer(table[:, 4:6].tobytes(), "<u2")
            state.e[base : base + count] = table[:, 6]
            self._see(f"{kind} param", range(base, base + count), True)
        else:
            table = raw.reshape(count, 8)
            part = state.taps[base : base + count]
            part[:, 0] = np.frombuffer(table[:, :2].tobytes(), "<i2")
            part[:, 1], part[:, 2] = table[:, 2], table[:, 3]
            part[:, 3] = np.frombuffer(table[:, 4:6].tobytes(), "<u2")
            part[:, 4] = np.frombuffer(table[:, 6:8].tobytes(), "<u2")
            self._see(f"{kind} tap", range(base, base + count), True)

    def _load_image(self, state: EngineState, v: Mapping[str, int]) -> None:
        rows, width, blocks = v["rows"], v["width"], v["blocks"]
        run = rows * width * BLOCK
        data = np.empty((blocks, rows, width, BLOCK), np.uint8)
        for n in range(blocks):
            start = v["address"] + n * v["block_step"]
            data[n] = self.memory[start : start + run].reshape(rows, width, BLOCK)
            self._see_memory(start, run, False)
        step_y, step_x = max(1, v["repeat_y"]), max(1, v["repeat_x"])
        data = data.repeat(step_y, axis=1).repeat(step_x, axis=2)
        words = state.place(
            {**v, "place_base": v["base"]}, np.arange(blocks), np.arange(rows * step_y),
            np.arange(width * step_x), data,
        )  # fmt: skip
        self._see(f"{state.engine.kind} act", words, True)

    # Reading

    def _window(
        self, state: EngineState, v: Mapping[str, int], double: bool, inner: int
    ) -> tuple[Any, npt.NDArray[np.bool_]]:
        """Values [rows, steps, lanes, taps, inner, channels] of the window, and which are there
        [rows, steps, lanes, taps]. ``inner``: consecutive words from each place."""
        memories = state.nibbles if double else state.act
        lanes = len(memories)
        taps = state.taps[v["tap_base"] : v["tap_base"] + v["taps"]]
        self._see(
            f"{state.engine.kind} tap", range(v["tap_base"], v["tap_base"] + v["taps"]), False
        )
        y = np.arange(v["rows"])
        p = np.arange(v["steps"])
        i = np.arange(lanes)
        offset, row, rotate, least, most = taps.T
        j = (i[:, None] + rotate) % lanes  # [lanes, taps]
        further = (j < rotate) * v["act_group"]
        word = (
            v["act_base"]
            + y[:, None, None, None] * v["act_row_step"]
            + p[:, None, None] * v["act_group"]
            + offset
            + further
        )  # [rows, steps, lanes, taps]
        x = p[:, None] * lanes + i  # [steps, lanes]
        inside = (x[:, :, None] >= least) & (x[:, :, None] < most)
        at = v["act_y0"] + y[:, None] * v["act_y_step"] + row  # [rows, taps]
        there = ((at >= 0) & (at < v["act_rows"]))[:, None, None, :] & inside
        real = (x < v["width"])[None, :, :, None] & there
        words = state.around(word[..., None] + np.arange(inner))
        if self.watch is not None:
            self._see(f"{state.engine.kind} act", np.unique(words[real]), False)
        words = np.where(there[..., None], words, 0)
        if int(words.max(initial=0)) >= memories.shape[1]:
            used = words[real]
            if used.size and int(used.max()) >= memories.shape[1]:
                raise VerifyError(f"reads word {int(used.max())} of {memories.shape[1]}")
            words = words % memories.shape[1]
        values = memories[j[None, None, :, :, None], words]
        if v["act_signed"]:
            signed = ((values ^ 8) - np.uint8(8)) if double else values
            return signed.view(np.int8), there
        return values, there

    # Engines

    def _dense(self, v: Mapping[str, int]) -> None:
        state, e = self.dense, self.dense.engine
        rate = 2 if v["double"] else 1
        groups, rows, steps, inputs = v["groups"], v["rows"], v["steps"], v["inputs"]
        taps = v["taps"]
        values, there = self._window(state, v, bool(v["double"]), inputs)
        values[~there] = 0
        lanes = values.shape[2]
        index = (
            v["weight_base"]
            + np.arange(groups)[:, None] * v["weight_step"]
            + np.arange(taps * inputs)
        )
        self._see("dense weight", np.unique(index), False)
        weights = state.weight[index]  # [groups, taps · inputs, po, pi]
        if v["weight_bits"] == 4 and (weights.min() < -8 or weights.max() > 7):
            raise VerifyError("weights of a 4-bit command do not fit 4 bits")
        matrix = weights.transpose(0, 2, 1, 3).reshape(groups * e.po, -1)
        columns = values.reshape(rows * steps * lanes, -1)
        bound = int(np.abs(matrix.astype(np.int64)).sum(axis=1).max(initial=0)) * 256
        kind = np.float32 if bound < 1 << 24 else np.float64
        sums = (columns.astype(kind) @ matrix.T.astype(kind)).astype(np.int64)
        sums = sums.reshape(rows * steps, lanes, groups, e.po)
        s = np.arange(groups)[:, None] * rows * steps + np.arange(rows * steps)
        first = v["sum_base"]
        half = first // e.accumulator.depth
        stop = first + groups * rows * steps * rate
        if (stop - 1) // e.accumulator.depth != half:
            raise VerifyError(f"sums {first}..{stop} cross the halves of the accumulator buffer")
        for k in range(lanes):
            memory, words = k % e.px, first + rate * s + k // e.px
            made = sums[:, k].transpose(1, 0, 2)
            if v["accumulate"]:
                state.sums[memory, words] += made
            else:
                state.sums[memory, words] = made
            if np.abs(state.sums[memory, words]).max(initial=0) > 1 << 31:
                raise VerifyError("a sum does not fit 32 bits")
        self._see("accumulator", [half], True)

    def _drain(self, v: Mapping[str, int]) -> None:
        state, e = self.dense, self.dense.engine
        rows, width, steps, blocks = v["rows"], v["width"], v["steps"], v["blocks"]
        x = np.arange(width)
        lanes = e.px * (2 if v["double"] else 1)
        b = np.arange(blocks)
        group, lane = b // (e.po // BLOCK), b % (e.po // BLOCK) * BLOCK
        s = (
            group[:, None, None] * rows * steps
            + np.arange(rows)[:, None] * steps
            + x // lanes
        )  # [blocks, rows, width]
        k = x % lanes
        memory = k % e.px
        words = v["sum_base"] + s * (2 if v["double"] else 1) + k // e.px
        channels = lane[:, None, None, None] + np.arange(BLOCK)
        sums = state.sums[
            np.broadcast_to(memory, s.shape)[..., None], words[..., None], channels
        ]
        self._see("accumulator", [v["sum_base"] // e.accumulator.depth], False)
        self._way_out(state, self.depthwise, v, sums)

    def _depthwise(self, v: Mapping[str, int]) -> None:
        state, e = self.depthwise, self.depthwise.engine
        groups, rows, steps, taps = v["groups"], v["rows"], v["steps"], v["taps"]
        values, there = self._window(state, v, False, groups)
        # [rows, steps, lanes, taps, groups, po]
        if v["maximum"]:
            sums = np.where(there[..., None, None], values.astype(np.int64), LEAST).max(axis=3)
        else:
            index = v["weight_base"] + np.arange(groups)[:, None] * taps + np.arange(taps)
            self._see("depthwise weight", np.unique(index), False)
            weights = state.weight[index][..., 0].astype(np.int64)  # [groups, taps, po]
            values[~there] = 0
            sums = np.einsum("yplt...,t...->ypl...", values.astype(np.int32),
                             weights.transpose(1, 0, 2).astype(np.int32))  # fmt: skip
            sums = sums.astype(np.int64)
        # [rows, steps, lanes, groups, po] to [blocks, rows, width, 8]
        image = sums.reshape(rows, steps * len(state.act), groups * e.po // BLOCK, BLOCK)
        image = image[:, : v["width"]].transpose(2, 0, 1, 3)[: v["blocks"]]
        self._way_out(state, self.dense, v, image)

    def _way_out(
        self, state: EngineState, other: EngineState, v: Mapping[str, int], sums: Ints
    ) -> None:
        """Requantise sums [blocks, rows, width, 8] and store them."""
        blocks, rows, width = sums.shape[:3]
        first = v["param_base"] * BLOCK
        params = slice(first, first + blocks * BLOCK)
        self._see(f"{state.engine.kind} param", range(params.start, params.stop), False)
        bias, m, e = (
            column[params].reshape(blocks, 1, 1, BLOCK)
            for column in (state.bias, state.m, state.e)
        )
        y = ((sums + bias) * m + (np.int64(1) << (e - 1))) >> e
        run = rows * width * BLOCK
        if v["residual"]:
            r = np.empty(sums.shape, np.int64)
            for b in range(blocks):
                start = v["res_address"] + b * v["block_step"]
                raw = self.memory[start : start + run]
                raw = raw.view(np.int8) if v["res_signed"] else raw
                r[b] = raw.reshape(rows, width, BLOCK)
                self._see_memory(start, run, False)
            half = np.int64(1) << (v["res_e"] - 1)
            scaled = (r * v["res_m"] + half) >> v["res_e"]
            y = np.clip(y, -32768, 32767) + np.clip(scaled, -32768, 32767)
        y = np.clip(y, v["lo"], v["hi"])
        if v["to_chip"]:
            words = other.place(
                v, np.arange(blocks), np.arange(rows), np.arange(width),
                (y & 0xFF).astype(np.uint8),
            )  # fmt: skip
            self._see(f"{other.engine.kind} act", words, True)
            return
        size = 2 if v["wide"] else 1
        for b in range(blocks):
            start = v["address"] + b * v["block_step"] * size
            if v["wide"]:
                data = y[b].astype("<i2").tobytes()
            else:
                data = (y[b] & 0xFF).astype(np.uint8).tobytes()
            self.memory[start : start + run * size] = np.frombuffer(data, np.uint8)
            self._see_memory(start, run * size, True)


def _unpack(raw: Bytes, bits: int) -> npt.NDArray[np.int8]:
    """Signed integers of ``bits`` from the low end of each row of bytes."""
    if bits == 8:
        return raw.view(np.int8)
    per = 8 // bits
    parts = raw[:, :, None].astype(np.int64) >> (np.arange(per) * bits) & ((1 << bits) - 1)
    parts = np.where(parts >= 1 << (bits - 1), parts - (1 << bits), parts)
    return parts.reshape(len(raw), -1).astype(np.int8)
