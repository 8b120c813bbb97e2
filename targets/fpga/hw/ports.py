# SPDX-License-Identifier: Apache-2.0
"""Signatures between the parts of the accelerator.

All are seen from the part that starts the transfer. Addresses are bytes relative to the base
register, multiples of 8, as in ``docs/accelerator.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from codesign.space.accelerator import Engine
from codesign.targets.fpga.isa import BLOCK

ADDRESS_BITS = 32
RUN_BITS = 28
"""Bytes of one run that is read: at most rows · width · 8."""


# Stores: drain and depthwise to the memory writer.

STORE_UNIT = data.StructLayout({"address": ADDRESS_BITS, "data": 128, "words": 2, "last": 1})
"""``words`` (0, 1, 2) times 8 bytes of ``data`` go to ``address`` onwards: one or two neighbouring
block pixels, or one of 16-bit results. The last unit of every command has ``last``; commands
whose results stay on chip send a single unit with ``words`` 0 and ``last`` after their last buffer
write. The writer tells ``finished`` in order, so that a unit need not tell itself."""


def store_stream() -> Any:
    """Stream of ``STORE_UNIT``, seen from drain or depthwise."""
    return stream.Signature(STORE_UNIT)


# Residual reads of drain and depthwise.

RESIDUAL_RUN = data.StructLayout({"address": ADDRESS_BITS, "words": RUN_BITS - 3})
"""One run of ``words`` block pixels (8 bytes each) in memory."""

ResidualSignature = Signature(
    {
        "run": Out(stream.Signature(RESIDUAL_RUN)),
        "room": Out(1),
        "count": In(2),
        "words": In(data.ArrayLayout(64, 2)),
    }
)
"""``run``: requests; may be sent ahead. ``count`` (0, 1, 2) of ``words`` come in this cycle, the
next block pixels in order; none unless there was ``room`` (for two) in the cycle before. Runs
follow each other without a gap in ``words``."""


# Buffer writes of the loader. ``hw/buffers.py`` has the other side.


@cache
def word_granules(weights: int, port_bits: int) -> tuple[int, int]:
    """(weights of a granule, weights of a chunk) of a weight buffer's word of ``weights``.

    One beat of 8-bit weights is a granule (or several, when the word is smaller), one beat of
    2-bit weights at most a chunk. Both divide the word.
    """
    granule, chunk = port_bits // 8, port_bits // 2
    while weights % granule:
        granule //= 2
    while weights % chunk:
        chunk //= 2
    return granule, chunk


def weights_of_word(engine: Engine) -> int:
    """Weights in one word of the engine's weight buffer."""
    return engine.pi * engine.po


@cache
def weight_write(engine: Engine, port_bits: int) -> Any:
    """Loader to weight buffer; always taken.

    Place k of the word (0 .. pi · po − 1) takes weight ``data[k mod chunk]`` if
    ``mask[k div granule]``.
    """
    weights = weights_of_word(engine)
    granule, chunk = word_granules(weights, port_bits)
    return Signature(
        {
            "valid": Out(1),
            "address": Out(ceil_log2(engine.weight.depth * engine.weight.banks)),
            "mask": Out(weights // granule),
            "data": Out(chunk * engine.weight_bits),
        }
    )


ItemWriteSignature = Signature({"valid": Out(1), "index": Out(13), "data": Out(64)})
"""Loader to parameter memory (``index``: channel) or tap memory (``index``: tap); always taken."""


@dataclass(frozen=True)
class ActShape:
    """How an activation buffer's write side looks."""

    block_bits: int
    """Bits written at once: a block of 8 channels, or 4 channels when pi = 4."""
    lanes: int
    """Blocks of a word (PB; 1 for pi = 4)."""
    address_bits: int
    memory_bits: int
    slots: int
    """Writes in one cycle: 2 on a 128-bit port."""

    @staticmethod
    def of(engine: Engine, port_bits: int) -> ActShape:
        """Of an engine's activation buffer."""
        channels = engine.pi if engine.kind == "dense" else engine.po
        lanes = max(1, channels // BLOCK)
        memories = engine.px * (2 if engine.double else 1)
        return ActShape(
            block_bits=8 * min(channels, BLOCK),
            lanes=lanes,
            address_bits=ceil_log2(engine.activation.depth * engine.activation.banks),
            memory_bits=max(1, ceil_log2(memories)),
            slots=2 if port_bits >= 128 else 1,
        )


def act_slot(shape: ActShape) -> Any:
    """One write: ``data`` to block ``lane`` of word ``address`` of ``memory``, all as in the page's
    "placing" (with nibbles: L = 2 · px memories, 4-bit values packed into the lower half of
    ``data``)."""
    return data.StructLayout(
        {
            "valid": 1,
            "memory": shape.memory_bits,
            "address": shape.address_bits,
            "lane": max(1, ceil_log2(shape.lanes)),
            "data": shape.block_bits,
        }
    )


def act_write(engine: Engine, port_bits: int) -> Any:
    """Loader to activation buffer: up to two writes in a cycle, never two to one memory.

    Both happen in a cycle with ``valid`` and ``ready``; results on chip go first.
    """
    shape = ActShape.of(engine, port_bits)
    payload = data.StructLayout(
        {"nibbles": 1, "slots": data.ArrayLayout(act_slot(shape), shape.slots)}
    )
    return stream.Signature(payload)


# Memory port.


@dataclass(frozen=True)
class Port:
    """Width and limits of the memory port."""

    bits: int = 128
    """64 or 128."""
    burst: int = 16
    """Beats of the longest burst: 16 (AXI3, Zynq-7000) up to 256."""
    reads: int = 8
    """Read bursts outstanding."""
    writes: int = 8

    @property
    def words(self) -> int:
        """8-byte words of a beat."""
        return self.bits // 64


READ_RUN = data.StructLayout({"address": ADDRESS_BITS, "words": RUN_BITS - 3})
"""One run of ``words`` times 8 bytes."""


def read_beat(port: Port) -> Any:
    """One beat of a run; ``last`` is the run's last beat."""
    return data.StructLayout({"data": port.bits, "mask": port.words, "last": 1})


def read_client(port: Port) -> Any:
    """Seen from who reads: runs out, beats in (aligned to the port: ``mask`` names the 8-byte words
    of a beat that belong to the run)."""
    return Signature(
        {
            "run": Out(stream.Signature(READ_RUN)),
            "beat": In(stream.Signature(read_beat(port))),
        }
    )
