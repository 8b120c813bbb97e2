# SPDX-License-Identifier: Apache-2.0
"""The tile of every job: as chosen, or the best by the cost model; made to fit if need be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from codesign.cost.best import map_layer
from codesign.cost.memory import DEFAULT_TIMING
from codesign.cost.tables import Machine
from codesign.cost.tiles import Tile
from codesign.errors import InfeasibleError
from codesign.space.accelerator import Accelerator, Engine
from codesign.space.device import Device
from codesign.targets.fpga.compile.geometry import LIMITS, Layout
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.isa import BLOCK
from codesign.targets.fpga.machine import depthwise_engine


def block_inputs(engine: Engine) -> int:
    """Input words that a tile takes at least: those of one block of 8 channels."""
    return BLOCK // engine.pi if engine.kind == "dense" and engine.pi < BLOCK else 1


def needs(job: Job, engine: Engine, tile: Tile) -> dict[str, int]:
    """Words that a tile of the job takes in each buffer, exactly as it is laid out there."""
    depthwise = engine.kind == "depthwise"
    lanes = engine.px * tile.rate
    outputs = job.outputs // job.groups
    groups = -(-outputs // engine.po)
    channels = min(tile.channels, groups)
    out_rows, out_width = job.out_size
    rows = min(tile.rows, out_rows)
    words = inputs = 1
    if depthwise:
        blocks = min(channels * engine.po, -(-outputs // BLOCK) * BLOCK) // BLOCK
    else:
        per = int(job.weights.shape[1])
        words = -(-per // engine.pi)
        inputs = min(tile.inputs, words)
        blocks = -(-min(inputs * engine.pi, per) // BLOCK)
    whole = tile.order == "inputs" and not depthwise
    if job.flat:
        run = out_rows * out_width if whole else min(rows * out_width, LIMITS["width"])
        layout = Layout.of(engine, tile.rate, 1, run, blocks)
        activation = layout.residue_words
        steps = -(-min(rows * out_width, LIMITS["width"]) // lanes)
    else:
        layout = Layout.of(engine, tile.rate, job.stride[1], job.in_size[1], blocks)
        loaded = job.in_size[0]
        if not whole:
            span = (rows - 1) * job.stride[0] + (job.kernel[0] - 1) * job.dilation[0] + 1
            loaded = min(span + 2 * (job.repeat[0] - 1), loaded)
        activation = max(loaded, 1) * layout.row_words
        steps = rows * -(-out_width // lanes)
    weight = job.taps * channels * inputs
    if tile.order == "weights" and not depthwise:
        weight = job.taps * groups * words
    elif job.taps > 64 and not depthwise:
        weight = -(-64 // job.kernel[1]) * job.kernel[1] * channels * inputs  # tap by tap
    found = {"weight": weight, "activation": activation}
    if not depthwise:
        found["accumulator"] = steps * tile.rate * channels
    return found


def over(job: Job, engine: Engine, tile: Tile, banks: int = 1) -> dict[str, int]:
    """Buffers that the tile does not fit, with the words that are missing.

    Tiles of up to one bank let the next one be loaded meanwhile; with ``banks`` = 2 a tile may
    have the buffer to itself (sums: half of it, always).
    """
    missing = {}
    for name, words in needs(job, engine, tile).items():
        buffer = getattr(engine, name)
        have = buffer.depth * (1 if name == "accumulator" else min(banks, buffer.banks))
        if words > have:
            missing[name] = words - have
    return missing


def fit(job: Job, engine: Engine, tile: Tile) -> Tile:
    """The tile, or the next smaller one that fits.

    Raises InfeasibleError that says which layer and buffer, by how much, and what would fit.
    """
    groups = -(-(job.outputs // job.groups) // engine.po)
    most = min(groups, LIMITS["groups"], LIMITS["blocks"] * BLOCK // engine.po)
    sub = block_inputs(engine)
    start = replace(tile, rows=min(tile.rows, job.out_size[0], LIMITS["rows"]),
                    channels=min(tile.channels, most))  # fmt: skip
    if engine.kind == "dense":
        words = -(-int(job.weights.shape[1]) // engine.pi)
        inputs = min(tile.inputs, words, LIMITS["inputs"] // sub * sub)
        if inputs < words:
            inputs = -(-inputs // sub) * sub
        start = replace(start, inputs=inputs)
    if not over(job, engine, start):
        return start
    plain = start if start.order in ("spatial", "channel") else replace(start, order="channel")
    trial = plain
    for banks in (1, 2):
        trial = plain
        while (missing := over(job, engine, trial, banks)):
            smaller = _smaller(trial, set(missing), engine)
            if smaller is None:
                break
            trial = smaller
        else:
            return trial
    name, words = next(iter(over(job, engine, trial, 2).items()))
    buffer = getattr(engine, name)
    have = buffer.depth * (1 if name == "accumulator" else buffer.banks)
    raise InfeasibleError(
        f"layer {job.name!r} does not fit the {engine.kind} {name} buffer: its smallest tile "
        f"({trial.rows} rows, {trial.channels * engine.po} channels) needs {have + words} words, "
        f"the buffer has {have}; a depth of {-(-(have + words) // buffer.banks)} words a bank "
        "would do"
    )


def _smaller(tile: Tile, short: set[str], engine: Engine) -> Tile | None:
    """The tile halved where it helps what is short; None when it is the smallest."""
    sub = block_inputs(engine)
    dense = engine.kind == "dense"
    half = -(-tile.channels // 2)
    fewer = max(sub, -(-tile.inputs // 2 // sub) * sub)
    if short & {"accumulator", "activation"} and tile.rows > 1:
        return replace(tile, rows=-(-tile.rows // 2))
    if (short - {"activation"} or not dense) and tile.channels > 1:
        return replace(tile, channels=half)
    if short & {"activation", "weight"} and dense and tile.inputs > sub:
        return replace(tile, inputs=fewer)
    return None


def tile_of(
    job: Job, accelerator: Accelerator, device: Device, chosen: Mapping[str, Tile]
) -> Tile:
    """The tile of a job: the chosen one of its layer, else the best by the cost model."""
    engine = accelerator.dense
    if job.kind == "depthwise":
        engine = depthwise_engine(accelerator)
        accelerator = replace(accelerator, depthwise=engine)
    tile = chosen.get(job.name)
    if tile is None:
        machine = Machine(device.dram_rate, device.dram_latency_cycles, DEFAULT_TIMING)
        bits = job.weight_bits, job.activation_bits
        try:
            tile = map_layer(job.shape, *bits, accelerator, device, machine).tile
        except InfeasibleError:  # by the model's needs; fit knows the exact ones
            words = 1
            if job.kind == "dense":
                words = -(-int(job.weights.shape[1]) // engine.pi)
            tile = Tile(job.out_size[0], -(-job.outputs // engine.po), words)
    narrow = job.weight_bits <= 4 and job.activation_bits <= 4 and engine.double
    return fit(job, engine, tile if narrow else replace(tile, rate=1))
