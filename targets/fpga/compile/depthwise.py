# SPDX-License-Identifier: Apache-2.0
"""A job of the depthwise engine: also pools and element-wise operators."""

from __future__ import annotations

import numpy as np

from codesign.cost.tiles import Tile
from codesign.ir.graph import Array
from codesign.space.accelerator import Engine
from codesign.targets.fpga.compile.context import Context, pack_weights, packed_bits
from codesign.targets.fpga.compile.dense import Cut, cuts
from codesign.targets.fpga.compile.emit import Access
from codesign.targets.fpga.compile.geometry import (
    WORDS,
    Layout,
    Rows,
    check_limit,
    input_rows,
    taps_of,
)
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.isa import BLOCK, Unit


def emit_depthwise(context: Context, job: Job, tile: Tile) -> None:
    """All commands of a depthwise job: channel tiles outside, rows inside."""
    engine, buffers = context.depthwise.engine, context.depthwise
    source = context.places[job.source].as_image(
        job.in_size[0] // job.repeat[0], job.in_size[1] // job.repeat[1]
    )
    out = context.places[job.result]
    residual = None if job.finish.residual is None else context.places[job.finish.residual]
    lanes = engine.po // BLOCK
    groups = -(-job.outputs // engine.po)
    param_block = context.load_params("depthwise", job.name, job.finish)
    bits = packed_bits(job.weight_bits)
    flat = job.flat
    if flat:
        pixels = job.out_size[0] * job.out_size[1]
        run = min(tile.rows * job.out_size[1], 16383 // engine.px * engine.px)
        rows = cuts(pixels, run)
    else:
        rows = cuts(job.out_size[0], tile.rows)
    for channels in cuts(groups, min(tile.channels, groups)):
        block = channels.start * lanes
        blocks = min(channels.size * lanes, source.blocks - block)
        weight = None
        if not job.maximum:
            weight = _load_weights(context, job, channels, bits)
        for cut in rows:
            width = cut.size if flat else job.out_size[1]
            columns = rows[0].size if flat else job.in_size[1]
            layout = Layout.of(engine, 1, 1 if flat else job.stride[1], columns, blocks)
            taps = context.load_taps(
                "depthwise", job.name,
                taps_of(layout, job.kernel, job.dilation, job.padding[1], columns),
            )  # fmt: skip
            steps = -(-width // engine.px)
            if flat:
                found, act_rows, first = Rows(0, 0, 1), 1, 0
                size = steps * layout.group
                base = buffers.act.take(size, job.name)
                context.load_run(job, source, layout, base, block, blocks, cut.start, cut.stop)
            else:
                found = _rows(job, cut)
                act_rows, first = found.high - found.low, found.first - found.low
                size = max(act_rows, 1) * layout.row_words
                base = buffers.act.take(size, job.name)
                if act_rows:
                    context.load_image(job, source, layout, base, block, blocks, found)
            count = 1 if flat else cut.size
            for name, value in (("rows", count), ("width", width), ("groups", channels.size)):
                check_limit(job.name, name, value)
            step = 1 if flat else job.out_size[1]
            values, own, writes = context.way_out(
                job.finish, block, blocks, cut.start * step, cut.stop * step, out, residual,
                param_block,
            )  # fmt: skip
            values |= {
                "act_base": (base + first * layout.row_words) % WORDS,
                "act_row_step": job.stride[0] * layout.row_words % WORDS if count > 1 else 0,
                "act_group": layout.group, "act_rows": act_rows, "act_y0": first,
                "act_y_step": job.stride[0], "act_signed": int(source.dtype.kind == "signed"),
                "weight_base": 0 if weight is None else weight.lo1, "tap_base": taps.lo1,
                "taps": job.taps, "rows": count, "width": width, "steps": steps,
                "groups": channels.size, "maximum": int(job.maximum),
            }  # fmt: skip
            params = Access(
                buffers.param.name, (param_block + block) * BLOCK,
                (param_block + block + blocks) * BLOCK,
            )  # fmt: skip
            reads = [Access(buffers.act.name, base, base + size), taps, params]
            if weight is not None:
                reads.append(weight)
            context.emitter.add(
                Unit.DEPTHWISE, values, job.name, reads=reads, writes=writes, own=own
            )


def _rows(job: Job, cut: Cut) -> Rows:
    """Input rows of a tile, widened to whole rows of memory where those are repeated."""
    found = input_rows(
        cut.start, cut.stop, job.stride[0], job.kernel[0], job.dilation[0], job.padding[0],
        job.in_size[0],
    )  # fmt: skip
    step = job.repeat[0]
    return Rows(found.first, found.low // step * step, -(-found.high // step) * step)


def depthwise_words(job: Job, engine: Engine, channels: Cut) -> Array:
    """Buffer words [n, po] of some channel groups: group after group, tap after tap."""
    at, stop = channels.start * engine.po, channels.stop * engine.po
    part = job.weights.reshape(job.outputs, -1)[at:stop]
    full = np.zeros((stop - at, job.taps), np.int8)
    full[: len(part)] = part
    split = full.reshape(channels.size, engine.po, job.taps).transpose(0, 2, 1)
    return split.reshape(-1, engine.po)


def _load_weights(context: Context, job: Job, channels: Cut, bits: int) -> Access:
    words = depthwise_words(job, context.depthwise.engine, channels)
    base = context.depthwise.weight.take(len(words), job.name)
    address = context.blob(f"{job.name}.weights", pack_weights(words, bits))
    return context.load_words("depthwise", 0, job.name, address, base, len(words), bits)
