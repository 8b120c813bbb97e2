# SPDX-License-Identifier: Apache-2.0
"""Commands of a fused chain: what lies between its layers stays on chip.

The expansion's drain writes into the depthwise engine's activation buffer, the depthwise engine
into the dense engine's, and the projection adds up over the middle channels in half 0 of the
accumulator buffer. Placing the expanded pixels takes the drain longest, one block pixel a cycle, so
the order of commands is made for it never to wait: the expansion goes through both halves in turn,
in pieces, and the projection of an earlier tile is cut in slices which stand where the drain is
busy with half 1. The depthwise engine starts on an output row as soon as its input rows are there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from codesign.ir.graph import Array
from codesign.targets.fpga.compile.chain import Plan
from codesign.targets.fpga.compile.context import pack_weights, packed_bits
from codesign.targets.fpga.compile.dense import Cut, cuts, dense_words
from codesign.targets.fpga.compile.depthwise import depthwise_words
from codesign.targets.fpga.compile.emit import Access
from codesign.targets.fpga.compile.geometry import WORDS, Rows, taps_of
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.isa import BLOCK, Tap, Unit


@dataclass
class Waiting:
    """A tile whose projection is still to come."""

    cut: Cut
    """Its output rows."""
    part: int
    base: int
    """First word of its depthwise results in the dense engine's buffer."""
    half: int
    slices: list[tuple[Cut, Cut]]
    """Groups of output channels and rows (of the tile) that are still to be summed up."""


