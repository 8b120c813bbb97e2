# SPDX-License-Identifier: Apache-2.0
"""A job of the dense engine, tile by tile: loads, sums, drain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from codesign.cost.tiles import Tile
from codesign.errors import InfeasibleError
from codesign.ir.graph import Array
from codesign.space.accelerator import Engine
from codesign.targets.fpga.compile.context import Context, pack_weights, packed_bits
from codesign.targets.fpga.compile.emit import Access
from codesign.targets.fpga.compile.geometry import (
    WORDS,
    Layout,
    Rows,
    check_limit,
    input_rows,
    taps_of,
)
from codesign.targets.fpga.compile.jobs import Finish, Job
from codesign.targets.fpga.compile.places import Place
from codesign.targets.fpga.compile.selection import MOST_TAPS
from codesign.targets.fpga.isa import BLOCK, Unit


@dataclass(frozen=True)
class Cut:
    """Pieces start..stop of something."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length."""
        return self.stop - self.start


def cuts(total: int, part: int) -> list[Cut]:
    """``total`` in pieces of ``part``; the last one may be smaller."""
    return [Cut(at, min(at + part, total)) for at in range(0, total, part)]


def dense_words(weights: Array, engine: Engine, groups: int, words: int) -> Array:
    """Weights [O, I, taps], filled up with zeros, as buffer words [n, po · pi]: group after group,
    tap after tap, input word after input word."""
    e, taps = engine, weights.shape[2]
    full = np.zeros((groups * e.po, words * e.pi, taps), np.int8)
    full[: weights.shape[0], : weights.shape[1]] = weights
    split = full.reshape(groups, e.po, words, e.pi, taps).transpose(0, 4, 2, 1, 3)
    return split.reshape(groups * taps * words, e.po * e.pi)


