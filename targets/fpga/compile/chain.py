# SPDX-License-Identifier: Apache-2.0
"""A fused chain [expand 1 x 1 →] depthwise [→ project 1 x 1]: its plan. ``fuse`` makes commands.

Two plans. *Rolling*: all middle channels at once; the rows that the depthwise engine still needs
stay in its activation buffer, which is used round and round, so that no row is expanded or loaded
twice. *In parts*: output rows outside, middle channels inside, where the chain's weights or rows do
not fit on chip as a whole; rows that two tiles share are then made for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from codesign.cost.chain import ChainTile
from codesign.space.accelerator import Engine
from codesign.targets.fpga.compile.context import Context
from codesign.targets.fpga.compile.dense import Cut, cuts
from codesign.targets.fpga.compile.geometry import WORDS, Layout, input_rows
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.isa import BLOCK

LEAST_PART = 1024
"""Cycles of the dense engine for a part at least, where there is room."""
LEAST_DRAIN = 160
"""Cycles that the drain of a piece takes at least: a command's start costs some twenty."""
INPUT_COPIES = 4
"""Tiles of the expansion's input that are on chip at most."""
MIDDLE_COPIES = 3
"""Tiles of the projection's input: one being made, one made, one being read."""
ROLLING_ROWS = (4, 3, 2, 1)
"""Output rows of a tile of a rolling plan, the best first."""


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