@dataclass
class Fused:
    """A chain on its way to commands."""

    plan: Plan
    waiting: list[Waiting] = field(default_factory=list)
    held: dict[tuple[str, int], tuple[Access, int]] = field(default_factory=dict)
    """Layer and part to where their weights are, and the piece of the buffer."""
    addresses: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def emit(self) -> None:
        """All commands of the chain."""
        plan = self.plan
        context, name = plan.context, plan.middle.name
        self.context = context
        self.params: dict[str, int] = {}
        for job in (plan.expand, plan.middle, plan.project):
            if job is not None:
                self.params[job.name] = context.load_params(job.kind, job.name, job.finish)
        w, (inputs, middle) = plan.words(), plan.copies()
        base = context.dense.act.take(inputs * w["act_in"] + middle * w["act_mid"], name)
        self.in_at = [base + k * w["act_in"] for k in range(inputs)]
        base += inputs * w["act_in"]
        self.mid_at = [base + k * w["act_mid"] for k in range(middle)]
        self.lag = 1 if middle > 2 and plan.expand is not None else 0
        self.tile = 0  # tiles so far
        self.room: dict[str, tuple[int, int]] = {}
        if plan.tile.resident:
            for kind, words in (("dense", w["weight"]), ("depthwise", w["dw_weight"])):
                ring = context.buffers(kind).weight
                self.room[kind] = (ring.take(words, name), ring.taken)
        self.origin = context.depthwise.act.at  # of row 0, rolling
        self.there = 0  # input rows so far, rolling
        for r, cut in enumerate(plan.rows):
            for m in range(len(plan.parts)):
                self._tile(r, cut, m)
        while self.waiting:
            self._finish()
        if plan.rolling:
            end = self.origin + plan.middle.in_size[0] * plan.at_dw.row_words
            context.depthwise.act.at = end % context.depthwise.act.size

    # A tile

    def _tile(self, r: int, cut: Cut, m: int) -> None:
        """Bring the input rows of some output rows, piece by piece; each output row follows."""
        plan, mid = self.plan, self.plan.middle
        _, low, high = plan.input_rows(cut)
        first = low
        if plan.rolling:
            low, self.there = max(low, self.there), max(high, self.there)
        else:
            words = max(high - low, 1) * plan.at_dw.row_words
            self.base = self.context.depthwise.act.take(words, mid.name)
            self.origin = self.base - first * plan.at_dw.row_words
        self._weights_ahead(m)
        self._taps()
        copy = self.tile % len(self.mid_at)
        while len(self.waiting) >= len(self.mid_at):
            self._finish()
        done = cut.start
        pieces = cuts(high - low, plan.sums()[0]) if high > low else []
        if plan.expand is None:
            self._load_middle(m, low, high)
        elif m == 0 and high > low:
            self._load_input(r, low, high)
        for k, piece in enumerate(pieces):
            if plan.expand is not None:
                self._expand(r, m, low, Cut(low + piece.start, low + piece.stop), len(pieces) - k)
            stop = done
            last = k == len(pieces) - 1
            while stop < cut.stop and (
                last or plan.input_rows(Cut(done, stop + 1))[2] <= low + piece.stop
            ):
                stop += 1
            if stop > done:
                self._depthwise(m, cut, Cut(done, stop), copy)
            done = stop
        if done < cut.stop:  # nothing but padding is new
            self._depthwise(m, cut, Cut(done, cut.stop), copy)
        self.tile += 1
        if plan.project is not None:
            half = 0 if plan.expand is not None else r % 2
            slices = self._slices(cut.size)
            self.waiting.append(Waiting(cut, m, self.mid_at[copy], half, slices))
            while len(self.waiting) > self.lag + 1 or (plan.expand is None and self.waiting):
                self._finish()

    def _slices(self, rows: int) -> list[tuple[Cut, Cut]]:
        """Pieces of a tile's projection: group by group, or row by row where there is one."""
        groups = self.plan.project_groups()
        if self.plan.expand is None:
            return [(Cut(0, groups), Cut(0, rows))]
        if groups > 1:
            return [(g, Cut(0, rows)) for g in cuts(groups, 1)]
        return [(Cut(0, 1), y) for y in cuts(rows, 1)]

    # Weights, taps, inputs

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
        if self.plan.tile.resident:
            base, number = self.room[kind]
            self.room[kind] = (base + count, number)
        else:
            base, number = ring.take(count, job.name), ring.taken
        loaded = self.context.load_words(kind, 0, job.name, address, base, count, bits)
        self.held[key] = (loaded, number)
        return loaded

    def _words(self, kind: str, job: Job, m: int) -> Array:
        plan = self.plan
        if kind == "depthwise":
            return depthwise_words(job, plan.dw, plan.parts[m])
        c = plan.channels(plan.parts[m])
        whole = job.weights.reshape(*job.weights.shape[:2], 1)
        part = whole[c.start : c.stop] if job is plan.expand else whole[:, c.start : c.stop]
        groups, inputs = -(-part.shape[0] // plan.dense.po), -(-part.shape[1] // plan.dense.pi)
        return dense_words(part, plan.dense, groups, inputs)

    def _weights_ahead(self, m: int) -> None:
        """Weights of a part, before the activations, which may have to wait."""
        plan = self.plan
        if plan.expand is not None:
            self._weights("dense", plan.expand, m)
        self._weights("depthwise", plan.middle, m)
        if plan.project is not None and (plan.tile.resident or not self.lag):
            self._weights("dense", plan.project, m)

    def _load_middle(self, m: int, low: int, high: int) -> None:
        """Rows of the chain's input for the depthwise engine."""
        if high <= low:
            return
        plan, mid = self.plan, self.plan.middle
        blocks = plan.blocks(plan.parts[m])
        self.context.load_image(
            mid, plan.source, plan.at_dw, self._word(low), blocks.start, blocks.size,
            Rows(low, low, high), written=self._places(low, high),
        )  # fmt: skip

    def _load_input(self, r: int, low: int, high: int) -> None:
        plan, job = self.plan, self.plan.expand
        assert job is not None
        self.context.load_taps("dense", job.name, [self._plain(plan.middle.in_size[1])])
        self.context.load_image(
            job, plan.source, plan.at_in, self.in_at[r % len(self.in_at)], 0, plan.source.blocks,
            Rows(low, low, high),
        )  # fmt: skip

    def _plain(self, columns: int) -> Tap:
        return Tap(0, 0, 0, 0, columns)

    def _taps(self) -> Access:
        mid = self.plan.middle
        taps = taps_of(
            self.plan.at_dw, mid.kernel, mid.dilation, mid.padding[1], mid.in_size[1]
        )
        return self.context.load_taps("depthwise", mid.name, taps)

    # Rows of the depthwise engine's buffer

    def _word(self, row: int) -> int:
        """Word of an input row, as addresses count (modulo the buffer when rolling)."""
        word = self.origin + row * self.plan.at_dw.row_words
        return word % self.context.depthwise.act.size if self.plan.rolling else word

    def _places(self, low: int, high: int) -> list[Access]:
        """Where input rows low..high stand."""
        act, step = self.context.depthwise.act, self.plan.at_dw.row_words
        if not self.plan.rolling:
            return [Access(act.name, self._word(low), self._word(low) + (high - low) * step)]
        found = []
        for row in range(low, high):
            start = self._word(row)
            found.append(Access(act.name, start, min(start + step, act.size)))
            if start + step > act.size:
                found.append(Access(act.name, 0, start + step - act.size))
        return found

    # Engines

    def _half(self, half: int) -> Access:
        return Access("accumulator", half, half + 1)

    def _expand(self, r: int, m: int, low: int, rows: Cut, pieces: int) -> None:
        """A piece: sums in the next half, drained into the depthwise buffer. ``low``: the tile's
        first new row; ``pieces``: of the tile from this one on."""
        plan, context, job = self.plan, self.context, self.plan.expand
        assert job is not None
        dense = plan.dense
        half = 1 - context.dense.half
        if half == 0 and len(self.waiting) > self.lag:
            half = self._slice(-(-pieces // 2))
        context.dense.half = half
        weight = self._weights("dense", job, m)
        width = plan.middle.in_size[1]
        steps = -(-width // (dense.px * plan.rates[0]))
        inputs = -(-job.inputs // dense.pi)
        channels, blocks = plan.channels(plan.parts[m]), plan.blocks(plan.parts[m])
        taps = context.load_taps("dense", job.name, [self._plain(width)])
        sum_base = plan.sums()[2] if half == 0 else dense.accumulator.depth
        step = plan.at_in.row_words
        act = self.in_at[r % len(self.in_at)] + (rows.start - low) * step
        shared = {
            "sum_base": sum_base, "rows": rows.size, "width": width, "steps": steps,
            "double": int(plan.rates[0] == 2),
        }  # fmt: skip
        values = shared | {
            "act_base": act, "act_row_step": step if rows.size > 1 else 0,
            "act_group": plan.at_in.group, "act_rows": rows.size, "act_y_step": 1,
            "act_signed": int(plan.source.dtype.kind == "signed"), "weight_base": weight.lo1,
            "tap_base": taps.lo1, "taps": 1, "groups": -(-channels.size // dense.po),
            "inputs": inputs, "weight_step": inputs,
            "weight_bits": 4 if job.weight_bits <= 4 else 8,
        }  # fmt: skip
        used = Access(context.dense.act.name, act, act + rows.size * step)
        context.emitter.add(
            Unit.DENSE, values, job.name, [used, taps, weight], [self._half(half)]
        )
        param = self.params[job.name] + blocks.start
        drain = shared | {
            "to_chip": 1, "place_base": self._word(rows.start), **plan.at_dw.fields(2),
            "param_base": param, "lo": job.finish.lo, "hi": job.finish.hi, "blocks": blocks.size,
        }  # fmt: skip
        params = Access(context.dense.param.name, param * BLOCK, (param + blocks.size) * BLOCK)
        context.emitter.add(
            Unit.DRAIN, drain, job.name, [self._half(half), params],
            self._places(rows.start, rows.stop),
        )  # fmt: skip

    def _depthwise(self, m: int, tile: Cut, rows: Cut, copy: int) -> None:
        """Some output rows of a tile, to the dense engine's buffer or to memory."""
        plan, context, job = self.plan, self.context, self.plan.middle
        weight = self._weights("depthwise", job, m)
        taps = self._taps()
        blocks = plan.blocks(plan.parts[m])
        width, step = job.out_size[1], plan.at_dw.row_words
        first, low, high = plan.input_rows(rows)
        param = self.params[job.name] + blocks.start
        values = {
            "act_base": (self._word(low) + (first - low) * step) % WORDS,
            "act_row_step": job.stride[0] * step % WORDS if rows.size > 1 else 0,
            "act_group": plan.at_dw.group, "act_rows": high - low, "act_y0": first - low,
            "act_y_step": job.stride[0], "act_signed": int(context.signs[job.source]),
            "weight_base": weight.lo1, "tap_base": taps.lo1, "taps": job.taps, "rows": rows.size,
            "width": width, "steps": -(-width // plan.dw.px), "groups": plan.parts[m].size,
        }  # fmt: skip
        params = Access(
            context.depthwise.param.name, param * BLOCK, (param + blocks.size) * BLOCK
        )
        reads = [*self._places(low, max(high, low + 1)), taps, weight, params]
        if plan.project is None:
            fields, own, writes = context.way_out(
                job.finish, blocks.start, blocks.size, rows.start * width, rows.stop * width,
                context.places[job.result], None, self.params[job.name],
            )  # fmt: skip
            context.emitter.add(Unit.DEPTHWISE, values | fields, job.name, reads, writes, own)
            return
        at = self.mid_at[copy] + (rows.start - tile.start) * plan.at_mid.row_words
        fields = {
            "to_chip": 1, "place_base": at, **plan.at_mid.fields(2), "param_base": param,
            "lo": job.finish.lo, "hi": job.finish.hi, "blocks": blocks.size,
            "place_nibbles": int(plan.rates[1] == 2),
        }  # fmt: skip
        placed = Access(context.dense.act.name, at, at + rows.size * plan.at_mid.row_words)
        context.emitter.add(Unit.DEPTHWISE, values | fields, job.name, reads, [placed])

    # The projection

    def _slice(self, turns: int) -> int:
        """Some slices of the oldest tile's projection, so that ``turns`` calls do all of them;
        returns the half for the expansion that follows."""
        tile = self.waiting[0]
        for _ in range(-(-len(tile.slices) // max(1, turns))):
            self._project(tile, *tile.slices.pop(0))
        if tile.slices:
            return 0
        self._finish()
        # half 0 is drained to memory now, half 1 has been
        return 1 if tile.part == len(self.plan.parts) - 1 else 0

    def _finish(self) -> None:
        """What is left of the oldest tile's projection; its results to memory after its last
        part."""
        tile = self.waiting.pop(0)
        if len(tile.slices) == len(self._slices(tile.cut.size)):
            tile.slices = [(Cut(0, self.plan.project_groups()), Cut(0, tile.cut.size))]
        for groups, rows in tile.slices:
            self._project(tile, groups, rows)
        if tile.part == len(self.plan.parts) - 1:
            self._store(tile)

    def _project(self, tile: Waiting, groups: Cut, rows: Cut) -> None:
        """Add a part's projection to the sums."""
        plan, context, job = self.plan, self.context, self.plan.project
        assert job is not None
        m = tile.part
        weight = self._weights("dense", job, m)
        width, steps = plan.middle.out_size[1], plan.steps()
        taps = context.load_taps("dense", job.name, [self._plain(width)])
        inputs = -(-plan.channels(plan.parts[m]).size // plan.dense.pi)
        step = plan.at_mid.row_words
        act = tile.base + rows.start * step
        sums = (groups.start * tile.cut.size + rows.start) * steps * plan.rates[1]
        values = {
            "act_base": act, "act_row_step": step if rows.size > 1 else 0,
            "act_group": plan.at_mid.group, "act_rows": rows.size, "act_y_step": 1,
            "act_signed": int(context.signs[job.source]),
            "weight_base": weight.lo1 + groups.start * inputs, "tap_base": taps.lo1, "taps": 1,
            "rows": rows.size, "width": width, "steps": steps, "groups": groups.size,
            "inputs": inputs, "weight_step": inputs, "accumulate": int(m > 0),
            "sum_base": tile.half * plan.dense.accumulator.depth + sums,
            "double": int(plan.rates[1] == 2), "weight_bits": 4 if job.weight_bits <= 4 else 8,
        }  # fmt: skip
        placed = Access(context.dense.act.name, act, act + rows.size * step)
        context.emitter.add(
            Unit.DENSE, values, job.name, [placed, taps, weight], [self._half(tile.half)]
        )

    def _store(self, tile: Waiting) -> None:
        """Drain the projection's sums to memory."""
        plan, context, job = self.plan, self.context, self.plan.project
        assert job is not None
        width, cut = plan.middle.out_size[1], tile.cut
        place = context.places
        residual = None if job.finish.residual is None else place[job.finish.residual]
        blocks = -(-job.outputs // BLOCK)
        values, own, writes = context.way_out(
            job.finish, 0, blocks, cut.start * width, cut.stop * width, place[job.result],
            residual, self.params[job.name],
        )  # fmt: skip
        values |= {"rows": cut.size, "width": width, "steps": plan.steps(),
                   "double": int(plan.rates[1] == 2),
                   "sum_base": tile.half * plan.dense.accumulator.depth}  # fmt: skip
        param = self.params[job.name] * BLOCK
        params = Access(context.dense.param.name, param, param + blocks * BLOCK)
        context.emitter.add(
            Unit.DRAIN, values, job.name, [self._half(tile.half), params], writes, own
        )
