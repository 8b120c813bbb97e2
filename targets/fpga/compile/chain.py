# SPDX-License-Identifier: Apache-2.0
"""A fused chain [expand 1 x 1 →] depthwise [→ project 1 x 1]: what lies between stays on chip.

Output rows outside, middle channels inside. The expansion's drain writes into the depthwise
engine's activation buffer, the depthwise engine into the dense engine's, and the projection adds up
over the middle channels in half 0 of the accumulator buffer.
The expansion of the next middle channels stands in the list before the projection of these, so that
both engines work at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from codesign.cost.chain import ChainTile
from codesign.ir.graph import Array
from codesign.space.accelerator import Engine
from codesign.targets.fpga.compile.context import Context, pack_weights, packed_bits
from codesign.targets.fpga.compile.dense import Cut, cuts, dense_words
from codesign.targets.fpga.compile.depthwise import depthwise_words
from codesign.targets.fpga.compile.emit import Access
from codesign.targets.fpga.compile.geometry import WORDS, Layout, Rows, input_rows, taps_of
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.isa import BLOCK, Tap, Unit


def link(jobs: Sequence[Job], readers: dict[str, int]) -> tuple[Job | None, Job, Job | None] | None:
    """The parts of a chain (expand, depthwise, project), or None when the jobs are no chain: other
    kinds, or a value between that something else reads."""
    places = [k for k, job in enumerate(jobs) if job.kind == "depthwise"]
    if len(places) != 1 or not 2 <= len(jobs) <= 3:
        return None
    middle = jobs[places[0]]
    before, after = jobs[: places[0]], jobs[places[0] + 1 :]
    if len(before) > 1 or len(after) > 1 or middle.maximum or middle.finish.residual is not None:
        return None
    for job in (*before, *after):
        if not job.flat or job.groups != 1:
            return None
    if before and (before[0].finish.residual is not None):
        return None
    for first, second in pairwise(jobs):
        if second.source != first.result or readers.get(first.result, 0) != 1:
            return None
    return (before[0] if before else None, middle, after[0] if after else None)


PIECES = 4
"""Pieces of the expansion of a tile: while one is drained, the next is summed up."""


@dataclass
class Fused:
    """A chain on its way to commands."""

    context: Context
    expand: Job | None
    middle: Job
    project: Job | None
    tile: ChainTile

    def __post_init__(self) -> None:
        c, mid = self.context, self.middle
        self.dense: Engine = c.dense.engine
        self.dw: Engine = c.depthwise.engine
        self.first = self.expand or mid
        self.source = c.places[self.first.source].as_image(*self.first.in_size)
        self.rates = self.tile.expand_rate, self.tile.project_rate
        self.rows = cuts(mid.out_size[0], min(self.tile.rows, mid.out_size[0]))
        groups = -(-mid.outputs // self.dw.po)
        self.parts = cuts(groups, min(self.tile.channels, groups))
        blocks = min(self.parts[0].size * self.dw.po, -(-mid.outputs // BLOCK) * BLOCK) // BLOCK
        in_columns, out_columns = mid.in_size[1], mid.out_size[1]
        self.at_dw = Layout.of(self.dw, 1, mid.stride[1], in_columns, blocks)
        if self.expand is not None:
            self.at_in = Layout.of(self.dense, self.rates[0], 1, in_columns, self.source.blocks)
        if self.project is not None:
            self.at_mid = Layout.of(self.dense, self.rates[1], 1, out_columns, blocks)
        span = (self.rows[0].size - 1) * mid.stride[0] + (mid.kernel[0] - 1) * mid.dilation[0] + 1
        self.rows_in = min(span, mid.in_size[0])

    # Channels of a part

    def channels(self, part: Cut) -> Cut:
        """Middle channels of a part."""
        po = self.dw.po
        return Cut(part.start * po, min(part.stop * po, self.middle.outputs))

    def blocks(self, part: Cut) -> Cut:
        """Blocks of a part."""
        c = self.channels(part)
        return Cut(c.start // BLOCK, -(-c.stop // BLOCK))

    def sums(self) -> tuple[int, int, int]:
        """Rows of the expansion at once, their sums, and the projection's sums.

        The expansion goes from half to half, so that one piece is drained while the next is summed
        up; in half 0 its sums stand behind the projection's.
        """
        depth = self.dense.accumulator.depth
        rows, expand, project = 1, 0, 0
        if self.project is not None:
            groups = -(-self.project.outputs // self.dense.po)
            lanes = self.dense.px * self.rates[1]
            steps = -(-self.middle.out_size[1] // lanes)
            project = self.rows[0].size * steps * self.rates[1] * groups
        if self.expand is not None:
            groups = -(-self.channels(self.parts[0]).size // self.dense.po)
            lanes = self.dense.px * self.rates[0]
            row = -(-self.middle.in_size[1] // lanes) * self.rates[0] * groups
            rows = max(1, min(-(-self.rows_in // PIECES), (depth - project) // row))
            expand = rows * row
        return rows, expand, project

    def words(self) -> dict[str, int]:
        """Words of every buffer; for what is streamed, of one part."""
        c = self.channels(self.parts[0])
        weight = act_in = act_mid = 0
        if self.expand is not None:
            inputs = -(-self.expand.inputs // self.dense.pi)
            weight += -(-c.size // self.dense.po) * inputs
            act_in = self.rows_in * self.at_in.row_words
        if self.project is not None:
            outputs = -(-self.project.outputs // self.dense.po)
            weight += outputs * -(-c.size // self.dense.pi)
            act_mid = self.rows[0].size * self.at_mid.row_words
        copies = len(self.parts) if self.tile.resident else 1
        return {
            "weight": weight * copies,
            "act_in": act_in,
            "act_mid": act_mid,
            "dw_weight": self.middle.taps * self.parts[0].size * copies,
            "dw_act": self.rows_in * self.at_dw.row_words,
        }

    def fits(self) -> bool:
        """Whether one tile of everything finds room, next to another one where that is streamed."""
        w, depth = self.words(), self.dense.accumulator.depth
        _, expand, project = self.sums()
        banks = 2 if self.tile.resident else 1
        return (
            expand + project <= depth
            and w["weight"] <= self.dense.weight.depth * banks
            and w["dw_weight"] <= self.dw.weight.depth * banks
            and w["dw_act"] <= self.dw.activation.depth
            and w["act_in"] + w["act_mid"] <= self.dense.activation.depth
            and self.rows_in <= 1023
        )

    # Commands

    def emit(self) -> None:
        """All commands of the chain."""
        context, name = self.context, self.middle.name
        self.params: dict[str, int] = {}
        for job in (self.expand, self.middle, self.project):
            if job is not None:
                self.params[job.name] = context.load_params(job.kind, job.name, job.finish)
        w = self.words()
        ring = context.dense.act
        both = 2 * (w["act_in"] + w["act_mid"])
        base = ring.take(both, name)
        self.in_at = [base, base + w["act_in"]]
        self.mid_at = [base + 2 * w["act_in"], base + 2 * w["act_in"] + w["act_mid"]]
        self.turn = 0
        self.held: dict[tuple[str, int], tuple[Access, int]] = {}
        self.addresses: dict[tuple[str, int], tuple[int, int]] = {}
        self.room: dict[str, tuple[int, int]] = {}
        if self.tile.resident:
            for kind, words in (("dense", w["weight"]), ("depthwise", w["dw_weight"])):
                ring = context.buffers(kind).weight
                self.room[kind] = (ring.take(words, name), ring.taken)
        pending: tuple[int, Cut, Access] | None = None
        for r, cut in enumerate(self.rows):
            rows = input_rows(
                cut.start, cut.stop, self.middle.stride[0], self.middle.kernel[0],
                self.middle.dilation[0], self.middle.padding[0], self.middle.in_size[0],
            )  # fmt: skip
            for m in range(len(self.parts)):
                at = self._fill(r, m, rows)
                made = self._depthwise(m, cut, rows, at)
                self._finish_part(pending)
                pending = (m, cut, made)
        self._finish_part(pending)

    def _finish_part(self, pending: tuple[int, Cut, Access] | None) -> None:
        """Project a part whose successor is on its way already; store after the last one."""
        if self.project is None or pending is None:
            return
        m, cut, made = pending
        self._project(m, cut, made)
        if m == len(self.parts) - 1:
            self._store(cut)

    def _weights(self, kind: str, job: Job, m: int) -> Access:
        """Weights of a part, loaded unless they are still there."""
        key = (job.name, m)
        ring = self.context.buffers(kind).weight
        if key in self.held and self.held[key][1] in ring.live:
            return self.held[key][0]
        bits = packed_bits(job.weight_bits)
        if key not in self.addresses:
            words = self._words(kind, job, m)
            address = self.context.blob(f"{job.name}.weights", pack_weights(words, bits))
            self.addresses[key] = (address, len(words))
        address, count = self.addresses[key]
        if self.tile.resident:
            base, number = self.room[kind]
            self.room[kind] = (base + count, number)
        else:
            base, number = ring.take(count, job.name), ring.taken
        loaded = self.context.load_words(kind, 0, job.name, address, base, count, bits)
        self.held[key] = (loaded, number)
        return loaded

    def _words(self, kind: str, job: Job, m: int) -> Array:
        if kind == "depthwise":
            return depthwise_words(job, self.dw, self.parts[m])
        c = self.channels(self.parts[m])
        whole = job.weights.reshape(*job.weights.shape[:2], 1)
        part = whole[c.start : c.stop] if job is self.expand else whole[:, c.start : c.stop]
        groups, inputs = -(-part.shape[0] // self.dense.po), -(-part.shape[1] // self.dense.pi)
        return dense_words(part, self.dense, groups, inputs)

    def _all_weights(self, m: int) -> None:
        """Weights of a part, before the activations, which may have to wait."""
        for kind, job in (
            ("dense", self.expand), ("depthwise", self.middle), ("dense", self.project)
        ):  # fmt: skip
            if job is not None:
                self._weights(kind, job, m)

    def _fill(self, r: int, m: int, rows: Rows) -> int:
        """Bring a part's input rows into the depthwise buffer; returns their base."""
        context, mid = self.context, self.middle
        blocks = self.blocks(self.parts[m])
        size = max(rows.high - rows.low, 1) * self.at_dw.row_words
        self._all_weights(m)
        self._taps()
        base = context.depthwise.act.take(size, mid.name)
        if self.expand is None:
            if rows.high > rows.low:
                context.load_image(
                    mid, self.source, self.at_dw, base, blocks.start, blocks.size, rows
                )
            return base
        if m == 0 and rows.high > rows.low:
            context.load_taps("dense", self.expand.name, [self._plain(mid.in_size[1])])
            context.load_image(
                self.expand, self.source, self.at_in, self.in_at[r % 2], 0, self.source.blocks, rows
            )
        self._expand(r, m, rows, base)
        return base

    def _plain(self, columns: int) -> Tap:
        return Tap(0, 0, 0, 0, columns)

    def _taps(self) -> Access:
        mid = self.middle
        taps = taps_of(self.at_dw, mid.kernel, mid.dilation, mid.padding[1], mid.in_size[1])
        return self.context.load_taps("depthwise", mid.name, taps)

    def _half(self, half: int) -> Access:
        return Access("accumulator", half, half + 1)

    def _expand(self, r: int, m: int, rows: Rows, base: int) -> None:
        """Input rows in pieces: sums in both halves in turn, drained into the depthwise buffer."""
        context, job = self.context, self.expand
        assert job is not None
        weight = self._weights("dense", job, m)
        width = self.middle.in_size[1]
        lanes = self.dense.px * self.rates[0]
        steps = -(-width // lanes)
        inputs = -(-job.inputs // self.dense.pi)
        channels = self.channels(self.parts[m])
        groups = -(-channels.size // self.dense.po)
        at, _, behind = self.sums()
        depth = self.dense.accumulator.depth
        taps = context.load_taps("dense", job.name, [self._plain(width)])
        blocks = self.blocks(self.parts[m])
        param = self.params[job.name] + blocks.start
        for piece in cuts(rows.high - rows.low, at):
            buffers = context.dense
            buffers.half = 1 - buffers.half
            sum_base = behind if buffers.half == 0 else depth
            act = self.in_at[r % 2] + piece.start * self.at_in.row_words
            used = Access(context.dense.act.name, act, act + piece.size * self.at_in.row_words)
            values = {
                "act_base": act, "act_row_step": self.at_in.row_words if piece.size > 1 else 0,
                "act_group": self.at_in.group, "act_rows": piece.size, "act_y_step": 1,
                "act_signed": int(self.source.dtype.kind == "signed"), "weight_base": weight.lo1,
                "tap_base": taps.lo1, "taps": 1, "rows": piece.size, "width": width,
                "steps": steps, "groups": groups, "inputs": inputs, "weight_step": inputs,
                "sum_base": sum_base, "double": int(self.rates[0] == 2),
                "weight_bits": 4 if job.weight_bits <= 4 else 8,
            }  # fmt: skip
            half = self._half(buffers.half)
            context.emitter.add(Unit.DENSE, values, job.name, [used, taps, weight], [half])
            start = base + piece.start * self.at_dw.row_words
            drain = {
                "to_chip": 1, "place_base": start, **self.at_dw.fields(2),
                "param_base": param, "lo": job.finish.lo, "hi": job.finish.hi,
                "sum_base": sum_base, "blocks": blocks.size, "rows": piece.size, "width": width,
                "steps": steps, "double": int(self.rates[0] == 2),
            }  # fmt: skip
            placed = Access(
                context.depthwise.act.name, start, start + piece.size * self.at_dw.row_words
            )
            params = Access(context.dense.param.name, param * BLOCK, (param + blocks.size) * BLOCK)
            context.emitter.add(Unit.DRAIN, drain, job.name, [half, params], [placed])

    def _depthwise(self, m: int, cut: Cut, rows: Rows, base: int) -> Access:
        """The depthwise part, to the dense buffer or to memory; returns what it wrote on chip."""
        context, job = self.context, self.middle
        weight = self._weights("depthwise", job, m)
        taps = self._taps()
        blocks = self.blocks(self.parts[m])
        width = job.out_size[1]
        first = rows.first - rows.low
        act_rows = rows.high - rows.low
        param = self.params[job.name] + blocks.start
        signed = self.context.signs[job.source]
        values = {
            "act_base": (base + first * self.at_dw.row_words) % WORDS,
            "act_row_step": job.stride[0] * self.at_dw.row_words % WORDS if cut.size > 1 else 0,
            "act_group": self.at_dw.group, "act_rows": act_rows, "act_y0": first,
            "act_y_step": job.stride[0], "act_signed": int(signed), "weight_base": weight.lo1,
            "tap_base": taps.lo1, "taps": job.taps, "rows": cut.size, "width": width,
            "steps": -(-width // self.dw.px), "groups": self.parts[m].size,
        }  # fmt: skip
        reads = [
            Access(context.depthwise.act.name, base,
                   base + max(act_rows, 1) * self.at_dw.row_words),
            taps, weight,
            Access(context.depthwise.param.name, param * BLOCK, (param + blocks.size) * BLOCK),
        ]  # fmt: skip
        if self.project is None:
            out = context.places[job.result]
            fields, own, writes = context.way_out(
                job.finish, blocks.start, blocks.size, cut.start * width, cut.stop * width, out,
                None, self.params[job.name],
            )  # fmt: skip
            context.emitter.add(Unit.DEPTHWISE, values | fields, job.name, reads, writes, own)
            return writes[0]
        self.turn = 1 - self.turn
        at = self.mid_at[self.turn]
        fields = {
            "to_chip": 1, "place_base": at, **self.at_mid.fields(2), "param_base": param,
            "lo": job.finish.lo, "hi": job.finish.hi, "blocks": blocks.size,
            "place_nibbles": int(self.rates[1] == 2),
        }  # fmt: skip
        placed = Access(context.dense.act.name, at, at + cut.size * self.at_mid.row_words)
        context.emitter.add(Unit.DEPTHWISE, values | fields, job.name, reads, [placed])
        return placed

    def _steps(self) -> int:
        return -(-self.middle.out_size[1] // (self.dense.px * self.rates[1]))

    def _project(self, m: int, cut: Cut, placed: Access) -> None:
        """Add a part's projection to the sums in half 0."""
        context, job = self.context, self.project
        if job is None:
            return
        weight = self._weights("dense", job, m)
        width = self.middle.out_size[1]
        taps = context.load_taps("dense", job.name, [self._plain(width)])
        inputs = -(-self.channels(self.parts[m]).size // self.dense.pi)
        values = {
            "act_base": placed.lo1, "act_row_step": self.at_mid.row_words if cut.size > 1 else 0,
            "act_group": self.at_mid.group, "act_rows": cut.size, "act_y_step": 1,
            "act_signed": int(context.signs[job.source]), "weight_base": weight.lo1,
            "tap_base": taps.lo1, "taps": 1, "rows": cut.size, "width": width,
            "steps": self._steps(), "groups": -(-job.outputs // self.dense.po), "inputs": inputs,
            "weight_step": inputs, "accumulate": int(m > 0), "double": int(self.rates[1] == 2),
            "weight_bits": 4 if job.weight_bits <= 4 else 8,
        }  # fmt: skip
        context.emitter.add(
            Unit.DENSE, values, job.name, [placed, taps, weight], [self._half(0)]
        )

    def _store(self, cut: Cut) -> None:
        """Drain the projection's sums to memory."""
        context, job = self.context, self.project
        assert job is not None
        width = self.middle.out_size[1]
        place = context.places
        residual = None if job.finish.residual is None else place[job.finish.residual]
        blocks = -(-job.outputs // BLOCK)
        values, own, writes = context.way_out(
            job.finish, 0, blocks, cut.start * width, cut.stop * width, place[job.result],
            residual, self.params[job.name],
        )  # fmt: skip
        values |= {"rows": cut.size, "width": width, "steps": self._steps(),
                   "double": int(self.rates[1] == 2)}  # fmt: skip
        param = self.params[job.name] * BLOCK
        params = Access(context.dense.param.name, param, param + blocks * BLOCK)
        context.emitter.add(
            Unit.DRAIN, values, job.name, [self._half(0), params], writes, own
        )


def fused_of(context: Context, parts: tuple[Job | None, Job, Job | None], tile: ChainTile) -> (
    Fused | None
):
    """The chain under the tile, or the next smaller one that fits; None when none does."""
    expand, middle, project = parts
    dense = context.dense.engine

    def rate(job: Job | None, wanted: int) -> int:
        narrow = job is not None and job.weight_bits <= 4 and job.activation_bits <= 4
        return wanted if narrow and dense.double else 1

    tile = replace(
        tile, expand_rate=rate(expand, tile.expand_rate),
        project_rate=rate(project, tile.project_rate),
    )  # fmt: skip
    while True:
        fused = Fused(context, expand, middle, project, tile)
        if fused.fits():
            return fused
        if tile.resident:
            tile = replace(tile, resident=False)
        elif tile.rows > 1:
            tile = replace(tile, rows=-(-tile.rows // 2))
        elif tile.channels > 1:
            tile = replace(tile, channels=-(-tile.channels // 2))
        else:
            return None
