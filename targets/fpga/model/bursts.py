# SPDX-License-Identifier: Apache-2.0
"""Commands cut into bursts: runs that are read, and results in the order in which they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from codesign.space.accelerator import Engine
from codesign.targets.fpga.isa import BLOCK

LONGEST = 16
"""Beats of the longest burst; none crosses a multiple of it."""
FEW = 8
"""Entries of results after which it is looked whether there is room, where no burst ends."""


def cut(address: int, words: int, port: int) -> list[tuple[int, int, int]]:
    """Bursts of a run of ``words`` 8-byte words: (aligned address, beats, words)."""
    most = LONGEST * port // 8
    found, at = [], address // 8
    while words > 0:
        size = min(words, most - at % most)
        low = at * 8 // port
        found.append((low * port, (at + size - 1) * 8 // port - low + 1, size))
        at += size
        words -= size
    return found


@dataclass(slots=True)
class Part:
    """Some results of a command, up to the next moment at which something is to be looked at."""

    time: int
    """Cycles of the unit's own loop up to the last of them, if nothing stalls."""
    first: int
    """The same up to the first of them."""
    start: int
    """The same up to the start of the step that makes the last of them."""
    before: int
    """Entries up to the start of that step (depthwise)."""
    entries: int
    """Entries of the queue of results up to the last of them."""
    words: int
    """Residual words up to the last of them."""
    passes: int
    """Units of results, one a cycle."""
    address: int = 0
    """Of their burst, if one is closed."""
    beats: int = 0
    """Of the burst that they close; 0: none."""
    beats_made: int = 0
    """Of their own."""
    foreign: bool = False
    """The burst is only closed by the beat that follows it."""
    pair: int = 0
    """1: it takes two units of results to fill their first beat."""
    half: int = 0
    """1: the command's last beat is not full and goes a cycle after its results."""
    last: bool = False
    dropped: int = 0
    """Entries that go nowhere, one a cycle."""


