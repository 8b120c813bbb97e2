# SPDX-License-Identifier: Apache-2.0
"""What the jobs of one network share while they are turned into commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from codesign.ir.graph import Array
from codesign.space.accelerator import Accelerator, Engine
from codesign.targets.fpga.compile.emit import Access, Emitter, Ring
from codesign.targets.fpga.compile.geometry import Layout, Rows, check_limit
from codesign.targets.fpga.compile.jobs import Finish, Job
from codesign.targets.fpga.compile.places import Memory, Place, Region
from codesign.targets.fpga.isa import BLOCK, PARAM_BLOCKS, TAPS, Dest, Param, Tap, Unit

_DESTS = {
    "dense": (Dest.DENSE_WEIGHT, Dest.DENSE_PARAM, Dest.DENSE_TAP, Dest.DENSE_ACT),
    "depthwise": (
        Dest.DEPTHWISE_WEIGHT, Dest.DEPTHWISE_PARAM, Dest.DEPTHWISE_TAP, Dest.DEPTHWISE_ACT,
    ),
}  # fmt: skip


@dataclass
class Buffers:
    """The buffers of one engine."""

    engine: Engine
    weight: Ring
    act: Ring
    param: Ring
    tap: Ring
    half: int = 1
    """Half of the accumulator buffer that was used last."""

    @staticmethod
    def of(engine: Engine) -> Buffers:
        """All empty."""
        k = engine.kind
        return Buffers(
            engine,
            Ring(f"{k} weight", engine.weight.depth * engine.weight.banks),
            Ring(f"{k} activation", engine.activation.depth * engine.activation.banks),
            Ring(f"{k} parameter", PARAM_BLOCKS * BLOCK, BLOCK),
            Ring(f"{k} tap", TAPS),
        )


@dataclass
class Context:
    """Commands, constants and places of a network being compiled."""

    accelerator: Accelerator
    places: Mapping[str, Place]
    memory: Memory
    emitter: Emitter
    dense: Buffers
    depthwise: Buffers
    blobs: list[tuple[Region, bytes]] = field(default_factory=list)
    signs: Mapping[str, bool] = field(default_factory=dict)
    """Whether values are signed, also those that never stand in memory."""
    _taps: dict[tuple[str, bytes], tuple[int, int, Access]] = field(default_factory=dict)

    def buffers(self, kind: str) -> Buffers:
        """Of an engine."""
        return self.dense if kind == "dense" else self.depthwise

    def blob(self, name: str, data: bytes) -> int:
        """Put constants into the memory image; returns their address."""
        region = self.memory.take(name, len(data))
        self.blobs.append((region, data))
        return region.address

    # Loads

    def load_words(
        self, kind: str, which: int, layer: str, address: int, base: int, count: int, bits: int = 8
    ) -> Access:
        """Load weights (which = 0), parameters (1) or taps (2); returns what was written."""
        buffers = self.buffers(kind)
        ring = (buffers.weight, buffers.param, buffers.tap)[which]
        written = Access(ring.name, base, base + count)
        values = {"dest": _DESTS[kind][which], "address": address, "base": base, "count": count}
        if which == 0:
            values["bits"] = bits
        self.emitter.add(Unit.LOAD, values, layer, writes=[written])
        return written

    def load_params(self, kind: str, layer: str, finish: Finish) -> int:
        """Load bias, m and e of all channels; returns the first block."""
        channels = -(-len(finish.m) // BLOCK) * BLOCK
        data = b"".join(
            Param(int(b), int(m), int(e)).encode()
            for b, m, e in zip(finish.bias, finish.m, finish.e)
        )
        data += Param(0, 0, 1).encode() * (channels - len(finish.m))
        base = self.buffers(kind).param.take(channels, layer)
        self.load_words(kind, 1, layer, self.blob(f"{layer}.params", data), base, channels)
        return base // BLOCK

    def load_taps(self, kind: str, layer: str, taps: Sequence[Tap]) -> Access:
        """Load taps, unless the same ones are still there; returns where they are."""
        data = b"".join(tap.encode() for tap in taps)
        ring = self.buffers(kind).tap
        known = self._taps.get((kind, data))
        if known is not None and known[1] in ring.live:
            return known[2]
        address = self.blob(f"{layer}.taps", data) if known is None else known[0]
        base = ring.take(len(taps), layer)
        at = self.load_words(kind, 2, layer, address, base, len(taps))
        self._taps[kind, data] = (address, ring.taken, at)
        return at

    def load_image(
        self, job: Job, source: Place, layout: Layout, base: int, block: int, blocks: int,
        rows: Rows, placed_row: int = 0, written: Sequence[Access] = (),
    ) -> Access:  # fmt: skip
        """Load rows of an image into the engine's activation buffer at ``base`` (of row 0).
        ``written``: the words, where they are not simply those from ``base`` on."""
        step_y, step_x = job.repeat
        low = rows.low // step_y
        high = -(-rows.high // step_y)
        check_limit(job.name, "rows", (high - low) * step_y)
        check_limit(job.name, "width", source.columns)
        at = base + placed_row * layout.row_words
        size = ((high - low) * step_y - 1) * layout.row_words + layout.row_words
        whole = Access(self.buffers(job.kind).act.name, at, at + size)
        values = {
            "dest": _DESTS[job.kind][3], "address": source.at(block, low * source.columns),
            "base": at, "blocks": blocks, "block_step": source.block_step, "rows": high - low,
            "width": source.columns, **layout.fields((high - low) * step_y),
            "repeat_x": step_x, "repeat_y": step_y,
            "place_nibbles": int(layout.lanes > self.buffers(job.kind).engine.px),
        }  # fmt: skip
        read = self.touch(source, block, blocks, low * source.columns, high * source.columns)
        self.emitter.add(
            Unit.LOAD, values, job.name, reads=[read], writes=list(written) or [whole]
        )
        return whole

    def load_run(
        self, job: Job, source: Place, layout: Layout, base: int, block: int, blocks: int,
        start: int, stop: int,
    ) -> Access:  # fmt: skip
        """Load pixels start..stop as one row."""
        check_limit(job.name, "width", stop - start)
        written = Access(
            self.buffers(job.kind).act.name, base, base + -(-(stop - start) // layout.lanes)
            * layout.group,
        )  # fmt: skip
        values = {
            "dest": _DESTS[job.kind][3], "address": source.at(block, start), "base": base,
            "blocks": blocks, "block_step": source.block_step, "rows": 1, "width": stop - start,
            **layout.fields(1),
            "place_nibbles": int(layout.lanes > self.buffers(job.kind).engine.px),
        }  # fmt: skip
        read = self.touch(source, block, blocks, start, stop)
        self.emitter.add(Unit.LOAD, values, job.name, reads=[read], writes=[written])
        return written

    # Memory

    def touch(self, place: Place, block: int, blocks: int, start: int, stop: int) -> Access:
        """Pixels start..stop of some blocks of a value."""
        first = place.block + block
        return Access(f"memory {place.region.name}", start, stop, first, first + blocks)

    def way_out(
        self, finish: Finish, block: int, blocks: int, start: int, stop: int,
        out: Place, residual: Place | None, param_block: int,
    ) -> tuple[dict[str, int], list[Access], list[Access]]:  # fmt: skip
        """Fields of results to memory, and what is read and written there."""
        values = {
            "address": out.at(block, start), "block_step": out.block_step,
            "param_base": param_block + block, "lo": finish.lo, "hi": finish.hi,
            "wide": int(out.wide), "blocks": blocks,
        }  # fmt: skip
        own = []
        if residual is not None:
            values |= {
                "residual": 1, "res_address": residual.at(block, start),
                "res_m": finish.res_m, "res_e": finish.res_e,
                "res_signed": int(residual.dtype.kind == "signed"),
            }  # fmt: skip
            own.append(self.touch(residual, block, blocks, start, stop))
        return values, own, [self.touch(out, block, blocks, start, stop)]


def pack_weights(words: Array, bits: int) -> bytes:
    """Words [n, weights] of integers in ``bits`` bits each, every word at a byte."""
    if bits == 8:
        return bytes(np.ascontiguousarray(words.astype(np.int8)).tobytes())
    mask = (1 << bits) - 1
    per = 8 // bits
    n, k = words.shape
    pad = -k % per
    raw = np.pad(words.astype(np.int64) & mask, ((0, 0), (0, pad))).reshape(n, -1, per)
    shifted = raw << (np.arange(per) * bits)
    return bytes(shifted.sum(axis=2).astype(np.uint8).tobytes())


def packed_bits(bits: int) -> int:
    """Bits that a weight of ``bits`` takes in memory."""
    return 2 if bits <= 2 else 4 if bits <= 4 else 8
