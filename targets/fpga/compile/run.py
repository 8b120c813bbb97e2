# SPDX-License-Identifier: Apache-2.0
"""The whole way: select jobs, place values, order segments, emit commands, lay out the image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from codesign.cost.chain import ChainTile
from codesign.cost.tiles import Tile
from codesign.errors import UnsupportedError
from codesign.ir.graph import Graph
from codesign.ir.types import DType
from codesign.space.accelerator import Accelerator
from codesign.space.device import Device, load_device
from codesign.targets.fpga.compile.chain import link, plan_of
from codesign.targets.fpga.compile.context import Buffers, Context
from codesign.targets.fpga.compile.dense import emit_dense
from codesign.targets.fpga.compile.depthwise import emit_depthwise
from codesign.targets.fpga.compile.emit import Emitter
from codesign.targets.fpga.compile.fuse import Fused
from codesign.targets.fpga.compile.jobs import Job
from codesign.targets.fpga.compile.mapping import tile_of
from codesign.targets.fpga.compile.places import Memory, Place
from codesign.targets.fpga.compile.program import Made, Program, Segment
from codesign.targets.fpga.compile.select import needs_of, select
from codesign.targets.fpga.compile.selection import Selection
from codesign.targets.fpga.isa import BLOCK, Unit
from codesign.targets.fpga.machine import depthwise_engine


def compile_network(
    graph: Graph, accelerator: Accelerator, device: Device | None = None,
    tiles: Mapping[str, Tile] | None = None,
    chains: Sequence[tuple[Sequence[str], ChainTile]] = (), arm: Collection[str] = (),
) -> Program:  # fmt: skip
    """Commands, image and layout of an integer network of batch 1; nodes of ``arm`` stay on the ARM
    cores though the accelerator could do them.

    ``tiles`` names the tiles of layers; others get the best ones by the cost model on ``device``
    (an Ultra96 where none is named). Raises
    UnsupportedError for an accelerator that hardware cannot be made for, InfeasibleError where a
    layer fits no buffer.
    """
    check_accelerator(accelerator)
    board = device or load_device("ultra96")
    found = select(graph, arm)
    linked = _linked(found, chains)
    inner = {job.result for parts, _ in linked.values() for job in parts if job is not None}
    inner -= set(linked)
    memory = Memory()
    places = _places(found, memory, inner)
    context = Context(
        accelerator, places, memory, Emitter(), Buffers.of(accelerator.dense),
        Buffers.of(depthwise_engine(accelerator)),
        signs={n: graph.type(n).dtype.kind == "signed" for n in graph.nodes},
    )  # fmt: skip
    for last, (parts, chain_tile) in list(linked.items()):
        if plan_of(context, parts, chain_tile) is None:  # layer after layer, then
            del linked[last]
            return compile_network(
                graph, accelerator, device, tiles,
                [c for c in chains if found.jobs[last][0].name not in c[0]], arm,
            )  # fmt: skip
    segments, done = [], []
    for kind, names in _order(found):
        if kind == "arm":
            segments.append(Segment("arm", nodes=tuple(names)))
            continue
        context.emitter = Emitter()
        made = []
        for name in names:
            for job in found.jobs[name]:
                if name in inner:
                    continue
                if name in linked:
                    plan = plan_of(context, *linked[name])
                    assert plan is not None
                    Fused(plan).emit()
                else:
                    tile = tile_of(job, accelerator, board, tiles or {})
                    (emit_dense if job.kind == "dense" else emit_depthwise)(context, job, tile)
                done.append(job)
                unit = Unit.DRAIN if job.kind == "dense" else Unit.DEPTHWISE
                made.append(Made(job.result, job.name, unit, context.emitter.issued[unit]))
        context.emitter.end()
        commands = tuple(context.emitter.commands)
        data = b"".join(command.encode() for command in commands)
        segments.append(Segment("accelerator", context.blob("commands", data), commands,
                                tuple(names), tuple(made)))  # fmt: skip
    image = bytearray(memory.used)
    for region, data in context.blobs:
        image[region.address : region.address + len(data)] = data
    return Program(
        graph, accelerator, tuple(segments), bytes(image), memory.used, places, tuple(done),
        dict(found.why),
    )  # fmt: skip


Parts = tuple[Job | None, Job, Job | None]


def _linked(
    found: Selection, chains: Sequence[tuple[Sequence[str], ChainTile]]
) -> dict[str, tuple[Parts, ChainTile]]:
    """Last value of every chain that can run fused, with its jobs and tile."""
    by_name = {jobs[0].name: jobs[0] for jobs in found.jobs.values() if len(jobs) == 1}
    readers = {name: len(users) for name, users in found.graph.users.items()}
    for name in found.graph.outputs:
        readers[name] = readers.get(name, 0) + 1
    linked = {}
    for names, tile in chains:
        jobs = [by_name[name] for name in names if name in by_name]
        parts = link(jobs, readers) if len(jobs) == len(names) else None
        if parts is not None:
            linked[jobs[-1].result] = (parts, tile)
    return linked


def check_accelerator(accelerator: Accelerator) -> None:
    """Raise UnsupportedError for what the hardware is not made for."""
    dense = accelerator.dense
    problems = []
    if dense.pi != 4 and dense.pi % BLOCK:
        problems.append(f"dense pi is {dense.pi}; expected 4 or a multiple of {BLOCK}")
    for engine in (dense, depthwise_engine(accelerator)):
        if engine.po % BLOCK:
            problems.append(f"{engine.kind} po is {engine.po}; expected a multiple of {BLOCK}")
        if engine.post != 4 and engine.post % BLOCK:
            problems.append(f"{engine.kind} post is {engine.post}; expected 4 or a multiple of 8")
        for name in ("weight", "activation"):
            buffer = getattr(engine, name)
            if buffer.depth * buffer.banks > 1 << 14:
                problems.append(f"{engine.kind} {name} buffer has {buffer.depth * buffer.banks} "
                                f"words; addresses reach {1 << 14}")  # fmt: skip
    if problems:
        raise UnsupportedError(
            f"accelerator {accelerator.name} cannot be built:\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )


def _kind(found: Selection, value: str) -> DType:
    """Number format of a value; helpers have that of the job that makes them."""
    if value in found.graph.nodes:
        return found.graph.type(value).dtype
    for jobs in found.jobs.values():
        for job in jobs:
            if job.result == value:
                return _kind(found, job.source)
    raise KeyError(value)


def _places(found: Selection, memory: Memory, inner: set[str]) -> dict[str, Place]:
    """Memory for every value that a job reads or makes, and for what holds them; not for ``inner``
    ones, which stay on chip."""
    wanted: dict[str, None] = {}
    for jobs in found.jobs.values():
        for job in jobs:
            values = (job.source, job.result, job.finish.residual)
            wanted.update(dict.fromkeys(v for v in values if v is not None))
    arm = [found.graph.nodes[n] for n in found.why]
    for node in arm:  # what the ARM cores read of the accelerator's values
        wanted.update(dict.fromkeys(v for v in node.inputs if v in found.jobs or v in found.free))
    wanted.update(dict.fromkeys(v for v in found.graph.outputs
                                if v in found.jobs or v in found.free))  # fmt: skip
    places: dict[str, Place] = {}

    def place(value: str) -> Place:
        if value not in places:
            channels, rows, columns = found.sizes[value]
            kind = _kind(found, value)
            if value in found.inside:
                outer, block = found.inside[value]
                within = place(outer)
                at = within.block + block
                places[value] = Place(within.region, channels, rows, columns, kind, at)
            else:
                blank = Place(memory.regions[0] if memory.regions else memory.take("none", 0),
                              channels, rows, columns, kind)  # fmt: skip
                region = memory.take(value, blank.size)
                places[value] = Place(region, channels, rows, columns, kind)
        return places[value]

    for value in wanted:
        if value not in inner:
            place(value)
    return places


def _order(found: Selection) -> list[tuple[str, list[str]]]:
    """Runs of jobs and runs of ARM nodes, as few as a greedy order gives: all jobs that are ready,
    then all ARM nodes that are ready, and so on."""
    items = needs_of(found)
    segments: list[tuple[str, list[str]]] = []
    done: set[str] = set()
    kind = "arm"
    while len(done) < len(items):
        ready: list[str] = []
        for name, needed in items.items():
            mine = "arm" if name in found.why else "accelerator"
            if name not in done and mine == kind and needed <= done | set(ready):
                ready.append(name)
        if ready:
            segments.append((kind, ready))
            done.update(ready)
        elif segments and segments[-1][0] != kind:
            raise AssertionError("the network's operators wait for each other")
        kind = "accelerator" if kind == "arm" else "arm"
    return segments