@dataclass
class DenseJob:
    """One group of a dense job on its way to commands."""

    context: Context
    job: Job
    tile: Tile
    weights: Array
    """[O, I, taps] of this group."""
    finish: Finish
    source: Place
    out: Place
    residual: Place | None

    def __post_init__(self) -> None:
        c, job = self.context, self.job
        self.buffers = c.dense
        self.engine = e = c.dense.engine
        self.lanes = e.px * self.tile.rate
        self.words = -(-self.weights.shape[1] // e.pi)
        self.groups = -(-self.weights.shape[0] // e.po)
        self.flat = job.flat
        self.sub = BLOCK // e.pi if e.pi < BLOCK else 1
        self.bits = packed_bits(job.weight_bits)
        inputs = self.tile.inputs
        if self.sub > 1 and inputs < self.words:
            inputs = -(-inputs // self.sub) * self.sub  # whole blocks are loaded
        self.inputs = cuts(self.words, min(inputs, self.words))
        self.channels = cuts(self.groups, min(self.tile.channels, self.groups))
        kernel = job.kernel
        per = max(1, MOST_TAPS // kernel[1])
        if kernel[1] > MOST_TAPS:
            raise InfeasibleError(
                f"layer {job.name!r}: a kernel of {kernel[1]} columns; at most {MOST_TAPS}"
            )
        # all taps at once, or some kernel rows after the other
        self.chunks = cuts(kernel[0], kernel[0] if job.taps <= MOST_TAPS else per)
        if self.flat:
            pixels = job.out_size[0] * job.out_size[1]
            run = self.tile.rows * job.out_size[1]
            run = min(-(-run // self.lanes) * self.lanes, 16383 // self.lanes * self.lanes)
            self.rows = cuts(pixels, run)
        else:
            self.rows = cuts(job.out_size[0], self.tile.rows)
        self.uniform = bool((self.weights == self.weights[:, :, :1]).all()) and (
            len(self.chunks) > 1
        )

    # Constants

    def weight_words(self, channels: Cut, inputs: Cut, chunk: Cut) -> Array:
        """Words [n, po · pi] of a tile: group after group, tap after tap, input after input."""
        e, kw = self.engine, self.job.kernel[1]
        o0, o1 = channels.start * e.po, channels.stop * e.po
        i0, i1 = inputs.start * e.pi, inputs.stop * e.pi
        part = self.weights[o0:o1, i0:i1, chunk.start * kw : chunk.stop * kw]
        return dense_words(part, e, channels.size, inputs.size)

    def _addresses(self) -> dict[tuple[int, int, int], int]:
        found: dict[tuple[int, int, int], int] = {}
        for c, channels in enumerate(self.channels):
            for i, inputs in enumerate(self.inputs):
                for k, chunk in enumerate(self.chunks):
                    if self.uniform and k and chunk.size == self.chunks[0].size:
                        found[c, i, k] = found[c, i, 0]
                        continue
                    data = pack_weights(self.weight_words(channels, inputs, chunk), self.bits)
                    found[c, i, k] = self.context.blob(f"{self.job.name}.weights", data)
        return found

    # Commands

    def emit(self, param_block: int) -> None:
        """All commands of the group; ``param_block`` holds its parameters."""
        self.param_block = param_block
        self.addresses = self._addresses()
        self.held: dict[tuple[int, int, int], Access] = {}
        self.first_piece = 0  # number of the piece with the first chunk's weights
        order = self.tile.order
        again = len(self.inputs) > 1 or len(self.chunks) > 1
        by_rows = order in ("spatial", "weights")
        self.base = {}
        if order == "weights":
            total = sum(
                c.size * i.size * self.chunk_taps(k)
                for c in self.channels for i in self.inputs for k in range(len(self.chunks))
            )  # fmt: skip
            at = self.buffers.weight.take(total, self.job.name)
            for c, channels in enumerate(self.channels):
                for i, inputs in enumerate(self.inputs):
                    for k in range(len(self.chunks)):
                        self.base[c, i, k] = at
                        at += channels.size * inputs.size * self.chunk_taps(k)
        rows, channels_ = range(len(self.rows)), range(len(self.channels))
        pairs = (
            [(r, c) for r in rows for c in channels_]
            if by_rows
            else [(r, c) for c in channels_ for r in rows]
        )
        if order == "inputs":
            self._whole_image()
        for r, c in pairs:
            self._tile(r, c, *self._brings(r, c, again))

    def _brings(self, r: int, c: int, again: bool) -> tuple[bool, bool]:
        """Whether a tile loads inputs, and weights; ``again``: sums need several commands."""
        split = len(self.inputs) > 1
        many_rows, many_channels = len(self.rows) > 1, len(self.channels) > 1
        match self.tile.order:
            case "spatial":
                return c == 0 or split, many_channels or again or r == 0
            case "channel":
                return many_rows or split or c == 0, r == 0 or again
            case "weights":
                return c == 0 or split, r == 0
            case _:
                return c == 0, r == 0 or again

    def chunk_taps(self, k: int) -> int:
        """Taps of a chunk."""
        return self.chunks[k].size * self.job.kernel[1]

    def _blocks(self, inputs: Cut) -> Cut:
        """Blocks of 8 channels that hold some input words."""
        e = self.engine
        blocks = -(-self.weights.shape[1] // BLOCK)
        return Cut(inputs.start * e.pi // BLOCK, min(-(-inputs.stop * e.pi // BLOCK), blocks))

    def _layout(self, inputs: Cut, columns: int) -> Layout:
        blocks = self._blocks(inputs)
        stride = 1 if self.flat else self.job.stride[1]
        return Layout.of(self.engine, self.tile.rate, stride, columns, blocks.size)

    def _input_rows(self, r: int) -> Rows:
        job = self.job
        cut = self.rows[r]
        return input_rows(
            cut.start, cut.stop, job.stride[0], job.kernel[0], job.dilation[0], job.padding[0],
            job.in_size[0],
        )  # fmt: skip

    def _whole_image(self) -> None:
        """Room for all inputs, which stay; rows are loaded as they are needed."""
        job = self.job
        self.image: dict[int, tuple[int, Layout, int]] = {}
        for i, inputs in enumerate(self.inputs):
            if self.flat:
                pixels = job.out_size[0] * job.out_size[1]
                layout = self._layout(inputs, pixels)
                words = layout.residue_words
            else:
                layout = self._layout(inputs, job.in_size[1])
                words = layout.row_words * job.in_size[0]
            self.image[i] = (self.buffers.act.take(words, job.name), layout, 0)

    def _load_inputs(self, r: int, i: int) -> None:
        context, job, inputs = self.context, self.job, self.inputs[i]
        blocks = self._blocks(inputs)
        if self.tile.order == "inputs":
            base, layout, loaded = self.image[i]
            if self.flat:
                cut = self.rows[r]
                at = base + cut.start // self.lanes * layout.group
                context.load_run(job, self.source, layout, at, blocks.start, blocks.size,
                                 cut.start, cut.stop)  # fmt: skip
            else:
                rows = self._input_rows(r)
                low, high = max(rows.low, loaded), rows.high
                if high > low:
                    context.load_image(job, self.source, layout, base, blocks.start, blocks.size,
                                       Rows(low, low, high), low)  # fmt: skip
                    self.image[i] = (base, layout, high)
            return
        if self.flat:
            cut = self.rows[r]
            layout = self._layout(inputs, cut.size)
            base = self.buffers.act.take(layout.residue_words, job.name)
            context.load_run(job, self.source, layout, base, blocks.start, blocks.size,
                             cut.start, cut.stop)  # fmt: skip
            self.act = (base, layout, 0)
            return
        rows = self._input_rows(r)
        layout = self._layout(inputs, job.in_size[1])
        base = self.buffers.act.take(max(1, rows.high - rows.low) * layout.row_words, job.name)
        if rows.high > rows.low:
            context.load_image(job, self.source, layout, base, blocks.start, blocks.size, rows)
        self.act = (base, layout, rows.low)

    def _load_weights(self, c: int, i: int, k: int) -> None:
        words = self.channels[c].size * self.inputs[i].size * self.chunk_taps(k)
        ring = self.buffers.weight
        same = self.uniform and k > 0 and self.chunks[k].size == self.chunks[0].size
        if same and self.first_piece in ring.live:
            self.held[c, i, k] = self.held[c, i, 0]
            return
        resident = self.tile.order == "weights"
        base = self.base[c, i, k] if resident else ring.take(words, self.job.name)
        if k == 0:
            self.first_piece = ring.taken
        self.held[c, i, k] = self.context.load_words(
            "dense", 0, self.job.name, self.addresses[c, i, k], base, words, self.bits
        )

    def _taps(self, r: int, i: int, k: int) -> Access:
        """Taps of a chunk; they come before the activations, which wait for the layer before."""
        job, inputs, chunk = self.job, self.inputs[i], self.chunks[k]
        if self.flat:
            pixels = job.out_size[0] * job.out_size[1]
            columns = pixels if self.tile.order == "inputs" else self.rows[0].size
        else:
            columns = job.in_size[1]
        layout = self._layout(inputs, columns)
        taps = taps_of(layout, job.kernel, job.dilation, job.padding[1], columns)
        kw = job.kernel[1]
        return self.context.load_taps("dense", job.name, taps[chunk.start * kw : chunk.stop * kw])

    def _tile(self, r: int, c: int, load_inputs: bool, load_weights: bool) -> None:
        context, job, e = self.context, self.job, self.engine
        cut, channels = self.rows[r], self.channels[c]
        rows, width = (1, cut.size) if self.flat else (cut.size, job.out_size[1])
        steps = -(-width // self.lanes)
        sums = channels.size * rows * steps * self.tile.rate
        depth = e.accumulator.depth
        if sums > depth:
            raise InfeasibleError(
                f"layer {job.name!r}: a tile has {sums} sums, half of the accumulator buffer holds "
                f"{depth}; give smaller tiles or a buffer {sums - depth} words deeper"
            )
        for name, value in (("rows", rows), ("width", width), ("groups", channels.size)):
            check_limit(job.name, name, value)
        self.buffers.half = half = 1 - self.buffers.half
        sum_base = half * depth
        half_access = Access("accumulator", half, half + 1)
        for i, inputs in enumerate(self.inputs):
            check_limit(job.name, "inputs", inputs.size)
            for k in range(len(self.chunks)):
                if load_weights:
                    self._load_weights(c, i, k)
                taps = self._taps(r, i, k)
                if load_inputs and k == 0:
                    self._load_inputs(r, i)
                self._sum(r, c, i, k, taps, (rows, width, steps), half_access)
        start = cut.start if self.flat else cut.start * job.out_size[1]
        stop = cut.stop if self.flat else cut.stop * job.out_size[1]
        block = channels.start * e.po // BLOCK
        blocks = min(channels.stop * e.po // BLOCK, -(-self.weights.shape[0] // BLOCK)) - block
        check_limit(job.name, "blocks", blocks)
        values, own, writes = context.way_out(
            self.finish, block, blocks, start, stop, self.out, self.residual,
            self.param_block,
        )  # fmt: skip
        params = Access(
            self.buffers.param.name, (self.param_block + block) * BLOCK,
            (self.param_block + block + blocks) * BLOCK,
        )  # fmt: skip
        values |= {"sum_base": sum_base, "rows": rows, "width": width, "steps": steps,
                   "double": int(self.tile.rate == 2)}  # fmt: skip
        context.emitter.add(
            Unit.DRAIN, values, job.name, reads=[half_access, params], writes=writes, own=own
        )

    def _sum(
        self, r: int, c: int, i: int, k: int, taps: Access, size: tuple[int, int, int],
        half: Access,
    ) -> None:  # fmt: skip
        job, weight = self.job, self.held[c, i, k]
        rows, width, steps = size
        inputs = self.inputs[i]
        base, layout, low = self.image[i] if self.tile.order == "inputs" else self.act
        if self.tile.order == "inputs":
            low = 0
        if self.flat:
            start = self.rows[r].start // self.lanes * layout.group
            act_base = base + (start if self.tile.order == "inputs" else 0)
            first, act_rows = 0, 1
            used = Access(self.buffers.act.name, act_base, act_base + steps * layout.group)
        else:
            found = self._input_rows(r)
            first = found.first - low
            act_rows = found.high - low
            act_base = (base + first * layout.row_words) % WORDS
            used = Access(
                self.buffers.act.name, base + (found.low - low) * layout.row_words,
                base + act_rows * layout.row_words,
            )  # fmt: skip
        n = self.chunk_taps(k)
        weight_step = n * inputs.size
        narrow = job.weight_bits <= 4
        values = {
            "act_base": act_base, "act_row_step": (job.stride[0] * layout.row_words) % WORDS
            if rows > 1 else 0,
            "act_group": layout.group, "act_rows": act_rows, "act_y0": first,
            "act_y_step": job.stride[0], "act_signed": int(self.source.dtype.kind == "signed"),
            "weight_base": weight.lo1, "tap_base": taps.lo1, "taps": n, "rows": rows,
            "width": width, "steps": steps, "groups": self.channels[c].size,
            "inputs": inputs.size, "weight_step": weight_step,
            "sum_base": half.lo1 * self.engine.accumulator.depth,
            "accumulate": int(i > 0 or k > 0), "double": int(self.tile.rate == 2),
            "weight_bits": 4 if narrow else 8,
        }  # fmt: skip
        reads = [used, taps, weight]
        self.context.emitter.add(Unit.DENSE, values, job.name, reads=reads, writes=[half])


def emit_dense(context: Context, job: Job, tile: Tile) -> None:
    """All commands of a dense job, group after group."""
    places = context.places
    source = places[job.source].as_image(*job.in_size)
    out = places[job.result]
    residual = None if job.finish.residual is None else places[job.finish.residual]
    outputs, per = job.outputs // job.groups, job.weights.shape[1]
    weights = job.weights.reshape(*job.weights.shape[:2], -1)
    param_block = context.load_params("dense", job.name, job.finish)
    for part in parts(job):
        rows = slice(part * outputs, (part + 1) * outputs)
        block = part * outputs // BLOCK
        DenseJob(
            context, job, tile, weights[rows], job.finish.part(rows.start, rows.stop),
            source.part(part * per // BLOCK, per) if job.groups > 1 else source,
            out.part(block, outputs) if job.groups > 1 else out,
            None if residual is None else residual.part(block, outputs),
        ).emit(param_block + block)  # fmt: skip


def parts(job: Job) -> Iterator[int]:
    """Places of a job's groups."""
    yield from range(job.groups)