@dataclass(frozen=True)
class Shape:
    """How a unit makes results: drain or depthwise."""

    px: int
    pixels: int
    """Of an entry."""
    halves: int
    """Cycles of an entry."""
    blocks: int
    """Of a step; 0: a step is one entry (drain)."""
    port: int

    @staticmethod
    def of(engine: Engine, port: int) -> Shape:
        """Of an engine's way out."""
        blocks = 0 if engine.kind == "dense" else engine.po // BLOCK
        pixels = max(1, engine.post // BLOCK)
        return Shape(engine.px, pixels, 2 if engine.post < BLOCK else 1, blocks, port)

    @property
    def makes(self) -> int:
        """Entries of a depthwise step."""
        return self.blocks * -(-self.px // self.pixels)

    def entries(self, pixels: int) -> int:
        """Of so many pixels of a row."""
        whole, rest = divmod(pixels, self.px)
        return whole * -(-self.px // self.pixels) + -(-rest // self.pixels)

    def reach(self, entries: int) -> int:
        """Pixels of a row that so many entries cover."""
        whole, rest = divmod(entries, -(-self.px // self.pixels))
        return whole * self.px + rest * self.pixels

    def least(self, residual: bool) -> int:
        """Cycles of a depthwise step at least."""
        return max(self.makes * self.halves, 2 if residual else 0)


@dataclass(slots=True)
class _Piece:
    """Results that follow each other in memory."""

    address: int
    words: int
    """Of 8 bytes of memory."""
    pixels: int
    entries: int
    time: int
    start: int
    before: int = 0


def _drained(v: Mapping[str, int], s: Shape) -> Iterator[_Piece]:
    """Rows of blocks."""
    scale = 2 if v.get("wide") else 1
    row = s.entries(v["width"])
    time = 0
    for block in range(v["blocks"]):
        at = v.get("address", 0) + block * v.get("block_step", 0) * scale
        for _ in range(v["rows"]):
            time += row * s.halves
            yield _Piece(at, v["width"] * scale, v["width"], row, time, time - row * s.halves)
            at += v["width"] * BLOCK * scale


def _stepped(v: Mapping[str, int], s: Shape, least: int) -> Iterator[_Piece]:
    """Blocks of steps."""
    scale = 2 if v.get("wide") else 1
    entries = -(-s.px // s.pixels)
    step, block_step = max(v["taps"], least), v.get("block_step", 0) * scale
    begun = count = 0
    for group in range(v["groups"]):
        base = v.get("address", 0) + group * s.blocks * block_step
        there = min(s.blocks, v["blocks"] - group * s.blocks)
        for row in range(v["rows"]):
            for place in range(v["steps"]):
                x = place * s.px
                pixels = min(s.px, v["width"] - x)
                made = begun + v["taps"]
                for block in range(s.blocks):
                    made += entries * s.halves
                    some = pixels if block < there else 0
                    yield _Piece(
                        base + block * block_step + (row * v["width"] + x) * BLOCK * scale,
                        some * scale, some, entries, made, begun, count,
                    )  # fmt: skip
                begun += step
                count += s.blocks * entries


def parts(v: Mapping[str, int], s: Shape, least: int, halved: bool) -> Iterator[Part]:
    """The results of a command. ``least``: cycles of a depthwise step at least; ``halved``: results
    on chip take two cycles for each pixel."""
    pieces = _stepped(v, s, least) if s.blocks else _drained(v, s)
    return _placed(pieces, s.halves, halved) if v.get("to_chip") else _stored(v, s, pieces)


def residual_runs(v: Mapping[str, int], s: Shape) -> list[tuple[int, int]]:
    """What a command reads of its residual, (address, words), in the order of its results."""
    base, step = v["res_address"], v["block_step"]
    if s.blocks <= 1:
        return [(base + b * step, v["rows"] * v["width"]) for b in range(v["blocks"])]
    return [
        (base + block * step + (row * v["width"] + x) * BLOCK, min(s.px, v["width"] - x))
        for group in range(0, v["blocks"], s.blocks)
        for row in range(v["rows"])
        for x in range(0, v["width"], s.px)
        for block in range(group, min(group + s.blocks, v["blocks"]))
    ]


def _stored(v: Mapping[str, int], s: Shape, pieces: Iterator[_Piece]) -> Iterator[Part]:
    """Results that go to memory."""
    scale = 2 if v.get("wide") else 1
    port, longest = s.port, LONGEST * s.port
    few = longest // 2
    entries = told = words = passes = made = 0
    opened = first = -1  # the open burst's first byte; when the first of the results is made
    pair = 0
    piece: _Piece | None = next(pieces)
    while piece is not None:
        entries += piece.entries
        after = next(pieces, None)
        dropped = 0
        while after is not None and not after.words:  # blocks that are dropped
            dropped += after.entries
            final, after = after, next(pieces, None)
        at, end = piece.address, piece.address + 8 * piece.words
        pixel = inside = 0
        whole = words  # pixels of all pieces before
        while at < end:
            if opened < 0:
                opened = at
                made -= at // port
            else:
                made -= -(-at // port)
            if first < 0:
                first = piece.time - (piece.entries - inside) * s.halves
                pair = int(8 * scale * s.pixels < port and at % port == 0)
            size = min(end - at, few - at % few)
            at += size
            made += -(-at // port)
            before, pixel = (inside, pixel), (at - piece.address) // (8 * scale)
            inside = s.entries(pixel)
            words = whole + min(piece.pixels, s.reach(inside))
            passes += inside - before[0] if scale == 1 else pixel - before[1]
            ends, closes = at == end, at % longest == 0
            if not ends and not closes and at % few:
                continue
            foreign = ends and not closes and (after is None or after.address != at)
            closes |= foreign
            if not closes and ends and at % few and entries - told < FEW and not dropped:
                continue  # goes on in the next piece
            told = entries
            rest = piece.entries - inside
            share, time = entries - rest, piece.time - rest * s.halves
            last = ends and after is None and not dropped
            part = Part(time, first, piece.start, piece.before, share, words, passes)
            first = -1
            part.beats_made, part.pair = made, pair
            passes = made = 0
            if closes:
                part.address = opened // port * port
                part.beats = -(-at // port) - opened // port
                part.foreign, part.last = foreign and not last, last
                part.half = int(last and at % port > 0)
                opened = -1
            yield part
        if dropped:
            entries += dropped
            told = entries
            yield Part(
                final.time, final.time - dropped * s.halves, final.start, final.before, entries,
                words, 0, last=after is None, dropped=dropped,
            )  # fmt: skip
        piece = after


def _placed(pieces: Iterator[_Piece], halves: int, halved: bool) -> Iterator[Part]:
    """Results that stay on chip."""
    entries = words = passes = told = 0
    first, piece = -1, None
    for piece in pieces:
        if first < 0:
            first = piece.time - piece.entries * halves
        entries += piece.entries
        words += piece.pixels
        passes += piece.pixels * (2 if halved else 1)
        if entries - told >= FEW:
            yield Part(piece.time, first, piece.start, piece.before, entries, words, passes)
            passes, told, first = 0, entries, -1
    assert piece is not None
    if first < 0:
        first = piece.time
    yield Part(piece.time, first, piece.start, piece.before, entries, words, passes, last=True)