@dataclass
class Plan:
    """A chain's sizes under one tile; rows and channels of the tile are cut to what there is."""

    context: Context
    expand: Job | None
    middle: Job
    project: Job | None
    tile: ChainTile
    rolling: bool = False

    def __post_init__(self) -> None:
        c, mid = self.context, self.middle
        self.dense: Engine = c.dense.engine
        self.dw: Engine = c.depthwise.engine
        self.first = self.expand or mid
        self.source = c.places[self.first.source].as_image(*self.first.in_size)
        self.rates = self.tile.expand_rate, self.tile.project_rate
        self.rows = cuts(mid.out_size[0], min(self.tile.rows, mid.out_size[0]))
        groups = -(-mid.outputs // self.dw.po)
        self.parts = cuts(groups, groups if self.rolling else min(self.tile.channels, groups))
        blocks = min(self.parts[0].size * self.dw.po, -(-mid.outputs // BLOCK) * BLOCK) // BLOCK
        in_columns, out_columns = mid.in_size[1], mid.out_size[1]
        self.at_dw = Layout.of(self.dw, 1, mid.stride[1], in_columns, blocks)
        if self.expand is not None:
            self.at_in = Layout.of(self.dense, self.rates[0], 1, in_columns, self.source.blocks)
        if self.project is not None:
            self.at_mid = Layout.of(self.dense, self.rates[1], 1, out_columns, blocks)
        self.window = (mid.kernel[0] - 1) * mid.dilation[0] + 1
        span = (self.rows[0].size - 1) * mid.stride[0] + self.window
        self.rows_in = min(span, mid.in_size[0])
        ring = c.depthwise.act.size
        self.held_rows = ring // self.at_dw.row_words
        """Rows of all middle channels that the depthwise engine's buffer holds (rolling)."""

    # Channels of a part

    def channels(self, part: Cut) -> Cut:
        """Middle channels of a part."""
        po = self.dw.po
        return Cut(part.start * po, min(part.stop * po, self.middle.outputs))

    def blocks(self, part: Cut) -> Cut:
        """Blocks of a part."""
        c = self.channels(part)
        return Cut(c.start // BLOCK, -(-c.stop // BLOCK))

    def input_rows(self, cut: Cut) -> tuple[int, int, int]:
        """First (perhaps outside), lowest and behind the highest input row of output rows."""
        mid = self.middle
        rows = input_rows(
            cut.start, cut.stop, mid.stride[0], mid.kernel[0], mid.dilation[0], mid.padding[0],
            mid.in_size[0],
        )  # fmt: skip
        return rows.first, rows.low, rows.high

    def new_rows(self) -> int:
        """Input rows that a tile brings at most."""
        if not self.rolling:
            return self.rows_in
        most = self.input_rows(self.rows[0])[2]
        return max(most, min(self.rows[0].size * self.middle.stride[0], self.middle.in_size[0]))

    def steps(self) -> int:
        """Pixel groups of a row of the projection."""
        return -(-self.middle.out_size[1] // (self.dense.px * self.rates[1]))

    def project_groups(self) -> int:
        """Groups of po output channels."""
        return 0 if self.project is None else -(-self.project.outputs // self.dense.po)

    def sums(self) -> tuple[int, int, int]:
        """Rows of the expansion at once, their sums, and the projection's sums.

        The expansion goes from half to half, so that one piece is drained while the next is summed
        up; in half 0 its sums stand behind the projection's.
        """
        depth = self.dense.accumulator.depth
        rows = expand = 0
        project = self.rows[0].size * self.steps() * self.rates[1] * self.project_groups()
        if self.expand is not None:
            middle = self.channels(self.parts[0]).size
            groups = -(-middle // self.dense.po)
            width = self.middle.in_size[1]
            row = -(-width // (self.dense.px * self.rates[0])) * self.rates[0] * groups
            wanted = -(-LEAST_DRAIN // (width * -(-middle // BLOCK)))
            rows = max(1, min(wanted, self.new_rows(), (depth - project) // row))
            if self.rolling:
                rows = max(1, min(rows, self.held_rows - self.window))
            expand = rows * row
        return max(rows, 1), expand, project

    def part_cycles(self) -> int:
        """Cycles of the dense engine for one part of a tile."""
        middle, cycles = self.channels(self.parts[0]).size, 0
        if self.expand is not None:
            steps = self.rows_in * -(-self.middle.in_size[1] // (self.dense.px * self.rates[0]))
            inputs = max(-(-self.expand.inputs // self.dense.pi), self.rates[0])
            cycles += steps * inputs * -(-middle // self.dense.po)
        if self.project is not None:
            inputs = max(-(-middle // self.dense.pi), self.rates[1])
            cycles += self.rows[0].size * self.steps() * inputs * self.project_groups()
        return cycles

    def words(self) -> dict[str, int]:
        """Words of every buffer; for what is streamed, of one part."""
        c = self.channels(self.parts[0])
        weight = act_in = act_mid = 0
        if self.expand is not None:
            inputs = -(-self.expand.inputs // self.dense.pi)
            weight += -(-c.size // self.dense.po) * inputs
            act_in = self.new_rows() * self.at_in.row_words
        if self.project is not None:
            weight += self.project_groups() * -(-c.size // self.dense.pi)
            act_mid = self.rows[0].size * self.at_mid.row_words
        copies = len(self.parts) if self.tile.resident else 1
        return {
            "weight": weight * copies,
            "act_in": act_in,
            "act_mid": act_mid,
            "dw_weight": self.middle.taps * self.parts[0].size * copies,
            "dw_act": self.rows_in * self.at_dw.row_words,
        }

    def copies(self) -> tuple[int, int]:
        """Tiles of the expansion's and of the projection's input that are on chip at once."""
        w, room = self.words(), self.context.dense.act.size
        middle = MIDDLE_COPIES if w["act_in"] * 2 + w["act_mid"] * MIDDLE_COPIES <= room else 2
        if not w["act_in"]:
            return 0, middle
        return min(INPUT_COPIES, (room - middle * w["act_mid"]) // w["act_in"]), middle

    def fits(self) -> bool:
        """Whether one tile of everything finds room, next to another one where that is streamed."""
        w, depth = self.words(), self.dense.accumulator.depth
        at, expand, project = self.sums()
        banks = 2 if self.tile.resident else 1
        if self.rolling:
            size = self.context.depthwise.act.size
            whole = self.middle.in_size[0] <= self.held_rows
            if size & (size - 1) or size > WORDS:
                return False  # addresses do not come round by themselves
            if not whole and self.window + 2 * max(at, self.middle.stride[0]) > self.held_rows:
                return False
        elif w["dw_act"] > self.dw.activation.depth:
            return False
        return (
            expand + project <= depth
            and w["weight"] <= self.dense.weight.depth * banks
            and w["dw_weight"] <= self.dw.weight.depth * banks
            and 2 * (w["act_in"] + w["act_mid"]) <= self.context.dense.act.size
            and self.rows_in <= 1023
        )


def wider(plan: Plan) -> Plan:
    """The plan with more channels in a part, until the dense engine has enough to do for one."""
    while plan.part_cycles() < LEAST_PART and len(plan.parts) > 1:
        tile = replace(plan.tile, channels=2 * plan.tile.channels)
        more = replace(plan, tile=tile)
        if not more.fits():
            break
        plan = more
    return plan


def plan_of(context: Context, parts: tuple[Job | None, Job, Job | None], tile: ChainTile) -> (
    Plan | None
):
    """The chain under the tile, rolling where it can be, or under the next smaller tile that fits;
    None when none does."""
    expand, middle, project = parts
    dense = context.dense.engine

    def rate(job: Job | None, wanted: int) -> int:
        narrow = job is not None and job.weight_bits <= 4 and job.activation_bits <= 4
        return wanted if narrow and dense.double else 1

    tile = replace(
        tile, expand_rate=rate(expand, tile.expand_rate),
        project_rate=rate(project, tile.project_rate),
    )  # fmt: skip
    for rows in ROLLING_ROWS:
        plan = Plan(context, expand, middle, project, replace(tile, rows=rows, resident=True), True)
        if plan.fits():
            return plan
    while True:
        plan = Plan(context, expand, middle, project, tile)
        if plan.fits():
            return wider(plan)
        if tile.resident:
            tile = replace(tile, resident=False)
        elif tile.channels > 1 and plan.words()["weight"] > dense.weight.depth:
            tile = replace(tile, channels=-(-tile.channels // 2))
        elif tile.rows > 1:
            tile = replace(tile, rows=-(-tile.rows // 2))
        elif tile.channels > 1:
            tile = replace(tile, channels=-(-tile.channels // 2))
        else:
            return None
